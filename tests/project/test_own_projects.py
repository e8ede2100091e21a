"""A release out of somebody's own repository: new, dvc repro, convert."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.runtimes.loader import load
from tests.support.own_repository import asked_for_tagger, own_repository
from tests.support.project import ROOT, Project, tree

Printed = pytest.CaptureFixture[str]
ALL_STAGES = 8
OWN_COMMAND = ("python", "-m", "checkpoint_release")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    repository = own_repository(tmp_path / "house")
    monkeypatch.chdir(repository.path)
    # where a test's project finds this library, which no package installs
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return repository


def new(repository: Project, folder: str, *arguments: str) -> Project:
    asked = ("--checkpoint", "runs/best.pth", *asked_for_tagger())
    repository.run(*OWN_COMMAND, "new", folder, *asked, *arguments)
    return Project(repository.path / folder)


@pytest.mark.slow
def test_a_subfolder_of_a_repository_with_src_layout_gives_a_release(
    repository: Project,
) -> None:
    release = new(repository, "ml/release")
    repository.commit("A release")
    done = release.dvc("repro")
    assert len(release.ran(done.stdout)) == ALL_STAGES
    assert "is empty" not in done.stdout + done.stderr  # DVC, of an __init__.py
    assert load(release.path / "artifacts/release", format="onnx").signature
    status = release.dvc("status").stdout
    assert "up to date" in status
    repository.commit("Released")
    tracked = repository.git("ls-files", "ml").split()
    assert "ml/release/artifacts/publish.json" in tracked
    large = (".onnx", ".safetensors", ".pt", ".pyc", ".dir")
    assert [name for name in tracked if name.endswith(large)] == []

    # what DVC watches: the file that code reads, and not what Python leaves
    package = repository.path / "src/tagger"
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
    assert "up to date" in release.dvc("status").stdout
    (package / "layers.py").write_text(
        (package / "layers.py").read_text().replace(".tanh()", ".sigmoid()")
    )
    done = release.dvc("repro")
    assert "export-onnx" in release.ran(done.stdout)

    # the same by convert, without a repository
    done = repository.run(
        *OWN_COMMAND, "convert", "runs/best.pth", "-o", "out", *asked_for_tagger()
    )
    assert "out: the release" in done.stdout
    assert tree(repository.path / "out") == tree(release.path / "artifacts/release")


@pytest.mark.slow
def test_a_project_with_dvc_of_its_own_keeps_it_and_its_release_travels(
    repository: Project, tmp_path: Path
) -> None:
    repository.dvc("init", "-q")
    (repository.path / "dvc.yaml").write_text(
        "stages: {train: {cmd: echo 1 > trained, outs: [trained]}}\n"
    )
    repository.dvc("repro")
    repository.commit("Trained")
    release = new(repository, "release", "--formats", "onnx")
    release.dvc("remote", "add", "-q", "-d", "storage", str(tmp_path / "storage"))
    release.dvc("repro")
    repository.commit("Released")
    assert "up to date" in repository.dvc("status").stdout
    assert repository.dvc("stage", "list").stdout.startswith("train ")
    release.dvc("push")

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", repository.path, clone], check=True)
    pulled = Project(clone / "release")
    pulled.dvc("pull")
    assert "up to date" in pulled.dvc("status").stdout
    mine, theirs = release.path / "artifacts", pulled.path / "artifacts"
    assert tree(theirs / "release") == tree(mine / "release")


@pytest.mark.slow
def test_a_format_that_is_wrong_makes_no_release_and_leaves_its_evidence(
    repository: Project,
) -> None:
    # int8 differs from float32, by more than nothing
    strict = ("--set", "onnx.variants=[int8]", "--set")
    done = repository.run(
        *(*OWN_COMMAND, "convert", "runs/best.pth", "-o", "out", *asked_for_tagger()),
        *(*strict, "parity.reduced={float16: 1e-9, bfloat16: 1e-9, int8: 1e-9}"),
        check=False,
    )
    assert (
        done.returncode == 1 and "no release: stage parity-check failed" in done.stderr
    )
    assert not (repository.path / "out").exists()
    evidence = repository.path / "out.failed/scratch/parity"
    assert list(evidence.rglob("reproduce.py"))
    leftovers = [path.name for path in repository.path.iterdir()]
    assert [name for name in leftovers if name.startswith(".out")] == []


# What is refused before a stage runs


def test_a_folder_that_holds_something_is_left_alone(
    repository: Project, capsys: Printed
) -> None:
    before = tree(repository.path)
    for output in ("src", "README.md"):
        assert main(["convert", "runs/best.pth", "-o", output]) == 1
        assert "is no empty folder" in capsys.readouterr().err
    assert tree(repository.path) == before


def test_convert_publishes_nothing(repository: Project, capsys: Printed) -> None:
    settings = ["--set", "publish.repo_id=house/tagger"]
    assert main(["convert", "runs/best.pth", "-o", "out", *settings]) == 1
    printed = capsys.readouterr().err
    assert (
        "convert publishes nothing" in printed and "checkpoint-release new" in printed
    )
    assert not Path("out").exists()


def test_the_error_of_a_stage_ends_convert_and_leaves_nothing(
    repository: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    assert main(["convert", "runs/best.pth", "-o", "out"]) == 1
    printed = capfd.readouterr().err
    assert "aren't those of a StickFigureTransformer" in printed
    assert "no release: stage load failed" in printed
    assert list(Path("out").iterdir()) == []
    assert sorted(path.name for path in Path().glob("*out*")) == ["out"]
    assert "Traceback" not in printed
