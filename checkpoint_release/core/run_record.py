"""What the pipeline last ran with, as dvc.lock records it: parameters, and the digests
of what every stage read and wrote.

Paths of one machine are no part of it: of an absolute path, and of one that leads out
of the project, the last name stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from checkpoint_release.core.dvc_files import LOCK
from checkpoint_release.core.params import PATH, load_params, read_mapping
from checkpoint_release.core.stage import ARTIFACTS

PUBLISH = "publish"
_STAGE_OF_DVC = "DVC_STAGE"  # which DVC sets for what it runs
_SHAPING = ("card", "page", "sbom")  # of the options of publish, what a release shows


@dataclass(frozen=True)
class RunRecord:
    """What the pipeline ran with.

    Attributes:
        parameters: section of params.yaml → its values; of publish, what shapes the
            release.
        stages: name → its command, and the digests of what it read and wrote, by path;
            without publish. Empty where DVC doesn't run them.
        sources: the paths of the code and the pins that DVC watches.
    """

    parameters: dict[str, Any]
    stages: dict[str, Any]
    sources: tuple[str, ...]


def read_run_record(lock: Path = LOCK, params: Path = PATH) -> RunRecord:
    """Read what the stages before publish ran with.

    DVC writes its record as each stage ends. Where a stage was started by hand, the
    record is of another run, and params.yaml says what there is to say.

    Args:
        lock: DVC's record.
        params: params.yaml.

    Raises:
        ParamsError: a file can't be read.
    """
    stated = read_mapping(params, "start from the params.yaml that comes with it")
    parameters: dict[str, Any] = {name: stated[name] for name in sorted(stated)}
    stages: dict[str, Any] = {}
    if _STAGE_OF_DVC in os.environ and lock.is_file():
        locked = read_mapping(lock, "run `dvc repro`, which writes it")
        stages = {**_mapping(locked.get("stages"))}
        stages.pop(PUBLISH, None)
    for stage in stages.values():
        for name, value in _parameters(stage).items():
            _set(parameters, name, value)
    shaping = _mapping(parameters.get(PUBLISH))
    parameters[PUBLISH] = {name: shaping.get(name) for name in _SHAPING}
    return RunRecord(
        parameters=without_places(parameters),
        stages=without_places({name: _stage(each) for name, each in stages.items()}),
        sources=_sources(stages),
    )


def without_places(value: Any) -> Any:
    """A value of JSON in which no path leads out of the project."""
    if isinstance(value, str):
        return _without_place(value)
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, Mapping):
        return {_without_place(str(key)): without_places(value[key]) for key in value}
    return value


def _without_place(text: str) -> str:
    for path in (PurePosixPath(text), PureWindowsPath(text)):
        leads_out = path.is_absolute() or path.parts[:1] in {("..",), ("~",)}
        if leads_out and path.name:
            return path.name
    return text


def _parameters(stage: Any) -> Mapping[str, Any]:
    """Dotted key → value of a stage's parameters in dvc.lock."""
    return _mapping(_mapping(_mapping(stage).get("params")).get(PATH.name))


def _set(parameters: dict[str, Any], key: str, value: Any) -> None:
    """Set an option, or a section, by its dotted key."""
    section, _, name = key.partition(".")
    if name:
        parameters[section] = {**_mapping(parameters.get(section)), name: value}
    else:
        parameters[section] = value


def _stage(stage: Any) -> dict[str, Any]:
    """A stage's command and digests."""
    record: dict[str, Any] = {"cmd": _mapping(stage).get("cmd")}
    for kind in ("deps", "outs"):
        digests = {}
        for entry in _entries(stage, kind):
            digests[str(entry.get("path"))] = f"md5:{entry.get('md5')}"
        record[kind] = digests
    return record


def _sources(stages: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths within the project that are code or pins, sorted."""
    params = load_params()
    data = {params.checkpoint.path, params.card.notes_dir, "checkpoints/adapters"}
    found = {"dvc.yaml"} if stages else set()
    for stage in stages.values():
        for entry in _entries(stage, "deps"):
            path = PurePosixPath(str(entry.get("path")))
            outside = path.is_absolute() or ".." in path.parts
            if not outside and path.parts[0] != ARTIFACTS.name:
                found.add(path.as_posix())
    return tuple(sorted(found - data))


def _entries(stage: Any, kind: str) -> list[Mapping[str, Any]]:
    listed = _mapping(stage).get(kind)
    items = listed if isinstance(listed, list) else []
    return [item for item in items if isinstance(item, Mapping)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
