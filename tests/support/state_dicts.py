"""Small state dicts of random tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.tensors.tensor import Tensor

RNG = np.random.default_rng(7)


def tensor(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor.of_numpy(RNG.standard_normal(shape).astype(dtype))


def linear(name: str = "layer", inputs: int = 3, outputs: int = 4) -> StateDict:
    return {f"{name}.weight": tensor(outputs, inputs), f"{name}.bias": tensor(outputs)}


def factors(
    name: str = "layer", rank: int = 2, inputs: int = 3, outputs: int = 4
) -> StateDict:
    return {
        f"{name}.lora_A": tensor(rank, inputs),
        f"{name}.lora_B": tensor(outputs, rank),
    }
