"""Walks through an ONNX graph, the subgraphs of its nodes (branches and loop bodies)
included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs among a node's attributes.

    ONNX's own operators have them one to an attribute: then_branch and else_branch of
    If, body of Loop and Scan. The format also allows an attribute with a list of them.
    """
    graphs: list[GraphProto] = []
    for attribute in node.attribute:
        if attribute.type == attribute.GRAPH:
            graphs.append(attribute.g)
        graphs.extend(attribute.graphs)
    return graphs


def walk_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph itself, and then every graph inside it, at any depth.

    Args:
        graph: of a model; it isn't copied, so that what is yielded can be edited.
    """
    yield graph
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from walk_graphs(subgraph)


def walk_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of subgraphs right after the node that holds them.

    Args:
        graph: of a model; it isn't copied, so that what is yielded can be edited.
    """
    for node in graph.node:
        yield node
        for subgraph in subgraphs(node):
            yield from walk_nodes(subgraph)


def used_domains(graph: GraphProto) -> set[str]:
    """The domains of operators that a graph needs.

    Returns:
        Domains as domain_name writes them: those that nodes are in, those of subgraphs
        included, and ONNX's own, which every model imports.
    """
    domains = {""}
    for node in walk_nodes(graph):
        domains.add(domain_name(node.domain))
    return domains


def domain_name(domain: str) -> str:
    """The one name of a domain of operators, so that domains can be compared.

    ONNX's own may be written as ai.onnx or as an empty string (ONNX's specification of
    the IR, "Operator Sets"); here it is empty.
    """
    return domain.replace("ai.onnx", "", 1)


def names(values: Iterable[TensorProto | ValueInfoProto]) -> list[str]:
    """The names of initialisers, inputs, outputs or other values, in order."""
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
    """The names of all values that something needs.

    A subgraph reads values of the graphs around it by their names, so one set covers
    all of them. An empty name, of an optional input that is left out, may be in it.

    Returns:
        What the nodes take as inputs and the graphs give as outputs, at any depth.
    """
    read: set[str] = set()
    for inner in walk_graphs(graph):
        read.update(names(inner.output))
        for node in inner.node:
            read.update(node.input)
    return read
