"""Smaller ONNX files beside the float32 one, under the names that transformers.js looks
for.

    float16   model_fp16.onnx: matrices are stored in half precision and widened when the file is loaded; everything is
              computed in float32. Half the download; the error is the rounding of the weights.
    int8      model_int8.onnx: matrix products in int8, activations quantised as they come (ONNX Runtime's dynamic
              quantisation). A quarter of the download; the error has to be looked at.

Neither is the float32 model: the manifest says which precision each has, and parity is
measured for each by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Array
from checkpoint_release.onnx.file import EMBEDDED_LIMIT, is_streamed, weight
from checkpoint_release.runtimes.onnx_graph import walk_nodes
from checkpoint_release.tensors.tensor import TensorLike

_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Variant:
    """A smaller file.

    Attributes:
        file: its name.
        model: the graph, its weights without data (see onnx_file).
        weights: name → array.
    """

    file: str
    model: ModelProto
    weights: Mapping[str, Array | TensorLike]


def make_variant(
    precision: str, model: ModelProto, weights: Mapping[str, Array | TensorLike]
) -> Variant:
    """Make one of onnx.variants from the float32 model.

    Args:
        precision: float16 or int8.
        model: the float32 graph, its weights without data; it is left as it is.
        weights: name → array.

    Raises:
        ExportError: the model can't be had in this precision.
    """
    makers: dict[str, Callable[[ModelProto, Mapping[str, Array | TensorLike]], Variant]]
    makers = {"float16": _with_float16_weights, "int8": _quantised}
    return makers[precision](model, weights)


def _with_float16_weights(
    model: ModelProto, weights: Mapping[str, Array | TensorLike]
) -> Variant:
    """Matrices and larger become float16 with a Cast behind them; vectors, which are
    few bytes, stay exact.

    Rotary frequencies are such vectors: rounded, they would turn late positions by
        wrong angles.
    """
    halved = ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    arrays = dict(weights)
    wide: dict[str, str] = {}
    for tensor in graph.initializer:
        if (
            not is_streamed(tensor)
            or tensor.data_type != TensorProto.FLOAT
            or len(tensor.dims) < 2
        ):
            continue
        array = _array(weights[tensor.name])
        if np.abs(array).max(initial=0) <= _LARGEST_FLOAT16:
            arrays[tensor.name] = half = array.astype(np.float16)
            wide[tensor.name] = f"{tensor.name}/float32"
            tensor.CopyFrom(weight(tensor.name, half))
    for node in walk_nodes(graph):
        for i, name in enumerate(node.input):
            node.input[i] = wide.get(name, name)
    casts = [
        helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT)
        for name, cast in wide.items()
    ]
    computed = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *computed])
    graph.value_info.extend(
        helper.make_tensor_value_info(wide[tensor.name], TensorProto.FLOAT, tensor.dims)
        for tensor in graph.initializer
        if tensor.name in wide
    )
    return Variant("model_fp16.onnx", halved, arrays)


def _quantised(model: ModelProto, weights: Mapping[str, Array | TensorLike]) -> Variant:
    """Matrix products in int8, with 7 bits of range for the weights.

    With all 8, processors that add pairs of products in 16 bits (x86 before VNNI)
    saturate and give wrong results.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # all wide
    if (
        sum(
            array.size * max(array.itemsize, 4)
            for array in map(_array, weights.values())
        )
        > EMBEDDED_LIMIT
    ):
        raise ExportError(
            "onnx.variants: int8 needs a model below 2 GB",
            "remove int8 from onnx.variants",
        )
    whole = _with_data(model, weights)
    # shapes are all inferred
    helper.set_model_props(whole, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        quantize_dynamic(
            whole,
            file,
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
        quantised = onnx.load(str(file))
    if not any(node.op_type == "MatMulInteger" for node in quantised.graph.node):
        raise ExportError(
            "onnx.variants: int8 found no matrix product with constant weights in the"
            " model",
            "remove int8 from onnx.variants",
        )
    used = {node.domain for node in walk_nodes(quantised.graph)} | {""}
    imports = [entry for entry in quantised.opset_import if entry.domain in used]
    del quantised.opset_import[:], quantised.graph.value_info[:]
    quantised.opset_import.extend(imports)
    return Variant("model_int8.onnx", quantised, {})


def _with_data(
    model: ModelProto, weights: Mapping[str, Array | TensorLike]
) -> ModelProto:
    """The model with its weights in it, where the quantiser can see them.

    Matrices that the graph transposes are turned, and those that it widens from half
    precision are wide.
    """
    whole = ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    arrays = {
        tensor.name: _array(weights[tensor.name])
        for tensor in graph.initializer
        if is_streamed(tensor)
    }
    reads = [name for node in walk_nodes(graph) for name in node.input]
    kept = []
    for node in graph.node:
        name = (
            node.input[0] if node.op_type == "Transpose" or _is_widening(node) else ""
        )
        if name in arrays and reads.count(name) == 1 and arrays[name].ndim == 2:
            array = arrays.pop(name)
            arrays[node.output[0]] = (
                array.T if node.op_type == "Transpose" else array.astype(np.float32)
            )
        else:
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if not is_streamed(tensor)]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in arrays.items()
    )
    return whole


def _is_widening(node: NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute
    )


def _array(weight: Array | TensorLike) -> Array:
    return weight if isinstance(weight, np.ndarray) else weight.numpy()
