"""Smaller ONNX files beside the float32 one, under the names that transformers.js looks
for.

    float16   model_fp16.onnx: matrices are stored in half precision and widened when
              the file is loaded; everything is computed in float32. Half the download;
              the error is the rounding of the weights.
    int8      model_int8.onnx: matrix products in int8, activations quantised as they
              come (ONNX Runtime's dynamic quantisation). A quarter of the download; the
              error has to be looked at.

Neither is the float32 model: the manifest states the precision of each, and parity is
measured for each by itself.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.onnx.clean import import_used_domains
from checkpoint_release.onnx.file import (
    EMBEDDED_LIMIT,
    NamedArrays,
    is_placeholder,
    placeholder,
)
from checkpoint_release.onnx.routes import ExportedGraph
from checkpoint_release.runtimes.onnx_graph import read_instead, walk_nodes
from checkpoint_release.tensors.tensor import TensorLike

VARIANT_FILES = {"float16": "model_fp16.onnx", "int8": "model_int8.onnx"}
"""Precision → name of the file."""

_FLOAT32 = TensorProto.FLOAT
_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def make_variant(
    precision: str, model: ModelProto, weights: NamedArrays
) -> ExportedGraph:
    """Make a smaller graph from the float32 one.

    Args:
        precision: float16 or int8.
        model: the float32 graph, its weights without data; it is left as it is.
        weights: name → array.

    Raises:
        ExportError: the model can't be had in this precision.
    """
    makers: dict[str, Callable[[ModelProto, NamedArrays], ExportedGraph]] = {
        "float16": _with_float16_weights,
        "int8": _quantised,
    }
    return makers[precision](model, weights)


def _with_float16_weights(model: ModelProto, weights: NamedArrays) -> ExportedGraph:
    """Matrices and larger become float16 with a Cast behind them; vectors, which are
    few bytes, stay exact.

    Rotary frequencies are such vectors: rounded, they would turn late positions by
    wrong angles.
    """
    halved = _copy(model)
    arrays = dict(weights)
    widened: dict[str, str] = {}  # stored name → name of what the Cast gives
    for tensor in halved.graph.initializer:
        if not _is_float32_matrix(tensor):
            continue
        array = _array(weights[tensor.name])
        if np.abs(array).max(initial=0) > _LARGEST_FLOAT16:
            continue
        half = array.astype(np.float16)
        arrays[tensor.name] = half
        widened[tensor.name] = f"{tensor.name}/float32"
        tensor.CopyFrom(placeholder(tensor.name, half))
    _insert_casts(halved.graph, widened)
    return ExportedGraph(halved, arrays)


def _is_float32_matrix(tensor: TensorProto) -> bool:
    """Whether a streamed initialiser is float32 and has two dimensions or more."""
    is_matrix = len(tensor.dims) >= 2 and tensor.data_type == _FLOAT32
    return is_matrix and is_placeholder(tensor)


def _insert_casts(graph: GraphProto, widened: dict[str, str]) -> None:
    """Widen initialisers to float32, and let every node read that.

    Args:
        graph: it is changed.
        widened: name of an initialiser → name of its float32 value.
    """
    for node in walk_nodes(graph):
        read_instead(node, widened)
    computed = list(graph.node)
    del graph.node[:]
    for name, wide in widened.items():
        cast = helper.make_node("Cast", [name], [wide], name=wide, to=_FLOAT32)
        graph.node.append(cast)
    graph.node.extend(computed)
    for tensor in graph.initializer:
        if tensor.name in widened:
            wide = widened[tensor.name]
            value = helper.make_tensor_value_info(wide, _FLOAT32, tensor.dims)
            graph.value_info.append(value)


# --------------------------------------------------------------------------------------


def _quantised(model: ModelProto, weights: NamedArrays) -> ExportedGraph:
    """Matrix products in int8, with 7 bits of range for the weights.

    With all 8, processors that add pairs of products in 16 bits (x86 before VNNI)
    saturate and give wrong results.

    Raises:
        ExportError: the model is too large, or has no product with a constant matrix.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if _widened_size(weights) > EMBEDDED_LIMIT:
        raise _no_int8("needs a model below 2 GB")
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
    operators = {node.op_type for node in quantised.graph.node}
    if "MatMulInteger" not in operators:
        raise _no_int8("found no matrix product with constant weights in the model")
    import_used_domains(quantised)
    del quantised.graph.value_info[:]
    return ExportedGraph(quantised, {})


def _no_int8(reason: str) -> ExportError:
    return ExportError(
        f"{{onnx.variants}}: int8 {reason}",
        "remove int8 from {onnx.variants}",
        options=["onnx.variants"],
    )


def _widened_size(weights: NamedArrays) -> int:
    """Bytes of all weights, those of half precision widened."""
    size = 0
    for weight in weights.values():
        array = _array(weight)
        size += array.size * max(array.itemsize, 4)
    return size


def _with_data(model: ModelProto, weights: NamedArrays) -> ModelProto:
    """The model with its weights in it, where the quantiser can see them.

    Matrices that the graph transposes are transposed, and those that it widens from
    half precision are wide.
    """
    whole = _copy(model)
    graph = whole.graph
    arrays: Arrays = {}
    constants = []
    for tensor in graph.initializer:
        if is_placeholder(tensor):
            arrays[tensor.name] = _array(weights[tensor.name])
        else:
            constants.append(tensor)
    nodes = _without_folded(graph, arrays)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    for name, array in arrays.items():
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        graph.initializer.append(tensor)
    return whole


def _without_folded(graph: GraphProto, arrays: Arrays) -> list[NodeProto]:
    """The graph's nodes without those that only transpose or widen a matrix.

    Args:
        graph: it is left as it is.
        arrays: name → weight; a matrix that nothing else reads gives way to what the
            node makes of it.

    Returns:
        the other nodes, in order.
    """
    reads: Counter[str] = Counter()
    for node in walk_nodes(graph):
        reads.update(node.input)
    kept = []
    for node in graph.node:
        array = arrays.get(node.input[0]) if node.input else None
        if array is None or array.ndim != 2 or reads[node.input[0]] > 1:
            kept.append(node)
        elif node.op_type == "Transpose":
            del arrays[node.input[0]]
            arrays[node.output[0]] = array.T
        elif _is_widening(node):
            del arrays[node.input[0]]
            arrays[node.output[0]] = array.astype(np.float32)
        else:
            kept.append(node)
    return kept


def _is_widening(node: NodeProto) -> bool:
    if node.op_type != "Cast":
        return False
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    return bool(attributes["to"] == _FLOAT32)


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _array(weight: Array | TensorLike) -> Array:
    return weight if isinstance(weight, np.ndarray) else weight.numpy()
