"""The ways from a checkpoint to an ONNX graph, and the opsets that each can write.

    direct       the family's own graph, without torch; weights stay mapped, and keep
                 names and bytes
    torchscript  torch.onnx.export by tracing (dynamo=False)
    dynamo       torch.onnx.export by torch.export (dynamo=True); slow, and the only
                 general way past opset 20

A route gives a graph without weights (see file.py) and the arrays that belong in it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import onnx
from onnx import ModelProto, helper

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.artifacts.formats import OPSETS
from checkpoint_release.core.errors import (
    CheckpointReleaseError,
    ExportError,
    ModelError,
    OpsetError,
)
from checkpoint_release.core.signature import Array
from checkpoint_release.core.text import printable
from checkpoint_release.exporting.export_failure import explanation
from checkpoint_release.exporting.shape_check import Run
from checkpoint_release.onnx.clean import clean
from checkpoint_release.onnx.file import NamedArrays
from checkpoint_release.onnx.names import MODULE
from checkpoint_release.onnx.sines import compute_sines
from checkpoint_release.tensors.safetensors import open_safetensors
from checkpoint_release.tensors.tensor import Tensor

if TYPE_CHECKING:
    from torch import nn

    from checkpoint_release.exporting.tracing import Traceable
    from checkpoint_release.runtimes.model_check import Behaviour

AUTO = "auto"
DIRECT = "direct"
TORCH_OPSETS = {"torchscript": range(14, 21), "dynamo": range(18, 26)}
"""Route through torch.onnx.export → the opsets that it writes."""


@dataclass(frozen=True)
class Plan:
    """How a model will be exported.

    Attributes:
        opset: the version of ONNX's operators.
        ir_version: the version of ONNX's file format.
        routes: the routes to try, in order.
    """

    opset: int
    ir_version: int
    routes: list[str]


@dataclass(frozen=True)
class ExportedGraph:
    """A graph on its way to a file.

    Attributes:
        model: a clean graph, its weights without data.
        weights: name → array, or tensor in a mapped file, for every initialiser without
            data.
        eager: runs the torch model that was exported; None on the direct route.
        decisions: lines of the model's code that may decide by values of tensors.
    """

    model: ModelProto
    weights: NamedArrays
    eager: Run | None = None
    decisions: tuple[str, ...] = ()


def plan_export(
    architecture: Architecture,
    opset: int,
    exporter: str = AUTO,
    ir_version: int | None = None,
) -> Plan:
    """The routes to try and the IR version, decided before any work is done.

    Args:
        architecture: the model.
        opset: the asked opset.
        exporter: the only route to try, or auto.
        ir_version: the asked IR version; None: the lowest that goes with the opset.

    Raises:
        OpsetError: no allowed route writes this opset, or the opset doesn't go with the
            asked IR version.
        ExportError: the direct route is asked for, and the model's family has none.
    """
    opsets = opsets_of(architecture)
    if exporter == DIRECT and DIRECT not in opsets:
        raise ExportError(
            f"{{onnx.exporter}} is direct, and {architecture.factory} describes no ONNX"
            " graph of its own",
            "set {onnx.exporter} to auto",
            options=["onnx.exporter"],
        )
    allowed = list(opsets) if exporter == AUTO else [exporter]
    routes = [route for route in allowed if opset in opsets[route]]
    if not routes:
        raise _opset_error(opset, exporter, opsets)
    return Plan(opset, _ir_version(opset, ir_version), routes)


def opsets_of(architecture: Architecture) -> dict[str, range]:
    """Route → the opsets that it writes, of all routes that the model has, the
    preferred first.

    A family that describes its own graph may state its opsets as ONNX_OPSETS.
    """
    if architecture.hook("onnx_graph") is None:
        return TORCH_OPSETS
    return {DIRECT: architecture.hook("ONNX_OPSETS", OPSETS), **TORCH_OPSETS}


def _opset_error(opset: int, exporter: str, opsets: dict[str, range]) -> OpsetError:
    """The asked exporter can't write the asked opset.

    Args:
        opset: the asked opset.
        exporter: the asked exporter, or auto.
        opsets: route → the opsets that it writes.
    """
    ranges = []
    for route, versions in opsets.items():
        ranges.append(f"{route} {versions[0]} to {versions[-1]}")
    return OpsetError(
        f"{{onnx.opset}} is {opset}, and {{onnx.exporter}} {exporter} can't write it",
        f"for this model choose from {', '.join(ranges)}; or set {{onnx.exporter}} to"
        " auto",
        options=["onnx.opset", "onnx.exporter"],
    )


def _ir_version(opset: int, asked: int | None) -> int:
    """The asked IR version, or the lowest that goes with the opset.

    Raises:
        OpsetError: the asked one doesn't go with it.
    """
    lowest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    if asked is None:
        return lowest
    if not lowest <= asked <= onnx.IR_VERSION:
        raise OpsetError(
            f"{{onnx.ir_version}} is {asked}, and opset {opset} goes with {lowest} to"
            f" {onnx.IR_VERSION}",
            "set {onnx.ir_version} to null, or lower {onnx.opset}",
            options=["onnx.ir_version", "onnx.opset"],
        )
    return asked


def other_plans(architecture: Architecture, plan: Plan) -> Iterator[Plan]:
    """What to try where a plan failed: the routes that it leaves out, each at the opset
    nearest to the plan's, and then every route at its highest opset, which has the most
    operators.

    Args:
        architecture: the model.
        plan: what was tried.
    """
    tried = [(route, plan.opset) for route in plan.routes]
    nearest, highest = [], []
    for route, opsets in opsets_of(architecture).items():
        if route not in plan.routes:
            nearest.append((route, min(max(plan.opset, opsets[0]), opsets[-1])))
        highest.append((route, opsets[-1]))
    for route, opset in nearest + highest:
        if (route, opset) not in tried:
            tried.append((route, opset))
            yield Plan(opset, _ir_version(opset, None), [route])


def export_graph(route: str, checkpoint: CheckpointFolder, opset: int) -> ExportedGraph:
    """Take one route; sines that turn something are computed by arithmetic.

    Args:
        route: one of those of a plan.
        checkpoint: the model and its weights.
        opset: the version of ONNX's operators.

    Raises:
        ExportError: the route can't export this model; the message names the cause and
            what to try.
    """
    exported = _exported(route, checkpoint, opset)
    compute_sines(exported.model)
    return exported


def _exported(route: str, checkpoint: CheckpointFolder, opset: int) -> ExportedGraph:
    """The graph as the route gives it; as export_graph otherwise."""
    if route == DIRECT:
        with _route_errors(route, opset):
            return _direct(checkpoint, opset)
    from checkpoint_release.exporting.tracing import Traceable

    exporters = {"torchscript": _through_torchscript, "dynamo": _through_dynamo}
    traceable = Traceable.open(checkpoint)
    _refuse_bfloat16(traceable.model)
    with _route_errors(route, opset, traceable.behaviour):
        return exporters[route](traceable, opset)


def _refuse_bfloat16(model: nn.Module) -> None:
    """Refuse a model that works in bfloat16: ONNX Runtime's CPU kernels don't.

    Raises:
        ExportError: a parameter or buffer is bfloat16.
    """
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if str(tensor.dtype) == "torch.bfloat16":
            raise ExportError(
                f"the model works in bfloat16 ({printable(name)} the first), and ONNX"
                " Runtime has no kernels for it on a CPU, where the file is checked",
                "let {model.factory} build the model in float32, which holds all"
                " bfloat16 weights; or set {formats.onnx} to false",
                options=["model.factory", "formats.onnx"],
            )


@contextmanager
def _route_errors(
    route: str, opset: int, behaviour: Behaviour | None = None
) -> Iterator[None]:
    """One error for whatever a route raises; torch's exporters raise what they meet.

    Args:
        route: the route.
        opset: the asked opset.
        behaviour: what was seen of the model, where it ran.

    Raises:
        ExportError: the route can't export the model.
    """
    try:
        yield
    except CheckpointReleaseError:
        raise
    except (Exception, SystemExit) as error:
        why, remedy = "", "change what forward does there"
        if behaviour is not None:
            why, remedy = explanation(error, behaviour, has_complex=False)
        raise ExportError(
            f"the {route} route can't export the model at opset {opset}:"
            f" {_cause(error)}{why}",
            f"{remedy}, or set {{formats.onnx}} to false",
            options=["formats.onnx"],
        ) from error


def _cause(error: BaseException) -> str:
    """The first line of the innermost error: torch wraps the model's own in pages of
    its own.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    kind = type(error).__name__
    for line in str(error).splitlines():
        if line.strip():
            return f"{kind}: {line.strip()[:300]}"
    return kind


# --------------------------------------------------------------------------------------


def _direct(checkpoint: CheckpointFolder, opset: int) -> ExportedGraph:
    """The graph that the family describes, over the mapped weights.

    Raises:
        ExportError: it can't describe this model.
    """
    architecture = checkpoint.architecture
    tensors = open_safetensors(checkpoint.weights)
    onnx_graph = architecture.hook("onnx_graph")
    try:
        model = onnx_graph(
            architecture.kwargs, MappedArrays(tensors), architecture.signature, opset
        )
    except ModelError as error:
        # an export's failure, after which auto tries the other routes
        raise ExportError.combined([error]) from error
    return ExportedGraph(model, tensors)


class MappedArrays(Mapping[str, Array]):
    """The tensors of a file as arrays over it, each read when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name].numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _through_torchscript(traceable: Traceable, opset: int) -> ExportedGraph:
    """The graph of torch.onnx.export by tracing, cleaned."""
    import torch

    from checkpoint_release.exporting.tracing import silence_known_warnings

    file = io.BytesIO()
    with silence_known_warnings(), torch.no_grad():
        torch.onnx.export(
            traceable.module,
            traceable.arguments,
            file,  # type: ignore[arg-type]  # the tracing exporter takes a file, its stub only paths
            dynamo=False,
            opset_version=opset,
            input_names=traceable.signature.input_names,
            output_names=traceable.signature.output_names,
            dynamic_axes={
                spec.name: spec.dynamic_axes for spec in traceable.signature.inputs
            },
            # The weights are streamed later, under their own names; folding would put
            # tables and transposed copies into the graph, computed by this machine's
            # arithmetic.
            export_params=False,
            do_constant_folding=False,
        )
    return _cleaned(onnx.load_from_string(file.getvalue()), traceable)


def _through_dynamo(traceable: Traceable, opset: int) -> ExportedGraph:
    """The graph of torch.onnx.export by torch.export, cleaned."""
    import onnx_ir
    import torch

    from checkpoint_release.exporting.tracing import (
        export_program,
        silence_known_warnings,
    )

    with silence_known_warnings(), torch.no_grad():
        # Given a module, torch.onnx.export falls back on ways that quietly make
        # constants of dynamic sizes.
        exported = export_program(
            traceable.module, traceable.arguments, (traceable.dynamic_shapes(),)
        )
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=opset,
            input_names=traceable.signature.input_names,
            output_names=traceable.signature.output_names,
            optimize=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101, torch's stub allows None for the tracing exporter
    _make_inputs_of_weights(program.model.graph, traceable.model.state_dict())
    return _cleaned(onnx_ir.to_proto(program.model), traceable)


def _make_inputs_of_weights(graph: Any, state_dict: Mapping[str, Any]) -> None:
    """Turn an onnx_ir graph's weights into inputs, in place: their data comes later."""
    names = list(graph.initializers)
    for name in names:
        if name.removeprefix(MODULE) in state_dict:
            value = graph.initializers.pop(name)
            value.const_value = None
            graph.inputs.append(value)


def _cleaned(model: ModelProto, traceable: Traceable) -> ExportedGraph:
    """What an exporter wrote, cleaned and with the model's own weights.

    Args:
        model: weights are inputs after the signature's.
        traceable: what was exported.
    """
    state_dict = traceable.model.state_dict()
    weights = {name: tensor.numpy() for name, tensor in state_dict.items()}
    title = type(traceable.model).__name__
    cleaned = clean(model, traceable.signature, weights, title)
    decisions = traceable.behaviour.decisions
    return ExportedGraph(cleaned, weights, traceable.run, decisions)
