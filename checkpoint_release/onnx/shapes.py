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

    Weights are inputs in it, because their data is elsewhere and of no interest;
    numbers and vectors stay, because Reshape and its like take shapes from them.

    Args:
        model: it isn't changed.

    Returns:
        The copy; what was inferred is in its graph's value_info.

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
    try:
        return _inferred(typed, values_too=True)
    except onnx.shape_inference.InferenceError:
        # Of a vector of known length, such as positions, the propagation of values
        # takes the elements for a shape, which then fits nothing.
        return _inferred(typed, values_too=False)


def _inferred(model: ModelProto, *, values_too: bool) -> ModelProto:
    return onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=values_too
    )


def describe_values(model: ModelProto, signature: Signature) -> None:
    """State shapes and dtypes in a graph, in place.

    Args:
        model: its inputs and outputs get what the signature says, and everything
            between what is inferred from that.
        signature: its dimensions alone have names in the graph.

    Raises:
        InferenceError: (onnx's) as infer_shapes.
    """
    describe_interface(model, signature)
    for value in infer_shapes(model).graph.value_info:
        _forget_invented_names(value, signature)
        model.graph.value_info.append(value)


def describe_interface(model: ModelProto, signature: Signature) -> None:
    """State shapes and dtypes of a graph's inputs and outputs, in place, and of nothing
    between.

    Args:
        model: its inputs and outputs get what the signature says.
        signature: its dimensions alone have names in the graph.
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


def _may_be_shape(tensor: TensorProto) -> bool:
    """Whether other shapes may depend on the tensor's data.

    A shape is a vector, or a number that becomes an entry of one; data in another file
    can't be read during the inference.
    """
    return tensor.HasField("raw_data") and len(tensor.dims) <= 1


def _output_info(
    spec: TensorSpec, exported: ValueInfoProto | None, signature: Signature
) -> ValueInfoProto:
    """An output as the graph is to state it.

    Args:
        spec: the output in the signature.
        exported: what the exporter wrote about it, if it did. Its dtype counts, and so
            does its shape where the signature leaves that open.
        signature: has the names that a shape may keep.
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
    """An input or output as an ONNX graph states it.

    Args:
        spec: has the name and the description.
        dtype: a value of TensorProto.DataType.
        shape: numbers, names of dimensions, None for a size that isn't known; None:
            no shape is stated.
    """
    return helper.make_tensor_value_info(
        spec.name, dtype, shape, doc_string=spec.description
    )


def _dtype(spec: TensorSpec) -> int:
    """The signature's dtype as a value of TensorProto.DataType."""
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
    """Take away the names that shape inference gives to unknown dimensions.

    It calls them unk__0 and so on, which says no more than a dimension without a name.

    Args:
        value: it is changed.
        signature: the names of its dimensions stay.
    """
    for dimension in value.type.tensor_type.shape.dim:
        is_named = dimension.HasField("dim_param")
        if is_named and dimension.dim_param not in signature.dimensions:
            dimension.ClearField("dim_param")
