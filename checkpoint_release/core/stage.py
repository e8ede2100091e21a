"""How a stage runs under `dvc repro`: an error is one message, and costs no outputs.

    python -m checkpoint_release.core.stage NAME

restores the outputs of the last good run of the stage NAME.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from checkpoint_release.core.errors import ArtifactError, CheckpointReleaseError
from checkpoint_release.core.leftovers import sweep_beside_artifacts
from checkpoint_release.core.stage_runs import record_run
from checkpoint_release.core.terminal import print_any_text

_STARTED = time.monotonic()

ARTIFACTS = Path("artifacts")
ARTIFACT_HINT = (
    "  `dvc repro` makes artifacts again; `dvc checkout` restores the last good ones"
)


# Objects until the collector looks for garbage. A stage is a short process: importing
# torch makes a million objects that all stay, and with Python's own 700 the collector
# looks through them so often that it takes a tenth of the import.
_GC_THRESHOLD = 10_000

_FULL = 1 << 20  # bytes left on a disk that count as none


def run(main: Callable[[], None]) -> NoReturn:
    """Run a stage's main and exit: with 0, or with 1 and one message.

    DVC deletes a stage's outputs before it starts the command. However the command then
    fails, the outputs of the last good run are restored from DVC's cache, so that a
    mistake costs nothing. (`persist: true` in dvc.yaml would keep them too, but it also
    turns off DVC's run cache.) An exception that is neither an expected error nor the
    system's is a bug, of this project or of the model's code, and keeps its traceback.
    """
    print_any_text()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.set_threshold(_GC_THRESHOLD)
    sweep_beside_artifacts(ARTIFACTS)
    try:
        main()
    except (CheckpointReleaseError, OSError) as error:
        _print_error(error)
        _restore_last_good()
        sys.exit(1)
    except KeyboardInterrupt:
        _restore_last_good()
        sys.exit(128 + signal.SIGINT)
    except _Terminated:
        _restore_last_good()
        sys.exit(128 + signal.SIGTERM)
    except BaseException:
        _restore_last_good()
        raise
    name = _name_of_stage()
    if name:
        record_run(name, time.monotonic() - _STARTED, ARTIFACTS)
    # Everything is written. An orderly exit would take 0.4 s more, to tear down torch;
    # only what libraries registered is done, such as removing temporary folders.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class _Terminated(BaseException):
    """SIGTERM came.

    SystemExit would be caught where a model's code runs, which may exit, and taken for
    the model's failure.
    """


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _print_error(error: CheckpointReleaseError | OSError) -> None:
    """Print one message; options are spelled as the keys of params.yaml."""
    if isinstance(error, OSError):
        error = _explained(error)
    print(f"error: {error.message()}", file=sys.stderr)
    if isinstance(error, ArtifactError):
        print(ARTIFACT_HINT, file=sys.stderr)


def _explained(error: OSError) -> CheckpointReleaseError:
    """What the system says, with the state of the disk where that is why."""
    problem = str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(".").free
        problem += f": the disk of {Path.cwd()} has {free:,} bytes left"
        return CheckpointReleaseError(problem, "make room on it, and run it again")
    return CheckpointReleaseError(
        problem, "check that the file may be read and written"
    )


def exit_while_importing() -> None:
    """End without a traceback on a signal that comes before `run` is reached.

    Imports take seconds, and DVC has deleted the stage's outputs by then.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _restore_and_exit)


def _restore_and_exit(number: int, frame: FrameType | None) -> NoReturn:
    _restore_last_good()
    os._exit(128 + number)


def _name_of_stage() -> str:
    """The stage's name in dvc.yaml; empty where DVC didn't start the process."""
    # set by DVC for the commands that it runs
    return os.environ.get("DVC_STAGE", "").rpartition(":")[2]


def _restore_last_good() -> None:
    """Restore the stage's outputs in a process of its own.

    This one may have been stopped in the middle of an import, or have no memory left.
    """
    import subprocess

    stage = _name_of_stage()
    if not stage:
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        # The child inherits this: half a release is worse than a second of waiting.
        signal.signal(number, signal.SIG_IGN)
    command = [sys.executable, "-m", "checkpoint_release.core.stage", stage]
    subprocess.run(command, check=False)


def restore(name: str) -> None:
    """Restore the outputs of a stage that DVC deleted, and report each of them."""
    import logging

    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        # Not by `dvc checkout`: the running `dvc repro` holds the repository's lock.
        with Repo() as repo:
            for out in repo.stage.load_one(name=name).outs:
                if out.hash_info and not out.exists:
                    # DVC's run cache also keeps the outputs that git tracks.
                    out.use_cache = True
                    _restore(out)
    except (DvcException, OSError) as error:
        print(
            f"{name}: its last good outputs could not be looked up ({error});"
            " `dvc repro` makes them again",
            file=sys.stderr,
        )


def _restore(out: Any) -> None:
    """Restore one output whole, or leave nothing of it.

    Args:
        out: DVC's output, which isn't there.
    """
    from dvc.exceptions import DvcException

    try:
        out.checkout()
        message = f"{out.def_path} restored from the last good run"
    except (DvcException, OSError) as error:
        _remove(Path(out.fs_path))
        message = (
            f"{out.def_path} could not be restored ({_cause(error)}) and is gone;"
            " `dvc repro` makes it again"
        )
    print(message, file=sys.stderr)


def _cause(error: Exception) -> str:
    """Why a checkout failed. On a full disk DVC blames the types of links."""
    free = shutil.disk_usage(".").free
    if free < _FULL:
        return f"the disk of {Path.cwd()} has {free:,} bytes left"
    return str(error)


def _remove(path: Path) -> None:
    """Remove what a checkout that failed left of an output."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    restore(sys.argv[1])
