"""The layers of an adapter, and what their factors add to a weight.

Everything is computed in float64 and rounded once, to the weight's own dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.state_dict.adapter_names import MAGNITUDE, Part
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.tensors.joined import stored_tensors
from checkpoint_release.tensors.tensor import TensorLike

Values = np.ndarray[Any, Any]

# Float32 would round each of the sums; the result is rounded once, to the weight's
# dtype.
_PRECISION = np.float64
_BLOCK = 1 << 17  # elements of a layer that are merged at a time
OWN_BASE = "give the adapter's own base checkpoint"
_MERGE_IT = "merge it where it was trained"


@dataclass(frozen=True)
class Factors:
    """The factors of one layer.

    Attributes:
        a: [rank, in], of a convolution [rank, in, height, width].
        b: [out, rank], of a convolution [out, rank, 1, 1].
        embedding: whether they adapt an embedding, whose weight is [in, out].
        magnitude: DoRA's length of each row of the weight, [out]; None: there is none.
        a_name: what the file calls `a`.
    """

    a: TensorLike
    b: TensorLike
    embedding: bool
    magnitude: TensorLike | None
    a_name: str

    @property
    def rank(self) -> int:
        """The size that both factors share."""
        return self.a.shape[0] if self.a.shape else 0

    @property
    def products(self) -> int:
        """Multiplications that B·A takes."""
        return math.prod(self.a.shape) * math.prod(self.b.shape[:1])


@dataclass(frozen=True)
class Update:
    """What one adapter does to one weight.

    Attributes:
        factors: of the layer.
        scale: what B·A is multiplied by.
        transposed: whether the weight is [in, out].
    """

    factors: Factors
    scale: float
    transposed: bool


def pair_factors(tensors: Mapping[str, TensorLike]) -> dict[str, Factors]:
    """Layer → its factors.

    Args:
        tensors: name → tensor of one adapter, such as "encoder.0.lora_A.weight".

    Raises:
        CheckpointError: a name is no factor's, or a layer has only one of the two.
    """
    by_layer: dict[str, dict[str, tuple[str, TensorLike]]] = {}
    for name, tensor in tensors.items():
        part = Part.of(name)
        if part is None:
            raise CheckpointError(
                f"the LoRA adapter holds {printable(name)}, which is no LoRA factor",
                f"{_MERGE_IT}: what other tensors were trained to would be lost",
            )
        roles = by_layer.setdefault(part.layer, {})
        if part.role in roles:
            raise CheckpointError(
                f"two tensors are the factor lora_{part.role} of"
                f" {printable(part.layer)}, one of them {printable(name)}",
                "leave one of them out, and save the file again",
            )
        roles[part.role] = (name, tensor)
    return {layer: _paired(layer, roles) for layer, roles in by_layer.items()}


def _paired(layer: str, roles: Mapping[str, tuple[str, TensorLike]]) -> Factors:
    """The two factors of a layer, and its magnitude.

    Raises:
        CheckpointError: one of them is missing.
    """
    for kind in ("", "embedding_"):
        names = {f"{kind}A", f"{kind}B"}
        if roles.keys() - {MAGNITUDE} == names:
            a_name, a = roles[f"{kind}A"]
            magnitude = roles.get(MAGNITUDE, ("", None))[1]
            return Factors(a, roles[f"{kind}B"][1], bool(kind), magnitude, a_name)
    held = " and ".join(f"lora_{role}" for role in sorted(roles))
    raise CheckpointError(
        f"{printable(layer)} has {held} and not the other factor",
        "give a complete adapter",
    )


def check_fit(layer: str, update: Update, weights: Mapping[str, TensorLike]) -> None:
    """Raise CheckpointError unless the layer has a weight that the factors fit.

    Args:
        layer: its name in the model, such as "encoder.0".
        update: what is added.
        weights: the model's.
    """
    base = weights.get(f"{layer}.weight")
    if base is None:
        raise CheckpointError(
            f"the LoRA adapter adapts {printable(layer)}, and the base has no"
            f" {printable(layer)}.weight",
            OWN_BASE,
        )
    factors = update.factors
    a, b = factors.a.shape, factors.b.shape
    shapes = f"lora_A {list(a)}, lora_B {list(b)}, base {list(base.shape)}"
    if not len(a) == len(b) == len(base.shape) or len(a) not in (2, 3, 4, 5):
        raise CheckpointError(
            f"{printable(layer)}: only Linear, Embedding and convolution layers can be"
            f" merged: {shapes}",
            _MERGE_IT,
        )
    rank = factors.rank
    adapted = (b[0], *a[1:])
    if update.transposed:
        adapted = adapted[::-1] if len(adapted) == 2 else ()
    pointwise = math.prod(b[2:]) == 1 and b[1] == rank
    if rank == 0 or not pointwise or base.shape != adapted:
        raise CheckpointError(
            f"{printable(layer)}: the LoRA factors don't fit: {shapes}", OWN_BASE
        )
    if factors.magnitude is not None:
        _check_magnitude(layer, update, factors.magnitude.shape, base)


def _check_magnitude(
    layer: str, update: Update, shape: tuple[int, ...], base: TensorLike
) -> None:
    """Raise CheckpointError unless DoRA's magnitude is that of a Linear's rows."""
    if update.transposed or len(base.shape) != 2:
        raise CheckpointError(
            f"{printable(layer)}: DoRA of other layers than Linear can't be merged"
            " here",
            _MERGE_IT,
        )
    if shape != base.shape[:1]:
        raise CheckpointError(
            f"{printable(layer)}: the magnitude of DoRA has shape {list(shape)}, and"
            f" the base {list(base.shape)}",
            OWN_BASE,
        )


@dataclass(frozen=True, eq=False)
class Adapted:
    """A weight with the updates of its adapters, computed some rows at a time.

    Attributes:
        base: the layer's weight; its first dimension is the rows here, all others
            together are the columns.
        updates: each fits (check_fit); of one with a magnitude there is no other.
    """

    base: TensorLike
    updates: tuple[Update, ...]

    @property
    def dtype(self) -> str:
        """The safetensors name of the element type."""
        return self.base.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.base.shape

    def numpy(self) -> Values:
        """All elements in one array.

        Raises:
            CheckpointError: a storage is damaged.
        """
        flat = np.frombuffer(b"".join(self.chunks()), DTYPES[self.dtype].numpy)
        return flat.reshape(self.shape)

    def chunks(self) -> Iterator[memoryview]:
        """The merged elements row-major and little-endian, in pieces.

        All of a large layer in float64 would take several times its file, and the
        pages of the base's own bytes are given back at the end.

        Raises:
            CheckpointError: a storage is damaged.
        """
        weight = self.base.numpy()
        columns = math.prod(weight.shape[1:])
        flat = weight.reshape(weight.shape[0], columns)
        sides = [_sides(update) for update in self.updates]
        magnitude = _values(self.updates[0].factors.magnitude)
        rows = max(1, _BLOCK // max(1, columns))
        for at in range(0, flat.shape[0], rows):
            some = slice(at, at + rows)
            block = flat[some].astype(_PRECISION)
            for scale, left, right in sides:
                block = block + scale * _product(left[some], right)
            if magnitude is not None:
                block *= (magnitude[some] / _lengths(block))[:, None]
            yield block.astype(weight.dtype).reshape(-1).view(np.uint8).data
        for tensor in stored_tensors(self.base):
            storage = tensor.storage
            storage.mapping.drop(storage.start, storage.start + storage.nbytes)


def _sides(update: Update) -> tuple[float, Values, Values]:
    """Scale, and the matrices whose product is added: [rows, rank], [rank, columns]."""
    factors = update.factors
    a = factors.a.numpy().astype(_PRECISION)
    b = factors.b.numpy().astype(_PRECISION)
    left = b.reshape(b.shape[0], factors.rank)
    right = a.reshape(factors.rank, -1)
    if update.transposed:
        left, right = right.T, left.T
    return update.scale, left, right


def _values(tensor: TensorLike | None) -> Values | None:
    return None if tensor is None else tensor.numpy().astype(_PRECISION)


def _lengths(rows: Values) -> Values:
    """The Euclidean length of each row, added in one order on any machine."""
    squares = rows * rows
    total = np.zeros(rows.shape[0], _PRECISION)
    for column in squares.T:
        total += column
    return np.sqrt(total)


def _product(left: Values, right: Values) -> Values:
    """left · right in float64, one rank after another.

    A BLAS product may add in an order that depends on the machine and its threads.

    Args:
        left: [rows, rank].
        right: [rank, columns].
    """
    product = np.zeros((left.shape[0], right.shape[1]), _PRECISION)
    for rank, row in enumerate(right):
        product += np.multiply.outer(left[:, rank], row)
    return product


def check_magnitudes(layer: str, updates: Sequence[Update], weighted: bool) -> None:
    """Raise CheckpointError where DoRA is among several adapters, or weighted.

    It normalises the sum, so that what two of them do together isn't defined.
    """
    has_magnitude = any(each.factors.magnitude is not None for each in updates)
    if has_magnitude and (len(updates) > 1 or weighted):
        raise CheckpointError(
            f"{printable(layer)}: an adapter of DoRA can be merged alone and with the"
            " weight 1, since it normalises the sum",
            "merge the others where they were trained",
        )


def state_dict_of(updated: Mapping[str, Sequence[Update]], base: StateDict) -> None:
    """Put the merged weights in their places.

    Args:
        updated: layer → its updates.
        base: is changed.
    """
    for layer, updates in updated.items():
        name = f"{layer}.weight"
        base[name] = Adapted(base[name], tuple(updates))
