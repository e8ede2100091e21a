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
    """Evaluate a graph by onnx's reference evaluator, with float64 for float32.

    Args:
        file: the ONNX file, in float32.
        inputs: by name, as the signature has them.

    Returns:
        The graph as it is evaluated, and name → value of its inputs, its weights and
        everything that it computes; optional values that it leaves out have none.
    """
    model = onnx.load(file)
    _widen(model.graph)
    # the types that it states for its values are those before it was widened
    del model.graph.value_info[:]
    feeds = {}
    for name, array in inputs.items():
        is_float = array.dtype.kind == "f"
        feeds[name] = array.astype(np.float64) if is_float else array
    found: Any = ReferenceEvaluator(model).run(None, feeds, intermediate=True)
    values = {}
    for name, value in found.items():
        if value is not None:
            # of arrays without a dimension, the evaluator may give a scalar
            values[name] = np.asarray(value)
    return model.graph, values


def _widen(graph: onnx.GraphProto) -> None:
    """Make every float32 in the graph and its subgraphs float64, in place.

    Float32 stands in weights and constants, in the types of inputs and outputs, and in
    attributes by which a node names the type that it casts to or computes in.

    Args:
        graph: of a model that is consistent in float32; it is in float64 afterwards.
    """
    for inner in walk_graphs(graph):
        for tensor in inner.initializer:
            _widen_tensor(tensor)
        for value in (*inner.input, *inner.output):
            declared = value.type.tensor_type
            if declared.elem_type == TensorProto.FLOAT:
                declared.elem_type = TensorProto.DOUBLE
    for node in walk_nodes(graph):
        for attribute in node.attribute:
            _widen_attribute(attribute)


def _widen_attribute(attribute: onnx.AttributeProto) -> None:
    """Widen an attribute in place, if it concerns float32.

    Args:
        attribute: one that is a tensor, such as a constant's value, has its numbers
            widened; one that names a type, the type; others stay.
    """
    if attribute.type == attribute.TENSOR:
        _widen_tensor(attribute.t)
    if attribute.name in TYPES and attribute.i == TensorProto.FLOAT:
        attribute.i = TensorProto.DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    """Make a float32 tensor float64 in place, which changes none of its numbers.

    Args:
        tensor: of any type; others stay as they are.
    """
    if tensor.data_type == TensorProto.FLOAT:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
