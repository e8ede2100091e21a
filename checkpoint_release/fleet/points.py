"""The points of a fleet's matrix: parameters over those of the project."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from checkpoint_release.core.artifacts.typed import Record
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import Params, parse_section
from checkpoint_release.fleet.patterns import fill, placeholders
from checkpoint_release.fleet.spec import FLEET, REMEDY, FleetSpec

OF_THE_FLEET = {
    "checkpoint.path": "source names the checkpoints",
    "publish.repo_id": "publish.repository names it",
    "publish.revision": "publish.branch names it",
    "publish.version": "publish.tag names it",
    "publish.create_pr": "a fleet commits to branches",
    "publish.dry_run": "`fleet run --no-publish` changes nothing on the Hub",
    "publish.private": "publish.private of fleet.yaml, beside repository, sets it",
    "publish.signing_key": "a key doesn't leave its machine: sign what was collected",
    "publish.space": "a Space shows one model",
    "card.address": "publish.repository, branch and tag of fleet.yaml say it",
    "benchmark.enabled": "members share a machine, on which nothing can be measured",
}
"""Options that a member can't have, and what there is in their place."""


class Point(Record, frozen=True, kw_only=True):
    """One combination of the matrix.

    Attributes:
        name: such as "onnx.opset=17"; "" where there is no matrix.
        overrides: dotted key → value, the fleet's params among them.
        placeholders: whether the overrides hold names in braces.
        address: where the release will be on the Hub, as card.address has it; None:
            nowhere.
    """

    name: str
    overrides: dict[str, Any]
    placeholders: bool = False
    address: str | None = None

    def filled(self, values: Mapping[str, str]) -> Point:
        """The point with the names in its overrides replaced.

        Args:
            values: what a checkpoint's path gives.

        Raises:
            ParamsError: a name has no value.
        """
        if not self.placeholders:
            return self
        overrides = {key: _filled(each, values) for key, each in self.overrides.items()}
        return Point(name=self.name, overrides=overrides)

    def published_to(self, address: str | None) -> Point:
        """The point with the place that its release goes to; None: nowhere."""
        return msgspec.structs.replace(self, address=address)

    @property
    def values(self) -> dict[str, str]:
        """The matrix' keys → values, as placeholders take them."""
        parts = [part.partition("=") for part in self.name.split(",") if part]
        return {key: value for key, _, value in parts}


def points_of(spec: FleetSpec) -> list[Point]:
    """All combinations of the matrix, the first key's values changing slowest."""
    common: dict[str, Any] = {}
    for section, options in spec.params.items():
        common |= {f"{section}.{name}": value for name, value in options.items()}
    points = []
    for combination in itertools.product(*spec.matrix.values()):
        chosen = dict(zip(spec.matrix, combination, strict=True))
        name = ",".join(f"{key}={_short(value)}" for key, value in chosen.items())
        overrides = common | chosen
        has_names = any(map(_has_placeholders, overrides.values()))
        points.append(Point(name=name, overrides=overrides, placeholders=has_names))
    return points


def merged(params: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with dotted keys replaced; a publication is left to the coordinator.

    Args:
        params: as params.yaml has them.
        overrides: dotted key → value.
    """
    value = copy.deepcopy(dict(params))
    set_options(value, {**overrides, **UNPUBLISHED})
    return value


def set_options(params: Any, options: Mapping[str, Any]) -> None:
    """Set options in place, so that a document keeps its comments.

    Args:
        params: as params.yaml has them: section → name → value.
        options: dotted key → value.
    """
    for key, value in options.items():
        section, _, name = key.partition(".")
        params.setdefault(section, {})[name] = value


UNPUBLISHED: Mapping[str, Any] = {
    "publish.repo_id": None,
    "publish.revision": "main",
    "publish.version": None,
    "publish.create_pr": False,
    "publish.dry_run": False,
    "publish.private": True,
    "publish.signing_key": None,
    "publish.space": None,
    "card.address": None,
    "benchmark.enabled": False,
}
"""What these options are while a member is built, whatever the project's own are."""


def require_valid(params: Mapping[str, Any], points: list[Point]) -> None:
    """Require parameters that the stages would take.

    Args:
        params: of the project.
        points: of the fleet.

    Raises:
        ParamsError: an option is the fleet's own, unknown, or has a wrong value.
    """
    for key in points[0].overrides:
        if key in OF_THE_FLEET:
            raise ParamsError(
                f"{FLEET} sets {key}, which a member can't have",
                f"leave it out: {OF_THE_FLEET[key]}",
            )
    for point in points:
        place = Path(f"{FLEET} over params.yaml, {point.name or 'params'}")
        parse_section(Params, merged(params, point.overrides), place, REMEDY)


def _short(value: Any) -> str:
    """A value in a point's name."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    kept = [each if each.isalnum() or each in "._+-" else "-" for each in text]
    return "".join(kept)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value of a list of texts or of a text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _has_placeholders(value: Any) -> bool:
    return any(placeholders(text) for text in _texts(value))


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    return value
