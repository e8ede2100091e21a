"""Where a release will be on the Hub, as examples name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from checkpoint_release.core.params import Params

_DEFAULT = "main"
"""The branch that a Hub takes where none is named."""


@dataclass(frozen=True)
class Address:
    """A repository and a revision.

    Attributes:
        repo_id: organisation/name.
        revision: a tag or a branch; None: examples take what main holds.
    """

    repo_id: str
    revision: str | None

    @classmethod
    def of(cls, params: Params) -> Self | None:
        """The address that card.address states, or that the release is published to;
        None without a repository.
        """
        stated, publish = params.card.address, params.publish
        if stated is not None:
            repo_id, _, revision = stated.partition("@")
        elif publish.repo_id is not None:
            repo_id, revision = publish.repo_id, publish.version or publish.revision
        else:
            return None
        return cls(repo_id, None if revision in ("", _DEFAULT) else revision)

    @property
    def name(self) -> str:
        """The repository's, without its organisation."""
        return self.repo_id.rpartition("/")[2]

    @property
    def revision_argument(self) -> str:
        """How a call in Python names the revision."""
        return f', revision="{self.revision}"' if self.revision else ""

    @property
    def revision_flag(self) -> str:
        """How a command names the revision."""
        return f" --revision {self.revision}" if self.revision else ""
