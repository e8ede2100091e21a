"""How a stage runs under `dvc repro`: its errors are told once, and its last good outputs survive them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PipelineError

ARTIFACTS = Path("artifacts")


def run(main: Callable[[], None]) -> None:
    """Run a stage's main and exit: 0 when it went well, 1 with one message when it did not.

    DVC deletes a stage's outputs before it starts the command. When the command then fails, the outputs
    of the last good run are brought back from DVC's cache, so that a mistake costs nothing. (`persist: true`
    in dvc.yaml would keep them too, but it also turns off DVC's run cache.)
    """
    try:
        main()
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        _restore_last_good()
        sys.exit(1)
    except KeyboardInterrupt:
        _restore_last_good()
        sys.exit(130)
    # All that was written is in its place. To take torch apart in good order would be 0.4 s more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _restore_last_good() -> None:
    name = os.environ.get("DVC_STAGE")  # set by DVC for the commands that it runs
    if not name:
        return
    import logging

    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        # The outputs themselves, not `dvc checkout`: the running `dvc repro` holds the lock on them.
        with Repo() as repo:
            for out in repo.stage.load_one(name=name.rpartition(":")[2]).outs:
                if out.hash_info and not out.exists:
                    out.use_cache = True  # DVC's run cache keeps the outputs that git tracks as well
                    out.checkout()
                    print(f"{out.def_path} is as the last good run left it", file=sys.stderr)
    except (DvcException, OSError):
        return  # nothing was ever committed, or it was garbage-collected: there is nothing to bring back
