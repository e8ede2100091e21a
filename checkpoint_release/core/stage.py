"""How a stage runs under `dvc repro`: its errors are told once, and its last good
outputs survive them.

python -m checkpoint_release.core.stage NAME   # bring back the outputs of the stage's last good run
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from checkpoint_release.core.errors import ArtifactError, CheckpointReleaseError

ARTIFACTS = Path("artifacts")
ARTIFACT_HINT = (
    "  `dvc repro` makes artifacts again; `dvc checkout` brings the last good ones back"
)


def run(main: Callable[[], None]) -> NoReturn:
    """Run a stage's main and exit: 0 when it went well, 1 with one message when it did
    not.

    DVC deletes a stage's outputs before it starts the command. However the command then
    fails, the outputs of the last good run are brought back from DVC's cache, so that a
    mistake costs nothing. (`persist: true` in dvc.yaml would keep them too, but it also
    turns off DVC's run cache.) What is neither an expected error nor the system's is a
    bug, of this project or of the model's code, and keeps its traceback.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
    except (CheckpointReleaseError, OSError) as error:
        if isinstance(error, OSError):
            error = CheckpointReleaseError(
                str(error),
                "check that the disk has room and that the file may be read and"
                " written",
            )
        print(f"error: {error.message()}", file=sys.stderr)
        if isinstance(error, ArtifactError):
            print(ARTIFACT_HINT, file=sys.stderr)
        _restore_last_good()
        sys.exit(1)
    except KeyboardInterrupt:
        _restore_last_good()
        sys.exit(128 + signal.SIGINT)
    except BaseException:
        _restore_last_good()
        raise
    # All that was written is in its place. To take torch apart in good order would be
    # 0.4 s more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _restore_last_good() -> None:
    """In a process of its own: this one may have been stopped in the middle of an
    import, or have no memory left.
    """
    import subprocess

    name = os.environ.get("DVC_STAGE")  # set by DVC for the commands that it runs
    if not name:
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        # there too: half a release is worse than to wait for a second
        signal.signal(number, signal.SIG_IGN)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "checkpoint_release.core.stage",
            name.rpartition(":")[2],
        ],
        check=False,
    )


def restore(name: str) -> None:
    """Bring back the outputs of a stage that DVC deleted, and say so of each."""
    import logging

    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    out = None
    try:
        # The outputs themselves, not `dvc checkout`: the running `dvc repro` holds the
        # lock on them.
        with Repo() as repo:
            for out in repo.stage.load_one(name=name).outs:
                if out.hash_info and not out.exists:
                    # DVC's run cache keeps the outputs that git tracks as well
                    out.use_cache = True
                    out.checkout()
                    print(
                        f"{out.def_path} is as the last good run left it",
                        file=sys.stderr,
                    )
    except (DvcException, OSError) as error:
        if out is not None:  # otherwise there was no good run
            print(
                f"{out.def_path} could not be brought back ({error}); `dvc repro` makes"
                " it again",
                file=sys.stderr,
            )


if __name__ == "__main__":
    restore(sys.argv[1])
