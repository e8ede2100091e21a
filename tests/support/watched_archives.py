"""Opens archives while an audit hook watches, and prints what came of each: `python -m
tests.support.watched_archives TRUST HONEST FOLDER…`.

Each folder holds a model file and its config.json; the honest one is opened first, to
import what is imported once. TRUST is "none", or "everything": the control, in which
the archives do what they were made to. Without trust the process may read files, and
import what the project is made of; whatever else raises an audit event (another file, a
process, a compilation of a text) is reported.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.core.trust import NO_TRUST, OWN_ARTIFACTS
from checkpoint_release.runtimes.detect import detect
from checkpoint_release.runtimes.open import open_with
from checkpoint_release.runtimes.runtime import Options

# what the project and torch do to import their own modules
_HARMLESS = ("import", "builtins.id", "mmap.__new__", "marshal.loads", "sys._getframe")
_LISTED = ("os.listdir", "os.scandir", "object.__getattr__", "sys._current_frames")

violations: list[str] = []
watching: list[bool] = []


def hook(event: str, args: tuple[Any, ...]) -> None:
    if not watching or event in _HARMLESS or event in _LISTED:
        return
    if event == "open" and args[1] in ("r", "rb", None):
        return
    if event == "exec" and _is_installed(args[0].co_filename):
        return
    violations.append(f"{event}{args[:2]!r}"[:200])


def _is_installed(file: str) -> bool:
    """Whether code is of a module that lies on this machine."""
    return file.startswith("<frozen") or Path(file).suffix in (".py", ".pyc")


def leave(x: torch.Tensor, path: str) -> torch.Tensor:
    Path(path).touch()
    return x.clone()


def define_custom_operator() -> None:
    """What a library of somebody else's would bring along."""
    operator = torch.library.custom_op("hostile::leave", leave, mutates_args=())
    operator.register_fake(lambda x, path: torch.empty_like(x))


def use(folder: Path, options: Options) -> None:
    """Open the model in a folder and run it."""
    found = detect(next(path for path in folder.iterdir() if path.suffix == ".bin"))
    runtime = open_with(found.format, found.path, options)
    runtime.run({"x": np.ones((3, 4), np.float32)})


def main(trust: str, honest: str, folders: list[str]) -> None:
    define_custom_operator()
    options = Options(trust=OWN_ARTIFACTS if trust == "everything" else NO_TRUST)
    use(Path(honest), options)
    if trust == "none":
        sys.addaudithook(hook)
    results = {}
    for name in folders:
        violations.clear()
        folder = Path(name)
        os.environ["CANARY"] = str(folder / "canary")
        sys.modules.pop("tests.support.leaves_canary", None)
        watching[:] = [True]
        try:
            use(folder, options)
            error = ""
        except CheckpointReleaseError as problem:
            error = f"{type(problem).__name__}: {problem}"
        except BaseException:
            error = f"CRASH {traceback.format_exc()}"
        watching.clear()
        results[folder.name] = {
            "error": error,
            "violations": violations[:5],
            "canary": (folder / "canary").exists(),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
