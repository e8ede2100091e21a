"""Nodes of an ONNX graph that behave as in training, or draw random numbers.

ONNX Runtime drops a Dropout in training mode when it optimises a graph, so that its
outputs don't show it; other runtimes, and ONNX Runtime with optimisations off, do drop
values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoint_release.runtimes.onnx_graph import walk_graphs, walk_nodes

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}
_DROPOUT_MODE = 2  # the position of the input training_mode


def training_nodes(graph: GraphProto) -> list[str]:
    """One sentence for each such node."""
    constants = _constants(graph)
    faults = []
    for node in walk_nodes(graph):
        if node.op_type in RANDOM:
            faults.append(f"the node {node.op_type} {node.name!r} draws random numbers")
        elif _is_training(node, constants):
            faults.append(f"the node {node.op_type} {node.name!r} is in training mode")
    return faults


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Value name → its tensor, of initialisers and Constant nodes."""
    constants: dict[str, TensorProto] = {}
    for inner in walk_graphs(graph):
        constants.update({tensor.name: tensor for tensor in inner.initializer})
        for node in inner.node:
            if node.op_type != "Constant":
                continue
            for attribute in node.attribute:
                constants[node.output[0]] = attribute.t
    return constants


def _is_training(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    """Whether a Dropout or BatchNormalization is in training mode; so is a Dropout
    whose mode isn't constant.
    """
    from onnx import numpy_helper

    if node.op_type == "BatchNormalization":
        modes = [item.i for item in node.attribute if item.name == "training_mode"]
        return any(modes)
    if node.op_type != "Dropout" or len(node.input) <= _DROPOUT_MODE:
        return False
    mode = node.input[_DROPOUT_MODE]
    if not mode:
        return False
    return mode not in constants or bool(numpy_helper.to_array(constants[mode]))
