"""A Hub that holds something else than was to be published."""

from __future__ import annotations

from collections.abc import Mapping

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.plan import LocalFile, Plan, RemoteFile, Target


def tag_conflict(target: Target, commit: str, plan: Plan) -> PublishError:
    """The version's tag is at a commit that isn't this release.

    Args:
        target: where the release was to go.
        commit: what the tag stands for.
        plan: how that commit differs from the release.
    """
    if plan.empty:
        what = "is another commit"
    else:
        what = f"holds other files ({_first_few(plan.differing)})"
    return PublishError(
        f"{target.tag} of {target.repo_id} is already at {short(commit)}, which"
        f" {what}; a version is never moved",
        "raise {publish.version}",
        options=["publish.version"],
    )


def content_mismatch(
    local: Mapping[str, LocalFile],
    remote: Mapping[str, RemoteFile],
    plan: Plan,
    commit: str,
) -> PublishError:
    """The commit that was just sent doesn't hold the release.

    Args:
        local: what was sent, by path.
        remote: what the Hub holds, by path.
        plan: how they differ.
        commit: the commit that was read back.
    """
    path = plan.differing[0]
    sent = "nothing"
    if path in local:
        sent = f"{local[path].size} bytes, sha256 {local[path].sha256[:12]}…"
    found = "nothing"
    if path in remote:
        digest = remote[path].sha256 or remote[path].blob_id
        found = f"{remote[path].size} bytes, {digest[:12]}…"
    return PublishError(
        f"the Hub does not hold what was sent: {_first_few(plan.differing)} in commit"
        f" {short(commit)} ({path}: {sent} sent, {found} found); the version was not"
        " tagged",
        "publish again; if it happens again, report it to the Hub's operators",
    )


def short(commit: str | None) -> str:
    """A commit's id as messages show it: twelve digits."""
    return commit[:12] if commit else "nothing"


def _first_few(paths: tuple[str, ...]) -> str:
    shown = ", ".join(paths[:3])
    if len(paths) > 3:
        return f"{shown} and {len(paths) - 3} more"
    return shown
