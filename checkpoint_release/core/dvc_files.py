"""What DVC reads, put right before it does.

    python -m checkpoint_release.core.dvc_files

DVC writes dvc.lock and its table of locks in place. Cut in the middle by a kill, they
stop each later `dvc repro` with a message about their syntax. dvc.yaml has a line for
each path of model.source, and DVC ends with "unexpected error" where params.yaml has
null for a path that dvc.yaml names.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.core.params import PATH, load_params
from checkpoint_release.core.sources import DVC_YAML, follow_sources

LOCK = Path("dvc.lock")
TABLE = Path(".dvc/tmp/rwlock")


def main() -> int:
    """Mend the files in the working folder, and report what was done.

    Returns:
        The exit code: 1 where params.yaml is wrong, which is reported.
    """
    if TABLE.is_file() and not _is_json(TABLE):
        TABLE.unlink()
        print(f"{TABLE} was cut by a run that was killed, and is removed")
    if LOCK.is_file() and not _is_whole(LOCK):
        _restore_lock()
    if not PATH.is_file():
        return 0
    try:
        if follow_sources(load_params().model):
            print(f"{DVC_YAML} watches now what model.source names")
    except CheckpointReleaseError as error:
        print(f"error: {error.message()}", file=sys.stderr)
        return 1
    return 0


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def _is_whole(path: Path) -> bool:
    """Whether a dvc.lock is one by DVC's own schema."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe", pure=True).load(path) or {})
    except (YAMLError, ValueError, LookupError, TypeError, RecursionError, Invalid):
        return False
    return True


def _restore_lock() -> None:
    """Take dvc.lock from git; without it, DVC makes another."""
    done = subprocess.run(
        ["git", "checkout", "--", str(LOCK)], capture_output=True, check=False
    )
    if done.returncode == 0 and _is_whole(LOCK):
        print(f"{LOCK} was cut by a run that was killed, and is restored from git")
        return
    LOCK.unlink()
    print(f"{LOCK} was cut by a run that was killed, and is removed: DVC makes another")


if __name__ == "__main__":
    sys.exit(main())
