"""The release's page as a static Space of the Hub, beside the model.

It goes the way of the model's files: what is there is looked at, one commit is made on
top of exactly that, and every hash is read back. The Space's card is written once, and
is people's from then on; of the other files only those are touched that are the page's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.artifacts.manifest import digests
from checkpoint_release.core.artifacts.receipt import PublishedSpace
from checkpoint_release.core.artifacts.release import CARD, RELEASE
from checkpoint_release.core.errors import CheckpointReleaseError, PublishError
from checkpoint_release.core.params import PublishParams
from checkpoint_release.page.space import INDEX, RELEASE_FOLDER, write_space
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.plan import LocalFile, Survey, Target
from checkpoint_release.release.preflight import require_publishable
from checkpoint_release.release.survey import survey
from checkpoint_release.release.upload import publish

_OWN = (INDEX, f"{RELEASE_FOLDER}/*")
"""What the page's files are called in a Space."""


@dataclass(frozen=True)
class PlannedSpace:
    """A Space that nothing is known to stand against.

    Attributes:
        hub: asked about Spaces.
        local: path in the Space → file.
        target: where on the Hub.
        survey: what is there.
    """

    hub: Hub
    local: Mapping[str, LocalFile]
    target: Target
    survey: Survey

    def summary(self) -> str:
        """What publishing would do to it, on a line."""
        plan = self.survey.plan
        create = "" if self.survey.exists else "create it, "
        counts = (
            f"{len(plan.added)} files added, {len(plan.changed)} changed,"
            f" {len(plan.deleted)} deleted, {len(plan.unchanged)} unchanged"
        )
        return f"Space {self.target.repo_id}: {create}{counts}"

    def publish(self) -> PublishedSpace:
        """Put the page there, as far as it isn't.

        Raises:
            PublishError: something failed; the next run finds what did happen.
        """
        with _naming_the_option():
            published = publish(self.hub, self.local, self.target, self.survey)
        return PublishedSpace(repo=self.target.repo_id, commit=published.commit)


@contextmanager
def planned_space(
    hub: Hub, release: Path, params: PublishParams, title: str
) -> Iterator[PlannedSpace | None]:
    """What publishing the page would do; its files are there within the block.

    Args:
        hub: where to.
        release: the release's folder.
        params: what was asked for.
        title: of the commit.

    Returns:
        None where no Space was asked for.

    Raises:
        ArtifactError: the release holds no ONNX model, which the page runs.
        PublishError: the Space is another one's or has another visibility, the token
            may not write to it, or the Hub can't be asked.
    """
    if params.space is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "space"
        write_space(release, folder, params.repo_id)
        local = {
            path: LocalFile(folder / path, entry.size, entry.sha256)
            for path, entry in digests(folder).items()
        }
        target = Target(
            repo_id=params.space,
            private=params.private,
            kept=frozenset({CARD}),
            deletable=_OWN,
            title=title,
            transfer=params.transfer,
        )
        with _naming_the_option():
            found = _plan(hub.of_spaces(), local, target)
        yield found


def _plan(hub: Hub, local: Mapping[str, LocalFile], target: Target) -> PlannedSpace:
    if hub.repository is not None:
        raise PublishError(
            f"the job's token is for {hub.repository} alone, and {{publish.repo_id}} is"
            f" {target.repo_id}",
            "set {publish.repo_id} to null there, and publish the Space with a user's"
            " token",
            options=["publish.repo_id"],
        )
    found = survey(hub, local, target)
    is_page = f"{RELEASE_FOLDER}/{RELEASE}" in found.remote
    if INDEX in found.remote and not is_page:
        raise PublishError(
            f"the Space {target.repo_id} has an {INDEX} that is no release's",
            "name another Space in {publish.repo_id}, or remove that file on the Hub",
            options=["publish.repo_id"],
        )
    require_publishable(hub, local, target, found)
    return PlannedSpace(hub, local, target, found)


@contextmanager
def _naming_the_option() -> Iterator[None]:
    """Let errors about a repository name the option that names the Space."""
    try:
        yield
    except CheckpointReleaseError as error:
        raise error.renamed(_of_the_space) from error


def _of_the_space(option: str) -> str:
    return "publish.space" if option == "publish.repo_id" else option
