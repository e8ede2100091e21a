"""The order of versions, by https://semver.org, and which one came before."""

from __future__ import annotations

from collections.abc import Iterable

from checkpoint_release.core.params import is_version

_Key = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def previous_version(version: str, tags: Iterable[str]) -> str | None:
    """The version before another one, among the tags of a repository.

    For a release that is the last release, for a pre-release the last version of any
    kind; without any other release before it, a release comes after pre-releases.

    Args:
        version: such as v1.2.0 or v2.0.0-rc.1.
        tags: other tags are passed over.
    """
    earlier = [
        tag
        for tag in tags
        if is_version(tag) and _precedence(tag) < _precedence(version)
    ]
    if not is_prerelease(version):
        earlier = [tag for tag in earlier if not is_prerelease(tag)] or earlier
    return max(earlier, key=_precedence, default=None)


def is_prerelease(version: str) -> bool:
    """Whether a version is one before a release, such as v1.0.0-rc.1."""
    return "-" in version.partition("+")[0]


def _precedence(version: str) -> _Key:
    """What versions are ordered by: numbers, then a release after its pre-releases.

    Args:
        version: a semantic version, with a v in front.
    """
    core, _, labels = version.removeprefix("v").partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    identifiers = []
    for label in filter(None, labels.split(".")):
        number = int(label) if label.isdigit() else 0
        identifiers.append((not label.isdigit(), number, label))
    return numbers, not labels, tuple(identifiers)
