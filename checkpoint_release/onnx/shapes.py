"""Shapes of an ONNX graph: inferred between, and as the signature has them at its
inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from checkpoint_release.core.signature import Signature, TensorSpec


def infer_shapes(model: ModelProto) -> ModelProto:
    """A copy of the model, its shapes inferred strictly.

    Weights are inputs in it, because their data is elsewhere and of no interest.

    Raises:
        InferenceError: (onnx's) a node can't have the inputs that it has.
    """
    typed = ModelProto()
    typed.CopyFrom(model)
    del typed.graph.initializer[:]
    for tensor in model.graph.initializer:
        if _may_be_shape(tensor):
            typed.graph.initializer.append(tensor)
        else:
            value = helper.make_tensor_value_info(
                tensor.name, tensor.data_type, list(tensor.dims)
            )
            typed.graph.input.append(value)
    return onnx.shape_inference.infer_shapes(
        typed, check_type=True, strict_mode=True, data_prop=True
    )


def describe_values(model: ModelProto, signature: Signature) -> None:
    """Inputs and outputs as the signature describes them, and the shape of everything
    between, as it is inferred; in place.
    """
    graph = model.graph
    exported = {value.name: value for value in graph.output}
    outputs = []
    for spec in signature.outputs:
        outputs.append(_output_info(spec, exported.get(spec.name), signature))
    del graph.input[:], graph.output[:], graph.value_info[:]
    for spec in signature.inputs:
        graph.input.append(_value_info(spec, _dtype(spec), spec.shape))
    graph.output.extend(outputs)
    for value in infer_shapes(model).graph.value_info:
        _forget_invented_names(value, signature)
        graph.value_info.append(value)


def _may_be_shape(tensor: TensorProto) -> bool:
    """Whether other shapes may depend on the tensor's data."""
    return tensor.HasField("raw_data") and len(tensor.dims) <= 1


def _output_info(
    spec: TensorSpec, exported: ValueInfoProto | None, signature: Signature
) -> ValueInfoProto:
    """An output as the signature describes it; its dtype, and a shape that the
    signature leaves open, as exported.
    """
    if exported is None:
        return _value_info(spec, _dtype(spec), spec.shape)
    tensor = exported.type.tensor_type
    dtype = tensor.elem_type or _dtype(spec)
    if spec.shape is not None or not tensor.HasField("shape"):
        return _value_info(spec, dtype, spec.shape)
    shape = [_size(dimension, signature) for dimension in tensor.shape.dim]
    return _value_info(spec, dtype, shape)


def _value_info(
    spec: TensorSpec, dtype: int, shape: Sequence[int | str | None] | None
) -> ValueInfoProto:
    return helper.make_tensor_value_info(
        spec.name, dtype, shape, doc_string=spec.description
    )


def _dtype(spec: TensorSpec) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))


def _size(
    dimension: onnx.TensorShapeProto.Dimension, signature: Signature
) -> int | str | None:
    """A number, the name of one of the signature's dimensions, or None: unknown."""
    if dimension.HasField("dim_value"):
        return dimension.dim_value
    name = dimension.dim_param
    return name if name in signature.dimensions else None


def _forget_invented_names(value: ValueInfoProto, signature: Signature) -> None:
    """Shape inference calls unknown dimensions unk__0 and so on; here they have no
    name.
    """
    for dimension in value.type.tensor_type.shape.dim:
        is_named = dimension.HasField("dim_param")
        if is_named and dimension.dim_param not in signature.dimensions:
            dimension.ClearField("dim_param")
