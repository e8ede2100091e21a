"""A scratch clone of the pipeline's commit, one for each running member.

DVC's table of locks trusts local process ids and its repository lock gives up after
seconds, so members share no clone: only the DVC cache of their host and the remote.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoint_release.core.errors import FleetError, one_line
from checkpoint_release.core.leftovers import held, sweep_leftovers
from checkpoint_release.fleet.outcome import Job

HOME = "CHECKPOINT_RELEASE_FLEET_HOME"


def default_home() -> Path:
    """The folder of this host for caches and scratch clones: the variable
    CHECKPOINT_RELEASE_FLEET_HOME, or below the user's cache folder.
    """
    stated = os.environ.get(HOME)
    if stated:
        return Path(stated).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "checkpoint-release/fleet"


@contextmanager
def scratch_clone(home: Path, job: Job, commit: str = "") -> Iterator[Path]:
    """The project's folder in a clone, which is removed at the end.

    Clones of processes that died are removed first.

    Args:
        home: of the fleet on this host; the DVC cache is in it.
        job: names the repository, the project's folder in it, and the DVC remotes.
        commit: to check out; "": the job's.

    Raises:
        FleetError: the commit can't be had.
    """
    scratch = home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(scratch / "member")
    folder = Path(tempfile.mkdtemp(dir=scratch, prefix=".member."))
    handle = os.open(folder, os.O_RDONLY)
    try:
        with held(handle):
            clone = folder / "clone"
            commit = commit or job.commit
            source = job.repository
            if not Path(source).is_dir():
                source = str(_mirror(home, source, commit))
            _git("clone", "-q", "--shared", "--no-checkout", source, str(clone))
            _git("-C", str(clone), "checkout", "-q", "--detach", commit)
            project = clone / job.folder
            _configure(project, home, folder / "site", job)
            yield project
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _mirror(home: Path, repository: str, commit: str) -> Path:
    """A bare repository of this host that holds a commit of another host's.

    Raises:
        FleetError: it can't be fetched.
    """
    digest = hashlib.sha256(repository.encode()).hexdigest()[:16]
    mirror = home / "mirrors" / f"{digest}.git"
    mirror.parent.mkdir(parents=True, exist_ok=True)
    with (mirror.parent / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (mirror / "HEAD").is_file():
            _git("init", "-q", "--bare", str(mirror))
        if not _holds(mirror, commit):
            # A ref keeps the commit from being collected as garbage.
            kept = f"+{commit}:refs/fleet-commits/{commit}"
            _git("-C", str(mirror), "fetch", "-q", "--no-tags", repository, kept)
    return mirror


def _holds(mirror: Path, commit: str) -> bool:
    command = ["git", "-C", str(mirror), "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, capture_output=True).returncode == 0


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise FleetError(
            f"git {' '.join(arguments[:4])}… failed: {done.stderr.strip()}",
            "make the commit reachable from this host: push it, or set repository in"
            " fleet.yaml to an address that this host can fetch from",
        )


def _configure(project: Path, home: Path, site: Path, job: Job) -> None:
    """Write DVC's local configuration of a project in a clone."""
    from configobj import ConfigObj

    config = ConfigObj()
    config["core"] = {
        "remote": job.remote,
        "site_cache_dir": str(site),
        "analytics": "false",
        "check_update": "false",
    }
    # Hard and symbolic links would let a stage that fails change the cache.
    config["cache"] = {"dir": str(home / "cache"), "type": "reflink,copy"}
    for name, options in job.remotes.items():
        config[f'remote "{name}"'] = dict(options)
    config.filename = str(project / ".dvc/config.local")
    config.write()


def require_pins(clone: Path) -> None:
    """Require that the libraries installed here are those that the commit pins.

    A member's key states the pins, so that others would make it a lie.

    Raises:
        FleetError: a library has another version.
    """
    from importlib import metadata

    wrong = []
    for line in (clone / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue  # whatever needs it says so
        if installed != version:
            wrong.append(f"{name} {installed} (pinned: {version})")
    if wrong:
        raise FleetError(
            f"the libraries of this host aren't the pinned ones: {', '.join(wrong)}",
            "run pip install -r constraints.txt there, as of the pipeline's commit",
        )


def reason(error: BaseException) -> str:
    """An error for a report, on one line."""
    return one_line(error) or type(error).__name__
