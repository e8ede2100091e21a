"""The model as torch.export's program (.pt2), TorchScript's successor."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from checkpoint_release.exporting.shape_check import check_shapes
from checkpoint_release.exporting.torch_archive import check_archive, rewrite
from checkpoint_release.exporting.tracing import (
    Traceable,
    export_program,
    model_export,
    require_room_for,
    run,
    silence_known_warnings,
    with_argument_names,
)
from checkpoint_release.runtimes.eager import flatten

_KEPT_METADATA = ("val", "tensor_meta")


def write_torch_export(traceable: Traceable, file: Path, config: str) -> None:
    """Export the model into a file that can be used alone, and check the file.

    Args:
        traceable: the model.
        file: the .pt2 file.
        config: the text of config.json, which the file carries.

    Raises:
        ExportError: the model can't be exported, or the file doesn't compute what the
            model does at other sizes.
    """
    raw = file.with_name("raw.pt2")
    with (
        model_export("torch_export", traceable),
        silence_known_warnings(),
        torch.no_grad(),
    ):
        program = export_program(
            _with_signature(traceable),
            traceable.arguments,
            traceable.dynamic_shapes(),
        )
        _strip(program)
        require_room_for(file, traceable.model)
        torch.export.save(program, str(raw), extra_files={"config.json": config})
        rewrite(raw, file, move=True)
        loaded = torch.export.load(str(file)).module()
    check_archive(file)
    check_shapes(
        file.name,
        traceable.signature,
        lambda inputs: run(loaded, inputs),
        traceable.run,
        traceable.behaviour.decisions,
    )


def _with_signature(traceable: Traceable) -> nn.Module:
    """The model itself, and so with its own names of weights, with a forward as the
    signature has it.
    """
    kind = type(traceable.model)
    names = traceable.signature.input_names

    def forward(self: Any, *inputs: Any) -> Any:
        named = dict(zip(names, inputs, strict=True))
        return tuple(flatten(kind.forward(self, **named)))

    methods = {"forward": with_argument_names(forward, traceable.signature)}
    model = copy.copy(traceable.model)
    model.__class__ = type(kind.__name__, (kind,), methods)
    return model


def _strip(program: ExportedProgram) -> None:
    """Take out stack traces, scopes of the exported module, and the example inputs,
    which would be a pickle in the file.
    """
    for node in program.graph.nodes:
        node.meta = {
            key: value for key, value in node.meta.items() if key in _KEPT_METADATA
        }
    program.example_inputs = None
