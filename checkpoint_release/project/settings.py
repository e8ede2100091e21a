"""What the commands `new` and `convert` are asked for, as options of params.yaml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.core.key_uri import is_key_uri
from checkpoint_release.core.params import Params, parse_section
from checkpoint_release.core.trust import DIFFUSERS_FACTORY, TRANSFORMERS_FACTORY
from checkpoint_release.core.yaml_text import MAX_SIZE, YamlError, parse_yaml
from checkpoint_release.project.place import (
    PATH_OPTIONS,
    locate_code,
    path_from,
    require_factory,
    require_there,
)

_SOME_FACTORY = "package.module:callable"


@dataclass(frozen=True)
class Asked:
    """What the user asked for; paths are relative to the working folder.

    Attributes:
        checkpoint, factory, repo_id: the options checkpoint.path, model.factory and
            publish.repo_id.
        source: the option model.source; empty: found by the factory's name.
        config: a config.json of transformers or diffusers, or its folder.
        signature: a YAML or JSON file that holds model.signature.
        formats: those to export; None: as params.yaml has them.
        settings: further options, each as KEY=VALUE with the value in YAML.
    """

    checkpoint: str | None = None
    factory: str | None = None
    repo_id: str | None = None
    source: tuple[str, ...] = ()
    config: str | None = None
    signature: str | None = None
    formats: tuple[str, ...] | None = None
    settings: tuple[str, ...] = field(default=())

    def options(self, folder: Path, *, absolute: bool = False) -> dict[str, Any]:
        """The options: dotted key → value.

        Args:
            folder: the project's, absolute; paths become relative to it.
            absolute: paths become absolute instead.

        Raises:
            ParamsError: a path leads nowhere, or a setting is no KEY=VALUE.
        """

        def place(path: str) -> str:
            whole = Path(path).absolute().as_posix()
            return whole if absolute else path_from(path, folder)

        options = self._stated()
        if self.config is not None:
            require_there(self.config, "the configuration")
            options.setdefault("model.factory", _factory_for(self.config))
            kwargs = options.get("model.kwargs") or {}
            options["model.kwargs"] = {**kwargs, "config": place(self.config)}
        for key in PATH_OPTIONS:
            if options.get(key) is not None and not is_key_uri(str(options[key])):
                require_there(str(options[key]), key)
                options[key] = place(str(options[key]))
        if self.source or options.get("model.factory"):
            options["model.source"] = self._source(options, folder, place)
        return options

    def _stated(self) -> dict[str, Any]:
        """The options as they were given."""
        options = dict(map(_parse_setting, self.settings))
        if self.checkpoint is not None:
            options["checkpoint.path"] = self.checkpoint
        if self.factory is not None:
            require_factory(self.factory)
            options["model.factory"] = self.factory
        if self.repo_id is not None:
            options["publish.repo_id"] = self.repo_id
        if self.signature is not None:
            options["model.signature"] = _read_signature(Path(self.signature))
        if self.formats is not None:
            options |= {f"formats.{name}": name in self.formats for name in FORMATS}
        return options

    def _source(
        self, options: dict[str, Any], folder: Path, place: Callable[[str], str]
    ) -> str | list[str] | None:
        """The value of model.source."""
        named = self.source
        if self.config is not None:
            named = (*named, self.config)
        for path in named:
            require_there(path, "model.source")
        sources = [place(path) for path in named]
        factory = str(options.get("model.factory"))
        if not sources and ":" in factory:
            code = locate_code(factory, folder)
            sources = [] if code is None else [place(str(code))]
        if len(sources) > 1:
            return sources
        return sources[0] if sources else None


def _factory_for(config: str) -> str:
    """The factory of the library whose configuration is in a file or folder."""
    path = Path(config)
    if path.is_dir():
        path /= "config.json"
    try:
        value = parse_json(path.read_bytes())
    except (OSError, JsonError):
        return TRANSFORMERS_FACTORY  # which reports what is wrong with it
    is_diffusers = isinstance(value, dict) and "_class_name" in value
    return DIFFUSERS_FACTORY if is_diffusers else TRANSFORMERS_FACTORY


def _parse_setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or "." not in key:
        raise ParamsError(
            f"{text!r} sets nothing",
            "write section.key=value, such as --set onnx.opset=20",
        )
    try:
        return key.strip(), parse_yaml(value.encode())
    except YamlError as error:
        raise ParamsError(
            f"the value of {key} is {error}", "write it as params.yaml would have it"
        ) from None


def _read_signature(path: Path) -> Any:
    """The signature in a file.

    Raises:
        ParamsError: it can't be read, or isn't YAML.
    """
    try:
        with path.open("rb") as file:
            return parse_yaml(file.read(MAX_SIZE + 1))
    except OSError as error:
        raise ParamsError(
            f"{path} can't be read: {error.strerror}",
            "name a file with inputs, outputs and dimensions, as model.signature has"
            " them",
        ) from None
    except YamlError as error:
        raise ParamsError(f"{path} is {error}", "correct that line") from None


def check_options(text: str, *, factory_given: bool) -> None:
    """Make sure that a params.yaml is one, before it is written.

    Args:
        text: of params.yaml.
        factory_given: whether the factory is stated; otherwise it is left for later.

    Raises:
        ParamsError: as `load_params`.
    """
    value = parse_yaml(text.encode())
    if not factory_given and isinstance(value.get("model"), dict):
        value["model"]["factory"] = _SOME_FACTORY
    parse_section(Params, value)
