"""Looking up the checkpoints that fleet.yaml names."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from checkpoint_release.core.errors import (
    CheckpointError,
    MissingLibraryError,
    ParamsError,
    one_line,
)
from checkpoint_release.core.extras import extras_named
from checkpoint_release.fleet.checkpoints import (
    Checkpoint,
    Naming,
    below,
    require_some,
    stem,
)
from checkpoint_release.fleet.digests import Digests
from checkpoint_release.fleet.patterns import Pattern, natural
from checkpoint_release.fleet.project import Project, git
from checkpoint_release.fleet.spec import (
    DvcSource,
    FilesSource,
    HubSource,
    S3Source,
    Source,
)

Found = list[tuple[str, Checkpoint]]
"""What tells a checkpoint from the others of its source, and the checkpoint."""
_DIGESTS = Path(".dvc/tmp/fleet/digests.json")


def find_checkpoints(project: Project, sources: list[Source]) -> dict[str, Checkpoint]:
    """Look up all checkpoints.

    Args:
        project: that relative paths are below.
        sources: as fleet.yaml has them.

    Returns:
        Name → checkpoint, in the order of the sources and, within one, of the numbers
        in their paths.

    Raises:
        ParamsError: a source stands for none, or two would have one name.
        CheckpointError: a source can't be read.
        MissingLibraryError: a library that it needs isn't installed.
    """
    naming = Naming()
    named = {}
    for source in sources:
        for text, checkpoint in _find(project, source):
            named[naming.name(text, checkpoint.address)] = checkpoint
    return named


def _find(project: Project, source: Source) -> Found:
    match source:
        case FilesSource():
            return _files(project, Pattern(source.files))
        case DvcSource():
            return _dvc(project, Pattern(source.dvc))
        case S3Source():
            return _s3(Pattern(source.s3), source.endpoint)
        case HubSource():
            return _hub(source)


def _files(project: Project, pattern: Pattern) -> Found:
    root = project.root
    expression = pattern.glob
    # Path.glob takes no pattern of an absolute path.
    listed = glob.glob(expression, root_dir=root)  # noqa: PTH207
    values = pattern.matches(PurePosixPath(path).as_posix() for path in listed)
    require_some(values, f"files: {pattern.text}", "correct the path in fleet.yaml")
    digests = Digests(root / _DIGESTS)
    paths = [root / path for path in values]
    computed = digests.of_all(paths)
    digests.keep()
    tracked = _tracked(project, pattern.fixed)
    found = []
    for (path, names), (sha256, size) in zip(values.items(), computed, strict=True):
        checkpoint = Checkpoint(
            kind="files",
            address=path,
            digest=f"sha256:{sha256}",
            size=size,
            file=path,
            values=names,
            tracked=path in tracked,
        )
        found.append((stem(below(path, pattern.fixed)), checkpoint))
    return found


def _tracked(project: Project, folder: str) -> set[str]:
    """The files below a folder that the commit holds as they are here."""
    if Path(folder).is_absolute():
        return set()
    where = ["--", folder] if folder else []
    listed = git(project.root, "ls-tree", "-r", "-z", "--name-only", "HEAD", *where)
    changed = git(
        project.root, "diff", "--relative", "--name-only", "-z", "HEAD", *where
    )
    return set(listed.split("\0")) - set(changed.split("\0"))


def _dvc(project: Project, pattern: Pattern) -> Found:
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        system = DVCFileSystem(str(project.root), rev=project.commit)
        folder = pattern.fixed or "."
        entries = system.find(folder, detail=True, dvc_only=True)
    except (DvcException, OSError) as error:
        raise CheckpointError(
            f"dvc: {pattern.text} can't be looked up: {one_line(error)}",
            "commit the .dvc file, and check its path",
        ) from None
    by_path = {path.strip("/"): entry for path, entry in entries.items()}
    values = pattern.matches(by_path)
    require_some(
        values,
        f"dvc: {pattern.text}",
        "track the folder (dvc add), commit its .dvc file, and correct the path",
    )
    found = []
    for path, names in values.items():
        entry: Any = by_path[path]
        checkpoint = Checkpoint(
            kind="dvc",
            address=path,
            digest=f"md5:{entry['md5']}",
            size=int(entry["size"] or 0),  # DVC's list of a folder has none
            file=path,
            values=names,
        )
        found.append((stem(below(path, pattern.fixed)), checkpoint))
    return found


def s3_file_system(endpoint: str | None) -> Any:
    """The file system of an S3 server, with the credentials of the environment.

    Args:
        endpoint: of the server; None or "": AWS.

    Raises:
        MissingLibraryError: s3fs isn't installed.
    """
    try:
        import s3fs
    except ModuleNotFoundError:
        raise MissingLibraryError(
            "s3fs is not installed", "run pip install 'dvc[s3]'"
        ) from None
    s3fs.S3FileSystem.clear_instance_cache()
    return s3fs.S3FileSystem(endpoint_url=endpoint or None, use_listings_cache=False)


def _s3(pattern: Pattern, endpoint: str | None) -> Found:
    def look_up() -> dict[str, Any]:
        system = s3_file_system(endpoint)
        if pattern.is_plain:
            return {pattern.text: system.info(pattern.text)}
        entries = system.find(pattern.fixed, detail=True)
        return {f"s3://{path}": entry for path, entry in entries.items()}

    by_address = _asked(look_up, pattern.text)
    values = pattern.matches(by_address)
    require_some(values, pattern.text, "correct the address in fleet.yaml")
    found = []
    for address, names in values.items():
        entry = by_address[address]
        etag = str(entry["ETag"]).strip('"')
        checkpoint = Checkpoint(
            kind="s3",
            address=address,
            digest=f"etag:{etag}",
            size=int(entry["size"]),
            file=PurePosixPath(address).name,
            values=names,
            endpoint=endpoint or "",
        )
        found.append((stem(below(address, pattern.fixed)), checkpoint))
    return found


def _asked(look_up: Callable[[], dict[str, Any]], what: str) -> dict[str, Any]:
    """What a server answered.

    Raises:
        CheckpointError: it didn't.
    """
    from botocore.exceptions import BotoCoreError

    try:
        return look_up()
    except (OSError, BotoCoreError) as error:
        raise CheckpointError(
            f"{what} can't be looked up: {one_line(error)}",
            "check the address and the credentials (AWS_ACCESS_KEY_ID and its like)",
        ) from None


def _hub(source: HubSource) -> Found:
    with extras_named():
        from checkpoint_release.release.hub import Hub, default_endpoint
        from checkpoint_release.release.tokens import stored_token
    hub = Hub(default_endpoint(), stored_token, report=lambda line: None)
    known = hub.refs(source.hub)
    revisions = [*known.branches, *sorted(known.tags)]
    found = []
    for text in source.revisions:
        for revision, names in _revisions(text, revisions, source.hub).items():
            commit = hub.commit_of(source.hub, revision)
            entry = hub.files(source.hub, commit).get(source.file)
            if entry is None:
                raise CheckpointError(
                    f"{source.hub} has no {source.file} at revision {revision}",
                    "correct file or revisions in fleet.yaml",
                )
            digest = (
                f"sha256:{entry.sha256}" if entry.sha256 else f"git:{entry.blob_id}"
            )
            checkpoint = Checkpoint(
                kind="hub",
                address=source.hub,
                digest=digest,
                size=entry.size,
                file=source.file,
                values={"revision": revision, **names},
                revision=commit,
            )
            found.append((f"{source.hub}-{revision}", checkpoint))
    return found


def _revisions(
    text: str, known: list[str], repository: str
) -> dict[str, dict[str, str]]:
    """The revisions that a pattern stands for.

    Raises:
        ParamsError: there is none.
    """
    pattern = Pattern(text)
    if pattern.is_plain:
        return {text: {}}
    values = pattern.matches(sorted(known, key=natural))
    if not values:
        raise ParamsError(
            f"{repository} has no branch or tag that fits {text}",
            "correct revisions in fleet.yaml",
        )
    return values
