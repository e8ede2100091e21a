"""The model by itself, before anything is compared with it.

Both sides of a comparison run the same code, so that a model which draws random numbers
from the same seed, or remembers its calls, would agree with itself.
"""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.errors import CheckpointReleaseError, ModelError
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.parity.workers import WorkerError, call_isolated


def require_sound_model(checkpoint: Path) -> None:
    """Run the checkpoint's own model alone, in a process of its own.

    Args:
        checkpoint: the folder of the checkpoint.

    Raises:
        ModelError: it doesn't give the same outputs for the same inputs, or doesn't
            keep its signature; see checkpoint_release.runtimes.model_check.
    """
    try:
        error = call_isolated(_check, checkpoint, needs_torch=True)
    except WorkerError as died:
        raise ModelError(
            f"the process that ran the checkpoint's own model {died}",
            "run the model on a sample of its inputs by hand",
        ) from died
    if error is not None:
        raise error


def _check(checkpoint: Path) -> CheckpointReleaseError | None:
    """The error about the model, which an exception could not carry to the caller."""
    # torch is there only in the processes that need it
    from checkpoint_release.runtimes.eager import build_eager
    from checkpoint_release.runtimes.model_check import check_model

    try:
        model, _ = build_eager(checkpoint, OWN_ARTIFACTS)
        check_model(
            model, CheckpointFolder.open(checkpoint, OWN_ARTIFACTS).architecture
        )
    except CheckpointReleaseError as error:
        return error
    return None
