"""Turn a PyTorch checkpoint into release artifacts; run, compare and verify them.

    from checkpoint_release import load

    model = load("artifacts/release")

Everything in __all__ is imported when it is first used, so that `import
checkpoint_release` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checkpoint_release.core.errors import (
        ArchitectureError,
        ArtifactError,
        CardError,
        CheckpointError,
        CheckpointReleaseError,
        ExportError,
        FleetError,
        InferenceError,
        MissingLibraryError,
        ModelError,
        OpsetError,
        ParamsError,
        ParityError,
        PublishError,
        UnsafeCheckpointError,
        UntrustedCodeError,
    )
    from checkpoint_release.core.signature import Dimension, Signature, TensorSpec
    from checkpoint_release.release.verify import verify
    from checkpoint_release.runtimes.loader import Model, load
    from checkpoint_release.state_dict.inspection import Inspection, inspect

__all__ = [
    "ArchitectureError",
    "ArtifactError",
    "CardError",
    "CheckpointError",
    "CheckpointReleaseError",
    "Dimension",
    "ExportError",
    "FleetError",
    "InferenceError",
    "Inspection",
    "MissingLibraryError",
    "Model",
    "ModelError",
    "OpsetError",
    "ParamsError",
    "ParityError",
    "PublishError",
    "Signature",
    "TensorSpec",
    "UnsafeCheckpointError",
    "UntrustedCodeError",
    "inspect",
    "load",
    "verify",
]

_ERRORS = "checkpoint_release.core.errors"
_MODULES = {
    "Dimension": "checkpoint_release.core.signature",
    "Inspection": "checkpoint_release.state_dict.inspection",
    "Model": "checkpoint_release.runtimes.loader",
    "Signature": "checkpoint_release.core.signature",
    "TensorSpec": "checkpoint_release.core.signature",
    "inspect": "checkpoint_release.state_dict.inspection",
    "load": "checkpoint_release.runtimes.loader",
    "verify": "checkpoint_release.release.verify",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, _ERRORS)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported already or not."""
    return sorted({*globals(), *__all__})
