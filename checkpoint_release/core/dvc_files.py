"""Mending the files of DVC's own that a kill can cut, before DVC reads them.

    python -m checkpoint_release.core.dvc_files

DVC writes dvc.lock and its table of locks in place. Cut in the middle, they stop each
later `dvc repro` with a message about their syntax.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

LOCK = Path("dvc.lock")
TABLE = Path(".dvc/tmp/rwlock")


def main() -> None:
    """Mend both files in the working folder, and report what was done."""
    if TABLE.is_file() and not _is_json(TABLE):
        TABLE.unlink()
        print(f"{TABLE} was cut by a run that was killed, and is removed")
    if LOCK.is_file() and not _is_whole(LOCK):
        _restore_lock()


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def _is_whole(path: Path) -> bool:
    """Whether a dvc.lock has all that DVC asks of it."""
    try:
        value = YAML(typ="safe", pure=True).load(path)
    except (YAMLError, ValueError, LookupError, TypeError, RecursionError):
        return False
    if not isinstance(value, dict) or not isinstance(value.get("stages", {}), dict):
        return False
    return all(_is_whole_stage(stage) for stage in value.get("stages", {}).values())


def _is_whole_stage(stage: Any) -> bool:
    if not isinstance(stage, dict) or not isinstance(stage.get("cmd"), str):
        return False
    entries = []
    for key in ("deps", "outs"):
        listed = stage.get(key) or []
        if not isinstance(listed, list):
            return False
        entries += listed
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
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
    main()
