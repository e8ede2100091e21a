"""Which format a file or folder is, by what it holds, whatever it is called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    WEIGHTS_FILE,
)
from checkpoint_release.core.artifacts.formats import (
    ONNX,
    SAFETENSORS,
    TORCH_EXPORT,
    TORCHSCRIPT,
)
from checkpoint_release.core.artifacts.manifest import MANIFEST
from checkpoint_release.core.errors import CheckpointError, InferenceError, first_few
from checkpoint_release.pth.file_kind import identify
from checkpoint_release.pth.kinds import Kind
from checkpoint_release.tensors.tensor import MappedFile

PTH = str(Kind.PTH)
SUPPORTED = (
    "supported are .safetensors, .onnx, TorchScript (.pt), torch.export (.pt2),"
    " checkpoints of torch.save (.pth), folders of artifacts or releases, and"
    " repositories on a Hub (organisation/name)"
)
_MAX_LISTED = 8

# Where a format lies in a folder: of an artifact, or of a release. In a folder with
# several formats, the first is taken.
_IN_FOLDER = {
    SAFETENSORS.name: (SAFETENSORS.file, f"{SAFETENSORS.file}.index.json"),
    CHECKPOINT: (WEIGHTS_FILE,),
    ONNX.name: (ONNX.file, ONNX.path_in_release(ONNX.file)),
    TORCHSCRIPT.name: (TORCHSCRIPT.file, TORCHSCRIPT.path_in_release(TORCHSCRIPT.file)),
    TORCH_EXPORT.name: (
        TORCH_EXPORT.file,
        TORCH_EXPORT.path_in_release(TORCH_EXPORT.file),
    ),
}
_WHOLE_FOLDER = (SAFETENSORS.name, CHECKPOINT)  # other formats are opened by a file
LOADABLE = (*_IN_FOLDER, PTH)


@dataclass(frozen=True)
class Detected:
    """A model that was found.

    Attributes:
        format: one of LOADABLE.
        path: the file or folder to open.
    """

    format: str
    path: Path


def detect(path: Path, format: str | None = None) -> Detected:
    """Find the model that a file or folder holds.

    Args:
        path: an existing file or folder.
        format: for a folder, the one to take; None: the first that is there.

    Raises:
        InferenceError: it is none that is supported, or not the asked one; the message
            names what was found.
        OSError: it can't be read.
    """
    detected = _in_folder(path, format) if path.is_dir() else _in_file(path)
    if format not in (None, detected.format):
        raise InferenceError(
            f"{path} is {detected.format}, and {format} was asked for",
            "leave out {format}, or name another file",
            options=["format"],
        )
    return detected


def _in_folder(folder: Path, format: str | None) -> Detected:
    """The model in a folder.

    Args:
        folder: of an artifact, a checkpoint or a release.
        format: the one to take; None: the first that is there.

    Raises:
        InferenceError: it isn't there; the message lists what is.
    """
    formats = _IN_FOLDER if format is None else (format,)
    for name in formats:
        for candidate in _IN_FOLDER.get(name, ()):
            file = folder / candidate
            if not file.is_file():
                continue
            return Detected(name, folder if name in _WHOLE_FOLDER else file)
    raise _no_model(folder, format)


def _no_model(folder: Path, format: str | None) -> InferenceError:
    """The error about a folder that holds no model, or none in the asked format.

    Args:
        folder: its content is listed in the message.
        format: the one that was asked for; None: any.
    """
    asked = f" in the format {format}" if format else ""
    names = sorted(item.name for item in folder.iterdir())
    content = f"it holds {first_few(names, _MAX_LISTED)}" if names else "it is empty"
    remedy = SUPPORTED
    if names == [MANIFEST]:
        remedy = (
            "the folder of a format that is switched off holds a manifest alone;"
            f" {SUPPORTED}"
        )
    return InferenceError(f"{folder} holds no model{asked}: {content}", remedy)


def _in_file(path: Path) -> Detected:
    """The model in a file, whatever its name is.

    Args:
        path: an existing file. Weights beside a checkpoint.json stand for their folder,
            because without it nothing says which model they belong to.

    Raises:
        InferenceError: it isn't one that is supported, or a damaged archive.
    """
    try:
        found = identify(MappedFile.of_file(path))
    except CheckpointError as error:  # a zip archive that is damaged
        raise InferenceError(f"{path}: {error.problem}", error.remedy) from None
    if found.kind is Kind.UNSUPPORTED:
        name = f", though its name ends in {path.suffix}" if path.suffix else ""
        raise InferenceError(
            f"{path} is not a model{name}: it is {found.description}",
            f"{found.remedy}; {SUPPORTED}",
        )
    if found.kind is Kind.SAFETENSORS and (path.parent / FACTS_FILE).is_file():
        return Detected(CHECKPOINT, path.parent)
    return Detected(str(found.kind), path)
