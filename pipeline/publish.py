"""publish: assemble the release and, if params.yaml names a repository, put it on the
Hub.

Plan, one commit, every hash read back, tag, receipt: in this order, so that whatever
interrupts it, the next run finds what is left to do. The receipt
(artifacts/publish.json) is written last and states only what happened.

`python -m pipeline.publish --assemble` makes the release alone: it asks no Hub, and
leaves the receipt as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.attestation import Making
from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.artifacts.receipt import (
    LOOKS,
    RECEIPT,
    Statement,
    count_look,
)
from checkpoint_release.core.params import PublishParams, load_params
from checkpoint_release.core.run_record import read_run_record
from checkpoint_release.core.stage import ARTIFACTS
from checkpoint_release.release.assemble import Earlier, assemble
from checkpoint_release.release.checkouts import git_checkout
from checkpoint_release.release.environment import computing_packages
from checkpoint_release.release.making import describe_making
from checkpoint_release.release.publication import (
    AssembledRelease,
    make_receipt,
    make_target,
    outcome,
    previous_receipt,
    print_plan,
    require_new_version,
    write_receipt,
)

if TYPE_CHECKING:
    from checkpoint_release.release.hub import Hub

REQUIREMENTS = Path("requirements.txt")
"""Of a project in which the library is an installed package."""


def main() -> None:
    """Publish what params.yaml asks for."""
    params = load_params()
    if "--assemble" in sys.argv[1:]:
        assemble_release(params.publish, ARTIFACTS, earlier=None)
        return
    dropped = [name for name, value in params.card.metadata.items() if value is None]
    publish(params.publish, ARTIFACTS, dropped=dropped)


def connect(params: PublishParams) -> Hub:
    """The Hub of HF_ENDPOINT, with the rights of the user's token."""
    from checkpoint_release.release.hub import Hub, default_endpoint
    from checkpoint_release.release.tokens import require_token

    return Hub(
        default_endpoint(),
        require_token,
        timeout=params.timeout,
        patience=params.patience,
    )


def publish(
    params: PublishParams,
    artifacts: Path,
    connect: Callable[[PublishParams], Hub] = connect,
    dropped: Sequence[str] = (),
) -> None:
    """Assemble artifacts/release and publish it as asked.

    Args:
        params: what is asked.
        artifacts: the folder of all artifacts.
        connect: gives the Hub.
        dropped: front matter of the card on the Hub that shall go.

    Raises:
        ArtifactError: an artifact is missing, changed or unchecked.
        PublishError: the release can't be assembled, or the Hub doesn't hold it.
    """
    if params.repo_id is None:
        release = assemble_release(params, artifacts, earlier=None)
        state_unpublished(artifacts, release, "publish.repo_id is not set")
        return
    from checkpoint_release.release.history import History

    hub = connect(params)
    history = History(hub, params.repo_id, params.revision, params.version, dropped)
    release = assemble_release(params, artifacts, history)
    publish_to(params.repo_id, release, artifacts, params, hub, history.notes)


def assemble_release(
    params: PublishParams, artifacts: Path, earlier: Earlier | None
) -> AssembledRelease:
    """Write artifacts/release; it keeps what people did to an earlier one."""
    packages = computing_packages(REQUIREMENTS)

    def making(facts: CheckpointFacts) -> Making:
        return describe_making(read_run_record(), packages, facts)

    folder = assemble(
        artifacts,
        card=params.card,
        page=params.page,
        packages=packages if params.sbom else None,
        signing_key=params.signing_key,
        extra=Path(params.extra),
        earlier=earlier,
        making=making,
    )
    release = AssembledRelease.open(folder)
    print(f"assembled {folder}: {len(release.files)} files, {release.size:,} bytes")
    return release


def publish_to(
    repo_id: str,
    release: AssembledRelease,
    artifacts: Path,
    params: PublishParams,
    hub: Hub,
    notes: str,
) -> None:
    """Plan, upload and tag the release, and write the receipt."""
    # with the Hub's whole client
    from checkpoint_release.release import upload
    from checkpoint_release.release.preflight import require_publishable
    from checkpoint_release.release.space import planned_space
    from checkpoint_release.release.survey import survey

    # what a run of the pipeline writes itself doesn't make its sources dirty
    checkout = git_checkout(ignoring=["dvc.lock", "artifacts", LOOKS])
    target = make_target(params, repo_id, release, checkout, notes)
    previous = previous_receipt(artifacts, hub.address, repo_id)
    require_new_version(previous, target, release.files, release.evidence)
    state = survey(hub, release.local_files, target)
    if not state.tagged:
        require_new_version(previous, target, release.files)
    print_plan(hub, state, target, release.files, previous)
    if notes and not state.complete(target):
        print(notes)
    require_publishable(hub, release.local_files, target, state)
    with planned_space(hub, release.folder, params, target.title) as space:
        if space:
            print(space.summary())
        if params.dry_run:
            print("publish.dry_run is true: nothing was changed")
            if previous is None:
                state_unpublished(artifacts, release, "publish.dry_run is true")
            return
        published = upload.publish(hub, release.local_files, target, state)
        shown = None
        if space and published.pull_request is None:
            shown = space.publish()
    files = release.as_published(state)
    receipt = make_receipt(published, target, hub.address, files, checkout, shown)
    if receipt.pull_request:
        count_look(Path())
    if previous and previous.says_the_same_as(receipt):
        print(f"{artifacts / RECEIPT} holds: {outcome(receipt, target)}")
        return
    write_receipt(artifacts, receipt)
    print(outcome(receipt, target))


def state_unpublished(artifacts: Path, release: AssembledRelease, reason: str) -> None:
    """Write down that the release was assembled only, and why."""
    write_receipt(artifacts, Statement(reason=reason, files=dict(release.files)))
    print(f"not published: {reason}")


if __name__ == "__main__":
    stage.run(main)
