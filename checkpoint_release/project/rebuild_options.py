"""The options of params.yaml that make a release again: recorded ones, with what lies
here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoint_release.core.artifacts.attestation import BUILD_SECTIONS, Making
from checkpoint_release.core.errors import ParamsError, UntrustedCodeError
from checkpoint_release.core.trust import Trust
from checkpoint_release.project.one_shot import DEFAULT_FACTORY
from checkpoint_release.project.recorded import GET_AGAIN
from checkpoint_release.project.settings import Asked

_OF_ONE_MACHINE = ("checkpoint.path", "checkpoint.adapter", "model.source")


@dataclass(frozen=True)
class Given:
    """What the user has beside the release.

    Attributes:
        checkpoint: a file or a folder.
        source: the model's own code; empty: found by the factory's name.
        config: a config.json of transformers, or its folder.
        adapters: LoRA adapters, in the record's order.
        trust: the factory that may run, where it isn't the library's own.
        python: the interpreter that the stages run with.
    """

    checkpoint: str
    source: tuple[str, ...] = ()
    config: str | None = None
    adapters: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    python: str = sys.executable


def rebuild_options(making: Making, given: Given) -> dict[str, Any]:
    """The options of params.yaml: the recorded ones, with what lies here.

    Raises:
        ParamsError: a path leads nowhere, or one is missing.
    """
    options: dict[str, Any] = {}
    for section in BUILD_SECTIONS:
        values = making.parameters.get(section)
        if not isinstance(values, dict):
            raise ParamsError(f"the record has no section {section}", GET_AGAIN)
        options |= {f"{section}.{name}": value for name, value in values.items()}
    publish = making.parameters.get("publish")
    if isinstance(publish, dict) and "page" in publish:
        options["publish.page"] = publish["page"]
    factory = str(options.get("model.factory") or DEFAULT_FACTORY)
    recorded = {name: options.pop(name, None) for name in _OF_ONE_MACHINE}
    kwargs = options.get("model.kwargs") or {}
    asked = Asked(
        checkpoint=given.checkpoint,
        factory=factory,
        source=given.source,
        config=given.config,
        settings=(f"checkpoint.path={json.dumps(given.checkpoint)}",),
    )
    here = asked.options(Path.cwd(), absolute=True)
    if given.config is not None:
        here["model.kwargs"] = {**kwargs, **here["model.kwargs"]}
    adapter = _adapter(recorded["checkpoint.adapter"], given.adapters)
    return {**options, **here, "checkpoint.adapter": adapter}


def _adapter(recorded: Any, given: Sequence[str]) -> Any:
    """The option checkpoint.adapter: what was recorded, with the paths that lie here.

    Raises:
        ParamsError: there are more adapters, or fewer.
    """
    weights = list(recorded.values()) if isinstance(recorded, dict) else []
    expected = len(weights) if weights else int(recorded is not None)
    if len(given) != expected:
        raise ParamsError(
            f"the release was made with {expected} adapters, and {{adapter}} names"
            f" {len(given)}",
            "name each, in the order of the model card",
            options=["adapter"],
        )
    paths = [Path(path).absolute().as_posix() for path in given]
    if weights:
        return dict(zip(paths, weights, strict=True))
    return paths[0] if paths else None


def require_trusted(factory: str, trust: Sequence[str]) -> None:
    """Require that the code that a stranger's record names may run.

    Raises:
        UntrustedCodeError: the user didn't name it.
    """
    if not Trust.of(trust).covers(factory):
        raise UntrustedCodeError(
            f"the release names {factory!r} as its model's code, and that would run",
            f"if you know that code and trust it, name {factory} in {{trust}}",
            options=["trust"],
        )
