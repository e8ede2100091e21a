"""The project as its users touch it: a checkout in a folder of its own, and commands
run in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
LIMIT = 300  # seconds that any command of a test may take


@dataclass(frozen=True)
class Project:
    """A checkout; commands run with the environment's python first on PATH."""

    path: Path

    @classmethod
    def checkout(cls, path: Path) -> Project:
        """What a clone of the working tree would hold, committed to a git repository of
        its own.
        """
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, path / name)
        project = cls(path)
        project.git("init", "-q", "-b", "main")
        project.commit("As checked out")
        return project

    def copy(self, path: Path) -> Project:
        """The whole folder, artifacts and DVC's cache included, somewhere else."""
        shutil.copytree(self.path, path, symlinks=True)
        return Project(path)

    def run(
        self,
        *command: str,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout; by default a failure fails the test and shows
        its output.
        """
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "DVC_NO_ANALYTICS": "1",
            **(environment or {}),
        }
        done = subprocess.run(
            command,
            cwd=self.path,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} exited with"
                f" {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    def dvc(
        self,
        *arguments: str,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run dvc."""
        return self.run("dvc", *arguments, check=check, environment=environment)

    def git(self, *arguments: str) -> str:
        """Run git and return what it prints."""
        return self.run(
            "git",
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.org",
            *arguments,
        ).stdout

    def commit(self, message: str) -> None:
        """Commit everything that isn't ignored."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def set(self, **values: Any) -> None:
        """Change params.yaml: `onnx__opset=20` sets onnx.opset; comments stay."""
        yaml = YAML()
        path = self.path / "params.yaml"
        params = yaml.load(path)
        for key, value in values.items():
            section, _, name = key.partition("__")
            params.setdefault(section, {})[name] = value
        yaml.dump(params, path)

    def ran(self, output: str) -> list[str]:
        """The stages whose commands a `dvc repro` really ran, read off its output."""
        return [
            line.split("'")[1]
            for line in output.splitlines()
            if line.startswith("Running stage '")
        ]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
