"""What a file is, by what it holds and not by its name.

`identify` answers for the reader of checkpoints and for the loader of every format:
one of the formats that a model is released in, a checkpoint of torch.save, or something
else with a description of it and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from checkpoint_release.pth.archive import Archive
from checkpoint_release.pth.kinds import FileKind, Kind, unsupported
from checkpoint_release.pth.other_formats import (
    SAVE_STATE_DICT,
    known_beginning,
    other_archive,
    unknown,
)
from checkpoint_release.tensors.tensor import MappedFile

_ZIP = b"PK\x03\x04"
_LONGEST_HEADER = 100_000_000  # bytes, by the safetensors library itself
_READ_LENGTH = 4096  # bytes at the beginning that tell most formats
_CHECKPOINT = FileKind(Kind.PTH, "a checkpoint that torch.save wrote", "")
_SAFETENSORS = FileKind(
    Kind.SAFETENSORS,
    "a safetensors file",
    "give the file that torch.save wrote",
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


_DAMAGED_ONNX = unsupported(
    "an ONNX model that is damaged or cut short",
    "copy or download it again, or take the PyTorch checkpoint that it was exported"
    " from",
)
_CUT_SAFETENSORS = unsupported(
    "a safetensors file that is cut short within its header, or still being written",
    "copy or download it again, or wait until it is written",
)
_PACKAGE = unsupported("a torch.package archive", SAVE_STATE_DICT)


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
        return unsupported("empty: 0 bytes", "save or download it again")
    if _is_safetensors(view):
        return _SAFETENSORS
    if _is_cut_safetensors(view):
        return _CUT_SAFETENSORS
    if _is_onnx(view):
        return _ONNX
    known = known_beginning(head)
    if known is not None:
        return known
    if _begins_as_onnx(head):
        return _DAMAGED_ONNX
    if _is_zeros(view, head):
        return unsupported(
            f"{len(view)} bytes of zeros: a download that was begun and not finished",
            "download it again",
        )
    # PROTO of protocol 2, LONG, INT or MARK: with what pickles of torch.save begin
    if head[0] in b"\x80LI(":
        return _CHECKPOINT
    return unknown(head)


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
        return unsupported(
            f"a zip archive of {len(pickles)} checkpoints: {', '.join(pickles[:5])}",
            SAVE_STATE_DICT,
        )
    return other_archive(sorted(names))


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


def _is_cut_safetensors(view: memoryview) -> bool:
    """Whether a file begins as safetensors and ends within its header."""
    length = int.from_bytes(view[:8], "little")
    return len(view) - 8 < length <= _LONGEST_HEADER and bytes(view[8:10]) == b'{"'


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
