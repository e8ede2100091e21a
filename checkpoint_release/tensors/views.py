"""Arrays of mapped tensors, of which one at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from checkpoint_release.tensors.tensor import Tensor


class Views(Mapping[str, np.ndarray[Any, Any]]):
    """Name → array over a tensor's file.

    What was read of a tensor is given back when the next one is asked for; whoever
    still has its array reads it again.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._last: Tensor | None = None

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        tensor = self._tensors[name]
        if self._last is not None and self._last is not tensor:
            self._last.forget()
        self._last = tensor
        return tensor.numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
