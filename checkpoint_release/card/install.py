"""What the card's examples need, for pip."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from checkpoint_release.core.artifacts.formats import (
    ONNX,
    SAFETENSORS,
    TORCH_EXPORT,
    TORCHSCRIPT,
)

_WITH_TORCH = frozenset({SAFETENSORS.name, TORCHSCRIPT.name, TORCH_EXPORT.name})


def needed_packages(formats: Iterable[str], library: str | None) -> list[str]:
    """The requirements of the examples, sorted, as the versions that are installed.

    The build (such as +cpu) is left out, so that the same versions make the same card.

    Args:
        formats: of the release.
        library: another one with which an example loads the model, if any.
    """
    names = {"numpy", SAFETENSORS.name}  # the sample is in safetensors
    for format in formats:
        if format == ONNX.name:
            names.add("onnxruntime")
        if format in _WITH_TORCH:
            names.add("torch")
    if library is not None:
        names.add(library)
    return [_pinned(name) for name in sorted(names)]


def _pinned(name: str) -> str:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name  # a library that only some projects install
    return f"{name}=={version.partition('+')[0]}"
