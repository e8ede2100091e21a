"""ONNX operators in double precision, for onnx's reference evaluator.

Its own Erf computes in float32, Softplus and LogSoftmax lose all digits in their tails,
and the others here are functions whose bodies hold constants in float32. They follow
the operators' specifications, by torch's kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx.reference.op_run import OpRun
from torch import Tensor
from torch.nn import functional

from checkpoint_release.core.signature import Array


class Erf(OpRun):
    """The error function."""

    def _run(self, x: Array) -> tuple[Array]:
        return (_array(torch.erf(_tensor(x))),)


class Gelu(OpRun):
    """x · Φ(x), or its approximation by tanh."""

    def _run(self, x: Array, approximate: Any = None) -> tuple[Array]:
        approximation = approximate or "none"
        return (_array(functional.gelu(_tensor(x), approximate=approximation)),)


class HardSwish(OpRun):
    """x · max(0, min(1, x/6 + 1/2))."""

    def _run(self, x: Array) -> tuple[Array]:
        return (_array(functional.hardswish(_tensor(x))),)


class Mish(OpRun):
    """x · tanh(softplus(x))."""

    def _run(self, x: Array) -> tuple[Array]:
        return (_array(functional.mish(_tensor(x))),)


class Softplus(OpRun):
    """log(1 + exp(x))."""

    def _run(self, x: Array) -> tuple[Array]:
        return (_array(functional.softplus(_tensor(x))),)


class LogSoftmax(OpRun):
    """log(softmax(x)) along an axis."""

    def _run(self, x: Array, axis: Any = None) -> tuple[Array]:
        return (_array(functional.log_softmax(_tensor(x), dim=axis)),)


class GroupNormalization(OpRun):
    """Normalisation over groups of channels, of shape (batch, channels, ...).

    Up to opset 20, scale and bias are given for groups; from 21 on, for channels.
    """

    def _run(
        self,
        x: Array,
        scale: Array,
        bias: Array,
        epsilon: Any = None,
        num_groups: Any = None,
        stash_type: Any = None,
    ) -> tuple[Array]:
        repeats = x.shape[1] // scale.size
        weight = _tensor(np.repeat(scale, repeats))
        shift = _tensor(np.repeat(bias, repeats))
        normalised = functional.group_norm(
            _tensor(x), num_groups, weight, shift, eps=epsilon
        )
        return (_array(normalised),)


OPERATORS = [Erf, Gelu, HardSwish, Mish, Softplus, LogSoftmax, GroupNormalization]
"""They take the place of the evaluator's own."""


def _tensor(array: Array) -> Tensor:
    """The same numbers for torch, which takes no arrays with negative strides."""
    return torch.from_numpy(np.array(array, order="C"))


def _array(tensor: Tensor) -> Array:
    """The same numbers for numpy."""
    array: Array = tensor.numpy()
    return array
