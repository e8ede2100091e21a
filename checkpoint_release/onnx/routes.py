"""The ways from a checkpoint to an ONNX graph, and the opsets that each can write.

    direct       the family's own graph, without torch; the weights stay mapped and keep names and bytes
    torchscript  torch.onnx.export by tracing (dynamo=False)
    dynamo       torch.onnx.export by torch.export (dynamo=True); slow, and the only general way past opset 20

A route gives a graph without weights (see onnx_file) and the arrays that belong into
it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import ModelProto, helper

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.errors import (
    CheckpointReleaseError,
    ExportError,
    ModelError,
    OpsetError,
)
from checkpoint_release.core.params import OnnxParams
from checkpoint_release.core.signature import Array
from checkpoint_release.exporting.shape_check import Run
from checkpoint_release.onnx.clean import MODULE, clean
from checkpoint_release.tensors.safetensors import open_safetensors
from checkpoint_release.tensors.tensor import Tensor, TensorLike

if TYPE_CHECKING:
    from checkpoint_release.exporting.tracing import Traceable

Weights = Mapping[str, Array | TensorLike]
"""Name → array, or tensor in a mapped file."""

OPSETS = {
    "direct": range(14, 26),
    "torchscript": range(14, 21),
    "dynamo": range(18, 26),
}


@dataclass(frozen=True)
class Exported:
    """A graph on its way to a file.

    Attributes:
        model: a clean graph, its weights without data.
        weights: name → array, or tensor in a mapped file, for every initialiser without
            data.
        eager: runs the torch model that it was made from; None on the direct route.
    """

    model: ModelProto
    weights: Weights
    eager: Run | None = None


def plan(params: OnnxParams, architecture: Architecture) -> tuple[list[str], int]:
    """The routes to try, in order, and the IR version, decided before any work is done.

    Raises:
        OpsetError: no allowed route writes this opset, or the opset doesn't go with the
            pinned IR version.
        ExportError: the direct route is asked for, and the model's family has none.
    """
    has_direct = architecture.hook("onnx_graph") is not None
    possible = [name for name in OPSETS if name != "direct" or has_direct]
    if params.exporter == "direct" and not has_direct:
        raise ExportError(
            f"onnx.exporter is direct, and {architecture.factory} describes no ONNX"
            " graph of its own",
            "set onnx.exporter to auto",
        )
    allowed = possible if params.exporter == "auto" else [params.exporter]
    routes = [name for name in allowed if params.opset in OPSETS[name]]
    if not routes:
        own = ", ".join(
            f"{name} {OPSETS[name].start} to {OPSETS[name].stop - 1}"
            for name in possible
        )
        raise OpsetError(
            f"onnx.opset is {params.opset}, and onnx.exporter {params.exporter} can't"
            " write it",
            f"for this model choose among: {own}; or set onnx.exporter to auto",
        )
    return routes, _ir_version(params)


def _ir_version(params: OnnxParams) -> int:
    lowest = helper.find_min_ir_version_for([helper.make_opsetid("", params.opset)])
    if params.ir_version is None:
        return lowest
    if not lowest <= params.ir_version <= onnx.IR_VERSION:
        raise OpsetError(
            f"onnx.ir_version is {params.ir_version}, and opset {params.opset} goes"
            f" with {lowest} to {onnx.IR_VERSION}",
            "set onnx.ir_version to null, or lower onnx.opset",
        )
    return params.ir_version


def export(route: str, checkpoint: Path, params: OnnxParams) -> Exported:
    """Take one route.

    Args:
        route: a key of OPSETS.
        checkpoint: the folder that `load` wrote.
        params: the opset counts.

    Raises:
        ExportError: the route can't export this model; the message names the cause and
            what to try.
    """
    routes: dict[str, Callable[[Path, int], Exported]]
    routes = {
        "direct": _direct,
        "torchscript": _through_torchscript,
        "dynamo": _through_dynamo,
    }
    try:
        return routes[route](checkpoint, params.opset)
    except CheckpointReleaseError:
        raise
    except (Exception, SystemExit) as error:
        # torch's exporters raise whatever the model met
        others = [
            name
            for name in ("torchscript", "dynamo")
            if name != route and params.opset in OPSETS[name]
        ]
        raise ExportError(
            f"the {route} route can't export the model at opset {params.opset}:"
            f" {_cause(error)}",
            " or ".join(
                [
                    *(f"set onnx.exporter to {name}" for name in others),
                    "change what forward does there",
                ],
            ),
        ) from error


def _cause(error: BaseException) -> str:
    """The first line of the innermost error: torch wraps the model's own in pages of
    its own.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    )


# --------------------------------------------------------------------------------------


def _direct(checkpoint: Path, opset: int) -> Exported:
    folder = CheckpointFolder.open(checkpoint)
    architecture = folder.architecture
    tensors = open_safetensors(folder.weights)
    graph = architecture.hook("onnx_graph")
    try:
        model = graph(
            architecture.kwargs, MappedArrays(tensors), architecture.signature, opset
        )
    except ModelError as error:
        # as an export's, after which onnx.exporter auto tries the other routes
        raise ExportError(error.problem, error.remedy) from error
    return Exported(model, tensors)


class MappedArrays(Mapping[str, Array]):
    """The tensors of a file as arrays over it, each made when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name].numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _through_torchscript(checkpoint: Path, opset: int) -> Exported:
    import torch

    from checkpoint_release.exporting.tracing import Traceable, silence_known_warnings

    traceable = Traceable.open(checkpoint)
    signature = traceable.signature
    file = io.BytesIO()
    with silence_known_warnings(), torch.no_grad():
        torch.onnx.export(
            traceable.module,
            traceable.arguments,
            file,  # type: ignore[arg-type]  # the tracing exporter takes a file, its stub only paths
            dynamo=False,
            opset_version=opset,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            dynamic_axes={
                spec.name: _named_axes(spec.shape) for spec in signature.inputs
            },
            # The weights are streamed later, under their own names; folding would put
            # tables and transposed copies into the graph, computed by this machine's
            # arithmetic.
            export_params=False,
            do_constant_folding=False,
        )
    return _cleaned(onnx.load_from_string(file.getvalue()), traceable)


def _through_dynamo(checkpoint: Path, opset: int) -> Exported:
    import onnx_ir
    import torch

    from checkpoint_release.exporting.tracing import Traceable, silence_known_warnings

    traceable = Traceable.open(checkpoint)
    signature = traceable.signature
    with silence_known_warnings(), torch.no_grad():
        program = torch.onnx.export(
            # Given a module, the exporter falls back on ways that quietly make
            # constants of dynamic sizes.
            torch.export.export(
                traceable.module,
                traceable.arguments,
                dynamic_shapes=(traceable.dynamic_shapes(),),
            ),
            dynamo=True,
            opset_version=opset,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            optimize=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101, torch's stub allows None for the tracing exporter
    graph = program.model.graph
    own = traceable.model.state_dict()
    for name in [
        name for name in graph.initializers if name.removeprefix(MODULE) in own
    ]:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    return _cleaned(onnx_ir.to_proto(program.model), traceable)


def _cleaned(model: ModelProto, traceable: Traceable) -> Exported:
    weights = {
        name: tensor.numpy() for name, tensor in traceable.model.state_dict().items()
    }
    cleaned = clean(model, traceable.signature, weights, type(traceable.model).__name__)
    return Exported(cleaned, weights, traceable.run)


def _named_axes(shape: Sequence[int | str] | None) -> dict[int, str]:
    return {
        axis: size for axis, size in enumerate(shape or ()) if isinstance(size, str)
    }
