"""checkpoint-release new: a pipeline in somebody's own repository."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from checkpoint_release.__main__ import main
from checkpoint_release.core.params import load_params
from checkpoint_release.project import template
from checkpoint_release.project.update import RECORD, digest
from tests.support.own_repository import asked_for_tagger, own_repository
from tests.support.project import ROOT, Project, tree

Printed = pytest.CaptureFixture[str]
STAGES = [path.name for path in sorted((ROOT / "pipeline").glob("*.py"))]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    repository = own_repository(tmp_path / "house")
    monkeypatch.chdir(repository.path)
    return repository


@pytest.fixture
def release(repository: Project, capsys: Printed) -> Path:
    """The folder of a project within the repository."""
    asked = ["--checkpoint", "runs/best.pth", *asked_for_tagger()]
    assert main(["new", "release", *asked]) == 0
    capsys.readouterr()
    return repository.path / "release"


def stages(folder: Path) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load(folder / "dvc.yaml")["stages"]
    return stages


# What is written


def test_what_was_asked_for_stands_in_params_as_seen_from_the_project(
    repository: Project,
) -> None:
    asked = ["--checkpoint", "runs/best.pth", "--repo-id", "house/tagger"]
    settings = ["--set", "onnx.opset=20", "--formats", "onnx", "safetensors"]
    assert main(["new", "ml/release", *asked, *asked_for_tagger(), *settings]) == 0
    params = load_params(Path("ml/release/params.yaml"))
    assert params.checkpoint.path == "../../runs/best.pth"
    assert params.model.factory == "tagger.net:build"
    assert params.model.source == "../../src/tagger"
    assert params.model.signature and params.model.signature["outputs"] == ["logits"]
    assert params.publish.repo_id == "house/tagger"
    assert params.onnx.opset == 20
    assert params.formats.enabled() == ["safetensors", "onnx"]


def test_the_stages_are_this_projects_own_and_watch_the_pinned_library(
    release: Path,
) -> None:
    for name in STAGES:
        ours = (ROOT / "pipeline" / name).read_text()
        assert (release / "pipeline" / name).read_text() == ours
    own, here = stages(release), stages(ROOT)
    assert list(own) == list(here)
    for name, stage in own.items():
        assert {**stage, "deps": None} == {**here[name], "deps": None}
        assert (
            "requirements.txt" in stage["deps"] and "constraints.txt" in stage["deps"]
        )
        assert [dep for dep in stage["deps"] if dep.startswith("checkpoint_rel")] == []
        assert len(stage["deps"]) == len(set(stage["deps"]))
    watched = [dep for dep in own["load"]["deps"] if "src" in dep]
    files = ("classes.txt", "layers.py", "net.py")
    assert watched == [f"../src/tagger/{name}" for name in files]
    assert "src" not in str(own["publish"]["deps"])


def test_nothing_of_the_demo_comes_along(release: Path) -> None:
    params = YAML(typ="safe").load(release / "params.yaml")
    for value in (params["card"], params["checkpoint"], params["parity"]["sizes"]):
        assert "demo" not in str(value) and "stick" not in str(value)
    assert params["parity"]["sizes"] == {} and params["model"]["inputs"] is None
    assert "storage" not in (release / ".dvc/config").read_text()


def test_every_comment_of_params_yaml_is_kept(release: Path) -> None:
    def comments(path: Path) -> list[str]:
        lines = path.read_text().splitlines()
        return [line.partition(" # ")[2] for line in lines if " # " in line]

    assert comments(release / "params.yaml") == comments(ROOT / "params.yaml")


def test_a_folder_outside_git_becomes_a_repository_and_one_inside_does_not(
    release: Path, tmp_path: Path
) -> None:
    assert not (release / ".git").exists()
    workflow = release.parent / ".github/workflows/release-release.yml"
    assert "  PROJECT: release #" in workflow.read_text()
    assert main(["new", str(tmp_path / "alone")]) == 0
    assert (tmp_path / "alone/.git").is_dir()
    own = tmp_path / "alone/.github/workflows/release.yml"
    assert "  PROJECT: . #" in own.read_text()
    for path in (workflow, own):
        assert YAML(typ="safe").load(path)["env"]["PACKAGES"] == "-r requirements.txt"
        assert "-e ." not in path.read_text()


def test_without_git_dvc_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["new", str(tmp_path / "alone")]) == 0
    assert "without git" in capsys.readouterr().out
    assert "no_scm = true" in (tmp_path / "alone/.dvc/config").read_text()


@pytest.mark.parametrize(
    ("origin", "pin"),
    [
        (None, "=={version}"),
        ({"url": "file:///home/me/checkpoint-release", "dir_info": {}}, "=={version}"),
        (
            {
                "url": "https://example.org/cr.git",
                "vcs_info": {"vcs": "git", "commit_id": "0a1b"},
            },
            " @ git+https://example.org/cr.git@0a1b",
        ),
        ({"url": "https://me:secret@example.org/cr.whl"}, "=={version}"),
        ({"url": "https://example.org/cr.whl"}, " @ https://example.org/cr.whl"),
    ],
)
def test_the_pin_is_one_that_others_can_install(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None, pin: str
) -> None:
    class Installed:
        version = "9.8.7"

        def read_text(self, name: str) -> str | None:
            return json.dumps(origin) if origin else None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed())
    expected = f"checkpoint-release[pipeline]{pin.format(version='9.8.7')}"
    assert template.library_pin(["pipeline"]) == expected


# What is refused, and costs nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "runs/none.pth"], "no such file or folder"),
        (["--factory", "nowhere.net:build"], "is there a nowhere.net"),
        (["--factory", "tagger.net:build", "--source", "lib"], "no such file"),
        (["--factory", "no factory"], "package.module:callable"),
        (["--factory", "src/tagger/net.py:build"], "such as src.tagger.net:build"),
        (["--set", "onnx.opset=13"], "an integer from 14 to 25"),
        (["--set", "onnx.opst=17"], "has no option onnx.opst"),
        (["--set", "opset"], "sets nothing"),
        (["--set", "onnx.opset=[1"], "the value of onnx.opset is not YAML"),
        (["--signature", "none.yaml"], "none.yaml can't be read"),
        (["--repo-id", "no repository"], "organisation/name"),
    ],
)
def test_what_makes_no_project_is_one_error_and_writes_nothing(
    repository: Project, capsys: Printed, arguments: list[str], message: str
) -> None:
    assert main(["new", "release", *arguments]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed
    assert "what to do" in printed and not Path("release").exists()


def test_somebody_elses_files_are_not_replaced(
    repository: Project, capsys: Printed
) -> None:
    Path("dvc.yaml").write_text("stages: {train: {cmd: train}}\n")
    before = tree(repository.path)
    assert main(["new", "."]) == 1
    printed = capsys.readouterr().err
    assert "holds files of other content already: dvc.yaml" in printed
    assert "a subfolder" in printed and tree(repository.path) == before


def test_lines_are_added_to_an_ignore_file_that_is_there(repository: Project) -> None:
    Path(".gitignore").write_text("/data\n*.pyc\n")
    assert main(["new", "."]) == 0
    lines = Path(".gitignore").read_text().splitlines()
    assert lines[:2] == ["/data", "*.pyc"] and lines.count("*.pyc") == 1
    assert "/scratch/" in lines


# Over an older project


def make_older(release: Path, name: str, text: str) -> None:
    """Give a file the text of an older version, as if that had written it."""
    path = release / RECORD
    record = json.loads(path.read_text())
    record["version"] = "0.1.9"
    record["files"][name] = digest(name, text)
    path.write_text(json.dumps(record))
    (release / name).write_text(text)


def test_over_itself_nothing_changes(release: Path, capsys: Printed) -> None:
    before = tree(release)
    assert main(["new", "release", "--update"]) == 0
    assert "nothing to change" in capsys.readouterr().out
    assert tree(release) == before


def test_what_would_change_is_shown_and_changed_only_when_asked(
    release: Path, capsys: Printed
) -> None:
    make_older(release, "pipeline/load.py", "print('older')\n")
    before = tree(release)
    assert main(["new", "release"]) == 0
    printed = capsys.readouterr().out
    assert "change: pipeline/load.py" in printed and "-print('older')" in printed
    assert "nothing was changed" in printed and tree(release) == before
    assert main(["new", "release", "--update"]) == 0
    ours = (ROOT / "pipeline/load.py").read_text()
    assert (release / "pipeline/load.py").read_text() == ours
    assert "nothing to change" in (main(["new", "release"]), capsys.readouterr())[1].out


def test_what_was_edited_stays_and_what_it_misses_is_shown(
    release: Path, capsys: Printed
) -> None:
    make_older(release, "pipeline/load.py", "print('older')\n")
    edited = "print('older')\nprint('mine')\n"
    (release / "pipeline/load.py").write_text(edited)
    assert main(["new", "release", "--update"]) == 0
    printed = capsys.readouterr().out
    assert "keep, edited: pipeline/load.py" in printed and "-print('mine')" in printed
    assert (release / "pipeline/load.py").read_text() == edited


def test_an_edited_file_whose_template_is_the_same_is_not_mentioned(
    release: Path, capsys: Printed
) -> None:
    (release / "pipeline/publish.py").write_text("print('mine')\n")
    with (release / "dvc.yaml").open("a") as file:
        file.write("# mine\n")
    assert main(["new", "release", "--update"]) == 0
    assert "nothing to change" in capsys.readouterr().out
    assert (release / "pipeline/publish.py").read_text() == "print('mine')\n"


def test_what_was_removed_stays_removed(release: Path, capsys: Printed) -> None:
    (release / "checkpoints/card/notes.md").unlink()
    assert main(["new", "release", "--update"]) == 0
    assert not (release / "checkpoints/card/notes.md").exists()


def test_params_get_new_options_and_keep_their_values(
    release: Path, capsys: Printed
) -> None:
    path = release / "params.yaml"
    lines = path.read_text().replace("opset: 17 ", "opset: 21 ").splitlines()
    older = [line for line in lines if not line.startswith("  sbom:")]
    path.write_text("\n".join(older) + "\n# mine\n")
    assert main(["new", "release"]) == 0
    assert "+  sbom: false" in capsys.readouterr().out
    assert main(["new", "release", "--update", "--set", "onnx.ir_version=10"]) == 0
    params = load_params(path)
    assert (params.publish.sbom, params.onnx.opset) == (False, 21)
    assert params.onnx.ir_version == 10
    text = path.read_text()
    assert "# mine" in text and "bill of materials" in text


def test_other_sources_are_no_edit_of_dvc_yaml(release: Path, capsys: Printed) -> None:
    asked = ["--set", "model.source=[../src/tagger/net.py, ../src/tagger/layers.py]"]
    assert main(["new", "release", "--update", *asked]) == 0
    deps = stages(release)["export-onnx"]["deps"]
    assert "../src/tagger/layers.py" in deps and "../src/tagger/classes.txt" not in deps
    assert "keep" not in capsys.readouterr().out


def test_a_record_that_is_none_is_one_error(release: Path, capsys: Printed) -> None:
    (release / RECORD).write_text("{}")
    assert main(["new", "release"]) == 1
    assert f"{RECORD} is not as it was written" in capsys.readouterr().err


def test_an_installation_without_the_files_names_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Printed
) -> None:
    monkeypatch.setattr(template, "__file__", str(tmp_path / "a/b/c.py"))
    assert main(["new", str(tmp_path / "new")]) == 1
    assert "lacks the pipeline's files" in capsys.readouterr().err
