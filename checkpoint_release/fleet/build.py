"""Building one member: a scratch clone, the checkpoint, `dvc repro` for each point of
the matrix, `dvc push`.

It happens in a process of its own, which leads a process group; see builder.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from checkpoint_release.core.artifacts.benchmark import BENCHMARK
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    CheckpointFacts,
)
from checkpoint_release.core.artifacts.parity import ParityMetrics
from checkpoint_release.core.artifacts.receipt import RECEIPT
from checkpoint_release.core.artifacts.release import RELEASE, read_release
from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import CheckpointReleaseError, FleetError
from checkpoint_release.core.files import sha256, write_json
from checkpoint_release.fleet.fetch import fetch, require_planned
from checkpoint_release.fleet.outcome import Built, Failed, Job, Outcome, PointBuilt
from checkpoint_release.fleet.points import UNPUBLISHED, Point, set_options
from checkpoint_release.fleet.transcript import Transcript
from checkpoint_release.fleet.workspace import reason, require_pins, scratch_clone

_FULL = 16 << 20  # bytes; a stage that fails on a disk with less may be right
ARTIFACTS = Path("artifacts")
LOCK = Path("dvc.lock")
PARAMS = Path("params.yaml")
PARITY = ARTIFACTS / "parity.json"


class MemberError(Exception):
    """A step failed.

    Args:
        cause: "member" or "host", as of Failed.
        message: what is wrong.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def main(job: Path, outcome: Path, home: Path, lifeline: int) -> None:
    """Build the member of a file, and write what came of it.

    Args:
        job: a JSON file.
        outcome: the JSON file to write.
        home: the fleet's folder on this host.
        lifeline: the number of a pipe that is open for reading: at its end the parent
            is gone, and the whole process group ends, with all that it started.
    """
    _end_with_parent(lifeline)
    read = read_record(job, Job)
    transcript = Transcript()
    with _heard(transcript):
        came = build(read, home, transcript)
    write_json(outcome, came.to_json())


def build(job: Job, home: Path, transcript: Transcript) -> Outcome:
    """Build a member.

    Args:
        job: which.
        home: the fleet's folder on this host.
        transcript: of what this process prints.

    Returns:
        What was built, or why it wasn't: nothing is raised that a member or a host can
        be the cause of.
    """
    begun = time.monotonic()
    try:
        with scratch_clone(home, job) as folder:
            if job.pins:
                require_pins(folder)
            with chdir(folder):
                points = _build_points(job, folder, transcript)
    except MemberError as error:
        return _failed(job, error.cause, str(error), transcript)
    except CheckpointReleaseError as error:
        is_host = isinstance(error, FleetError)
        return _failed(job, "host" if is_host else "member", str(error), transcript)
    except OSError as error:
        return _failed(job, "host", reason(error), transcript)
    built = Built(
        name=job.name,
        key=job.key,
        commit=job.commit,
        checkpoint=job.checkpoint,
        points=points,
        host=socket.gethostname(),
        seconds=round(time.monotonic() - begun, 1),
    )
    return Outcome(built=built)


def _build_points(job: Job, clone: Path, transcript: Transcript) -> list[PointBuilt]:
    """Release the checkpoint at every point, one after the other.

    What a point has in common with the one before is still there, so that `load` and
    most exports run once.
    """
    # A release of the pipeline's own checkpoint says nothing about this one.
    for path in (LOCK, ARTIFACTS / RECEIPT, ARTIFACTS / BENCHMARK):
        path.unlink(missing_ok=True)
    checkpoint = fetch(job, clone)
    built = []
    for point in job.points:
        transcript.begin()
        earlier = job.earlier.get(point.name)
        if earlier is not None:
            LOCK.write_text(earlier.lock)
            PARITY.write_text(earlier.parity)
            if earlier.benchmark:
                (ARTIFACTS / BENCHMARK).write_text(earlier.benchmark)
            (ARTIFACTS / RECEIPT).write_text(earlier.statement)
        _write_params(point, checkpoint)
        begun = time.monotonic()
        _reproduce(transcript, pull=earlier is not None)
        seconds = time.monotonic() - begun
        built.append(_read_point(job, point, checkpoint, transcript, seconds))
        _push(job)
    return built


def _write_params(point: Point, checkpoint: str) -> None:
    """Set the point's parameters; comments stay."""
    yaml = YAML()
    yaml.width = 1000
    params = yaml.load(PARAMS)
    of_the_member = {"checkpoint.path": checkpoint, "card.address": point.address}
    set_options(params, {**point.overrides, **UNPUBLISHED, **of_the_member})
    text = StringIO()
    yaml.dump(params, text)
    PARAMS.write_text(text.getvalue())


def _reproduce(transcript: Transcript, *, pull: bool) -> None:
    """Run `dvc repro`.

    Args:
        transcript: hears which stage runs, and how it fails.
        pull: whether dvc.lock is of an earlier build, whose outputs are in the remote.
            Stages with `persist` are never in DVC's run cache, and the run caches of
            many members are slow to move: it is left out.

    Raises:
        MemberError: a stage failed.
    """
    from dvc.cli import main as dvc

    command = ["repro", "--pull", "--no-run-cache"] if pull else ["repro"]
    status = dvc(command)
    _flush(transcript)
    if not status:
        return
    if transcript.error and not transcript.was_killed:
        cause = "host" if shutil.disk_usage(".").free < _FULL else "member"
        raise MemberError(cause, "\n".join(transcript.error))
    if not transcript.stage:
        raise MemberError("host", f"dvc repro failed with exit code {status}")
    how = f"exit code {transcript.status}"
    if transcript.was_killed:
        how = "it was killed" if transcript.status is None else how
        problem = f"{transcript.stage} was ended from outside ({how})"
        raise MemberError("host", f"{problem}: out of memory, or a machine going down?")
    raise MemberError("member", f"{transcript.stage} failed ({how}) without a message")


def _push(job: Job) -> None:
    """Store what the stages wrote in the DVC remote.

    Raises:
        MemberError: it doesn't take everything.
    """
    from dvc.cli import main as dvc

    if dvc(["push", "--quiet", "--remote", job.remote, "dvc.yaml"]):
        raise MemberError(
            "host", f"dvc push failed: the remote {job.remote} doesn't take everything"
        )


def _read_point(
    job: Job, point: Point, path: str, transcript: Transcript, seconds: float
) -> PointBuilt:
    """What a point came to, small enough to send.

    Raises:
        ArtifactError: an artifact isn't as the stages write it.
        CheckpointError: the checkpoint was another.
    """
    folder = ARTIFACTS / "release"
    release = read_release(folder)
    facts = read_record(ARTIFACTS / CHECKPOINT / FACTS_FILE, CheckpointFacts)
    parity = read_record(PARITY, ParityMetrics)
    require_planned(job.checkpoint, facts.origin.sha256, _md5_of(path))
    return PointBuilt(
        name=point.name,
        overrides=point.overrides,
        params=PARAMS.read_text(),
        lock=LOCK.read_text(),
        parity=PARITY.read_text(),
        benchmark=(ARTIFACTS / BENCHMARK).read_text(),
        statement=(ARTIFACTS / RECEIPT).read_text(),
        release=sha256(folder / RELEASE),
        built=release.built.sha256,
        files=release.files,
        formats=list(release.formats),
        limits=parity.share_of_limit,
        training=_small(facts.training),
        values=facts.tensors.values,
        ran=list(transcript.ran),
        seconds=round(seconds, 1),
    )


def _md5_of(path: str) -> str:
    """The digest of the checkpoint's file in dvc.lock; "" of a folder."""
    lock = YAML(typ="safe").load(LOCK)
    for dependency in lock["stages"]["load"]["deps"]:
        if dependency["path"] == path and "nfiles" not in dependency:
            return str(dependency["md5"])
    return ""


_SMALL = 2000  # characters of one value


def _small(training: dict[str, Any]) -> dict[str, Any]:
    """Training facts without long tables, which stay in the release."""
    return {key: value for key, value in training.items() if len(str(value)) < _SMALL}


def _failed(job: Job, cause: str, message: str, transcript: Transcript) -> Outcome:
    failed = Failed(
        name=job.name,
        key=job.key,
        cause="member" if cause == "member" else "host",
        stage=transcript.stage,
        message=message,
        log=list(transcript.last),
        host=socket.gethostname(),
    )
    return Outcome(failed=failed)


# The process


_MARK = "\0end of what was printed"


@contextmanager
def _heard(transcript: Transcript) -> Iterator[None]:
    """Let the transcript hear what this process and its children print, line by line;
    the lines still come out.
    """
    sys.stdout.flush()
    outside = os.dup(1)
    read, write = os.pipe()
    for standard in (1, 2):
        os.dup2(write, standard)
    os.close(write)
    _flushed.clear()

    def listen() -> None:
        with os.fdopen(read, errors="replace") as lines:
            for line in lines:
                text = line.rstrip("\n")
                if text == _MARK:
                    _flushed.set()
                    continue
                transcript.feed(text)
                os.write(outside, line.encode())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        _flush(transcript)
        sys.stderr.flush()
        for standard in (1, 2):
            os.dup2(outside, standard)
        thread.join(timeout=10)


_flushed = threading.Event()


def _flush(transcript: Transcript) -> None:
    """Wait until the transcript has heard all that was printed so far."""
    sys.stdout.flush()
    sys.stderr.flush()
    _flushed.clear()
    os.write(1, f"{_MARK}\n".encode())
    _flushed.wait(timeout=10)


def _end_with_parent(lifeline: int) -> None:
    """End the whole process group once the pipe is closed at its other end.

    The parent holds that end and closes it when it dies, however it dies.
    """

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
