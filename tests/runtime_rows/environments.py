"""Environments of runtimes: each with what one runtime needs, and nothing of ours
changed. They are made once, in the cache folder.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.page.npm import cache_folder

_PATIENCE = 1800  # seconds that an installation may take
_LONGEST = 200  # characters of a message
_READY = "ready"


class EnvironmentLackingError(Exception):
    """An environment can't be had; the message is why."""


@dataclass(frozen=True)
class Here:
    """This environment.

    Attributes:
        program: that must be there as well, and isn't Python's.
    """

    program: str | None = None

    def make(self) -> Path:
        """The interpreter.

        Raises:
            EnvironmentLackingError: the program isn't there.
        """
        if self.program and shutil.which(self.program) is None:
            raise EnvironmentLackingError(f"no {self.program} here")
        return Path(sys.executable)


@dataclass(frozen=True)
class Pip:
    """A virtual environment.

    Attributes:
        requirements: what pip installs in it, at fixed versions.
        beside_ours: whether it sees our packages (torch, numpy, …) where it has none of
            that name itself.
    """

    requirements: tuple[str, ...]
    beside_ours: bool = False

    def make(self) -> Path:
        """The interpreter.

        Raises:
            EnvironmentLackingError: pip can't install it.
        """
        folder = _folder(str(self))
        python = folder / "bin/python"
        if not (folder / _READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)])
            if self.beside_ours:
                _show_ours(python)
            pip = [str(python), "-m", "pip", "install", "--quiet"]
            _run([*pip, "--disable-pip-version-check", *self.requirements])
            (folder / _READY).touch()
        return python


@dataclass(frozen=True)
class Npm:
    """A folder with packages of npm's registry, at fixed versions."""

    packages: tuple[str, ...]

    def make(self) -> Path:
        """The folder.

        Raises:
            EnvironmentLackingError: npm isn't there or can't install them.
        """
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise EnvironmentLackingError("no node here, or no npm")
        folder = _folder(str(self))
        if not (folder / _READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
            _run([*command, "--prefix", str(folder), *self.packages])
            (folder / _READY).touch()
        return folder


@dataclass(frozen=True)
class Lacking:
    """What can't be had here.

    Attributes:
        why: for the table.
    """

    why: str

    def make(self) -> Path:
        """Raises EnvironmentLackingError."""
        raise EnvironmentLackingError(self.why)


Environment = Here | Pip | Npm | Lacking


def _folder(description: str) -> Path:
    """Where an environment lives: another one for every change of what it holds."""
    key = f"{sys.version} {description}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache_folder() / "runtimes" / digest


def _show_ours(python: Path) -> None:
    """Let an environment see our packages after its own."""
    ours = [path for path in sys.path if path.endswith("-packages")]
    ours.append(sysconfig.get_path("purelib"))
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = subprocess.run(
        [str(python), "-c", script], check=True, capture_output=True, text=True
    ).stdout.strip()
    lines = "\n".join(dict.fromkeys(ours))
    (Path(place) / "zz_beside.pth").write_text(f"{lines}\n")


def _run(command: list[str]) -> None:
    """Run a command.

    Raises:
        EnvironmentLackingError: it failed.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentLackingError(
            f"{command[0]} took longer than {_PATIENCE} seconds"
        ) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line.upper()]
        cause = (lines or done.stderr.splitlines() or ["it printed nothing"])[0]
        name = Path(command[0]).name
        raise EnvironmentLackingError(f"{name}: {cause.strip()[:_LONGEST]}")
