"""Where the model's code lies: importable, and watched by DVC."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from checkpoint_release.core import dvc_files
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import ModelParams, load_params
from checkpoint_release.core.sources import (
    import_root,
    make_importable,
    require_watched,
    watched_paths,
)
from tests.support.own_repository import own_repository
from tests.support.project import ROOT, Project

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with params.yaml and dvc.yaml, in the repository of somebody."""
    path = own_repository(tmp_path / "house", git=False).path / "release"
    path.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(path)
    project = Project(path)
    project.set(model__factory="tagger.net:build", model__source="../src/tagger")
    return project


def model(project: Project, source: str | list[str] | None) -> ModelParams:
    project.set(model__source=source)
    return load_params().model


def code_watched(stage: str = "export-onnx") -> list[str]:
    deps: list[str] = YAML(typ="safe").load(Path("dvc.yaml"))["stages"][stage]["deps"]
    return [dep for dep in deps if "src" in dep or "model.source" in dep]


# Importing


@pytest.mark.parametrize(
    ("path", "factory"),
    [
        ("src/tagger/net.py", "tagger.net:build"),
        ("src/tagger", "tagger.net:build"),
        ("src", "tagger.net:build"),
        ("src/tagger/layers.py", "elsewhere:build"),  # of a package with __init__.py
        ("src", "elsewhere:build"),
    ],
)
def test_the_root_is_where_the_import_of_the_factory_begins(
    project: Project, path: str, factory: str
) -> None:
    assert import_root(Path("..") / path, factory) == project.path.parent / "src"


def test_packages_without_an_init_file_are_found_by_the_factory(tmp_path: Path) -> None:
    module = tmp_path / "lib/space/inner/net.py"
    module.parent.mkdir(parents=True)
    module.touch()
    found = import_root(tmp_path / "lib/space/inner", "space.inner.net:build")
    assert found == tmp_path / "lib"


@pytest.mark.parametrize(
    ("factory", "files", "watched"),
    [
        ("own:build", ["own.py"], ["own.py"]),
        ("own.net:build", ["own/net.py", "own/layers.py"], ["own"]),
        ("elsewhere:build", ["own.py"], []),
        (
            "checkpoint_release.models.transformers:build",
            ["checkpoint_release/models/transformers/__init__.py"],
            ["checkpoint_release/models"],
        ),
    ],
)
def test_a_factory_in_the_project_is_watched_though_no_source_names_it(
    project: Project, factory: str, files: list[str], watched: list[str]
) -> None:
    for name in files:
        (project.path / name).parent.mkdir(parents=True, exist_ok=True)
        (project.path / name).touch()
    project.set(model__factory=factory)
    named = "../src/tagger/net.py"
    assert watched_paths(model(project, named)) == [named, *watched]
    assert watched_paths(model(project, None)) == watched
    if watched:
        with pytest.raises(ParamsError, match=r"model\.factory lies in"):
            require_watched(model(project, named))
        assert watched_paths(model(project, watched[0])) == watched
    assert dvc_files.main() == 0
    require_watched(load_params().model)


def test_what_is_installed_comes_before_what_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = [*sys.path]
    for _ in range(2):
        make_importable(model(project, ["../src/tagger/net.py", "../src/tagger"]))
    assert sys.path == [*before, str(project.path.parent / "src")]
    make_importable(model(project, None))
    assert sys.path == [*before, str(project.path.parent / "src")]


# Watching


def test_a_folder_elsewhere_is_watched_file_by_file_without_what_python_leaves(
    project: Project,
) -> None:
    package = project.path.parent / "src/tagger"
    for name in ("__pycache__/net.cpython-311.pyc", ".hidden", "tagger.egg-info/PKG"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).touch()
    expected = ["classes.txt", "layers.py", "net.py"]
    found = watched_paths(model(project, "../src/tagger"))
    assert found == [f"../src/tagger/{name}" for name in expected]
    (project.path / "lib").mkdir()
    assert watched_paths(model(project, "lib")) == ["lib"]  # .dvcignore reaches there


def test_a_folder_of_a_thousand_files_is_not_what_is_meant(project: Project) -> None:
    data = project.path.parent / "src/data"
    data.mkdir()
    for number in range(600):
        (data / f"{number}.txt").write_text("5\n")
    with pytest.raises(ParamsError, match=r"holds 603 files.*at most 500"):
        watched_paths(model(project, "../src"))
    with pytest.raises(ParamsError, match="no such file or folder"):
        watched_paths(model(project, "../lib"))


@pytest.mark.parametrize(
    ("source", "watched"),
    [
        (None, []),
        (["../src/tagger/net.py"], ["../src/tagger/net.py"]),
        ("../src/tagger/net.py", ["${model.source}"]),
        (
            ["../src/tagger/net.py", "../src/tagger/layers.py"],
            ["../src/tagger/net.py", "../src/tagger/layers.py"],
        ),
        (["../src/odd name, #1.py"], ["../src/odd name, #1.py"]),
    ],
)
def test_dvc_yaml_follows_what_params_yaml_names(
    project: Project, capsys: Printed, source: Any, watched: list[str]
) -> None:
    (project.path.parent / "src/odd name, #1.py").touch()
    own = model(project, source)
    before = Path("dvc.yaml").read_text()
    changes = watched != ["${model.source}"]
    if changes:
        with pytest.raises(ParamsError, match="python -m checkpoint_release") as caught:
            require_watched(own)
        assert "dvc.yaml watches other code" in caught.value.problem
    assert dvc_files.main() == 0
    assert ("watches now" in capsys.readouterr().out) == changes
    assert code_watched() == watched
    assert code_watched("publish") == []
    require_watched(own)
    after = Path("dvc.yaml").read_text()
    assert (after != before) == changes
    assert dvc_files.main() == 0 and capsys.readouterr().out == ""
    assert Path("dvc.yaml").read_text() == after


def test_a_file_that_came_to_the_package_is_noticed(project: Project) -> None:
    own = model(project, ["../src/tagger"])
    assert dvc_files.main() == 0
    require_watched(own)
    more = project.path.parent / "src/tagger/more.py"
    more.touch()
    require_watched(own)  # there is no code in it, and DVC would warn of it
    more.write_text("SIZE = 5\n")
    with pytest.raises(ParamsError, match="other code"):
        require_watched(own)
    assert dvc_files.main() == 0
    assert code_watched()[-1].endswith("net.py")
    assert "../src/tagger/more.py" in code_watched()


def test_where_there_is_no_dvc_yaml_nothing_is_wrong(project: Project) -> None:
    Path("dvc.yaml").unlink()
    require_watched(model(project, None))
    assert dvc_files.main() == 0


@pytest.mark.parametrize("key", ["checkpoint__path", "model__factory"])
def test_null_where_a_path_is_needed_is_our_error_before_dvc_starts(
    project: Project, capsys: Printed, key: str
) -> None:
    project.set(**{key: None})
    assert dvc_files.main() == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and key.replace("__", ".") in printed
    assert "found null" in printed and "what to do" in printed
