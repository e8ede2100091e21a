"""The files of a release, how each format was exported, and with which libraries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from checkpoint_release.core.artifacts.formats import (
    FORMATS,
    ONNX,
    SAFETENSORS,
    TORCH_EXPORT,
    TORCHSCRIPT,
)
from checkpoint_release.core.artifacts.further_files import further_files
from checkpoint_release.core.artifacts.manifest import Manifest
from checkpoint_release.core.artifacts.released_files import released_files

WEIGHTS = "weights"
FIXED = "the ONNX model with fixed shapes"
_MAIN_FILES = {
    SAFETENSORS.name: WEIGHTS,
    ONNX.name: "the model for ONNX Runtime and other ONNX runtimes",
    TORCHSCRIPT.name: "the model for libtorch, and for PyTorch without its code",
    TORCH_EXPORT.name: "the model for torch.export's runtimes",
}
# file name in a format's folder → what it is
_OTHER_FILES = (
    (r"model-\d+-of-\d+\.safetensors", WEIGHTS),
    (r"\w+\.safetensors\.index\.json", "which file holds which weight"),
    (r"(.+/)?config\.json", "architecture, inputs and outputs"),
    (r"training_args\.json", "training facts from the checkpoint"),
    (r"generation_config\.json", "defaults for generation"),
    (r"(tokenizer|vocab|merges|special_tokens|added_tokens|spiece).*", "the tokenizer"),
    (r"(pre)?processor_config\.json", "how inputs are prepared"),
    (r"\w+\.py", "the model's code, for transformers"),
    (r"model_fixed\.onnx", FIXED),
    (r"model_\w+\.onnx", "a smaller ONNX model, less exact"),
    (r".+\.onnx_data", "weights of the ONNX model"),
)
# What a manifest says about an export, for the card.
_EXPORT_FACTS = ("opset", "ir_version", "exporter")


@dataclass(frozen=True)
class FileRow:
    """One file of the release.

    Attributes:
        name: its path in the release.
        purpose: what it is; may be empty.
        size: in bytes.
        sha256: in lower-case hex.
    """

    name: str
    purpose: str
    size: int
    sha256: str


def file_rows(formats: Mapping[str, Manifest]) -> list[FileRow]:
    """The files of all formats, in the order of released_files.

    Args:
        formats: name → manifest.

    Returns:
        A row for each file, with its path in the release.
    """
    rows = []
    for file in released_files(formats):
        purpose = _purpose(file.format, file.path, formats[file.format].facts)
        rows.append(FileRow(file.name, purpose, file.entry.size, file.entry.sha256))
    return rows


def _purpose(format: str, path: str, facts: Mapping[str, Any]) -> str:
    """What a file is, with what the reader of a card should know of how it was made.

    Args:
        format: the name of its format.
        path: where it lies in the format's folder.
        facts: what the format's manifest says; a cast that was asked for, and the
            opset of an ONNX model, are added to the description.

    Returns:
        A phrase without a full stop; empty if nothing is known.
    """
    purpose = _described(format, path)
    cast = facts.get("cast")
    if cast and purpose == WEIGHTS:
        return f"{purpose}, {cast['tensors']} tensors cast to {cast['to']}"
    if path == ONNX.file and "opset" in facts:
        return f"{purpose}; opset {facts['opset']}"
    if purpose == FIXED:
        sizes = facts["fixed"]["sizes"].items()
        return f"{purpose}: {', '.join(f'{name} {size}' for name, size in sizes)}"
    return purpose


def _described(format: str, path: str) -> str:
    """What a file is, going by its name alone; empty if that isn't known.

    Args:
        format: the name of its format.
        path: where it lies in the format's folder.
    """
    if path == FORMATS[format].file:
        return _MAIN_FILES[format]
    for pattern, description in _OTHER_FILES:
        if re.fullmatch(pattern, path):
            return description
    return ""


def sizes(formats: Mapping[str, Manifest]) -> dict[str, int]:
    """How large each format is, and each variant by itself.

    Args:
        formats: name → manifest.

    Returns:
        Name as in the parity report (such as "onnx float16") → bytes.
    """
    found = {}
    for format, manifest in formats.items():
        found[format] = manifest.size
        for further in further_files(format, manifest):
            size = manifest.files[further.file].size
            found[format] -= size
            found[further.name] = size
    return found


def provenance(formats: Mapping[str, Manifest]) -> dict[str, dict[str, Any]]:
    """How each format was exported, as its manifest says.

    Args:
        formats: name → manifest.

    Returns:
        Format → name of a fact or a library → value or version. Formats of which
        nothing is known are left out.
    """
    exports = {}
    for format, manifest in formats.items():
        facts = {}
        for name in _EXPORT_FACTS:
            if name in manifest.facts:
                facts[name.replace("_", " ")] = manifest.facts[name]
        facts |= manifest.facts.get("versions", {})
        if facts:
            exports[format] = facts
    return exports


def library_versions(formats: Mapping[str, Manifest]) -> dict[str, str]:
    """The installed versions of the libraries that wrote and checked the formats.

    The build (such as +cpu) is left out, so that the same versions make the same card.

    Args:
        formats: name → manifest.

    Returns:
        Distribution → version, of torch first.

    Raises:
        importlib.metadata.PackageNotFoundError: one isn't installed.
    """
    libraries = ["torch"]
    for format in formats:
        libraries += FORMATS[format].libraries
    return {name: metadata.version(name).partition("+")[0] for name in libraries}
