"""Nothing that a model from elsewhere names is run by loading it, unless the user names
it too: each place that can name code is tried with a canary, and each canary runs once
it is trusted.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.errors import ModelError, UntrustedCodeError
from checkpoint_release.runtimes.loader import load
from tests.support.tiny_release import load_quietly

CANARY = "canary:build"


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the module `canary` notes that it was imported, and what was called."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/canary.py").write_text(
        "from pathlib import Path\n"
        "marks = Path(__file__).parent.parent / 'marks'\n"
        "def note(name):\n"
        "    with marks.open('a') as file:\n"
        "        file.write(name + ' ')\n"
        "note('imported')\n"
        "def build(**kwargs):\n"
        "    note('built')\n"
        "def config(kwargs):\n"
        "    note('asked')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    return tmp_path / "marks"


@pytest.fixture
def release(tiny_release: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_release, copy)
    return copy


def name_code(path: Path, **changes: Any) -> None:
    """Put the canary in the place of the model that a JSON file names."""
    value = json.loads(path.read_text())
    model = value.get("model", value)
    model |= {"factory": CANARY, "described": True, **changes}
    path.write_text(json.dumps(value))


def in_the_release_s_config(release: Path) -> Path:
    name_code(release / "config.json")
    return release


def beside_one_file(release: Path) -> Path:
    return in_the_release_s_config(release) / "model.safetensors"


def in_a_file_under_another_name(release: Path) -> Path:
    in_the_release_s_config(release)
    return (release / "model.safetensors").rename(release / "notes.txt")


def in_shards(release: Path) -> Path:
    in_the_release_s_config(release)
    shard = "model-00001-of-00001.safetensors"
    (release / "model.safetensors").rename(release / shard)
    from safetensors.numpy import load_file

    names = load_file(release / shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (release / "model.safetensors.index.json").write_text(json.dumps(index))
    return release / shard


def in_a_checkpoint_s_facts(release: Path) -> Path:
    name_code(release / "checkpoint/checkpoint.json")
    return release / "checkpoint"


def in_facts_beside_a_file(release: Path) -> Path:
    return in_a_checkpoint_s_facts(release) / "weights.safetensors"


def in_facts_put_beside_honest_weights(release: Path) -> Path:
    in_a_checkpoint_s_facts(release)
    for name in ("checkpoint.json", "weights.safetensors"):
        shutil.copy(release / "checkpoint" / name, release / name)
    return release / "model.safetensors"


def beside_a_pth(release: Path) -> Path:
    name_code(release / "config.json")
    (release / "checkpoint.pth").rename(release / "mine.pth")
    return release / "mine.pth"


PLACES = [
    in_the_release_s_config,
    beside_one_file,
    in_a_file_under_another_name,
    in_shards,
    in_a_checkpoint_s_facts,
    in_facts_beside_a_file,
    in_facts_put_beside_honest_weights,
    beside_a_pth,
]


@pytest.mark.parametrize("place", PLACES)
def test_code_that_a_file_names_runs_only_when_it_is_trusted(
    release: Path, marks: Path, place: Callable[[Path], Path]
) -> None:
    path = place(release)
    with pytest.raises(UntrustedCodeError, match="'canary:build' is named") as caught:
        load_quietly(path)
    assert "name canary:build in trust" in caught.value.remedy
    for other in ("canary", "canary:other", "torchscript", "canary:build "):
        with pytest.raises(UntrustedCodeError):
            load_quietly(path, trust=[other])
    assert not marks.exists()
    with pytest.raises(ModelError, match="canary:build returned a NoneType"):
        load_quietly(path, trust=[CANARY])
    assert marks.read_text() == "imported built "


@pytest.mark.parametrize(
    "factory",
    [
        "subprocess:run",
        "os:system",
        "builtins:exec",
        "checkpoint_release.core.files:write_json",
        "checkpoint_release.models.stick_figure:importlib.import_module",
        "checkpoint_release.models.stick_figure:describe",
        "checkpoint_release.models.stick_figure.model:torch.load",
        "checkpoint_release.models.:build",
        "checkpoint_release.models.no_such_family:build.__globals__",
        "stick_figure:build",
        "canary",
        ":build",
    ],
)
def test_no_name_is_taken_for_one_of_the_library_s_own(
    release: Path, factory: str
) -> None:
    name_code(release / "config.json", factory=factory)
    with pytest.raises(UntrustedCodeError):
        load(release)


def test_params_of_the_folder_in_which_one_stands_grant_nothing(
    release: Path, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have come with the release."""
    in_the_release_s_config(release)
    (release / "params.yaml").write_text(f"model: {{factory: {CANARY}}}\n")
    monkeypatch.chdir(release)
    with pytest.raises(UntrustedCodeError):
        load(".")
    assert not marks.exists()


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_formats_that_hold_their_own_graph_never_call_the_named_code(
    release: Path, marks: Path, format: str
) -> None:
    name_code(release / format / "config.json")
    load(release, format=format)
    assert not marks.exists()
