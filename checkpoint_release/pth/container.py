"""Which container a file is, and what a file that isn't a checkpoint is instead, and
what helps.
"""

from __future__ import annotations

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth.archive import Archive

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_SAVE = "load it in the code that wrote it, and save model.state_dict() with torch.save"

_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer: the file itself was not downloaded",
        "run git lfs pull, or download the file from its page",
    ),
    (
        b"/annex/objects/",
        "a git-annex pointer: the file itself was not downloaded",
        "run git annex get on it",
    ),
    (b"\x1f\x8b", "a gzip file", "unpack it with gunzip, or tar -xzf, first"),
    (b"BZh", "a bzip2 file", "unpack it with bunzip2 first"),
    (b"\xfd7zXZ", "an xz file", "unpack it with unxz first"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file", "unpack it with unzstd first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first"),
    (
        b"\x89HDF",
        "an HDF5 file, as Keras writes it",
        "give a PyTorch checkpoint in checkpoint.path",
    ),
    (
        b"GGUF",
        "a GGUF file, as llama.cpp reads it",
        "take the PyTorch checkpoint that it was made from",
    ),
    (b"\x93NUMPY", "a numpy array", "save a state dict of tensors with torch.save"),
    (b"PK\x05\x06", "an empty zip archive", "save the checkpoint again"),
    (b"\x7fELF", "a program", "look where the path points"),
    (b"%PDF", "a PDF", "look where the path points"),
)


def recognize(view: memoryview) -> str:
    """ "zip", or "pickle" for what may be the legacy format.

    Raises:
        CheckpointError: it is something else, named in the message.
    """
    head = bytes(view[:4096])
    if not head:
        raise CheckpointError(
            "the checkpoint is empty: 0 bytes", "save or download it again"
        )
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    for beginning, what, remedy in _BEGINNINGS:
        if head.startswith(beginning):
            raise CheckpointError(f"the file is not a checkpoint but {what}", remedy)
    if head[257:262] == b"ustar":
        raise CheckpointError(
            "the file is a tar archive, the format of torch before 0.1.10",
            "load it with the torch that wrote it and save it again, or unpack it if it"
            " holds a checkpoint",
        )
    if _is_safetensors(view, head):
        raise CheckpointError(
            "the file is not a checkpoint but safetensors under another name: it needs"
            " no loading",
            "give the file that torch.save wrote in checkpoint.path; a safetensors file"
            " can be released as it is",
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(
            "the file is not a checkpoint but a web page: the download was answered"
            " with a login, a warning or an error",
            "open it in a browser to see what it says, and download the file again",
        )
    if text.startswith((b"{", b"[")):
        raise CheckpointError(
            "the file is not a checkpoint but JSON, maybe a server's error message",
            "look into it with a text editor",
        )
    if _is_onnx(head):
        raise CheckpointError(
            "the file is not a checkpoint but an ONNX model",
            "take the PyTorch checkpoint that it was exported from",
        )
    if not any(head) and not any(bytes(view[:: max(1, len(view) // 4096)])):
        raise CheckpointError(
            f"the file holds {len(view)} bytes of zeros: a download that was begun and"
            " not finished",
            "download it again",
        )
    if head[0] in b"\x80LI(":
        return "pickle"
    raise CheckpointError(
        "the file is no checkpoint that torch.save wrote: it begins with"
        f" {head[:16]!r}",
        "look where checkpoint.path points",
    )


def pickle_name(archive: Archive) -> str:
    """The name of the checkpoint's pickle within the archive.

    Raises:
        CheckpointError: the archive is something else: TorchScript, torch.export, a
        package, or just a zip file.
    """
    names = archive.entries
    last = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in last:
        raise CheckpointError(
            "the file is not a checkpoint but a TorchScript archive: a program with its"
            " weights, from torch.jit.save",
            "run torch.save(torch.jit.load(path).state_dict(), new_path) and point"
            " checkpoint.path there",
        )
    if "archive_format" in last or "serialized_exported_program.json" in last:
        raise CheckpointError(
            "the file is not a checkpoint but a program that torch.export.save wrote"
            " (.pt2)",
            "run torch.save(torch.export.load(path).state_dict, new_path) and point"
            " checkpoint.path there",
        )
    if any("/.data/extern_modules" in name for name in names):
        raise CheckpointError(
            "the file is not a checkpoint but a torch.package archive", _SAVE
        )
    found = sorted(
        name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")
    )
    if len(found) > 1:
        raise CheckpointError(
            f"the zip archive holds {len(found)} checkpoints: {', '.join(found[:5])}",
            _SAVE,
        )
    if found:
        return found[0]
    if any(name.endswith(".npy") for name in names):
        raise CheckpointError(
            "the file is not a checkpoint but numpy arrays (.npz)", _SAVE
        )
    inside = sorted(
        name
        for name in names
        if name.endswith((".pth", ".pt", ".ckpt", ".bin", ".safetensors"))
    )
    if inside:
        raise CheckpointError(
            f"the file is a zip archive with {inside[0]!r} in it",
            "unpack it and point checkpoint.path there",
        )
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        raise CheckpointError(
            "the checkpoint was packed again from another folder: data.pkl is not one"
            " folder deep",
            "pack it so that every name begins with the same single folder, as in"
            " archive/data.pkl",
        )
    shown = ", ".join(sorted(names)[:3])
    raise CheckpointError(
        f"the file is a zip archive, but not a checkpoint: it holds {len(names)}"
        f" entries ({shown[:200]}) and no data.pkl",
        "look where checkpoint.path points",
    )


def _is_safetensors(view: memoryview, head: bytes) -> bool:
    return (
        len(head) > 9
        and int.from_bytes(head[:8], "little") <= len(view) - 8
        and head[8:9] == b"{"
    )


def _is_onnx(head: bytes) -> bool:
    """A protobuf ModelProto begins with its IR version (field 1), then a producer, an
    opset or a graph.
    """
    return (
        len(head) > 2
        and head[0] == 0x08
        and 1 <= head[1] < 32
        and head[2] in b"\x12\x1a\x22\x3a\x42\x28"
    )
