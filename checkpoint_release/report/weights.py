"""The weights by group of tensors: how many there are, and how they are spread."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.text import printable
from checkpoint_release.pictures import theme
from checkpoint_release.pictures.picture import Picture, draw
from checkpoint_release.tensors.tensor import TensorLike

MOST_GROUPS = 18
MOST_VALUES = 100_000
"""Of a tensor that are looked at; of a larger one, every so many."""
_BINS = 48


@dataclass(frozen=True)
class WeightGroup:
    """The tensors whose names begin alike.

    Attributes:
        name: the beginning.
        tensors, values: how many there are.
        dtypes: safetensors' names, sorted.
        minimum, maximum, mean, deviation: of the finite values; None: there are none,
            or they aren't numbers of one dimension, such as complex ones.
        zeros: the share of zeros.
        non_finite: how many values are NaN or infinite.
        bins: (lower end, upper end, share of the values).
    """

    name: str
    tensors: int
    values: int
    dtypes: list[str]
    minimum: float | None
    maximum: float | None
    mean: float | None
    deviation: float | None
    zeros: float
    non_finite: int
    bins: list[tuple[float, float, float]]


def weight_groups(tensors: Mapping[str, TensorLike]) -> list[WeightGroup]:
    """Group tensors by the beginnings of their names.

    The larger a group, the finer it is cut, as long as there are no more than
    MOST_GROUPS. There are more only where so many names begin differently.

    Args:
        tensors: by name.
    """
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(name.partition(".")[0], []).append(name)
    while True:
        for name in sorted(groups, key=lambda name: -_size(tensors, groups[name])):
            finer = _cut(groups, name)
            if len(groups) < len(finer) <= MOST_GROUPS:
                groups = finer
                break
        else:
            break
    return [
        _group(name, [tensors[member] for member in members])
        for name, members in groups.items()
    ]


def _size(tensors: Mapping[str, TensorLike], names: Sequence[str]) -> int:
    """Elements of some tensors."""
    return sum(math.prod(tensors[name].shape) for name in names)


def _cut(groups: Mapping[str, list[str]], name: str) -> dict[str, list[str]]:
    """The groups with one of them cut at the first dot behind what its names share.

    Args:
        groups: beginning of names → names.
        name: of the group to cut.
    """
    found: dict[str, list[str]] = {}
    for group, members in groups.items():
        if group != name:
            found[group] = members
            continue
        shared = _shared_parts(members)
        for member in members:
            parts = member.split(".")
            modules = parts[:-1] or parts  # the last part is the tensor's own name
            found.setdefault(".".join(modules[: shared + 1]), []).append(member)
    return found


def _shared_parts(names: Sequence[str]) -> int:
    """How many parts all the names begin with alike."""
    shared = 0
    for column in zip(*(name.split(".") for name in names), strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return shared


def _group(name: str, tensors: Sequence[TensorLike]) -> WeightGroup:
    values = np.concatenate([_values(tensor) for tensor in tensors])
    finite = values[np.isfinite(values)]
    bins, facts = [], dict.fromkeys(("minimum", "maximum", "mean", "deviation"))
    if finite.size:
        facts = {
            "minimum": float(finite.min()),
            "maximum": float(finite.max()),
            "mean": float(finite.mean()),
            "deviation": float(finite.std()),
        }
        counts, edges = np.histogram(finite, _BINS)
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
            bins.append((float(low), float(high), float(count / finite.size)))
    return WeightGroup(
        name=printable(name),
        tensors=len(tensors),
        values=sum(math.prod(tensor.shape) for tensor in tensors),
        dtypes=sorted({tensor.dtype for tensor in tensors}),
        zeros=float(np.mean(values == 0)) if values.size else 0.0,
        non_finite=int(values.size - finite.size),
        bins=bins,
        **facts,
    )


def _values(tensor: TensorLike) -> np.ndarray[Any, Any]:
    """A tensor's values, or some at even distances, in float64; of a complex, none."""
    array = tensor.numpy()
    if array.dtype.kind == "c":
        return np.empty(0)
    flat = array.reshape(-1)
    step = -(-flat.size // MOST_VALUES) or 1
    return flat[::step].astype(np.float64)


def weights_picture(groups: Sequence[WeightGroup]) -> Picture | None:
    """A histogram for each group; None where no group has numbers.

    Args:
        groups: of more than MOST_GROUPS, the largest are drawn.
    """
    rows: list[dict[str, Any]] = []
    largest = sorted(groups, key=lambda group: -group.values)[:MOST_GROUPS]
    drawn = [group for group in groups if group in largest and group.bins]
    for group in drawn:
        rows += _outline(group)
    if not rows:
        return None
    axis = {"domain": False, "ticks": False, "labelFontSize": 10}
    panel = {
        "width": 190,
        "height": 70,
        "mark": {
            "type": "area",
            "color": theme.SERIES[0],
            "opacity": 1,
            "interpolate": "step-after",
        },
        "encoding": {
            "x": {
                "field": "value",
                "type": "quantitative",
                "scale": {"zero": False, "nice": False},
                "title": None,
                "axis": {**axis, "tickCount": 3, "grid": False, "labelOverlap": True},
            },
            "y": {
                "field": "share",
                "type": "quantitative",
                "stack": None,
                "title": None,
                "axis": {**axis, "format": "~%", "tickCount": 2},
            },
        },
    }
    spec = {
        "data": {"values": rows},
        "title": {
            "text": "Weights by group of tensors",
            "subtitle": "share of the values; each group has its own axes",
        },
        "facet": {
            "field": "group",
            "type": "nominal",
            "title": None,
            "sort": None,
            "header": {"labelAnchor": "start", "labelLimit": 200, "labelFontSize": 11},
        },
        "columns": 3,
        "spacing": 18,
        "spec": panel,
        "resolve": {"scale": {"x": "independent", "y": "independent"}},
    }
    names = ", ".join(group.name for group in drawn)
    alt = f"Histograms of the weights of {names}; the table below has their figures."
    return draw(spec, title="Weights by group of tensors", alt=alt)


def _outline(group: WeightGroup) -> Iterator[dict[str, Any]]:
    """The points of a histogram: where each bin begins, and where the last ends."""
    for low, _, share in group.bins:
        yield {"group": group.name, "value": low, "share": share}
    _, high, share = group.bins[-1]
    yield {"group": group.name, "value": high, "share": share}
