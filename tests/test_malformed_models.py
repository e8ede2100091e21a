"""Malformed texts inside model files, and in the place of them, are one error each; and
nothing but the owned modules parses JSON or YAML.
"""

from __future__ import annotations

import ast
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx
import pytest

from checkpoint_release.card.author_notes import read_notes
from checkpoint_release.core import dvc_files
from checkpoint_release.core.artifacts.checkpoint import FACTS_FILE, CheckpointFolder
from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.core.params import load_params
from checkpoint_release.core.trust import NO_TRUST
from checkpoint_release.pth import read_checkpoint
from checkpoint_release.runtimes.loader import load
from checkpoint_release.state_dict.inspection import inspect
from checkpoint_release.tensors.safetensors import open_safetensors
from tests.support.malformed import MALFORMED
from tests.support.project import ROOT

PARSES = {
    "checkpoint_release/core/json_text.py": "the one reader of JSON",
    "checkpoint_release/core/yaml_text.py": "the one reader of YAML",
    "checkpoint_release/core/dvc_files.py": "whether DVC's own files are whole",
    "checkpoint_release/project/params.py": "keeps comments of what yaml_text has read",
    "checkpoint_release/fleet/build.py": "what a stage of the clone printed",
    "checkpoint_release/fleet/builder.py": "what the process that started it sent",
    "checkpoint_release/fleet/schedule.py": "what a member printed",
    "checkpoint_release/fleet/ssh_worker.py": "what the coordinator sent",
    "checkpoint_release/parity/adapters/harness.py": "names that its caller wrote",
    "checkpoint_release/project/rebuild.py": "what a Python here printed",
    "checkpoint_release/release/sbom.py": "reads back what its library wrote",
    "checkpoint_release/card/front_matter.py": "reads back what it wrote itself",
    "checkpoint_release/tensors/safetensors.py": "a header, charged by its own rule",
    "checkpoint_release/runtimes/torch_export_check.py": "bounded as an entry",
    "checkpoint_release/runtimes/torch_export_program.py": "texts of such an entry",
}
"""Module → why it may parse JSON or YAML."""
MODULES = ("json", "ruamel.yaml")
PARSERS = {
    ("json", "load"),
    ("json", "loads"),
    ("json", "JSONDecoder"),
    ("yaml", "load"),
    ("yaml", "safe_load"),
    ("msgspec", "json"),
    ("msgspec", "yaml"),
}


def parsers_in(path: Path) -> set[str]:
    """What a module calls to parse JSON or YAML."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in PARSERS:
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in (
            "json",
            "ruamel.yaml",
        ):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_only_the_owned_modules_parse_json_and_yaml() -> None:
    parsing = {}
    for folder in ("checkpoint_release", "pipeline"):
        for path in (ROOT / folder).rglob("*.py"):
            if found := parsers_in(path):
                parsing[path.relative_to(ROOT).as_posix()] = found
    assert parsing.keys() == PARSES.keys(), parsing


@pytest.mark.parametrize(
    "line", ["json.loads(t)", "yaml.safe_load(t)", "from json import loads"]
)
def test_a_new_reader_would_be_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert parsers_in(path)
    path.write_text("json.dumps(t)")
    assert not parsers_in(path)


def error_of(read: Callable[[], object]) -> str:
    """The one error that reading ends in; "" where it doesn't."""
    try:
        read()
    except CheckpointReleaseError as error:
        message = str(error)
        assert error.problem and len(message) < 5000
        assert all(line.isprintable() for line in message.splitlines())
        return message
    return ""


@pytest.mark.filterwarnings("ignore:.*pth is deprecated:DeprecationWarning")
@pytest.mark.parametrize("suffix", ["safetensors", "onnx", "pt", "pt2", "pth", "bin"])
def test_a_malformed_text_in_the_place_of_a_model_is_one_error(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"model.{suffix}"
    for text in MALFORMED.values():
        path.write_bytes(text)
        assert error_of(lambda: load(path))
        assert error_of(lambda: inspect(path))
        assert error_of(lambda: read_checkpoint(path))


def test_a_malformed_header_of_safetensors_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for text in MALFORMED.values():
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        assert error_of(lambda: open_safetensors(path))


def test_malformed_metadata_of_a_graph_is_one_error(
    tiny_release: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.load(tiny_release / "onnx/model.onnx")
    wrong = 0
    for text in MALFORMED.values():
        if not text.strip() or len(text) > 1_000_000:
            continue
        try:
            value = text.decode()
        except UnicodeDecodeError:
            continue  # such a file can't be written
        del model.metadata_props[:]
        model.metadata_props.add(key="signature", value=value)
        onnx.save(model, path)
        assert f"{path} holds a signature" in error_of(lambda: load(path))
        wrong += 1
    assert wrong > 20


def test_a_malformed_config_inside_torchscript_is_one_error(
    tiny_release: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    for text in MALFORMED.values():
        shutil.copy(tiny_release / "torchscript/model.pt", path)
        with zipfile.ZipFile(path, "a") as archive:
            root = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{root}/extra/config.json", text)
        assert "config.json" in error_of(lambda: load(path))


def test_a_malformed_checkpoint_json_is_one_error(
    tiny_release: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_release / "checkpoint", folder)
    for text in MALFORMED.values():
        (folder / FACTS_FILE).write_bytes(text)
        assert FACTS_FILE in error_of(lambda: CheckpointFolder.open(folder, NO_TRUST))
        assert FACTS_FILE in error_of(lambda: load(folder))


@pytest.mark.parametrize("name", ["dvc.lock", ".dvc/tmp/rwlock"])
def test_a_malformed_file_of_dvc_is_removed_or_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    stages = ("{stages: {a: {cmd: x, deps: 5}}}", "{stages: {a: {cmd: x, outs: 5}}}")
    texts = [text for text in MALFORMED.values() if len(text) < 20_000]
    for text in (*texts, *map(str.encode, stages), b"[" * 5000):
        (tmp_path / name).write_bytes(text)
        dvc_files.main()
    (tmp_path / "dvc.lock").write_text(stages[0])
    dvc_files.main()
    assert not (tmp_path / "dvc.lock").exists()


@pytest.mark.parametrize("name", ["notes.md", "citation.bib"])
def test_malformed_notes_of_an_author_are_text_or_one_error(
    tmp_path: Path, name: str
) -> None:
    params = load_params(ROOT / "params.yaml").card
    params = msgspec.structs.replace(params, notes_dir=str(tmp_path), written_for=None)
    for text in MALFORMED.values():
        if len(text) > 50_000:
            continue  # an author's own patience is all that they cost
        (tmp_path / name).write_bytes(text)
        error = error_of(lambda: read_notes(params, "0" * 64))
        assert not error or name in error


def test_a_config_that_is_wrong_is_reported_as_that_file_and_not_as_an_option(
    tiny_release: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(tiny_release / "model.safetensors", folder)
    config = folder / "config.json"
    for text in ("[]", "5", '{"factory": 5, "kwargs": {}, "signature": {}}'):
        config.write_text(text)
        message = error_of(lambda: load(folder))
        assert str(config) in message and "params.yaml" not in message
        assert "model.signature" not in message
