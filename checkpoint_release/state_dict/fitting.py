"""Which model a checkpoint's weights are of, and what params.yaml must say for it.

The families that come with this library are tried, each by what it reads off names and
shapes; no weights are read, and no torch is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checkpoint_release.core.architecture import TensorShapes, family_module
from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.core.selection import Selection
from checkpoint_release.core.trust import NO_TRUST
from checkpoint_release.state_dict.adapter_config import LoraConfig
from checkpoint_release.state_dict.adapter_names import has_factors, is_adapter
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.lora import merge_lora
from checkpoint_release.state_dict.near_miss import near_miss
from checkpoint_release.state_dict.selection import select

FAMILIES = ("checkpoint_release.models.stick_figure:build",)
MAX_NAMES = 20_000  # tensors of all state dicts; with more of them no fit is looked for
_ANY = LoraConfig(alpha=1.0)  # names and shapes don't depend on it


@dataclass(frozen=True)
class Fit:
    """A model that a state dict's tensors are those of.

    Attributes:
        factory: of the family, package.module:callable.
        kwargs: the factory's arguments, read off the tensors.
        state_dict: the state dict's dotted key; "" is the top.
        selection: the prefix to strip and the names to leave out for it.
    """

    factory: str
    kwargs: Mapping[str, Any]
    state_dict: str
    selection: Selection = field(default_factory=Selection)


def fits(state_dicts: Mapping[str, StateDict]) -> list[Fit]:
    """The families that the state dicts fit, those as they are before near misses.

    Args:
        state_dicts: dotted key → tensors; adapters among them are passed over.

    Returns:
        At most one for each state dict.
    """
    if sum(map(len, state_dicts.values())) > MAX_NAMES:
        return []
    whole: list[Fit] = []
    nearly: list[Fit] = []
    for key, tensors in state_dicts.items():
        shapes = {} if is_adapter(tensors) else _model_shapes(tensors)
        if not shapes:
            continue
        for factory in FAMILIES:
            found = _fit(factory, key, shapes)
            if found is not None:
                (nearly if found.selection != Selection() else whole).append(found)
                break
    return whole + nearly


def _model_shapes(tensors: StateDict) -> TensorShapes:
    """The shapes under the names that a model would have, its adapters merged.

    Returns:
        Nothing where they can't be told.
    """
    try:
        selected = select(tensors, Selection()).tensors
        merged = selected
        if has_factors(selected):
            merged, _ = merge_lora(selected, own=_ANY)
    except CheckpointReleaseError:
        return {}
    return {name: (each.dtype, each.shape) for name, each in merged.items()}


def _fit(factory: str, key: str, shapes: TensorShapes) -> Fit | None:
    """The family's model with these tensors; None where there is none, nor nearly."""
    read = family_module(factory, NO_TRUST).read_architecture
    found: list[dict[str, Any]] = []

    def fits_family(nearby: TensorShapes) -> bool:
        try:
            found.append(read(nearby, {}))
        except CheckpointReleaseError:
            return False
        return True

    if fits_family(shapes):
        return Fit(factory, found[-1], key)
    selection = near_miss(shapes, fits_family)
    if selection is None:
        return None
    return Fit(factory, found[-1], key, selection)
