"""A release to look into: a folder, or one on a Hub, of which only what is asked for is
downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from checkpoint_release.core.artifacts.release import (
    CARD,
    RELEASE,
    Release,
    read_release,
)
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import sha256
from checkpoint_release.release.weights import weight_file
from checkpoint_release.tensors.safetensors import open_sharded
from checkpoint_release.tensors.tensor import Tensor

if TYPE_CHECKING:
    from checkpoint_release.release.hub import Hub


@dataclass(frozen=True)
class ReleaseView:
    """A release.

    Attributes:
        name: what to call it.
        release: its description.
        folder: where its files lie, as far as they were fetched.
        fetch: brings a file into the folder, if it isn't there; None: all are.
    """

    name: str
    release: Release
    folder: Path
    fetch: Callable[[str], None] | None = None

    @property
    def is_remote(self) -> bool:
        """Whether looking into a file means downloading it."""
        return self.fetch is not None

    def file(self, path: str) -> Path:
        """A file of the release, which is what release.json lists.

        The card alone may be another: people edit it on the Hub.

        Args:
            path: in the release.

        Raises:
            ArtifactError: it is missing, or another one.
            PublishError: the Hub doesn't give it.
        """
        local = self.folder / path
        if self.fetch is not None and not local.is_file():
            self.fetch(path)
        if not local.is_file():
            raise ArtifactError(f"{self.name} lacks {path}", "get the release again")
        listed = self.release.files.get(path)
        is_edited = listed is not None and sha256(local) != listed.sha256
        if is_edited and path != CARD:
            raise ArtifactError(
                f"{path} of {self.name} is not what its {RELEASE} lists",
                "get the release again, or name its tag",
            )
        return local

    def text(self, path: str) -> str:
        """The text of a file; empty where the release has no such file.

        Raises:
            ArtifactError: as file.
            PublishError: as file.
        """
        if path not in self.release.files:
            return ""
        return self.file(path).read_text(encoding="utf-8", errors="replace")

    @property
    def weights_size(self) -> int:
        """Bytes of all safetensors files of the model."""
        files = self.release.files
        return sum(files[name].size for name in files if weight_file(name))

    def weights(self) -> Mapping[str, Tensor]:
        """The tensors by name.

        Raises:
            ArtifactError: a file is missing or broken, or another one.
            PublishError: the Hub doesn't give them.
        """
        for name in self.release.files:
            if weight_file(name):
                self.file(name)
        return open_sharded(self.folder)


def view_folder(folder: Path) -> ReleaseView:
    """A release in a folder.

    Raises:
        ArtifactError: there is none.
    """
    return ReleaseView(str(folder), read_release(folder), folder)


@contextmanager
def view_on_hub(hub: Hub, repo_id: str, revision: str) -> Iterator[ReleaseView]:
    """A release on a Hub; what is downloaded of it lies in a temporary folder.

    Args:
        hub: where it is.
        repo_id: organisation/name.
        revision: branch, tag or commit.

    Raises:
        ArtifactError: there is no release that can be read.
        PublishError: the Hub doesn't give it.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def fetch(path: str) -> None:
            local = folder / path
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(hub.content(repo_id, path, revision))

        fetch(RELEASE)
        release = read_release(folder)
        yield ReleaseView(f"{repo_id}@{revision}", release, folder, fetch)
