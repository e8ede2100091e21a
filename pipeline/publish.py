"""publish: assemble the release and, if params.yaml names a repository, put it on the
Hub.

Plan, one commit, every hash read back, tag, receipt: in this order, so that whatever
interrupts it, the next run finds what is left to do. The receipt
(artifacts/publish.json) is written last and states only what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.receipt import RECEIPT, Statement
from checkpoint_release.core.params import PublishParams, load_params
from checkpoint_release.core.stage import ARTIFACTS
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.publication import (
    AssembledRelease,
    git_checkout,
    make_receipt,
    make_target,
    page_of,
    previous_receipt,
    print_plan,
    require_new_version,
    write_receipt,
)

if TYPE_CHECKING:
    from checkpoint_release.release.hub import Hub

CONSTRAINTS = Path("constraints.txt")


def main() -> None:
    """Publish what params.yaml asks for."""
    publish(load_params().publish, ARTIFACTS)


def connect(params: PublishParams) -> Hub:
    """The Hub of HF_ENDPOINT, with the rights of the user's token."""
    from checkpoint_release.release.hub import Hub, default_endpoint, require_token

    return Hub(default_endpoint(), require_token(), timeout=params.timeout)


def publish(
    params: PublishParams,
    artifacts: Path,
    connect: Callable[[PublishParams], Hub] = connect,
) -> None:
    """Assemble artifacts/release and publish it as asked.

    Raises:
        ArtifactError: an artifact is missing, changed or unchecked.
        PublishError: the release can't be assembled, or the Hub doesn't hold it.
    """
    folder = assemble(
        artifacts,
        card=params.card,
        page=params.page,
        pins=CONSTRAINTS if params.sbom else None,
        signing_key=Path(params.signing_key) if params.signing_key else None,
    )
    release = AssembledRelease.open(folder)
    print(f"assembled {folder}: {len(release.files)} files, {release.size:,} bytes")
    if params.repo_id is None:
        state_unpublished(artifacts, release, "publish.repo_id is not set")
        return
    publish_to(params.repo_id, release, artifacts, params, connect(params))


def publish_to(
    repo_id: str,
    release: AssembledRelease,
    artifacts: Path,
    params: PublishParams,
    hub: Hub,
) -> None:
    """Plan, upload and tag the release, and write the receipt."""
    from checkpoint_release.release import upload  # with the Hub's whole client

    # what a run of the pipeline writes itself doesn't make its sources dirty
    checkout = git_checkout(ignoring=["dvc.lock", "artifacts"])
    target = make_target(params, repo_id, release, checkout)
    previous = previous_receipt(artifacts, hub.address, repo_id)
    require_new_version(previous, target, release.files)
    survey = hub.survey(release.local_files, target)
    print_plan(hub, survey, target, release.files, previous)
    if params.dry_run:
        print("publish.dry_run is true: nothing was changed")
        if previous is None:
            state_unpublished(artifacts, release, "publish.dry_run is true")
        return

    published = upload.publish(hub, release.local_files, target, survey)
    receipt = make_receipt(published, target, hub.address, release.files, checkout)
    if previous and previous.says_the_same_as(receipt):
        path = artifacts / RECEIPT
        print(f"the Hub already holds exactly this release, as {path} says")
        return
    write_receipt(artifacts, receipt)
    if published.changed:
        print(f"published: {page_of(receipt)}")
    else:
        print(f"the Hub already holds exactly this release: {page_of(receipt)}")


def state_unpublished(artifacts: Path, release: AssembledRelease, reason: str) -> None:
    """Write down that the release was assembled only, and why."""
    write_receipt(artifacts, Statement(reason=reason, files=dict(release.files)))
    print(f"not published: {reason}")


if __name__ == "__main__":
    stage.run(main)
