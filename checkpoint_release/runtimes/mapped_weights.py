"""A checkpoint's weights as torch's tensors over their file, of which memory is given
back as they are copied.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.tensors.safetensors import open_safetensors
from checkpoint_release.tensors.tensor import Tensor


class MappedWeights:
    """The tensors of a safetensors file.

    Attributes:
        tensors: name → tensor over the file, which nobody may write to.

    Raises:
        ArtifactError: it can't be read.
    """

    def __init__(self, file: Path) -> None:
        self._stored = open_safetensors(file)
        self.tensors: dict[str, torch.Tensor] = {}
        for name, tensor in self._stored.items():
            self.tensors[name] = _over(tensor)

    def forget(self, names: Iterable[str]) -> None:
        """Give back the memory of what was read of some tensors."""
        for name in names:
            self._stored[name].forget()


def _over(tensor: Tensor) -> torch.Tensor:
    """A tensor of torch over the same bytes."""
    dtype: torch.dtype = getattr(torch, str(DTYPES[tensor.dtype].torch_name))
    if tensor.size == 0:
        return torch.empty(tensor.shape, dtype=dtype)
    with warnings.catch_warnings():
        # torch can't mark a tensor as one that isn't written to
        warnings.simplefilter("ignore", UserWarning)
        flat = torch.frombuffer(tensor.storage.view, dtype=dtype)
    return flat.reshape(tensor.shape)
