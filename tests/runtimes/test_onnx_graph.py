"""A graph is walked with the subgraphs of its nodes."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from checkpoint_release.runtimes.onnx_graph import (
    names_read,
    read_instead,
    used_domains,
    walk_graphs,
    walk_nodes,
)
from checkpoint_release.runtimes.training_nodes import training_nodes

TRUE = numpy_helper.from_array(np.array(True), "true")
FALSE = numpy_helper.from_array(np.array(False), "false")


def branch(name: str, *nodes: NodeProto) -> GraphProto:
    """A graph without inputs whose output is what its last node computes."""
    output = helper.make_tensor_value_info(
        nodes[-1].output[0], TensorProto.FLOAT, ["length"]
    )
    return helper.make_graph(list(nodes), name, [], [output])


def graph(*nodes: NodeProto, otherwise: NodeProto | None = None) -> GraphProto:
    """An If with the nodes in its then branch."""
    alternative = otherwise or helper.make_node("Neg", ["x"], ["negative"], name="neg")
    choice = helper.make_node(
        "If",
        ["true"],
        ["y"],
        name="choice",
        then_branch=branch("then", *nodes),
        else_branch=branch("else", alternative),
    )
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["length"])
        for name in "xy"
    )
    return helper.make_graph([choice], "whole", [x], [y], [TRUE, FALSE])


def test_nodes_and_graphs_of_branches_come_after_the_node_that_holds_them() -> None:
    whole = graph(helper.make_node("Abs", ["x"], ["a"], name="abs"))
    assert [inner.name for inner in walk_graphs(whole)] == ["whole", "else", "then"]
    assert [node.name for node in walk_nodes(whole)] == ["choice", "neg", "abs"]


def test_what_a_branch_reads_and_gives_is_read() -> None:
    whole = graph(helper.make_node("Abs", ["x"], ["a"], name="abs"))
    assert names_read(whole) == {"true", "x", "a", "negative", "y"}


def test_domains_of_branches_are_used_and_onnx_s_own_has_one_name() -> None:
    custom = helper.make_node("Fused", ["x"], ["a"], domain="com.microsoft")
    own = helper.make_node("Neg", ["x"], ["negative"], domain="ai.onnx")
    assert used_domains(graph(custom, otherwise=own)) == {"", "com.microsoft"}


def test_a_node_reads_what_takes_a_value_s_place() -> None:
    node = helper.make_node("Add", ["x", "bias"], ["y"])
    read_instead(node, {"bias": "bias/float32"})
    assert list(node.input) == ["x", "bias/float32"]


def test_training_and_random_nodes_are_found_in_branches() -> None:
    mode = helper.make_node("Constant", [], ["mode"], value=TRUE)
    nodes = [
        mode,
        helper.make_node("Dropout", ["x", "", "mode"], ["a"], name="dropping"),
        helper.make_node("Dropout", ["a", "", "false"], ["b"], name="passing"),
        helper.make_node("Dropout", ["b"], ["c"], name="inference"),
        helper.make_node("Dropout", ["c", "", "x"], ["d"], name="unknown"),
        helper.make_node("RandomNormalLike", ["d"], ["e"], name="noise"),
        helper.make_node(
            "BatchNormalization",
            ["e", "s", "b", "m", "v"],
            ["f"],
            name="norm",
            training_mode=1,
        ),
    ]
    assert training_nodes(graph(*nodes)) == [
        "the node Dropout 'dropping' is in training mode",
        "the node Dropout 'unknown' is in training mode",
        "the node RandomNormalLike 'noise' draws random numbers",
        "the node BatchNormalization 'norm' is in training mode",
    ]
