"""Every value that an ONNX graph computes, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from checkpoint_release.core.signature import Array
from checkpoint_release.runtimes.onnx_graph import walk_graphs, walk_nodes

TYPES = ("to", "dtype", "stash_type")
"""The attributes by which a node says what type it computes in, or gives."""


def evaluate_graph(
    file: Path, inputs: Mapping[str, Array]
) -> tuple[onnx.GraphProto, dict[str, Array]]:
    """Evaluate a graph by onnx's reference evaluator.

    Args:
        file: the ONNX file, in float32.
        inputs: by name.

    Returns:
        The graph, as it is evaluated, and the value of each name in it.
    """
    model = onnx.load(file)
    _widen(model.graph)
    # the types that it states are no longer so
    del model.graph.value_info[:]
    feeds = {name: _widened(array) for name, array in inputs.items()}
    found: Any = ReferenceEvaluator(model).run(None, feeds, intermediate=True)
    values = {}
    for name, value in found.items():
        if value is not None:
            # of arrays without a dimension, the evaluator may give a scalar
            values[name] = np.asarray(value)
    return model.graph, values


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _widen(graph: onnx.GraphProto) -> None:
    """Make every float32 in the graph float64: weights, constants, casts, inputs and
    outputs.
    """
    for inner in walk_graphs(graph):
        for tensor in inner.initializer:
            _widen_tensor(tensor)
        for value in (*inner.input, *inner.output):
            _widen_type(value.type.tensor_type)
    for node in walk_nodes(graph):
        for attribute in node.attribute:
            _widen_attribute(attribute)


def _widen_type(tensor: onnx.TypeProto.Tensor) -> None:
    if tensor.elem_type == TensorProto.FLOAT:
        tensor.elem_type = TensorProto.DOUBLE


def _widen_attribute(attribute: onnx.AttributeProto) -> None:
    """Of an attribute that is a tensor, its numbers; of one that names a type, the
    type.
    """
    if attribute.type == attribute.TENSOR:
        _widen_tensor(attribute.t)
    if attribute.name in TYPES and attribute.i == TensorProto.FLOAT:
        attribute.i = TensorProto.DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
