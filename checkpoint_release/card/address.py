"""Where a release will be on the Hub, as examples name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Address:
    """A repository and a version.

    Attributes:
        repo_id: organisation/name.
        version: its tag; None: examples take what the branch holds.
    """

    repo_id: str
    version: str | None

    @classmethod
    def of(cls, repo_id: str | None, version: str | None) -> Self | None:
        """The address; None without a repository."""
        return None if repo_id is None else cls(repo_id, version)

    @property
    def name(self) -> str:
        """The repository's, without its organisation."""
        return self.repo_id.rpartition("/")[2]

    @property
    def revision_argument(self) -> str:
        """How a call in Python names the version."""
        return f', revision="{self.version}"' if self.version else ""

    @property
    def revision_flag(self) -> str:
        """How a command names the version."""
        return f" --revision {self.version}" if self.version else ""
