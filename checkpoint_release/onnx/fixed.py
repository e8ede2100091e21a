"""The graph at given sizes, in a file beside the one that takes any.

Compilers for accelerators, TVM and others plan all memory ahead, and take no graph that
computes its shapes. Here inputs have numbers for shapes, and the whole numbers and
truth values that followed from them are computed, which are the same on every machine.
Weights and all arithmetic of floats are the graph's own.
"""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, helper

from checkpoint_release.core.signature import Signature
from checkpoint_release.onnx.clean import MOVEMENT, import_used_domains, optimise
from checkpoint_release.onnx.file import is_placeholder
from checkpoint_release.onnx.routes import ExportedGraph
from checkpoint_release.onnx.shapes import (
    describe_interface,
    describe_values,
    infer_shapes,
)
from checkpoint_release.runtimes.onnx_graph import names_read

FIXED_FILE = "model_fixed.onnx"
_CONVERSION = {"Cast", "CastLike", "ConstantOfShape", "Where"}


def make_fixed(exported: ExportedGraph, signature: Signature) -> ExportedGraph:
    """The graph with the signature's numbers in its shapes.

    Args:
        exported: the graph that takes any sizes; it is left as it is.
        signature: the model's at given sizes.
    """
    import onnx_ir

    model = ModelProto()
    model.CopyFrom(exported.model)
    describe_interface(model, signature)
    weights = {}
    for tensor in list(model.graph.initializer):
        if is_placeholder(tensor):
            weights[tensor.name] = tensor
            model.graph.initializer.remove(tensor)
            # out of the optimiser's reach
            value = helper.make_tensor_value_info(
                tensor.name, tensor.data_type, list(tensor.dims)
            )
            model.graph.input.append(value)
    graph = onnx_ir.from_proto(model)
    optimise(graph, _is_no_arithmetic_of_floats)
    fixed = onnx_ir.to_proto(graph)
    read = names_read(fixed.graph)
    kept = [tensor for name, tensor in weights.items() if name in read]
    fixed.graph.initializer.extend(kept)
    import_used_domains(fixed)
    describe_values(fixed, signature)
    return ExportedGraph(fixed, exported.weights, exported.eager, exported.decisions)


def open_shapes(model: ModelProto) -> list[str]:
    """The names of values whose shape isn't all numbers, in the graph's order.

    Args:
        model: its weights without data.
    """
    found = []
    for value in infer_shapes(model).graph.value_info:
        sizes = value.type.tensor_type.shape.dim
        if not all(size.HasField("dim_value") for size in sizes):
            found.append(value.name)
    return found


def _is_no_arithmetic_of_floats(node: Any) -> bool | None:
    """Whether constant folding may compute an onnx_ir node; None leaves it to the
    optimiser's own rules.
    """
    if node.op_type in MOVEMENT or node.op_type in _CONVERSION:
        return None
    for output in node.outputs:
        if output.dtype is None or output.dtype.is_floating_point():
            return False
    return None
