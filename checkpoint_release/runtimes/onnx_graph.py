"""Walks through an ONNX graph, the subgraphs of its nodes (branches and loop bodies)
included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto


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


def used_domains(graph: GraphProto) -> set[str]:
    """The domains that nodes are in, and ONNX's own, by domain_name."""
    domains = {""}
    for node in walk_nodes(graph):
        domains.add(domain_name(node.domain))
    return domains


def domain_name(domain: str) -> str:
    """The one name of a domain: ONNX's own, also written ai.onnx, is empty."""
    return domain.replace("ai.onnx", "", 1)


def names(values: Iterable[TensorProto | ValueInfoProto]) -> list[str]:
    """The names of initialisers, inputs, outputs or other values."""
    return [value.name for value in values]


def read_instead(node: NodeProto, replacements: Mapping[str, str]) -> None:
    """Let a node read other values, in place.

    Args:
        node: the node, without its subgraphs.
        replacements: name of a value → name of what takes its place.
    """
    for i, name in enumerate(node.input):
        node.input[i] = replacements.get(name, name)


def names_read(graph: GraphProto) -> set[str]:
    """The names of all values that a node or a graph's output reads."""
    read: set[str] = set()
    for inner in walk_graphs(graph):
        read.update(names(inner.output))
        for node in inner.node:
            read.update(node.input)
    return read
