"""fleet.yaml: which checkpoints are released, how, and where to.

Unknown keys, wrong types and impossible values are refused, as in params.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import (
    Repository,
    Section,
    Text,
    parse_section,
    read_mapping,
)
from checkpoint_release.core.text import printable, shown

FLEET = Path("fleet.yaml")
REMEDY = f"correct {FLEET}; docs/fleet.md lists what each key allows"

Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z",
        description="lower-case letters, digits, - and _, at most 63",
    ),
]
S3Url = Annotated[
    str, Meta(pattern=r"^s3://[^/]+/.+\Z", description="s3://bucket/path")
]


class FilesSource(Section, frozen=True):
    """Files or folders that every machine finds at the same path, or in git.

    Attributes:
        files: a path with patterns, below the project or absolute.
    """

    files: Text


class DvcSource(Section, frozen=True):
    """Files in what DVC tracks, which each machine pulls from the remote.

    Attributes:
        dvc: a path with patterns, below the project.
    """

    dvc: Text


class S3Source(Section, frozen=True):
    """Objects of S3, or of what speaks its protocol.

    Attributes:
        s3: an address with patterns.
        endpoint: of the server; None: AWS's own.
    """

    s3: S3Url
    endpoint: Text | None = None


class HubSource(Section, frozen=True):
    """A file of a Hub's repository at several revisions.

    Attributes:
        hub: organisation/name.
        file: its path in the repository.
        revisions: branches, tags and commits; patterns choose among branches and tags.
    """

    hub: Repository
    file: Text
    revisions: list[Text]


Source = FilesSource | DvcSource | S3Source | HubSource
_KINDS: dict[str, type[Source]] = {
    "files": FilesSource,
    "dvc": DvcSource,
    "s3": S3Source,
    "hub": HubSource,
}


class PublishSpec(Section, frozen=True):
    """Where the releases go; each text may hold placeholders.

    Attributes:
        repository: organisation/name on the Hub.
        branch: that each release is committed to.
        tag: set after all branches are published; None: no tag.
        private: visibility of a repository that is created.
    """

    repository: Text
    branch: Text = "main"
    tag: Text | None = None
    private: bool = True


class FleetSpec(Section, frozen=True):
    """All of fleet.yaml.

    Attributes:
        name: of the fleet; its results are the git refs below refs/fleet/NAME/.
        source: where the checkpoints are.
        params: section → key → value, over those of params.yaml.
        matrix: dotted key → values; each checkpoint is released at every combination.
        publish: where to; None: nowhere.
        repository: where other machines fetch the pipeline's commit from; None: the
            path of this folder.
    """

    name: Name
    source: list[dict[str, Any]]
    params: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    matrix: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    publish: PublishSpec | None = None
    repository: Text | None = None

    def validate(self) -> Iterator[tuple[str, str]]:
        """What types can't express."""
        if not self.source:
            yield "source", "expected at least one source of checkpoints"
        for key, values in self.matrix.items():
            if not values:
                yield "matrix", f"{printable(key)} has no values"
            if key.count(".") != 1:
                yield "matrix", f"{printable(key)} is no option, such as onnx.opset"
            section, _, name = key.partition(".")
            if name in self.params.get(section, {}):
                yield "matrix", f"{printable(key)} is set in params as well"

    @property
    def sources(self) -> list[Source]:
        """The sources, each as what it is.

        Raises:
            ParamsError: one is none of the known kinds, or has a wrong key.
        """
        return [_source(value, place) for place, value in enumerate(self.source)]


def _source(value: dict[str, Any], place: int) -> Source:
    key = f"{FLEET}: source[{place}]"
    kinds = [name for name in _KINDS if name in value]
    if len(kinds) != 1:
        raise ParamsError(
            f"{key}: found {shown(value)}: expected exactly one of {', '.join(_KINDS)}",
            REMEDY,
        )
    return parse_section(_KINDS[kinds[0]], value, Path(key), REMEDY)


def load_spec(path: Path = FLEET) -> FleetSpec:
    """Read and validate fleet.yaml.

    Args:
        path: of the file.

    Raises:
        ParamsError: it is missing, isn't YAML, or holds an unknown key, a wrong type or
            an impossible value.
    """
    value = read_mapping(path, "start from the one in docs/fleet.md")
    return parse_section(FleetSpec, value, path, REMEDY)
