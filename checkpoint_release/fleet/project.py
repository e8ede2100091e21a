"""The project that a fleet is of: a git commit, its parameters, and its DVC remote."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import ArtifactError, ParamsError
from checkpoint_release.core.yaml_text import YamlError, parse_yaml

PINS = "constraints.txt"
_DVC_YAML = "dvc.yaml"
_PARAMS = "params.yaml"
_OWN_OUTPUTS = ("artifacts", "dvc.lock")


def git(root: Path, *arguments: str, content: bytes | None = None) -> str:
    """What a git command prints.

    Args:
        root: the folder to run it in.
        arguments: of git.
        content: for its standard input.

    Raises:
        ArtifactError: git isn't there, or the command failed.
    """
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, input=content, capture_output=True
        )
    except OSError as error:
        raise ArtifactError(
            f"git can't be run: {error.strerror}", "install git"
        ) from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or "no message"
        raise ArtifactError(
            f"git {arguments[0]} in {root} failed: {reason}",
            "run this in a project that is a git repository with a commit",
        )
    return done.stdout.decode(errors="surrogateescape")


@dataclass(frozen=True)
class Project:
    """The project's folder, and the commit that the fleet is pinned to.

    Attributes:
        root: the folder with dvc.yaml.
        commit: the whole id.
        folder: root's path in the git repository, with a slash at its end; "" where it
            is the repository's own.
    """

    root: Path
    commit: str
    folder: str = ""

    @classmethod
    def open(cls, root: Path) -> Project:
        """The project in a folder, at the commit that is checked out.

        Raises:
            ArtifactError: it is not in a git repository, or has no dvc.yaml.
        """
        commit = git(root, "rev-parse", "HEAD").strip()
        folder = git(root, "rev-parse", "--show-prefix").strip()
        if not (root / _DVC_YAML).is_file():
            raise ArtifactError(
                f"{root} has no {_DVC_YAML}", "run this in the project's root folder"
            )
        return cls(root, commit, folder)

    @cached_property
    def repository(self) -> Path:
        """The folder of the git repository."""
        return Path(git(self.root, "rev-parse", "--show-toplevel").strip())

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml as the commit has it, not validated.

        Raises:
            ParamsError: it isn't YAML.
        """
        return self._yaml(_PARAMS)

    @cached_property
    def watched(self) -> list[str]:
        """The paths that the stages of dvc.yaml name as dependencies, other than
        artifacts and the checkpoint: code, pins, notes.
        """
        paths = {_DVC_YAML, PINS}
        for stage in self._yaml(_DVC_YAML).get("stages", {}).values():
            for dependency in stage.get("deps", []):
                paths.add(self._resolved(str(dependency)))
        own = tuple(f"{output}/" for output in _OWN_OUTPUTS)
        checkpoint = self._resolved("${checkpoint.path}")
        return sorted(
            path for path in paths if path != checkpoint and not path.startswith(own)
        )

    @cached_property
    def digest(self) -> str:
        """A digest of all that the commit holds at the watched paths.

        Commits that differ elsewhere, such as in documents, have the same.
        """
        listed = git(self.root, "ls-tree", "-r", "-z", self.commit, "--", *self.watched)
        return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()

    @cached_property
    def changes(self) -> list[str]:
        """Watched paths, and params.yaml, that differ from the commit."""
        paths = [*self.watched, _PARAMS]
        listed = git(self.root, "status", "--porcelain", "-z", "--", *paths)
        return [entry[3:] for entry in listed.split("\0") if len(entry) > 3]

    def remotes(self, *, private: bool) -> dict[str, dict[str, str]]:
        """The DVC remotes: name → option → value, with absolute paths.

        Args:
            private: whether what only this machine knows, such as credentials in
                .dvc/config.local, is in it.
        """
        from dvc.config import Config

        config = Config(str(self.root / ".dvc"))
        remotes: dict[str, dict[str, str]] = {}
        for level in ["repo", "local"] if private else ["repo"]:
            for name, options in config.load_one(level)["remote"].items():
                texts = {key: str(value) for key, value in options.items()}
                remotes.setdefault(name, {}).update(texts)
        return remotes

    def _resolved(self, path: str) -> str:
        """A dependency's path, with the value of the parameter that it names; of
        several values, dvc.yaml names each by itself.
        """
        if not (path.startswith("${") and path.endswith("}")):
            return path
        value: Any = self.params
        for key in path[2:-1].split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return str(value)

    def _yaml(self, name: str) -> dict[str, Any]:
        text = git(self.root, "show", f"{self.commit}:./{name}")
        try:
            value = parse_yaml(text.encode(errors="surrogateescape"))
        except YamlError as error:
            raise ParamsError(
                f"{name} of commit {self.commit[:12]} is {error}", "correct that line"
            ) from None
        if not isinstance(value, dict):
            raise ParamsError(
                f"{name} of commit {self.commit[:12]} is no mapping", "restore it"
            )
        return value
