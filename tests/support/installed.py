"""What installations of this package hold."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = canonicalize_name(PROJECT["name"])


def needed(extra: str) -> set[str]:
    """All distributions that the package needs with an extra, by canonical names."""
    found: set[str] = set()
    todo = [Requirement(f"{PROJECT['name']}[{extra}]")]
    seen: set[str] = set()
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        found.add(canonicalize_name(requirement.name))
        todo += requirements_of(requirement)
    return found - {OWN}


def requirements_of(requirement: Requirement) -> list[Requirement]:
    """What a distribution needs on this machine, with the extras that are asked for."""
    if canonicalize_name(requirement.name) == OWN:
        optional = PROJECT["optional-dependencies"]
        texts = [*PROJECT["dependencies"]]
        for extra in requirement.extras:
            texts += optional[extra]
        return [Requirement(text) for text in texts]
    declared = importlib.metadata.requires(requirement.name) or []
    extras = ["", *requirement.extras]
    return [each for each in map(Requirement, declared) if applies(each, extras)]


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
