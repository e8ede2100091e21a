"""Open any artifact by its format, to run it.

    runtime = open_runtime("onnx", Path("artifacts/onnx"))
    outputs = runtime.run({"motion": motion, "text_embedding": text})

An artifact is opened from its files alone, as a user of the release would: the
signature comes from the config.json beside it, or from inside the file. On opening,
torch is imported for the formats that need it, and onnxruntime for ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.artifacts.formats import (
    FORMATS,
    ONNX,
    SAFETENSORS,
    TORCHSCRIPT,
)
from checkpoint_release.core.errors import ArtifactError, InferenceError
from checkpoint_release.core.extras import extras_named
from checkpoint_release.core.files import REMAKE
from checkpoint_release.core.trust import NO_TRUST, Trust
from checkpoint_release.runtimes.runtime import Options, Runtime

__all__ = ["RUNNABLE", "Runtime", "open_runtime", "open_with"]

RUNNABLE = (CHECKPOINT, *FORMATS)
"""What open_runtime opens: a checkpoint that was read, and every format."""


def open_runtime(
    format: str,
    path: Path | str,
    *,
    threads: int | None = None,
    device: str = "cpu",
    providers: Sequence[str] | None = None,
    dtype: Literal["own", "float64"] = "own",
    aligned: bool = True,
    trust: Trust = NO_TRUST,
) -> Runtime:
    """Open an artifact.

    Args:
        format: one of RUNNABLE; "checkpoint" is the folder of a checkpoint that was
            read, run eagerly.
        path: the artifact's folder, or one file of it (such as onnx/model_fp16.onnx)
            with config.json beside. An ONNX file can do without, but then its integers
            have no range.
        threads: threads that one run uses. For the torch formats this sets the
            process's number.
        device: a torch device; for ONNX "cuda" puts that provider first.
        providers: ONNX Runtime's execution providers, in order; overrides device.
        dtype: what the formats that torch runs compute in: the model's own dtypes, or
            float64 throughout. ONNX computes in those of the file.
        aligned: whether the eager formats' weights are copied to where kernels round
            alike whatever file they are from; otherwise they stay mapped.
        trust: the code from elsewhere that may run.

    Raises:
        ArtifactError: a file is missing, can't be read, or doesn't fit the signature.
        InferenceError: no such format, device, provider or number of threads.
        UntrustedCodeError: code from elsewhere would run, and nobody trusts it.
        ModelError: the eager model can't be built.
    """
    options = Options(threads, device, providers, dtype, aligned, trust)
    return open_with(format, Path(path), options)


def open_with(format: str, path: Path, options: Options) -> Runtime:
    """Open an artifact with the given options.

    Args:
        format, path: as for open_runtime.
        options: how to run it.

    Raises:
        CheckpointReleaseError: as open_runtime.
    """
    if format not in RUNNABLE:
        raise InferenceError(
            f"there is no format {format!r}", f"choose one of {', '.join(RUNNABLE)}"
        )
    if not path.exists():
        raise ArtifactError(f"{path} is missing", REMAKE)
    return _opener(format)(path, options)


@extras_named()
def _opener(format: str) -> Callable[[Path, Options], Runtime]:
    """What opens the format; its library is imported here."""
    if format == ONNX.name:
        from checkpoint_release.runtimes.onnx_runtime import open_onnx

        return open_onnx
    from checkpoint_release.runtimes import eager_runtime, torch_files

    if format == CHECKPOINT:
        return eager_runtime.open_checkpoint
    if format == SAFETENSORS.name:
        return eager_runtime.open_safetensors_model
    if format == TORCHSCRIPT.name:
        return torch_files.open_torchscript
    return torch_files.open_torch_export
