"""One release, built twice: what was measured differs from machine to machine.

What is built has the same bytes everywhere. So a version that was built again on
another machine is the same version, and the evidence that was published with it first
stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from checkpoint_release.core.artifacts.attestation import RECORD
from checkpoint_release.core.artifacts.release import (
    RELEASE,
    SIGNATURE,
    SUMS,
    Release,
)
from checkpoint_release.core.files import FileEntry
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.plan import Plan, RemoteFile

_LISTS = {RELEASE, SUMS, SIGNATURE}
"""The files that hold digests of the evidence."""


def is_same_build(here: Release, there: Release, plan: Plan) -> bool:
    """Whether two releases differ in what another machine measured, or in the record of
    how they were made, and in nothing else.

    Measured on one machine, they differ because somebody changed something. The record
    of a release that isn't signed names every package; the one that was published first
    stands, as what was built and measured is the same.

    Args:
        here: the release to publish.
        there: the one that is published.
        plan: how the published files differ.
    """
    may_differ = {RECORD, *_LISTS} if RECORD in plan.differing else set()
    if there.evidence.machine != here.evidence.machine:
        may_differ |= {*here.evidence.files, *there.evidence.files, *_LISTS}
    return (
        there.built.sha256 == here.built.sha256
        and there.extra.sha256 == here.extra.sha256
        and may_differ.issuperset(plan.differing)
    )


def standing_evidence(
    hub: Hub,
    repo_id: str,
    there: Release,
    remote: Mapping[str, RemoteFile],
    commit: str,
) -> dict[str, FileEntry]:
    """Size and digest of a published release's evidence, and of the files that list it.

    Args:
        hub: is asked for those files.
        repo_id: organisation/name.
        there: the release.
        remote: the files at its commit.
        commit: where it is.

    Raises:
        PublishError: the Hub doesn't answer.
    """
    entries = dict(there.evidence.files)
    for path in sorted(_LISTS & remote.keys()):
        content = hub.content(repo_id, path, commit)
        entries[path] = FileEntry(len(content), hashlib.sha256(content).hexdigest())
    return entries
