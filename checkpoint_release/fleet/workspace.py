"""A scratch clone of the pipeline's commit, one for each running member.

DVC's table of locks trusts local process ids and its repository lock gives up after
seconds, so members share no clone: only the DVC cache of their host and the remote.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoint_release.core.errors import FleetError, one_line
from checkpoint_release.fleet.outcome import Job

HOME = "CHECKPOINT_RELEASE_FLEET_HOME"
_USED = "used"  # a file beside a clone, while a member is in it
_KEPT = ("__pycache__", "**/.dvc/tmp/btime")
"""Compiled code, and the file that DVC finds its table of digests by."""


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
    """The project's folder in a clone that nothing else uses meanwhile.

    A host keeps as many clones as it ever needed at once. The next member finds the
    pipeline's code compiled, and its digests known to DVC, but nothing of the member
    before.

    Args:
        home: of the fleet on this host; the DVC cache is in it.
        job: names the repository, the project's folder in it, and the DVC remotes.
        commit: to check out; "": the job's.

    Raises:
        FleetError: the commit can't be had.
    """
    commit = commit or job.commit
    source = job.repository
    if not Path(source).is_dir():
        source = str(_mirror(home, source, commit))
    parent = home / "scratch" / _digest(source)
    _clean_up_after_the_killed(parent)
    with _free_folder(parent) as folder:
        clone = folder / "clone"
        _check_out(source, commit, clone)
        project = clone / job.folder
        _configure(project, home, folder / "site", job)
        _forget_remotes(folder / "site")
        (folder / _USED).touch()
        try:
            yield project
        finally:
            _leave(folder)


def _clean_up_after_the_killed(parent: Path) -> None:
    """Clean the clones of members that had no time for it: artifacts may be large."""
    for used in parent.glob(f"*/{_USED}"):
        with _held(used.parent) as is_free:
            if is_free and used.exists():
                _leave(used.parent)


def _leave(folder: Path) -> None:
    """Clean the clone in a folder that this process holds, or remove it."""
    clone = folder / "clone"
    try:
        _clean(clone)
    except FleetError:
        shutil.rmtree(clone, ignore_errors=True)
    (folder / _USED).unlink(missing_ok=True)


def _forget_remotes(site: Path) -> None:
    """Remove what DVC remembers of the remotes' content: it would believe that what a
    member before pushed is still there.

    Args:
        site: DVC's folder for what it remembers of a clone.
    """
    for index in site.glob("repo/*/index"):
        shutil.rmtree(index)


@contextmanager
def _free_folder(parent: Path) -> Iterator[Path]:
    """The first numbered folder that no other process holds; this one holds it until
    the end.
    """
    for number in itertools.count(1):
        folder = parent / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        with _held(folder) as is_free:
            if is_free:
                yield folder
                return


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder until the end, or until this process is killed; False where another
    one holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        yield False
        return
    try:
        yield True
    finally:
        os.close(handle)


def _check_out(source: str, commit: str, clone: Path) -> None:
    """Bring a clone to a commit, and make it where there is none that can be used.

    Args:
        source: whose objects the clone uses.
        commit: to check out.
        clone: its folder.

    Raises:
        FleetError: the commit can't be had.
    """
    if clone.is_dir():
        try:
            _git("-C", str(clone), "checkout", "-q", "--force", "--detach", commit)
            _clean(clone)
            return
        except FleetError:  # a kill may have cut git's own files
            shutil.rmtree(clone)
    _git("clone", "-q", "--shared", "--no-checkout", source, str(clone))
    _git("-C", str(clone), "checkout", "-q", "--detach", commit)


def _clean(clone: Path) -> None:
    """Remove all that git doesn't track, except for what `_KEPT` names.

    Raises:
        FleetError: that isn't possible.
    """
    kept = [f"--exclude={name}" for name in _KEPT]
    _git("-C", str(clone), "clean", "-q", "-ffdx", *kept)


def _mirror(home: Path, repository: str, commit: str) -> Path:
    """A bare repository of this host that holds a commit of another host's.

    Raises:
        FleetError: it can't be fetched.
    """
    digest = _digest(repository)
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


def _digest(address: str) -> str:
    """A name for a folder of what comes from an address."""
    return hashlib.sha256(address.encode()).hexdigest()[:16]


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
