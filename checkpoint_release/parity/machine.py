"""The machine that errors are measured on, as far as it decides what they are."""

from __future__ import annotations

import platform
from importlib.metadata import version

from checkpoint_release.core.artifacts.parity import Machine
from checkpoint_release.parity.workers import call_isolated

_LIBRARIES = ("numpy", "onnxruntime", "torch")
"""The distributions whose kernels compute the outputs that are compared."""


def this_machine() -> Machine:
    """Describe this machine; a process that has torch is asked for what torch uses."""
    return Machine(
        architecture=platform.machine(),
        cpu_capability=call_isolated(_cpu_capability, needs_torch=True),
        libraries={name: version(name) for name in _LIBRARIES},
    )


def _cpu_capability() -> str:
    """The instructions that torch's kernels use here, such as AVX2."""
    import torch

    return torch.backends.cpu.get_cpu_capability()
