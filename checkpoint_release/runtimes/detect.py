"""Which format a file or folder is: told by what it holds, whatever it is called."""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.errors import CheckpointError, InferenceError
from checkpoint_release.pth.file_kind import Kind, identify
from checkpoint_release.tensors.tensor import MappedFile

SUPPORTED = (
    "supported are .safetensors, .onnx, TorchScript (.pt), torch.export (.pt2),"
    " checkpoints of torch.save (.pth), folders of artifacts or releases, and"
    " repositories on a Hub (organisation/name)"
)

# In a folder with several, the first is taken.
_IN_FOLDER = {
    "safetensors": ("model.safetensors", "model.safetensors.index.json"),
    "checkpoint": ("weights.safetensors",),
    "onnx": ("model.onnx", "onnx/model.onnx"),
    "torchscript": ("model.pt", "torchscript/model.pt"),
    "torch_export": ("model.pt2", "torch_export/model.pt2"),
}
FORMATS = (*_IN_FOLDER, "pth")


def detect(path: Path, format: str | None = None) -> tuple[str, Path]:
    """The format of a file or folder, and the file or folder that open_runtime takes
    for it.

    Args:
        path: an existing file or folder.
        format: for a folder, the one to take; None: the first that is there.

    Raises:
        InferenceError: it is none that is supported, or not the asked one; the message
            says what was found.
    """
    found, target = (
        _in_folder(path, format) if path.is_dir() else (_of_file(path), path)
    )
    if format not in (None, found):
        raise InferenceError(
            f"{path} is {found}, and {format} was asked for",
            "drop format, or name another file",
        )
    if (
        found == "safetensors"
        and path.is_file()
        and (path.parent / "checkpoint.json").is_file()
    ):
        return "checkpoint", path.parent
    return found, target


def _in_folder(folder: Path, format: str | None) -> tuple[str, Path]:
    present = {
        name: next((folder / file for file in files if (folder / file).is_file()), None)
        for name, files in _IN_FOLDER.items()
    }
    there = [name for name, file in present.items() if file]
    wanted = format or (there[0] if there else "")
    file = present.get(wanted)
    if file is None:
        names = sorted(item.name for item in folder.iterdir())
        holds = (
            f"it holds {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
            if names
            else "it is empty"
        )
        asked = f" in the format {format}" if format else ""
        lack = (
            "a format that params.yaml switches off leaves a manifest alone; "
            if names == ["manifest.json"]
            else ""
        )
        raise InferenceError(
            f"{folder} holds no model{asked}: {holds}", lack + SUPPORTED
        )
    return wanted, file.parent if wanted in ("safetensors", "checkpoint") else file


def _of_file(path: Path) -> str:
    try:
        kind = identify(MappedFile.of_file(path))
    except CheckpointError as error:  # a zip archive that is damaged
        raise InferenceError(f"{path}: {error.problem}", error.remedy) from None
    if kind.kind is Kind.UNSUPPORTED:
        name = f", though its name ends in {path.suffix}" if path.suffix else ""
        raise InferenceError(
            f"{path} is not a model{name}: it is {kind.description}",
            f"{kind.remedy}; {SUPPORTED}",
        )
    return str(kind.kind)
