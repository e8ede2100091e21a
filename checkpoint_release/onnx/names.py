"""Names of an exported graph: nodes and values are called after the module that they
are in and the operator, weights as in the state dict.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from onnx import GraphProto, NodeProto, helper

from checkpoint_release.core.signature import Array, Signature
from checkpoint_release.runtimes.onnx_graph import read_instead, subgraphs

MODULE = "model."
"""What leads the names of weights: the exported module holds the model as `model`."""
_SCOPES = "pkg.torch.onnx.name_scopes"


def separate_equal_weights(graph: GraphProto, weights: Mapping[str, Array]) -> None:
    """Make an input of every weight that is a copy of an equal one.

    torch's tracing exporter keeps one of several weights of equal value and makes the
    others copies of it, by Identity nodes. (Weights that the model ties are one tensor
    under one name when they get here.)

    Args:
        graph: what the exporter wrote; it is changed.
        weights: state-dict name → array.
    """
    for node in list(graph.node):
        if node.op_type != "Identity":
            continue
        name = node.output[0].removeprefix(MODULE)
        if name not in weights:
            continue
        graph.node.remove(node)
        array = weights[name]
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        value = helper.make_tensor_value_info(node.output[0], dtype, array.shape)
        graph.input.append(value)


def rename(
    graph: GraphProto, signature: Signature, weights: Mapping[str, Array]
) -> None:
    """Give weights, constants, nodes and values of the graph their names, in place.

    Args:
        graph: inputs and outputs have the signature's names, weights `model.x`.
        signature: whose names stay.
        weights: state-dict name → array.
    """
    fixed = {*signature.input_names, *signature.output_names}
    names = _UniqueNames(fixed | weights.keys())
    renamed = {name: name for name in fixed}
    renamed |= {MODULE + name: name for name in weights}
    _rename_initializers(graph, weights, names, renamed)
    _rename_nodes(graph, names, renamed, parent="")


class _UniqueNames:
    """Gives out names that are not used yet."""

    def __init__(self, used: set[str]) -> None:
        """Start with the names that are not to be given out.

        Args:
            used: it is changed: what is given out is added.
        """
        self._used = used
        self._counts: dict[str, int] = {}

    def new(self, wanted: str) -> str:
        """The wanted name, numbered where it is used already.

        Args:
            wanted: the first to want it gets it, the next `wanted_1`, and so on.
        """
        name = wanted
        while name in self._used:
            self._counts[wanted] = self._counts.get(wanted, 0) + 1
            name = f"{wanted}_{self._counts[wanted]}"
        self._used.add(name)
        return name


def _rename_initializers(
    graph: GraphProto,
    weights: Mapping[str, Array],
    names: _UniqueNames,
    renamed: dict[str, str],
) -> None:
    """Number the constants; a buffer that the state dict leaves out keeps its name.

    Args:
        graph: it is changed.
        weights: state-dict name → array.
        names: of all the model.
        renamed: old name → new name of a value; the initialisers' are added.
    """
    constants = 0
    for tensor in graph.initializer:
        own = tensor.name.removeprefix(MODULE)
        if tensor.name.startswith(MODULE) and own not in weights:
            name = names.new(own)
        else:
            name = names.new(f"constant_{constants}")
            constants += 1
        renamed[tensor.name] = name
        tensor.name = name


def _rename_nodes(
    graph: GraphProto, names: _UniqueNames, renamed: dict[str, str], parent: str
) -> None:
    """Rename nodes and their outputs, those of subgraphs too.

    Args:
        graph: it is changed.
        names: of all the model.
        renamed: old name → new name of a value; what the nodes compute is added.
        parent: the node that the graph belongs to; empty for the model's own graph.
    """
    for node in graph.node:
        scope = _scope(node) or parent
        path = f"{scope}/{node.op_type}" if scope else node.op_type
        node.name = names.new(path)
        read_instead(node, renamed)
        for subgraph in subgraphs(node):
            # what is renamed in a subgraph is known in it alone
            _rename_subgraph(subgraph, names, dict(renamed), node.name)
        _rename_outputs(node, renamed)


def _rename_outputs(node: NodeProto, renamed: dict[str, str]) -> None:
    """Call what a node computes after the node.

    Args:
        node: it has its new name; it is changed.
        renamed: old name → new name of a value; the outputs' are added.
    """
    for i, name in enumerate(node.output):
        if not name:
            continue
        suffix = f":{i}" if len(node.output) > 1 else ""
        node.output[i] = renamed.setdefault(name, node.name + suffix)


def _rename_subgraph(
    graph: GraphProto, names: _UniqueNames, renamed: dict[str, str], parent: str
) -> None:
    """Rename everything in a branch or a loop's body.

    Args:
        graph: it is changed.
        names: of all the model.
        renamed: old name → new name of a value around the graph; what is in the graph
            is added.
        parent: the node that the graph belongs to; its name leads the new ones.
    """
    for value in (*graph.input, *graph.initializer):
        renamed[value.name] = names.new(f"{parent}/{value.name}")
        value.name = renamed[value.name]
    _rename_nodes(graph, names, renamed, parent)
    for value in graph.output:
        value.name = renamed.get(value.name, value.name)
    del graph.value_info[:]


def _scope(node: NodeProto) -> str:
    """The path of the module that the node is in, as the state dict spells it.

    torch.onnx's dynamo exporter writes the scopes into a node's metadata, its tracing
    exporter into the node's name.

    Args:
        node: as it was exported, without its new name.

    Returns:
        Such as `encoder.layers.0`; empty where the exporter wrote none, and for what
        the model's own forward computes.
    """
    for prop in node.metadata_props:
        if prop.key == _SCOPES:
            return _exported_scope(prop.value)
    return _traced_scope(node.name)


def _exported_scope(scopes: str) -> str:
    """The scope among those of torch.export, the innermost of the model's modules.

    Args:
        scopes: a Python list from the outermost module to the node itself, such as
            "['', 'model', 'model.layers.0', 'add']".
    """
    modules = ast.literal_eval(scopes)[:-1]
    for module in reversed(modules):
        if module.startswith(MODULE):
            return str(module.removeprefix(MODULE))
    return ""


def _traced_scope(name: str) -> str:
    """The scope in the name that the tracing exporter gave to a node.

    A module in a container has the container's name before its own there, which the
    state dict doesn't repeat: /model/seq/seq.0/MatMul is in seq.0.

    Args:
        name: modules and the operator, each after a slash.
    """
    path: list[str] = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    if path[:1] != [MODULE.removesuffix(".")]:
        return ""
    return ".".join(path[1:])
