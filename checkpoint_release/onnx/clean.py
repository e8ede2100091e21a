"""What an exporter leaves behind, taken out of an ONNX graph, and what a reader of the
graph wants, put in.

Exporters leave scopes of their own packages, stack traces with absolute paths,
constants as nodes, weights under numbers, and copies. `clean` takes a graph of torch's
exporters to the shape that the direct route has from the start; `finish` says on either
who made it. Both work on models without weight data (see onnx_file).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from checkpoint_release.core.signature import Array, Signature, TensorSpec
from checkpoint_release.onnx.file import weight
from checkpoint_release.runtimes.onnx_graph import (
    names_read,
    subgraphs,
    walk_graphs,
    walk_nodes,
)

PRODUCER = "checkpoint-release"
MODULE = "model."  # the exported module holds the model under this name

_DTYPES: dict[str, int] = {
    name: getattr(
        TensorProto,
        name.replace("float32", "float").replace("float64", "double").upper(),
    )
    for name in (
        "float32",
        "float64",
        "float16",
        "int64",
        "int32",
        "int8",
        "uint8",
        "bool",
    )
}


def clean(
    model: ModelProto, signature: Signature, weights: Mapping[str, Array], title: str
) -> ModelProto:
    """The graph without what the exporter left, weights as initialisers under their
    state-dict names.

    Args:
        model: what torch's exporter wrote without weights, which are inputs after the
            signature's, named `model.x`.
        signature: what the model takes and gives.
        weights: state-dict name → array.
        title: the graph's name.
    """
    import onnx_ir

    aliased = ModelProto()
    aliased.CopyFrom(model)
    _name_copies(aliased.graph, signature, weights)
    # The weights are inputs here, and so out of reach of the optimiser, which would
    # fold them into renamed copies.
    optimised = onnx_ir.from_proto(aliased)
    _optimise(optimised)
    cleaned = onnx_ir.to_proto(optimised)
    graph = cleaned.graph
    _rename(graph, signature, weights)
    read = names_read(graph)
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    own = {tensor.name for tensor in constants}
    del graph.initializer[:]
    graph.initializer.extend(constants)
    graph.initializer.extend(
        weight(name, array) for name, array in weights.items() if name in read - own
    )
    _strip(graph)
    _import_used_domains(cleaned)
    _describe(cleaned, signature)
    graph.name = title
    return cleaned


def finish(
    model: ModelProto, *, ir_version: int, facts: Mapping[str, str]
) -> ModelProto:
    """The model with stable words on it: the same for the same model, whoever exports
    it, when and where.

    Args:
        model: a clean graph; it is changed and returned.
        ir_version: the IR version to declare.
        facts: for the model's metadata.
    """
    model.ir_version = ir_version
    model.producer_name, model.producer_version = PRODUCER, ""
    model.domain, model.model_version, model.doc_string = "", 0, ""
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(facts.items())))
    return model


def infer_shapes(model: ModelProto) -> ModelProto:
    """Strict shape inference, with weights standing as inputs, for their data is
    elsewhere and of no interest.
    """
    typed = ModelProto()
    typed.CopyFrom(model)
    small = [
        tensor
        for tensor in typed.graph.initializer
        if tensor.HasField("raw_data") and len(tensor.dims) <= 1
    ]
    rest = [
        tensor
        for tensor in typed.graph.initializer
        if not (tensor.HasField("raw_data") and len(tensor.dims) <= 1)
    ]
    del typed.graph.initializer[:]
    typed.graph.initializer.extend(small)
    typed.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in rest
    )
    return onnx.shape_inference.infer_shapes(
        typed, check_type=True, strict_mode=True, data_prop=True
    )


# --------------------------------------------------------------------------------------


# Movement of data, and arithmetic that IEEE 754 rounds correctly on every machine. The
# others are left to be computed where the graph runs: a table of sines computed here
# would hold this machine's last digits.
_EXACT = {
    *(
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Abs",
        "Sqrt",
        "Cast",
        "CastLike",
        "Range",
        "ConstantOfShape",
        "Where",
    ),
    *(
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
    ),
    *("Transpose", "Unsqueeze"),
}


def _optimise(model: Any) -> None:
    """Fold what is constant, and take out copies, in place; model is an onnx_ir.Model.

    These are the passes of `onnxscript.optimizer.optimize` without its rewriting rules,
    which take ten times as long as all the others together and find next to nothing
    here.
    """
    import onnx_ir.passes.common as passes
    import onnxscript.optimizer

    passes.InlinePass()(model)
    onnxscript.optimizer.fold_constants(
        model, onnx_shape_inference=True, should_fold=_is_exact
    )
    for step in (
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        step(model)


def _is_exact(node: Any) -> bool | None:
    """Whether constant folding may compute an onnx_ir node; None leaves it to the
    optimiser's own rules.
    """
    whole = all(
        output.dtype is not None and not output.dtype.is_floating_point()
        for output in node.outputs
    )
    return None if whole or node.op_type in _EXACT else False


def _name_copies(
    graph: GraphProto, signature: Signature, weights: Mapping[str, Array]
) -> None:
    """Give weights their own names back.

    torch's tracing exporter keeps one of several weights of equal value and makes the
    others copies of it, by Identity nodes. (Weights that the model ties are one tensor
    under one name when they get here.)
    """
    copies = [
        node
        for node in graph.node
        if node.op_type == "Identity" and node.output[0].removeprefix(MODULE) in weights
    ]
    for node in copies:
        graph.node.remove(node)
        array = weights[node.output[0].removeprefix(MODULE)]
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(
            helper.make_tensor_value_info(node.output[0], dtype, array.shape)
        )


def _rename(
    graph: GraphProto, signature: Signature, weights: Mapping[str, Array]
) -> None:
    """Nodes and values are called after the module that they are in and the operator,
    weights as in the state dict.
    """
    names = _Names(
        {*weights, *(spec.name for spec in (*signature.inputs, *signature.outputs))}
    )
    fixed = {spec.name: spec.name for spec in (*signature.inputs, *signature.outputs)}
    fixed |= {MODULE + name: name for name in weights}
    numbers = count()
    for tensor in graph.initializer:
        own = tensor.name.removeprefix(MODULE)
        # a buffer that the state dict leaves out
        dotted = tensor.name.startswith(MODULE) and own not in weights
        fixed[tensor.name] = names.new(own if dotted else f"constant_{next(numbers)}")
        tensor.name = fixed[tensor.name]
    _rename_nodes(graph, fixed, names, "")


def _rename_nodes(
    graph: GraphProto, known: Mapping[str, str], names: _Names, inside: str
) -> None:
    renamed = dict(known)
    for value in graph.input if inside else []:
        renamed[value.name] = names.new(f"{inside}/{value.name}")
        value.name = renamed[value.name]
    for tensor in graph.initializer if inside else []:
        renamed[tensor.name] = names.new(f"{inside}/{tensor.name}")
        tensor.name = renamed[tensor.name]
    for node in graph.node:
        scope = _scope(node) or inside
        node.name = names.new(f"{scope}/{node.op_type}" if scope else node.op_type)
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        for subgraph in subgraphs(node):
            _rename_nodes(subgraph, renamed, names, node.name)
        for i, name in enumerate(node.output):
            if name and name not in renamed:
                renamed[name] = (
                    node.name if len(node.output) == 1 else f"{node.name}:{i}"
                )
            node.output[i] = renamed.get(name, name)
    if inside:
        for value in graph.output:
            value.name = renamed.get(value.name, value.name)
        del graph.value_info[:]


class _Names:
    """Gives out names that are not taken yet."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._counts: dict[str, int] = {}

    def new(self, wanted: str) -> str:
        name = wanted
        while name in self._taken:
            self._counts[wanted] = self._counts.get(wanted, 0) + 1
            name = f"{wanted}_{self._counts[wanted]}"
        self._taken.add(name)
        return name


def _scope(node: NodeProto) -> str:
    """The path of the module that the node is in, as the state dict spells it; empty
    where the exporter didn't say.
    """
    # the torch.export route: ['', 'model', 'model.layers.0', …, 'linear_3']
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            scopes = [
                scope
                for scope in ast.literal_eval(prop.value)[:-1]
                if scope.startswith(MODULE)
            ]
            return scopes[-1].removeprefix(MODULE) if scopes else ""
    path: list[str] = []  # the tracing route: /model/seq/seq.0/layers.0/MatMul
    for part in node.name.split("/")[1:-1]:
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    return ".".join(path[1:]) if path[:1] == [MODULE[:-1]] else ""


def _strip(graph: GraphProto) -> None:
    """Take out documentation and metadata of everything in the graph."""
    for inner in walk_graphs(graph):
        values = (*inner.input, *inner.output, *inner.value_info)
        for message in (inner, *inner.node, *inner.initializer, *values):
            del message.metadata_props[:]
            message.doc_string = ""


def _import_used_domains(model: ModelProto) -> None:
    used = {node.domain for node in walk_nodes(model.graph)} | {""}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)


# --------------------------------------------------------------------------------------


def _describe(model: ModelProto, signature: Signature) -> None:
    """Inputs and outputs as the signature describes them, and the shape of everything
    between, as it is inferred.
    """
    graph = model.graph
    traced = {value.name: value for value in graph.output}
    inputs = [_value_info(spec, None, signature) for spec in signature.inputs]
    outputs = [
        _value_info(spec, traced.get(spec.name), signature)
        for spec in signature.outputs
    ]
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    graph.value_info.extend(
        _without_made_up_names(infer_shapes(model).graph.value_info, signature)
    )


def _value_info(
    spec: TensorSpec, inferred: ValueInfoProto | None, signature: Signature
) -> ValueInfoProto:
    shape: Sequence[Any] | None = spec.shape
    dtype = _DTYPES[spec.dtype]
    if inferred is not None:
        dtype = inferred.type.tensor_type.elem_type or dtype
    if (
        shape is None
        and inferred is not None
        and inferred.type.tensor_type.HasField("shape")
    ):
        known = signature.dimensions
        shape = [
            (
                dim.dim_value
                if dim.HasField("dim_value")
                else dim.dim_param
                if dim.dim_param in known
                else None
            )
            for dim in inferred.type.tensor_type.shape.dim
        ]
    return helper.make_tensor_value_info(
        spec.name, dtype, shape, doc_string=spec.description
    )


def _without_made_up_names(
    values: Sequence[ValueInfoProto], signature: Signature
) -> list[ValueInfoProto]:
    """Shape inference calls dimensions that it can't tell unk__0 and so on; unknown is
    what they are.
    """
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") and dim.dim_param not in signature.dimensions:
                dim.ClearField("dim_param")
    return list(values)
