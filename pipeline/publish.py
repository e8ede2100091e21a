"""publish: assemble the release and, where params.yaml names a repository, put it on
the Hub.

Plan, one commit, every hash read back, tag, receipt: in this order, so that whatever
interrupts it, the next run finds out what is left. The receipt (artifacts/publish.json)
is written last and speaks only of what happened.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.manifest import digests
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.files import FileEntry, read_json, sha256, write_json
from checkpoint_release.core.params import PublishParams, load_params
from checkpoint_release.core.stage import ARTIFACTS
from checkpoint_release.release.folder import CARD, RELEASE, assemble, read_release

if TYPE_CHECKING:
    from checkpoint_release.release.hub import Hub, Published, Survey, Target

CONSTRAINTS = Path("constraints.txt")
RECEIPT = "publish.json"


def main() -> None:
    """Publish what params.yaml asks for."""
    publish(load_params().publish, ARTIFACTS)


def connect(params: PublishParams) -> Hub:
    """The Hub of HF_ENDPOINT, as the owner of the token."""
    from checkpoint_release.release.hub import Hub, default_endpoint, find_token

    return Hub(default_endpoint(), find_token(), timeout=params.timeout)


def publish(
    params: PublishParams,
    artifacts: Path,
    connect: Callable[[PublishParams], Hub] = connect,
) -> None:
    """Assemble artifacts/release and publish it as asked.

    Raises:
        ArtifactError: an artifact is missing or changed.
        PublishError: the release can't be assembled, or the Hub doesn't hold it.
    """
    folder = assemble(
        artifacts,
        card=params.card,
        sbom=CONSTRAINTS if params.sbom else None,
        signing_key=Path(params.signing_key) if params.signing_key else None,
    )
    # what release.json lists needn't be hashed again
    entries = digests(folder, read_release(folder).files)
    size = sum(entry.size for entry in entries.values())
    print(f"assembled {folder}: {len(entries)} files, {size:,} bytes")
    last = _last_receipt(artifacts / RECEIPT)
    if params.repo_id is None:
        _write_statement(artifacts / RECEIPT, "publish.repo_id is not set", entries)
        return

    # with the Hub's whole client, where something goes to a Hub
    from checkpoint_release.release.hub import LocalFile
    from checkpoint_release.release.hub_errors import scrub

    hub = connect(params)
    files = {
        name: LocalFile(folder / name, entry.size, entry.sha256)
        for name, entry in entries.items()
    }
    checkout = _checkout()
    target = _target(params, folder, checkout)
    endpoint = scrub(hub.endpoint)
    if last and (last["endpoint"], last["repo"]) != (endpoint, target.repo_id):
        last = None  # it speaks of another repository
    _require_new_version(last, target, entries)
    survey = hub.survey(files, target)
    _tell(survey, target, entries, endpoint, _edited_card(hub, survey, target, last))
    if params.dry_run:
        print("publish.dry_run is true: nothing was changed")
        if last is None:
            _write_statement(artifacts / RECEIPT, "publish.dry_run is true", entries)
        return

    done = hub.publish(files, target, survey)
    receipt = _receipt(done, target, endpoint, entries, checkout)
    if last and _lasting(last) == _lasting(receipt):
        print(
            f"the Hub already holds exactly this release, as {artifacts / RECEIPT} says"
        )
        return
    _write(artifacts / RECEIPT, receipt)
    where = (
        done.pull_request
        or f"{endpoint}/{target.repo_id}/tree/{done.tag or target.revision}"
    )
    print(
        f"{'published' if done.changed else 'the Hub already holds exactly this release'}:"
        f" {where}"
    )


# What goes where


def _target(
    params: PublishParams, folder: Path, checkout: Mapping[str, Any] | None
) -> Target:
    from checkpoint_release.release.hub import Target

    name = params.version or sha256(folder / RELEASE)[:12]
    description = ""
    if checkout:
        description = f"Made from git commit {checkout['commit']}" + (
            " with changes" if checkout["dirty"] else ""
        )
    return Target(
        repo_id=str(params.repo_id),
        revision=params.revision,
        private=params.private,
        tag=params.version,
        create_pr=params.create_pr,
        kept=frozenset({CARD}) if params.card == "keep" else frozenset(),
        title=f"Release {name}",
        description=description,
    )


def _checkout() -> dict[str, Any] | None:
    """The git commit that the pipeline runs from, and whether the sources differ from
    it; None outside git.
    """
    # What a run of the pipeline writes itself doesn't make its sources dirty.
    own = [":(exclude)dvc.lock", ":(exclude)artifacts"]
    try:
        commit = _git("rev-parse", "HEAD")
        return {
            "commit": commit,
            "dirty": bool(_git("status", "--porcelain", "--", ".", *own)),
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def _require_new_version(
    last: Mapping[str, Any] | None, target: Target, entries: Mapping[str, FileEntry]
) -> None:
    """A version that this receipt says was published stays what it was, even if its tag
    is gone from the Hub.
    """
    if last is None or target.tag is None or last["tag"] != target.tag:
        return
    if last["files"] != {name: asdict(entry) for name, entry in entries.items()}:
        raise PublishError(
            f"{target.tag} of {target.repo_id} was published as commit"
            f" {last['commit'][:12]} with other files",
            f"raise publish.version (or remove artifacts/{RECEIPT}, if that publication"
            " no longer counts)",
        )


# The plan, in words


def _edited_card(
    hub: Hub, survey: Survey, target: Target, last: Mapping[str, Any] | None
) -> bool:
    """Whether people edited the card on the Hub since it was last published from here."""
    if (
        last is None
        or CARD not in survey.plan.changed
        or CARD not in last["files"]
        or survey.head is None
    ):
        return False
    published: str = last["files"][CARD]["sha256"]
    return hub.digest(target.repo_id, CARD, survey.head) != published


def _tell(
    survey: Survey,
    target: Target,
    entries: Mapping[str, FileEntry],
    endpoint: str,
    edited_card: bool,
) -> None:
    version = f", version {target.tag}" if target.tag else ""
    print(
        f"plan for {target.repo_id} at {endpoint}, branch {target.revision}{version}:"
    )
    plan = survey.plan
    if not survey.exists:
        print(f"  create the repository ({'private' if target.private else 'public'})")
    for name in plan.added:
        print(f"  add    {name} ({entries[name].size:,} bytes)")
    for name in plan.changed:
        note = (
            ", which was edited on the Hub since it was published"
            if name == CARD and edited_card
            else ""
        )
        print(
            f"  change {name} ({survey.remote[name].size:,} to {entries[name].size:,}"
            f" bytes){note}"
        )
    for name in plan.deleted:
        print(f"  delete {name} ({survey.remote[name].size:,} bytes)")
    print(
        f"  {len(plan.unchanged)} files unchanged"
        + ("; nothing to upload" if plan.empty else "")
    )
    if plan.deleted and RELEASE not in survey.remote:
        print(
            f"  note: {target.repo_id} holds no {RELEASE}; what is deleted there was"
            " not published by this pipeline"
        )
    kept = target.kept & survey.remote.keys()
    if kept:
        print(
            f"  keep   {', '.join(sorted(kept))} as it is on the Hub (publish.card is"
            " keep)"
        )
    if survey.pull_request:
        print(f"  pull request {survey.pull_request} already holds this release")
    if target.create_pr and target.tag:
        print(
            "  no tag yet: run publish again when the pull request is merged, to set"
            f" {target.tag}"
        )


# The receipt


def _last_receipt(path: Path) -> dict[str, Any] | None:
    """The last true receipt, if there is one that can be read."""
    try:
        value = read_json(path)
    except ArtifactError:
        return None
    known = {"endpoint", "repo", "commit", "tag", "files"}
    return (
        value
        if isinstance(value, dict)
        and value.get("published") is True
        and known <= value.keys()
        else None
    )


def _receipt(
    done: Published,
    target: Target,
    endpoint: str,
    entries: Mapping[str, FileEntry],
    checkout: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "published": True,
        "changed": done.changed,
        "endpoint": endpoint,
        "repo": target.repo_id,
        "revision": target.revision,
        "commit": done.commit,
        "tag": done.tag,
        "pull_request": done.pull_request,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git": checkout,
        "files": {name: asdict(entry) for name, entry in entries.items()},
    }


def _lasting(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """What a receipt says about the Hub, without when and by whom it was said."""
    return {
        key: value
        for key, value in receipt.items()
        if key not in ("changed", "time", "git")
    }


def _write_statement(path: Path, reason: str, entries: Mapping[str, FileEntry]) -> None:
    files = {name: asdict(entry) for name, entry in entries.items()}
    _write(path, {"published": False, "reason": reason, "files": files})
    print(f"not published: {reason}")


def _write(path: Path, value: Mapping[str, Any]) -> None:
    try:
        write_json(path, value)
    except OSError as error:
        raise PublishError(
            f"{path} can't be written: {error.strerror or error}",
            "make room or mend the disk, then run publish again: it finds what the Hub"
            " holds and writes that down",
        ) from None


if __name__ == "__main__":
    stage.run(main)
