"""Running the files that torch writes with a graph in them: TorchScript and .pt2."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from checkpoint_release.core.artifacts.formats import TORCH_EXPORT, TORCHSCRIPT
from checkpoint_release.runtimes.archive_trust import trusted_archive
from checkpoint_release.runtimes.model_config import require_config
from checkpoint_release.runtimes.precision import double_operations
from checkpoint_release.runtimes.runtime import Options, Runtime, main_file, opening
from checkpoint_release.runtimes.torch_runtime import prepare_torch, torch_runtime


def open_torchscript(path: Path, options: Options) -> Runtime:
    """Open what torch.jit.save wrote.

    Raises:
        ArtifactError: the file or its config.json is missing or damaged.
        InferenceError: torch can't use the device.
        UntrustedCodeError: the file does more than compute, and isn't trusted.
    """
    prepare_torch(options)
    file = main_file(TORCHSCRIPT.name, path)
    signature = require_config(file).signature
    with (
        trusted_archive(TORCHSCRIPT.name, file, options.trust) as checked,
        opening(file),
        warnings.catch_warnings(),
    ):
        # TorchScript itself is what was asked for
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(checked), map_location=options.device)  # type: ignore[no-untyped-call]
    return torch_runtime(
        TORCHSCRIPT.name, path, module.eval(), signature, options, _precision(options)
    )


def open_torch_export(path: Path, options: Options) -> Runtime:
    """Open what torch.export.save wrote.

    Raises:
        ArtifactError: the file or its config.json is missing or damaged.
        InferenceError: torch can't use the device.
        UntrustedCodeError: the file does more than compute, and isn't trusted.
    """
    prepare_torch(options)
    file = main_file(TORCH_EXPORT.name, path)
    signature = require_config(file).signature
    with (
        trusted_archive(TORCH_EXPORT.name, file, options.trust) as checked,
        opening(file),
        checked.open("rb") as content,
    ):
        module = torch.export.load(content).module().to(options.device)
    return torch_runtime(
        TORCH_EXPORT.name, path, module, signature, options, _precision(options)
    )


def _precision(options: Options) -> Callable[[], AbstractContextManager[None]]:
    """What a graph's operations compute in."""
    return double_operations if options.dtype == "float64" else nullcontext
