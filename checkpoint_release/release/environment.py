"""The installed packages that compute a release: what the library needs, and what that
needs in turn. What only tests it, such as pytest, is none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

LIBRARY = "checkpoint-release"
_ROOTS = (f"{LIBRARY}[pipeline]",)


@dataclass(frozen=True)
class Package:
    """One installed distribution.

    Attributes:
        name: as packaging normalises it.
        version: the installed one, with its build (such as 2.13.0+cpu).
        needs: the names of the packages that it needs here, sorted.
        licence: an SPDX expression, or the licence's name; empty: it states none.
    """

    name: str
    version: str
    needs: tuple[str, ...]
    licence: str

    @property
    def release(self) -> str:
        """The version without its build, as pins name it."""
        return self.version.partition("+")[0]


def computing_packages(requirements: Path | None = None) -> dict[str, Package]:
    """The packages that compute a release here: name → package, sorted.

    Args:
        requirements: a project's requirements.txt, which names the library with its
            extras and what the model's own code needs; None, or missing: the library
            with what the pipeline needs.
    """
    return dict(_needed(tuple(_roots(requirements)) or _ROOTS))


@cache
def _needed(roots: Sequence[str]) -> dict[str, Package]:
    """What distributions need here, with themselves: name → package, sorted."""
    extras: dict[str, set[str]] = {}
    pending = [Requirement(root) for root in roots]
    while pending:
        requirement = pending.pop()
        name: str = canonicalize_name(requirement.name)
        known = extras.get(name)
        if known is not None and requirement.extras <= known:
            continue
        extras[name] = (known or set()) | requirement.extras
        pending += _needs(name, extras[name])
    packages: dict[str, Package] = {}
    for name in sorted(extras):
        package = _package(name, extras[name])
        if package is not None:
            packages[name] = package
    return packages


def _roots(requirements: Path | None) -> Iterator[str]:
    """The lines of a requirements.txt that name a distribution."""
    if requirements is None or not requirements.is_file():
        return
    for line in requirements.read_text(encoding="utf-8").splitlines():
        text = line.partition(" #")[0].strip()
        try:
            yield str(Requirement(text))
        except InvalidRequirement:
            continue  # a comment, an option of pip, or a path


def _needs(name: str, extras: Iterable[str]) -> list[Requirement]:
    """What a distribution needs on this platform; nothing where it isn't installed."""
    try:
        stated = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    environments = [{"extra": extra} for extra in ("", *extras)]
    needed = []
    for text in stated:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(map(marker.evaluate, environments)):
            needed.append(requirement)
    return needed


def _package(name: str, extras: Iterable[str]) -> Package | None:
    """A distribution as it is installed; None where it isn't."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    needs = {canonicalize_name(need.name) for need in _needs(name, extras)}
    return Package(
        name=name,
        version=distribution.version,
        needs=tuple(sorted(needs - {name})),
        licence=_licence(distribution),
    )


def _licence(distribution: metadata.Distribution) -> str:
    """The licence that a distribution states, in the most exact of the three ways."""
    fields = distribution.metadata
    for expression in fields.get_all("License-Expression") or []:
        return str(expression)
    names = []
    for classifier in fields.get_all("Classifier") or []:
        if classifier.startswith("License :: "):
            names.append(classifier.rpartition(" :: ")[2])
    for free_text in fields.get_all("License") or []:
        if free_text and "\n" not in free_text:
            return str(free_text).strip()
    return " AND ".join(sorted(names))
