"""What an exporter leaves behind, taken out of an ONNX graph, and what a reader of the
graph wants, put in.

Exporters leave scopes of their own packages, stack traces with absolute paths,
constants as nodes, weights under numbers, and copies. `clean` takes a graph of torch's
exporters to the form that the direct route has from the start; `identify` states on
either where it comes from. Both work on models without weight data (see file.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onnx import GraphProto, ModelProto, helper

from checkpoint_release.core.signature import Array, Signature
from checkpoint_release.onnx.file import placeholder
from checkpoint_release.onnx.names import rename, separate_equal_weights
from checkpoint_release.onnx.shapes import describe_values
from checkpoint_release.runtimes.onnx_graph import (
    domain_name,
    names_read,
    used_domains,
    walk_graphs,
)

PRODUCER = "checkpoint-release"

# Movement of data, and arithmetic that IEEE 754 rounds correctly on every machine. The
# others are left to be computed where the graph runs: a table of sines computed here
# would hold this machine's last digits.
MOVEMENT = {
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
    "Transpose",
    "Unsqueeze",
}
_ARITHMETIC = {
    "Abs",
    "Add",
    "Cast",
    "CastLike",
    "ConstantOfShape",
    "Div",
    "Mul",
    "Neg",
    "Range",
    "Sqrt",
    "Sub",
    "Where",
}
_EXACT = MOVEMENT | _ARITHMETIC


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

    separated = ModelProto()
    separated.CopyFrom(model)
    separate_equal_weights(separated.graph, weights)
    # The weights are inputs here, and so out of reach of the optimiser, which would
    # fold them into renamed copies.
    optimised = onnx_ir.from_proto(separated)
    optimise(optimised, _is_exact)
    cleaned = onnx_ir.to_proto(optimised)
    rename(cleaned.graph, signature, weights)
    _set_initializers(cleaned.graph, weights)
    _strip(cleaned.graph)
    import_used_domains(cleaned)
    describe_values(cleaned, signature)
    cleaned.graph.name = title
    return cleaned


def identify(model: ModelProto, ir_version: int, metadata: Mapping[str, str]) -> None:
    """State where the model comes from, in place: the same for the same model, whoever
    exports it, when and where.

    Args:
        model: a clean graph.
        ir_version: the IR version to declare.
        metadata: the model's properties.
    """
    model.ir_version = ir_version
    model.producer_name = PRODUCER
    model.producer_version = ""
    model.domain = ""
    model.model_version = 0
    model.doc_string = ""
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(metadata.items())))


def import_used_domains(model: ModelProto) -> None:
    """Leave out the opset imports of domains that no node is in."""
    used = used_domains(model.graph)
    for entry in list(model.opset_import):
        if domain_name(entry.domain) not in used:
            model.opset_import.remove(entry)


# --------------------------------------------------------------------------------------


def optimise(model: Any, may_fold: Callable[[Any], bool | None]) -> None:
    """Fold what is constant, and take out copies.

    These are the passes of `onnxscript.optimizer.optimize` without its rewriting rules,
    which take ten times as long as all the others together and find next to nothing
    here.

    Args:
        model: an onnx_ir.Model; it is changed.
        may_fold: whether an onnx_ir node may be computed; None leaves it to the
            optimiser's own rules.
    """
    import onnx_ir.passes.common as passes
    import onnxscript.optimizer

    passes.InlinePass()(model)
    onnxscript.optimizer.fold_constants(
        model, onnx_shape_inference=True, should_fold=may_fold
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
    if node.op_type in _EXACT:
        return None
    for output in node.outputs:
        if output.dtype is None or output.dtype.is_floating_point():
            return False
    return None


def _set_initializers(graph: GraphProto, weights: Mapping[str, Array]) -> None:
    """Keep the constants that a node reads, and add the weights that one reads.

    Args:
        graph: it is changed.
        weights: state-dict name → array.
    """
    missing = names_read(graph)
    for tensor in list(graph.initializer):
        if tensor.name in missing:
            missing.remove(tensor.name)
        else:
            graph.initializer.remove(tensor)
    for name, array in weights.items():
        if name in missing:
            graph.initializer.append(placeholder(name, array))


def _strip(graph: GraphProto) -> None:
    """Take out documentation and metadata of everything in the graph."""
    for inner in walk_graphs(graph):
        values = (*inner.input, *inner.output, *inner.value_info)
        for message in (inner, *inner.node, *inner.initializer, *values):
            del message.metadata_props[:]
            message.doc_string = ""
