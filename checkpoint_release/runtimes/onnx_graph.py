"""Walks through an ONNX graph, the subgraphs of its nodes (branches and loop bodies)
included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs among a node's attributes."""
    graphs: list[GraphProto] = []
    for attribute in node.attribute:
        if attribute.type == attribute.GRAPH:
            graphs.append(attribute.g)
        graphs.extend(attribute.graphs)
    return graphs


def walk_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph itself, and then every graph inside it."""
    yield graph
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from walk_graphs(subgraph)


def walk_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of subgraphs after the node that holds them."""
    for node in graph.node:
        yield node
        for subgraph in subgraphs(node):
            yield from walk_nodes(subgraph)


def names_read(graph: GraphProto) -> set[str]:
    """The names of all values that a node or a graph's output reads."""
    names: set[str] = set()
    for inner in walk_graphs(graph):
        names.update(value.name for value in inner.output)
        for node in inner.node:
            names.update(node.input)
    return names
