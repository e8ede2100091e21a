"""Which of this project's own files the wheel carries, for `checkpoint-release new`.

setup.py runs this module by itself, so it imports nothing but the standard library.
"""

from __future__ import annotations

from pathlib import Path

SHIPPED = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/pull-request.yaml",
    ".dvc/plots/*",
    ".dvcignore",
    ".github/workflows/release.yml",
    ".gitignore",
    "checkpoints/adapters/README.md",
    "checkpoints/extra/.gitkeep",
    "constraints.txt",
    "dvc.yaml",
    "params.yaml",
    "pipeline/*.py",
)
FOLDER = Path("checkpoint_release/project/files")  # in the wheel


def shipped_files(root: Path) -> list[str]:
    """The files below a folder that SHIPPED names: relative, POSIX, sorted.

    Raises:
        FileNotFoundError: a pattern matches nothing.
    """
    names: list[str] = []
    for pattern in SHIPPED:
        found = [path.relative_to(root).as_posix() for path in root.glob(pattern)]
        if not found:
            raise FileNotFoundError(f"{root} holds no {pattern}")
        names += found
    return sorted(names)
