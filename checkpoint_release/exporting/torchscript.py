"""The model as TorchScript: one flat function over a tree of modules that hold the
weights by their own names.

Tracing the model itself would make a method of every module, named after its Python
package. torch calls TorchScript deprecated; it is still what C++ and mobile programs
load.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Signature
from checkpoint_release.exporting.shape_check import check_shapes
from checkpoint_release.exporting.torch_archive import check_archive, rewrite
from checkpoint_release.exporting.torchscript_classes import rename_classes
from checkpoint_release.exporting.tracing import (
    Traceable,
    model_export,
    require_room_for,
    run,
    silence_known_warnings,
    with_argument_names,
)

_DEVICE = re.compile(rb'torch\.device\("(\w+)"\)')


def write_torchscript(traceable: Traceable, file: Path, config: str) -> None:
    """Trace the model into a file that can be used alone, and check the file.

    Args:
        traceable: the model.
        file: the .pt file.
        config: the text of config.json, which the file carries.

    Raises:
        ExportError: the model can't be traced; or the file doesn't compute what the
            model does at other sizes, or takes inputs of other names.
    """
    raw = file.with_name("raw.pt")
    with model_export("torchscript", traceable), silence_known_warnings():
        traced = trace(traceable)
        require_room_for(file, traceable.model)
        torch.jit.save(traced, str(raw), _extra_files={"config.json": config})
        rewrite(raw, file, drop=is_debugging, edit=rename_classes, move=True)
        loaded = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
    _check_inputs(file, loaded, traceable.signature)
    check_archive(file)
    _note_devices(file)
    # to optimise would take longer than to run three times
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        check_shapes(
            file.name,
            traceable.signature,
            lambda inputs: run(loaded, inputs),
            traceable.run,
            traceable.behaviour.decisions,
        )


def trace(traceable: Traceable) -> Any:
    """The traced module, with the signature's argument names."""
    # in a closure, so that the tracer sees one function and no modules
    compute = traceable.module
    tree = _weights_only(traceable.model)

    def forward(self: Any, *inputs: Any) -> Any:
        return compute(*inputs)

    type(tree).forward = with_argument_names(forward, traceable.signature)
    with torch.no_grad():
        # The tracer's own check would run the model once more at the same sizes;
        # check_shapes runs the file at others.
        return torch.jit.trace(tree, traceable.arguments, check_trace=False)  # type: ignore[no-untyped-call]


def is_debugging(record: str) -> bool:
    """Whether an archive's record serves debugging only: source ranges with paths, and
    the inputs traced with.
    """
    return record.endswith(".debug_pkl") or record.startswith("traced_inputs")


def _weights_only(module: nn.Module) -> Any:
    """The module's weights and submodules without its code.

    Each is in a class of its own that has the name of the original's. Parameters and
    buffers are the module's own, not copies.
    """
    holder = type(type(module).__name__, (nn.Module,), {"__module__": "__main__"})()
    for name, parameter in module._parameters.items():
        holder.register_parameter(name, parameter)
    for name, buffer in module._buffers.items():
        persistent = name not in module._non_persistent_buffers_set
        holder.register_buffer(name, buffer, persistent=persistent)
    for name, child in module._modules.items():
        if child is not None:
            holder.add_module(name, _weights_only(child))
    return holder.eval()


def _check_inputs(file: Path, loaded: Any, signature: Signature) -> None:
    """The loaded module must take the signature's names.

    Raises:
        ExportError: it takes others.
    """
    names = [argument.name for argument in loaded.forward.schema.arguments[1:]]
    if names != signature.input_names:
        raise ExportError(
            f"{file.name} takes {names}, and the signature names"
            f" {signature.input_names}",
            "rename the inputs",
        )


def _note_devices(file: Path) -> None:
    """Print a note when the trace has fixed a device: such a file runs there only,
    whatever map_location says.
    """
    devices: set[str] = set()
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                found = _DEVICE.findall(archive.read(name))
                devices.update(device.decode() for device in found)
    if devices:
        print(
            f"note: {file.name} makes tensors on the device"
            f" {', '.join(sorted(devices))} wherever it runs; map_location doesn't move"
            " them"
        )
