"""Environments of runtimes: each with what one runtime needs, and nothing of ours
changed. They are made once, in the cache folder.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Protocol

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from checkpoint_release.page.npm import cache_folder

_PATIENCE = 1800  # seconds that an installation may take
_LONGEST = 200  # characters of a message
READY = "ready"
"""A file in an environment's folder, once all of it is there."""
OURS = ("numpy", "onnx", "onnxruntime", "safetensors", "torch")
"""What an environment beside ours needn't install anew."""


class EnvironmentLackingError(Exception):
    """An environment can't be had; the message is why."""


class Environment(Protocol):
    """Where a runtime is."""

    def make(self) -> Path:
        """The interpreter in it; for Node, the folder.

        Raises:
            EnvironmentLackingError: it can't be had.
        """
        ...


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
        beside_ours: whether it sees OURS where it has none of that name itself.
    """

    requirements: tuple[str, ...]
    beside_ours: bool = False

    def make(self) -> Path:
        """The interpreter.

        Raises:
            EnvironmentLackingError: pip can't install it.
        """
        folder = environment_folder(str(self))
        python = folder / "bin/python"
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            run_command([sys.executable, "-m", "venv", str(folder)])
            if self.beside_ours:
                show_ours(python, folder.with_name(f"ours-{folder.name}"))
            pip = [str(python), "-m", "pip", "install", "--quiet"]
            run_command([*pip, "--disable-pip-version-check", *self.requirements])
            (folder / READY).touch()
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
        folder = environment_folder(str(self))
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
            run_command([*command, "--prefix", str(folder), *self.packages])
            (folder / READY).touch()
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


def environment_folder(description: str) -> Path:
    """Where an environment lives: another one for every change of what it holds."""
    key = f"{sys.version} {description}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache_folder() / "runtimes" / digest


def show_ours(python: Path, folder: Path) -> None:
    """Let an environment see OURS, and what they need, after its own packages.

    Args:
        python: its interpreter.
        folder: for links to our packages; not within the environment, for pip would
            change what it finds there.
    """
    folder.mkdir(exist_ok=True)
    for package in _with_what_they_need(OURS):
        for file in package.files or ():
            top = file.parts[0]
            link = folder / top
            if top != ".." and not link.exists():
                link.symlink_to(Path(str(package.locate_file(top))))
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = subprocess.run(
        [str(python), "-c", script], check=True, capture_output=True, text=True
    ).stdout.strip()
    (Path(place) / "zz_ours.pth").write_text(f"{folder}\n")


def _with_what_they_need(names: Iterable[str]) -> list[Distribution]:
    """Distributions, and those that they require without any extra."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return list(found.values())


def run_command(command: list[str]) -> str:
    """Run a command.

    Returns:
        What it printed.

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
        printed = done.stderr.splitlines()
        errors = [line for line in printed if names_an_error(line)]
        cause = (errors or printed or ["it printed nothing"])[0]
        name = Path(command[0]).name
        raise EnvironmentLackingError(f"{name}: {cause.strip()[:_LONGEST]}")
    return done.stdout


def names_an_error(line: str) -> bool:
    """Whether pip, npm or apt-get printed this line for an error."""
    return "ERROR" in line.upper() or line.startswith("E: ")
