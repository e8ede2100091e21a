"""How much there is of a model's weights."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

from checkpoint_release.core.artifacts.checkpoint import TensorStatistics
from checkpoint_release.tensors.safetensors import nbytes
from checkpoint_release.tensors.tensor import Tensor, TensorLike


def tensor_statistics(tensors: Mapping[str, TensorLike]) -> TensorStatistics:
    """Count tensors, elements, bytes and dtypes, and find which tensors are tied.

    Args:
        tensors: by name. Tied ones count under each of their names, as they do in a
            file.
    """
    values = Counter[str]()
    size = 0
    for tensor in tensors.values():
        values[tensor.dtype] += math.prod(tensor.shape)
        size += nbytes(tensor)
    return TensorStatistics(
        count=len(tensors),
        values=values.total(),
        bytes=size,
        dtypes=dict(sorted(values.items())),
        tied=tied_names(tensors),
    )


def tied_names(tensors: Mapping[str, TensorLike]) -> list[list[str]]:
    """The groups of names that are the same view of the same storage, sorted.

    A tensor that is put together or computed on the way out is tied to itself under
    another name alone, and one without elements has no memory to share.

    Args:
        tensors: by name.

    Returns:
        Groups of two names or more, each in the order of the mapping.
    """
    by_view: dict[object, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.nbytes:
            view = (
                tensor.storage.key,
                tensor.offset,
                tensor.shape,
                tensor.strides,
                tensor.dtype,
            )
            by_view[view].append(name)
        elif not isinstance(tensor, Tensor):
            by_view[id(tensor)].append(name)
    return sorted(names for names in by_view.values() if len(names) > 1)
