"""What a file is, by what it holds and not by its name.

`identify` answers for the reader of checkpoints and for the loader of every format:
one of the formats that a model is released in, a checkpoint of torch.save, or something
else with a description of it and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from checkpoint_release.pth.archive import Archive
from checkpoint_release.tensors.tensor import MappedFile


class Kind(StrEnum):
    """The formats that a file can be read as; the values are the formats' names."""

    PTH = "pth"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    TORCH_EXPORT = "torch_export"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Attributes:
        kind: the format.
        description: completes the sentence "it is …".
        remedy: how to come to a checkpoint from it, as an imperative sentence.
    """

    kind: Kind
    description: str
    remedy: str


_ZIP = b"PK\x03\x04"
_READ_LENGTH = 4096  # bytes at the beginning that tell most formats
_SAVE_STATE_DICT = (
    "load it in the code that wrote it, and save model.state_dict() with torch.save"
)
_CHECK_PATH = "check that the path is that of a checkpoint"

_CHECKPOINT = FileKind(Kind.PTH, "a checkpoint that torch.save wrote", "")
_SAFETENSORS = FileKind(
    Kind.SAFETENSORS,
    "safetensors under another name: it needs no loading",
    "give the file that torch.save wrote; a safetensors file can be released as it is",
)
_ONNX = FileKind(
    Kind.ONNX,
    "an ONNX model",
    "take the PyTorch checkpoint that it was exported from",
)
_TORCHSCRIPT = FileKind(
    Kind.TORCHSCRIPT,
    "a TorchScript archive: a program with its weights, from torch.jit.save",
    "run torch.save(torch.jit.load(path).state_dict(), new_path) and give that file",
)
_TORCH_EXPORT = FileKind(
    Kind.TORCH_EXPORT,
    "a program that torch.export.save wrote (.pt2)",
    "run torch.save(torch.export.load(path).state_dict, new_path) and give that file",
)


def _unsupported(description: str, remedy: str) -> FileKind:
    """A kind of file that can't be read here; the arguments as in FileKind."""
    return FileKind(Kind.UNSUPPORTED, description, remedy)


# What people have by mistake: pointers and archives in place of the file, and the files
# of other frameworks. How each begins is its format's own magic number.
_MAGIC_NUMBERS = {
    b"version https://git-lfs": _unsupported(
        "a Git LFS pointer: the file itself was not downloaded",
        "run git lfs pull, or download the file from its page",
    ),
    b"/annex/objects/": _unsupported(
        "a git-annex pointer: the file itself was not downloaded",
        "run git annex get on it",
    ),
    b"\x1f\x8b": _unsupported(
        "a gzip file", "unpack it with gunzip, or tar -xzf, first"
    ),
    b"BZh": _unsupported("a bzip2 file", "unpack it with bunzip2 first"),
    b"\xfd7zXZ": _unsupported("an xz file", "unpack it with unxz first"),
    b"\x28\xb5\x2f\xfd": _unsupported(
        "a zstandard file", "unpack it with unzstd first"
    ),
    b"Rar!": _unsupported("a RAR archive", "unpack it first"),
    b"7z\xbc\xaf": _unsupported("a 7-Zip archive", "unpack it first"),
    b"\x89HDF": _unsupported(
        "an HDF5 file, as Keras writes it", "give a PyTorch checkpoint"
    ),
    b"GGUF": _unsupported(
        "a GGUF file, as llama.cpp reads it",
        "take the PyTorch checkpoint that it was made from",
    ),
    b"\x93NUMPY": _unsupported(
        "a numpy array", "save a state dict of tensors with torch.save"
    ),
    b"PK\x05\x06": _unsupported("an empty zip archive", "save the checkpoint again"),
    b"\x7fELF": _unsupported("a program", _CHECK_PATH),
    b"%PDF": _unsupported("a PDF", _CHECK_PATH),
}

_TAR = _unsupported(
    "a tar archive, the format of torch before 0.1.10",
    "load it with the torch that wrote it and save it again, or unpack it if it holds"
    " a checkpoint",
)
_WEB_PAGE = _unsupported(
    "a web page: the download was answered with a login, a warning or an error",
    "open it in a browser to see what it says, and download the file again",
)
_JSON = _unsupported("JSON, maybe a server's error message", "open it in a text editor")
_DAMAGED_ONNX = _unsupported(
    "an ONNX model that is damaged or cut short",
    "copy or download it again, or take the PyTorch checkpoint that it was exported"
    " from",
)
_PACKAGE = _unsupported("a torch.package archive", _SAVE_STATE_DICT)
_NUMPY_ARRAYS = _unsupported("numpy arrays (.npz)", _SAVE_STATE_DICT)
_REPACKED = _unsupported(
    "a checkpoint packed again from another folder: data.pkl is not one folder deep",
    "pack it so that every name begins with the same single folder, as in"
    " archive/data.pkl",
)


def identify(file: MappedFile) -> FileKind:
    """What the file is.

    Args:
        file: its name plays no part, since names are often wrong.

    Raises:
        CheckpointError: it begins as a zip archive, which is damaged or cut short.
    """
    if is_zip(file):
        return identify_archive(Archive(file))
    return identify_bytes(file.view)


def is_zip(file: MappedFile) -> bool:
    """Whether the file begins as a zip archive with an entry.

    By the signature of a local file header (APPNOTE.TXT 4.3.7). torch asks the same, so
    a zip archive behind other bytes is none to both (torch/serialization.py,
    _is_zipfile).
    """
    return bytes(file.view[: len(_ZIP)]) == _ZIP


def identify_bytes(view: memoryview) -> FileKind:
    """What a file is that is no zip archive.

    Formats with a structure to check come first, then those that only have a beginning,
    and last what any bytes could be. What may be a pickle is taken for a checkpoint of
    torch before 1.6: only reading it shows whether torch.save wrote it.

    Args:
        view: the whole file; of most only the beginning is looked at.
    """
    head = bytes(view[:_READ_LENGTH])
    if not head:
        return _unsupported("empty: 0 bytes", "save or download it again")
    if _is_safetensors(view):
        return _SAFETENSORS
    if _is_onnx(view):
        return _ONNX
    known = _known_beginning(head)
    if known is not None:
        return known
    if _is_zeros(view, head):
        return _unsupported(
            f"{len(view)} bytes of zeros: a download that was begun and not finished",
            "download it again",
        )
    # PROTO of protocol 2, LONG, INT or MARK: with what pickles of torch.save begin
    if head[0] in b"\x80LI(":
        return _CHECKPOINT
    return _unsupported(
        f"of no format that is known here: it begins with {head[:16]!r}", _CHECK_PATH
    )


def identify_archive(archive: Archive) -> FileKind:
    """What a zip archive is: torch.save, torch.jit and torch.export all write them.

    torch.jit puts a constants.pkl beside the data.pkl that all have, torch.export the
    version of its format, and torch.package a list of modules.

    Args:
        archive: only the names of its entries are looked at.
    """
    names = archive.entries
    last_parts = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last_parts:
        return _TORCHSCRIPT
    if last_parts & {"archive_format", "serialized_exported_program.json"}:
        return _TORCH_EXPORT
    if any("/.data/extern_modules" in name for name in names):
        return _PACKAGE
    pickles = checkpoint_pickles(archive)
    if len(pickles) == 1:
        return _CHECKPOINT
    if pickles:
        return _unsupported(
            f"a zip archive of {len(pickles)} checkpoints: {', '.join(pickles[:5])}",
            _SAVE_STATE_DICT,
        )
    return _identify_other_archive(sorted(names))


def checkpoint_pickles(archive: Archive) -> list[str]:
    """The names of the checkpoints' pickles in an archive, sorted; torch writes one.

    It lies one folder deep, as in "archive/data.pkl"; the folder's name is free: torch
    takes that of the first entry (caffe2/serialize/inline_container.cc). A second
    folder would leave open which pickle is the checkpoint, and readers could differ.
    """
    pickles = []
    for name in sorted(archive.entries):
        in_folder = name.partition("/")[2]
        if in_folder == "data.pkl":
            pickles.append(name)
    return pickles


def _identify_other_archive(names: list[str]) -> FileKind:
    """What a zip archive is that torch didn't write as it is.

    Args:
        names: of the entries, sorted; a file's own text, so a message shows only some.
    """
    for name in names:
        if name.endswith(".npy"):
            return _NUMPY_ARRAYS
    for name in names:
        if name.endswith((".pth", ".pt", ".ckpt", ".bin", ".safetensors")):
            return _unsupported(
                f"a zip archive with {name!r} in it", "unpack it and give that file"
            )
    for name in names:
        if name.rpartition("/")[2] == "data.pkl":
            return _REPACKED
    shown = ", ".join(names[:3])
    return _unsupported(
        f"a zip archive of {len(names)} files ({shown[:200]}) with no data.pkl",
        _CHECK_PATH,
    )


def _known_beginning(head: bytes) -> FileKind | None:
    """What a file is that begins as others of its format do.

    Text has no magic number: a byte order mark and white space may come before what
    shows its format.

    Args:
        head: its first bytes, up to 4096.

    Returns:
        None where it begins as no known format does.
    """
    for magic, kind in _MAGIC_NUMBERS.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":  # behind the first file's name and sizes
        return _TAR
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return _WEB_PAGE
    if text.startswith((b"{", b"[")):
        return _JSON
    if _begins_as_onnx(head):
        return _DAMAGED_ONNX
    return None


def _is_zeros(view: memoryview, head: bytes) -> bool:
    """Whether the beginning and samples of the rest are zeros.

    Tools that download in parts reserve the whole file first. Samples suffice, and
    reading all of a large file would take as long as loading it.

    Args:
        view: the whole file.
        head: its first bytes.
    """
    if any(head):
        return False
    step = max(1, len(view) // _READ_LENGTH)
    return not any(bytes(view[::step]))


def _is_safetensors(view: memoryview) -> bool:
    """Eight bytes of header length, then a JSON header that fits into the file.

    https://github.com/huggingface/safetensors#format; whether the header is valid is
    for the reader of safetensors to say.

    Args:
        view: the whole file, which may be shorter than that.
    """
    length = int.from_bytes(view[:8], "little")
    if not 2 <= length <= len(view) - 8:  # "{}" is the shortest header
        return False
    return bytes(view[8:9]) == b"{"


# https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, message ModelProto: field
# number → wire type. Protobuf has no magic number, so each field has to be one of them.
_MODEL_PROTO_FIELDS = {
    1: 0,  # ir_version
    2: 2,  # producer_name
    3: 2,  # producer_version
    4: 2,  # domain
    5: 0,  # model_version
    6: 2,  # doc_string
    7: 2,  # graph
    8: 2,  # opset_import
    14: 2,  # metadata_props
    20: 2,  # training_info
    25: 2,  # functions
    26: 2,  # configuration
}
_IR_VERSION, _GRAPH = 1, 7
_LENGTH_DELIMITED = 2  # wire type
_MAX_FIELDS = 100_000  # looked at: a file could hold as many as it has bytes


# A field's first byte in a protobuf message is its number << 3 | its wire type.
_IR_VERSION_TAG = 0x08
_SECOND_TAGS = b"\x12\x1a\x22\x28\x3a\x42"  # fields 2 to 5, 7 and 8


def _begins_as_onnx(head: bytes) -> bool:
    """A ModelProto begins with its IR version, then a producer, an opset or a graph.

    Exporters write the fields by their numbers. Three bytes are weak evidence, so other
    formats are looked for before; they are how a model that is cut short is known.

    Args:
        head: the file's first bytes.
    """
    if len(head) < 3:
        return False
    tag, ir_version, second_tag = head[:3]
    if tag != _IR_VERSION_TAG:
        return False
    if not 1 <= ir_version < 32:  # about a dozen versions so far
        return False
    return second_tag in _SECOND_TAGS


def _is_onnx(view: memoryview) -> bool:
    """Whether the file is one ModelProto.

    Its fields follow each other to the last byte then, a graph among them. Other
    files hardly are by chance: their bytes would have to be lengths that chain up to
    the end.

    Args:
        view: the whole file; only the fields' tags and lengths are read, some dozen
            bytes of a model.
    """
    numbers = set()
    try:
        for number, wire_type in islice(_protobuf_fields(view), _MAX_FIELDS):
            if _MODEL_PROTO_FIELDS.get(number) != wire_type:
                return False
            numbers.add(number)
    except (IndexError, ValueError):
        return False
    return {_IR_VERSION, _GRAPH} <= numbers


def _protobuf_fields(view: memoryview) -> Iterator[tuple[int, int]]:
    """Number and wire type of each field of a message.

    Values are varints here or have a length, and are stepped over; what would have
    another wire type isn't of a ModelProto, and the caller stops at it.
    Encoding: https://protobuf.dev/programming-guides/encoding/

    Args:
        view: the message.

    Yields:
        Field number, wire type.

    Raises:
        IndexError, ValueError: the file ends within a field.
    """
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        wire_type = tag & 7
        yield tag >> 3, wire_type
        value, at = _varint(view, at)
        if wire_type == _LENGTH_DELIMITED:
            at += value
    if at != len(view):
        raise ValueError("the last field ends outside of the file")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A protobuf integer, of seven bits a byte, and where the next field begins.

    Seven bits at a time, the lowest first; the eighth says whether more bytes follow.

    Args:
        view: the message.
        at: where the integer begins, in bytes.

    Raises:
        IndexError, ValueError: it has no end, or more than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a varint of more than 64 bits")
