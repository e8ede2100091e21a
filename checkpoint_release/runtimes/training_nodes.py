"""Nodes of an ONNX graph that behave as in training, or draw random numbers.

ONNX Runtime drops a Dropout in training mode when it optimises a graph, so that its
outputs don't show it; other runtimes, and ONNX Runtime with optimisations off, do drop
values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto

RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}


def training_nodes(graph: GraphProto) -> list[str]:
    """One sentence for each such node."""
    import onnx
    from onnx import numpy_helper

    found = []
    graphs = [graph]
    while graphs:
        graph = graphs.pop()
        constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            graphs += [
                attribute.g
                for attribute in node.attribute
                if attribute.type == onnx.AttributeProto.GRAPH
            ]
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    constants[node.output[0]] = attribute.t
            elif node.op_type in RANDOM:
                found.append(
                    f"the node {node.op_type} {node.name!r} draws random numbers"
                )
            elif node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
                mode = constants.get(node.input[2])
                if mode is None or bool(numpy_helper.to_array(mode)):
                    found.append(f"the node Dropout {node.name!r} is in training mode")
            elif node.op_type == "BatchNormalization" and any(
                attribute.name == "training_mode" and attribute.i
                for attribute in node.attribute
            ):
                found.append(
                    f"the node BatchNormalization {node.name!r} is in training mode"
                )
    return found
