"""Getting a member's checkpoint into its clone, and making sure that it is the one that
was planned.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from checkpoint_release.core.errors import CheckpointError, FleetError, one_line
from checkpoint_release.core.files import joint_sha256, sha256
from checkpoint_release.fleet.checkpoints import Checkpoint
from checkpoint_release.fleet.outcome import Job

FOLDER = "checkpoints/fleet"


def fetch(job: Job, clone: Path) -> str:
    """Put the checkpoint into the clone.

    Args:
        job: names it.
        clone: of the pipeline.

    Returns:
        Its path in the clone.

    Raises:
        CheckpointError: it isn't the one that was planned any more.
        FleetError: it can't be had here.
    """
    checkpoint = job.checkpoint
    place = clone / FOLDER / checkpoint.name
    place.parent.mkdir(parents=True, exist_ok=True)
    match checkpoint.kind:
        case "files":
            _link(job, clone, place)
        case "dvc":
            _pull(checkpoint, place)
        case "s3":
            _download_s3(checkpoint, place)
        case "hub":
            _download_hub(checkpoint, place)
    return f"{FOLDER}/{checkpoint.name}"


def _link(job: Job, clone: Path, place: Path) -> None:
    """A link to the file: it may be large, and is read once."""
    checkpoint = job.checkpoint
    original = Path(job.root) / checkpoint.address
    if not original.exists() and checkpoint.tracked:
        original = clone / checkpoint.address
    if not original.exists():
        raise FleetError(
            f"{original} is not on this host",
            "put it on a disk that all hosts share, or track it with DVC (dvc add, dvc"
            " push) and name it as a dvc source",
        )
    if original.is_dir():
        _require(checkpoint, f"sha256:{_folder_sha256(original)}")
    place.symlink_to(original.resolve())


def _pull(checkpoint: Checkpoint, place: Path) -> None:
    """Let DVC bring the file from its remote."""
    from dvc.cli import main

    md5 = checkpoint.digest.removeprefix("md5:")
    stated = place.with_name(f"{place.name}.dvc")
    size = f"  size: {checkpoint.size}\n" if checkpoint.size else ""
    stated.write_text(
        f'outs:\n- md5: {md5}\n{size}  hash: md5\n  path: "{place.name}"\n'
    )
    if main(["pull", str(stated)]) or not place.is_file():
        raise FleetError(
            f"DVC can't bring {checkpoint.address} from the remote",
            "run dvc push where the file is",
        )


def _download_s3(checkpoint: Checkpoint, place: Path) -> None:
    from botocore.exceptions import BotoCoreError

    from checkpoint_release.fleet.sources import s3_file_system

    system = s3_file_system(checkpoint.endpoint)
    try:
        before = system.info(checkpoint.address)["ETag"]
        system.get_file(checkpoint.address, str(place))
        after = system.info(checkpoint.address)["ETag"]
    except (OSError, BotoCoreError) as error:
        raise FleetError(
            f"{checkpoint.address} can't be downloaded: {one_line(error)}",
            "check the server, and the credentials on this host",
        ) from None
    for etag in (before, after):
        _require(checkpoint, "etag:" + str(etag).strip('"'))


def _download_hub(checkpoint: Checkpoint, place: Path) -> None:
    from checkpoint_release.core.errors import PublishError
    from checkpoint_release.release.hub import Hub, default_endpoint
    from checkpoint_release.release.tokens import stored_token

    hub = Hub(default_endpoint(), stored_token)
    folder = place.parent / ".hub"
    try:
        file = hub.requests.read(
            lambda: hub.api.hf_hub_download(
                checkpoint.address,
                checkpoint.file,
                revision=checkpoint.revision,
                local_dir=folder,
            ),
            f"downloading {checkpoint.file} of {checkpoint.address}",
        )
    except PublishError as error:
        raise FleetError(error.problem, error.remedy) from None
    Path(file).rename(place)
    algorithm = checkpoint.digest.partition(":")[0]
    digest = sha256(place) if algorithm == "sha256" else _blob_id(place)
    _require(checkpoint, f"{algorithm}:{digest}")


def _blob_id(path: Path) -> str:
    content = path.read_bytes()
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _folder_sha256(folder: Path) -> str:
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    names = {each.relative_to(folder).as_posix(): sha256(each) for each in files}
    return joint_sha256(names)


def require_planned(checkpoint: Checkpoint, sha256: str, md5: str) -> None:
    """Require that what was released is the checkpoint that was planned.

    Args:
        checkpoint: that was planned.
        sha256: that the load stage computed of what it read.
        md5: that DVC computed; "" where it isn't one file.

    Raises:
        CheckpointError: it is another.
    """
    if checkpoint.digest.startswith("md5:"):
        _require(checkpoint, f"md5:{md5}")
    elif checkpoint.digest.startswith("sha256:") and md5:
        _require(checkpoint, f"sha256:{sha256}")


def _require(checkpoint: Checkpoint, found: str) -> None:
    if found != checkpoint.digest:
        raise CheckpointError(
            f"{checkpoint.address} changed since it was planned: it has"
            f" {found[:24]}…, and {checkpoint.digest[:24]}… was planned",
            "run the fleet again, which plans anew",
        )
