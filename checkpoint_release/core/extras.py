"""Libraries that some uses need, and the extra of this package that brings each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from checkpoint_release.core.errors import MissingLibraryError

EXTRAS = {
    "configobj": "fleet",
    "cryptography": "pipeline",
    "cyclonedx": "pipeline",
    "diffusers": "diffusers",
    "distributed": "fleet",
    "dvc": "pipeline",
    "huggingface_hub": "hub",
    "jinja2": "pipeline",
    "markdown_it": "pipeline",
    "model_signing": "pipeline",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "pipeline",
    "packaging": "pipeline",
    "rich": "fleet",
    "ruamel": "pipeline",
    "torch": "torch",
    "transformers": "transformers",
    "vl_convert": "pipeline",
}
"""Importable name → extra; see pyproject.toml."""


@contextmanager
def extras_named() -> Iterator[None]:
    """Name the extra to install where a library of one isn't there.

    Raises:
        MissingLibraryError: an import inside failed for want of such a library.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(library)
        if extra is None:
            raise
        raise MissingLibraryError(
            f"{library} is not installed",
            f"run pip install 'checkpoint-release[{extra}]'",
        ) from None
