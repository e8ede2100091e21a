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
    """Find the nodes that make an exported model's outputs differ from run to run.

    Args:
        graph: of the model; the subgraphs of its nodes are searched too.

    Returns:
        One sentence for each such node, in the graph's order; nothing in an export of a
        model in evaluation mode.
    """
    constants = _constants(graph)
    faults = []
    for node in walk_nodes(graph):
        if node.op_type in RANDOM:
            faults.append(f"the node {node.op_type} {node.name!r} draws random numbers")
        elif _is_training(node, constants):
            faults.append(f"the node {node.op_type} {node.name!r} is in training mode")
    return faults


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    """The values that are the same in every run.

    Args:
        graph: of the model; the constants of its nodes' subgraphs count too.

    Returns:
        Value name → its tensor, of initialisers and Constant nodes.
    """
    constants: dict[str, TensorProto] = {}
    for inner in walk_graphs(graph):
        constants.update({tensor.name: tensor for tensor in inner.initializer})
    for node in walk_nodes(graph):
        if node.op_type != "Constant":
            continue
        for attribute in node.attribute:  # the one that holds the value
            constants[node.output[0]] = attribute.t
    return constants


def _is_training(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    """Whether a node computes as in training, or may.

    By the ONNX operator specification, BatchNormalization has an attribute
    training_mode (an int, 0 if it is absent), and Dropout an optional third input of
    that name (a bool scalar, false if it is absent). A Dropout whose mode isn't a
    constant counts: something in the graph could switch it on.

    Args:
        node: of any operator.
        constants: value name → its tensor.
    """
    from onnx import numpy_helper

    if node.op_type == "BatchNormalization":
        modes = [item.i for item in node.attribute if item.name == "training_mode"]
        return any(modes)
    if node.op_type != "Dropout" or len(node.input) <= _DROPOUT_MODE:
        return False
    mode = node.input[_DROPOUT_MODE]
    if not mode:  # an optional input is left out by an empty name
        return False
    if mode not in constants:
        return True
    return bool(numpy_helper.to_array(constants[mode]))
