"""Whatever stands in the place of a JSON or YAML file, a reader gives one error: no
traceback, and no end of time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoint_release.card.author_notes import read_notes
from checkpoint_release.core.artifacts.config import parse_config, read_config
from checkpoint_release.core.artifacts.manifest import read_manifest
from checkpoint_release.core.artifacts.parity import read_report
from checkpoint_release.core.artifacts.receipt import last_receipt
from checkpoint_release.core.artifacts.release import read_release
from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.core.params import load_params
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.verify import verify
from checkpoint_release.runtimes.loader import load
from checkpoint_release.state_dict.sources import read_source
from checkpoint_release.tensors.safetensors import read_index
from tests.support.malformed import MALFORMED, VALUES
from tests.support.project import ROOT
from tests.support.publishing import fake_artifacts

Read = Callable[[Path], object]

PARSERS: dict[str, Read] = {
    "config.json": lambda path: read_config(path.parent),
    "manifest.json": lambda path: read_manifest(path.parent),
    "report.json": read_report,
    "publish.json": lambda path: last_receipt(path.parent),
    "release.json": lambda path: read_release(path.parent),
    "model.safetensors.index.json": read_index,
    "params.yaml": load_params,
    "metadata": lambda path: parse_config(path.read_bytes(), str(path)),
}
"""File → what reads it alone."""


def outcome(read: Callable[[], object]) -> str:
    """Read, and require one error of this project's, or none."""
    try:
        read()
    except CheckpointReleaseError as error:
        assert error.problem and len(str(error)) < 5000
        return "error"
    return "read"


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_file_is_one_error(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(MALFORMED[text])
    came = outcome(lambda: PARSERS[name](path))
    # A receipt that can't be read is none; an object may be somebody else's config.
    assert came == "error" or name in ("publish.json", "config.json", "metadata")


@pytest.mark.parametrize("text", MALFORMED)
def test_nothing_malformed_passes_for_a_value_of_ours(text: str) -> None:
    try:
        value = parse_json(MALFORMED[text])
    except JsonError:
        return
    assert not isinstance(value, dict) or value.keys() <= {"a", "a\0"}


@pytest.mark.parametrize("text", MALFORMED)
def test_an_author_s_metrics_are_read_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.json").write_bytes(MALFORMED[text])
    params = load_params(ROOT / "params.yaml").card
    params = msgspec.structs.replace(params, notes_dir=str(tmp_path))
    outcome(lambda: read_notes(params, "0" * 64))


@pytest.mark.parametrize("text", MALFORMED)
def test_a_folder_of_weights_with_a_malformed_index_is_one_error(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(MALFORMED[text])
    assert outcome(lambda: read_source(tmp_path)) == "error"


# An honest file with another value under one of its keys


def changed(value: Any) -> Iterator[Any]:
    """The object with each key left out, and with each of VALUES under it; so also one
    object further in.
    """
    for key, inner in value.items():
        yield {name: each for name, each in value.items() if name != key}
        for other in VALUES:
            yield value | {key: other}
        if isinstance(inner, dict):
            for deeper in changed(inner):
                yield value | {key: deeper}


@pytest.fixture
def release(tiny_release: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "release"
    shutil.copytree(tiny_release, copy)
    return copy


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("config.json", "."),
        ("onnx/config.json", "onnx"),
        ("torchscript/config.json", "torchscript/model.pt"),
        ("checkpoint/checkpoint.json", "checkpoint"),
    ],
)
@pytest.mark.slow
def test_a_model_with_any_value_in_its_config_loads_or_is_one_error(
    release: Path, name: str, target: str
) -> None:
    path = release / name
    honest = json.loads(path.read_text())
    for value in changed(honest):
        path.write_text(json.dumps(value))
        outcome(lambda: load(release / target))


@pytest.mark.parametrize("count", [0, -1, 1.5, "3", None, 5, 200_000, 2**40])
def test_arguments_are_held_against_the_weights_before_a_model_is_built(
    release: Path, count: object
) -> None:
    path = release / "config.json"
    honest = json.loads(path.read_text())
    for key, value in honest["kwargs"].items():
        if type(value) is not int or value == count:
            continue
        path.write_text(
            json.dumps(honest | {"kwargs": honest["kwargs"] | {key: count}})
        )
        assert outcome(lambda: load(release)) == "error"


def test_a_release_with_any_value_in_release_json_is_one_error_or_fails(
    tmp_path: Path,
) -> None:
    release = assemble(fake_artifacts(tmp_path / "artifacts"))
    path = release / "release.json"
    honest = json.loads(path.read_text())
    for value in changed(honest):
        path.write_text(json.dumps(value))
        outcome(lambda: verify(release))


@pytest.mark.slow
def test_params_with_any_value_are_one_error_that_names_the_key(
    tmp_path: Path,
) -> None:
    from ruamel.yaml import YAML

    honest = YAML(typ="safe").load(ROOT / "params.yaml")
    path = tmp_path / "params.yaml"
    refused = 0
    for value in changed(honest):
        try:
            text = json.dumps(value)  # which is YAML, too
        except TypeError:
            continue
        path.write_text(text)
        refused += outcome(lambda: load_params(path)) == "error"
    assert refused > 300
