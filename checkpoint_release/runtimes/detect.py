"""Which format a file or folder is: told by what it holds, whatever it is called."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterator
from pathlib import Path

from checkpoint_release.core.errors import CheckpointError, InferenceError
from checkpoint_release.pth.container import recognize

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
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise InferenceError(
                f"{path} is empty: 0 bytes", f"download or export it again; {SUPPORTED}"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if _is_safetensors(content):
                return "safetensors"
            if content[:4] == b"PK\x03\x04":
                return _of_archive(path)
            if _is_onnx(content):
                return "onnx"
            head = content[:4096]
    try:
        recognize(memoryview(head))
    except CheckpointError as error:
        name = f", though its name ends in {path.suffix}" if path.suffix else ""
        what = (
            error.problem.removeprefix("the file ")
            .removeprefix("is not a checkpoint but ")
            .rstrip(".")
        )
        raise InferenceError(f"{path} is no model{name}: {what}", SUPPORTED) from None
    return "pth"


def _of_archive(path: Path) -> str:
    """TorchScript, torch.export and torch.save all write zip files."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise InferenceError(
            f"{path} begins as a zip archive and is damaged or cut short: {error}",
            "download or export it again",
        ) from None
    if "constants.pkl" in names:
        return "torchscript"
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "torch_export"
    if "data.pkl" in names:
        return "pth"
    shown = ", ".join(sorted(names)[:3])
    raise InferenceError(
        f"{path} is a zip archive of {len(names)} files ({shown}, …) and no model",
        SUPPORTED,
    )


def _is_safetensors(content: mmap.mmap) -> bool:
    """Eight bytes of header length, then a JSON header that fits into the file."""
    length = int.from_bytes(content[:8], "little")
    return 2 <= length <= len(content) - 8 and content[8:9] == b"{"


def _is_onnx(content: mmap.mmap) -> bool:
    """Whether the file is one ModelProto: its fields follow each other to the last
    byte, a graph among them.

    https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, message ModelProto; 20 and
    25 are training_info and functions. Protobuf has no mark of its own, so each field's
    number and wire type has to be one that it may have.
    """
    numbers = {
        1: 0,
        2: 2,
        3: 2,
        4: 2,
        5: 0,
        6: 2,
        7: 2,
        8: 2,
        14: 2,
        20: 2,
        25: 2,
        26: 2,
    }
    seen = set()
    try:
        for number, wire in _protobuf_fields(content):
            if numbers.get(number) != wire:
                return False
            seen.add(number)
    except (IndexError, ValueError):
        return False
    return {1, 7} <= seen


def _protobuf_fields(content: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Number and wire type of each field of a message; what has a length is stepped
    over, not read.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a varint of more than 64 bits")

    while at < len(content):
        tag = varint()
        yield tag >> 3, tag & 7
        size = varint()
        at += size if tag & 7 == 2 else 0
    if at != len(content):
        raise ValueError("the last field ends outside of the file")
