"""config.json, in every artifact folder: how to build the model and how to call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import canonical_json, read_json, write_json
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.trust import DIFFUSERS_FACTORY, LIBRARIES

CONFIG = "config.json"


@dataclass(frozen=True)
class LibraryClass:
    """A class of another library that a model is, and that loads a release of it.

    Attributes:
        library: as it is imported, and installed.
        name: of the class.
    """

    library: str
    name: str


@dataclass(frozen=True)
class ModelConfig:
    """What config.json says.

    Attributes:
        architecture: how to build the model and how to call it.
        others: keys that other libraries look for; the file has them first.
    """

    architecture: Architecture
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self.architecture.signature

    @property
    def factory(self) -> str:
        """`package.module:callable` that builds the model."""
        return self.architecture.factory

    @property
    def has_transformers_code(self) -> bool:
        """Whether transformers finds the model's code beside it."""
        return "AutoModel" in self.others.get("auto_map", {})

    @property
    def library_class(self) -> LibraryClass | None:
        """The class of another library that the model is; None: it is none."""
        library = LIBRARIES.get(self.factory)
        if library is None:
            return None
        kwargs = self.architecture.kwargs
        if self.factory == DIFFUSERS_FACTORY:
            return LibraryClass(library, str(kwargs["_class_name"]))
        (name,) = kwargs["architectures"]
        return LibraryClass(library, str(name))

    def to_json(self) -> dict[str, Any]:
        """The content of the file: what others look for, then this project's keys."""
        return self.others | self.architecture.to_json()

    def text(self) -> str:
        """The file's text."""
        return canonical_json(self.to_json())

    def write(self, folder: Path) -> None:
        """Write the folder's config.json."""
        write_json(folder / CONFIG, self.to_json())


def parse_config(text: str | bytes, source: str) -> ModelConfig | None:
    """The config.json in a text; None where it isn't one of this project.

    Args:
        text: JSON.
        source: where it is from, for the message.

    Raises:
        ArtifactError: it isn't JSON, or not as this project writes it.
    """
    try:
        value = parse_json(text)
    except JsonError as error:
        raise ArtifactError(f"{source} is {error}", "get the file again") from None
    return config_of(value, source)


def config_of(value: Any, source: str) -> ModelConfig | None:
    """A parsed config.json; None where it isn't one of this project.

    Args:
        value: what was parsed.
        source: where it is from, for the message.

    Raises:
        ArtifactError: it has a factory or a signature, and not all that belongs to
            them.
    """
    if not isinstance(value, Mapping):
        raise ArtifactError(
            f"{source} holds a {type(value).__name__} and no object",
            "use the config.json that was exported with the model",
        )
    if not value.keys() & {"factory", "signature"}:
        return None
    try:
        architecture = Architecture.from_json(value)
    except ArtifactError as error:
        raise ArtifactError(
            f"{source} {error.problem}",
            "use the config.json that was exported with the model",
        ) from None
    others = dict(value)
    for key in architecture.to_json():
        others.pop(key, None)
    return ModelConfig(architecture, others)


def read_config(folder: Path) -> ModelConfig | None:
    """A folder's config.json; None where there is none, or it isn't of this project.

    Raises:
        ArtifactError: it isn't JSON, or not as this project writes it.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    return config_of(read_json(path), str(path))
