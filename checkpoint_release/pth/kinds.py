"""The formats that a file can be in, and what is reported of one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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


def unsupported(description: str, remedy: str) -> FileKind:
    """A kind of file that can't be read here; the arguments as in FileKind."""
    return FileKind(Kind.UNSUPPORTED, description, remedy)
