"""Stage export-torchscript: the checkpoint as TorchScript, and as torch.export's .pt2
where asked for.

    python -m pipeline.export_torchscript

Reads artifacts/checkpoint; writes artifacts/torchscript (model.pt, config.json) and
artifacts/torch_export (model.pt2, config.json). torch calls TorchScript deprecated and
torch.export its successor; TorchScript is still what C++ and mobile programs load.
"""

from __future__ import annotations

import copy
import inspect
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.errors import CheckpointReleaseError, ExportError, one_line
from checkpoint_release.core.files import artifact_folder
from checkpoint_release.core.params import load_params
from checkpoint_release.exporting.config_json import model_config

if TYPE_CHECKING:
    from torch import nn

    from checkpoint_release.core.signature import Signature
    from checkpoint_release.exporting.tracing import Traceable


def main() -> None:
    """Write artifacts/torchscript and artifacts/torch_export."""
    formats = load_params().formats
    checkpoint = stage.ARTIFACTS / "checkpoint"
    for format, enabled, write in (
        ("torchscript", formats.torchscript, write_torchscript),
        ("torch_export", formats.torch_export, write_torch_export),
    ):
        if enabled:
            export(checkpoint, stage.ARTIFACTS / format, format, write)
        else:
            with artifact_folder(stage.ARTIFACTS / format) as folder:
                write_manifest(folder, format, enabled=False)


def export(
    source: Path,
    target: Path,
    format: str,
    write: Callable[[Traceable, Path, str], None],
) -> None:
    """Write one format's folder.

    Args:
        source: the folder that `load` wrote.
        target: the folder to replace, whole or not at all.
        format: its name in the manifest.
        write: write_torchscript or write_torch_export.

    Raises:
        ExportError: the model can't be exported, or what was written doesn't hold.
    """
    import torch

    from checkpoint_release.exporting.tracing import Traceable

    checkpoint = CheckpointFolder.open(source)
    config = model_config(checkpoint.facts)
    traceable = Traceable.open(source)
    with artifact_folder(target) as folder:
        try:
            write(traceable, folder, config.text())
        except CheckpointReleaseError:
            raise
        except (Exception, SystemExit) as error:  # tracing runs the model's own code
            reason = f"{type(error).__name__}: {one_line(error, 400)}"
            raise ExportError(
                f"{format}: exporting {type(traceable.model).__name__} failed:"
                f" {reason}",
                f"change what forward does there, or set formats.{format} to false",
            ) from error
        config.write(folder)
        # +cpu or +cu130 says what the machine has, not what was made
        version = torch.__version__.partition("+")[0]
        facts = {"versions": {"torch": version}}
        manifest = write_manifest(
            folder, format, made_from=checkpoint.manifest().sha256s, facts=facts
        )
    size = sum(entry.size for entry in manifest.files.values())
    print(f"{target}: {size / 1e6:,.1f} MB, torch {version}")


# --------------------------------------------------------------------------------------


def write_torchscript(traceable: Traceable, folder: Path, config: str) -> None:
    """Trace the model into model.pt, and check the file, which carries `config` so that
    it can be used alone.

    The trace is one flat function over a tree of modules that hold the weights by their
    own names: tracing the model itself would make a method of every module, named after
    its Python package.

    Raises:
        ExportError: the file doesn't compute what the model does at other sizes, or
            takes other names.
    """
    import torch

    from checkpoint_release.exporting.shape_check import check_shapes
    from checkpoint_release.exporting.torch_archive import (
        is_debugging,
        rename_classes,
        rewrite,
    )
    from checkpoint_release.exporting.tracing import run, silence_known_warnings

    raw, file = folder / "raw.pt", folder / "model.pt"
    with silence_known_warnings():
        with torch.no_grad():
            # The tracer's own check runs the model once more at the same sizes; the
            # probe runs the file at others.
            traced = torch.jit.trace(
                _flat(traceable), traceable.arguments, check_trace=False
            )  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(raw), _extra_files={"config.json": config})
        rewrite(raw, file, drop=is_debugging, edit=rename_classes)
        raw.unlink()
        loaded = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
    takes = [argument.name for argument in loaded.forward.schema.arguments[1:]]
    expected = [spec.name for spec in traceable.signature.inputs]
    if takes != expected:
        raise ExportError(
            f"{file.name} takes {takes}, and the signature names {expected}",
            "rename the inputs",
        )
    check_archive(file)
    note_devices(file)
    with torch.jit.optimized_execution(False):  # type: ignore  # to optimise takes longer than to run three times
        check_shapes(
            file.name,
            traceable.signature,
            lambda inputs: run(loaded, inputs),
            traceable.run,
        )


def _flat(traceable: Traceable) -> Any:
    """A module with the model's weights and the signature's argument names, which
    computes what the model does.
    """
    # in a closure, so that the tracer sees one function and no modules
    compute = traceable.module
    tree = _holder(traceable.model)

    def forward(self: Any, *inputs: Any) -> Any:
        return compute(*inputs)

    type(tree).forward = _with_argument_names(forward, traceable.signature)
    return tree


def _with_argument_names(
    forward: Callable[..., Any], signature: Signature
) -> Callable[..., Any]:
    """A method that takes `*inputs`, declared as taking the signature's: the exporters
    ask `inspect` for the names.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["self", *(spec.name for spec in signature.inputs)]
    parameters = [inspect.Parameter(name, kind) for name in names]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward


def _holder(module: nn.Module) -> Any:
    """The module's weights and submodules without its code, in a class of its own of
    the same name.
    """
    from torch import nn

    holder = type(type(module).__name__, (nn.Module,), {"__module__": "__main__"})()
    for name, parameter in module._parameters.items():
        holder.register_parameter(name, parameter)
    for name, buffer in module._buffers.items():
        holder.register_buffer(
            name, buffer, persistent=name not in module._non_persistent_buffers_set
        )
    for name, child in module._modules.items():
        if child is not None:
            holder.add_module(name, _holder(child))
    return holder.eval()


# --------------------------------------------------------------------------------------


def write_torch_export(traceable: Traceable, folder: Path, config: str) -> None:
    """Export the model into model.pt2, and check the file, which carries `config` so
    that it can be used alone.

    Raises:
        ExportError: the file doesn't compute what the model does at other sizes.
    """
    import torch

    from checkpoint_release.exporting.shape_check import check_shapes
    from checkpoint_release.exporting.torch_archive import rewrite
    from checkpoint_release.exporting.tracing import run, silence_known_warnings

    raw, file = folder / "raw.pt2", folder / "model.pt2"
    with silence_known_warnings(), torch.no_grad():
        program = torch.export.export(
            _named(traceable),
            traceable.arguments,
            dynamic_shapes=traceable.dynamic_shapes(),
        )
        # stack traces, and scopes of the exported module
        for node in program.graph.nodes:
            node.meta = {
                key: value
                for key, value in node.meta.items()
                if key in ("val", "tensor_meta")
            }
        program.example_inputs = None  # they would be a pickle in the file
        torch.export.save(program, str(raw), extra_files={"config.json": config})
        rewrite(raw, file)
        raw.unlink()
        loaded = torch.export.load(str(file)).module()
    check_archive(file)
    check_shapes(
        file.name,
        traceable.signature,
        lambda inputs: run(loaded, inputs),
        traceable.run,
    )


def _named(traceable: Traceable) -> nn.Module:
    """The model itself, and so with its own names of weights, with a forward as the
    signature has it.
    """
    from checkpoint_release.runtimes.eager import flatten

    names, own = (
        [spec.name for spec in traceable.signature.inputs],
        type(traceable.model).forward,
    )

    def forward(self: Any, *inputs: Any) -> Any:
        return tuple(flatten(own(self, **dict(zip(names, inputs, strict=True)))))

    kind = type(traceable.model)
    named = copy.copy(traceable.model)
    named.__class__ = type(
        kind.__name__,
        (kind,),
        {"forward": _with_argument_names(forward, traceable.signature)},
    )
    return named


def check_archive(file: Path) -> None:
    """Look for paths in the archive's code and pickles.

    Raises:
        ExportError: there is one.
    """
    from checkpoint_release.exporting.path_leaks import find_path_leak
    from checkpoint_release.exporting.torch_archive import is_text

    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if is_text(name) and (leak := find_path_leak(archive.read(name))):
                raise ExportError(
                    f"{file.name}: {name} holds {leak!r}",
                    "this is a mistake of the exporter: report it",
                )


def note_devices(file: Path) -> None:
    """Say so when the trace has fixed a device: such a file runs there only, whatever
    map_location says.
    """
    with zipfile.ZipFile(file) as archive:
        code = b"".join(
            archive.read(name) for name in archive.namelist() if name.endswith(".py")
        )
    if devices := sorted(set(re.findall(rb'torch\.device\("(\w+)"\)', code))):
        fixed = ", ".join(device.decode() for device in devices)
        print(
            f"note: {file.name} makes tensors on the device {fixed} wherever it runs;"
            " map_location doesn't move them"
        )


if __name__ == "__main__":
    stage.run(main)
