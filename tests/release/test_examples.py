"""verify --fresh-env: the card's examples, in an environment made as the card says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.release import read_release
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.release import examples
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.checks import Check
from checkpoint_release.release.examples import (
    check_examples,
    make_environment,
    read_examples,
)
from tests.support.project import ROOT, tree
from tests.support.publishing import fake_artifacts

HEAD = "---\nlicense: mit\n---\n# A model\n"
INSTALL = "\n```console\n$ pip install numpy==2 safetensors==0.8.0\n```\n"
READS = """
from safetensors.numpy import load_file
print(sorted(load_file("sample/inputs.safetensors")))
"""


def block(heading: str, code: str) -> str:
    return f"\n### {heading}\n\n```python\n{dedent(code).strip()}\n```\n"


def usage(*blocks: str, install: str = INSTALL) -> str:
    other = "\n## Other\n\n```python\nraise SystemExit(7)\n```\n"
    return f"{HEAD}\n## Usage\n{install}{''.join(blocks)}{other}"


class Here:
    """The tests' own environment in place of a new one; it notes what was asked for."""

    def __init__(self) -> None:
        self.requirements: list[str] = []

    def __call__(self, folder: Path, requirements: Sequence[str]) -> Path:
        self.requirements += requirements
        return Path(sys.executable)


def checked(tmp_path: Path, card: str, here: Here | None = None) -> list[Check]:
    folder = assemble(fake_artifacts(tmp_path / "artifacts", card=card))
    return check_examples(folder, read_release(folder), here or Here())


def test_every_example_runs_in_the_folder_with_what_the_card_installs(
    tmp_path: Path,
) -> None:
    here = Here()
    card = usage(block("ONNX Runtime", READS), block("TorchScript", "print('two')"))
    rows = checked(tmp_path, card, here)
    assert here.requirements == ["numpy==2", "safetensors==0.8.0"]
    assert [(row.name, row.passed, row.message) for row in rows] == [
        ("environment", True, "new, with numpy==2, safetensors==0.8.0"),
        ("example 1 (ONNX Runtime)", True, "['x']"),
        ("example 2 (TorchScript)", True, "two"),
    ]


def test_an_example_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    fails = "import no_such_library_anywhere"
    rows = checked(tmp_path, usage(block("A", READS), block("B", fails)))
    assert [row.passed for row in rows] == [True, True, False]
    assert rows[2].name == "example 2 (B)"
    assert "No module named 'no_such_library_anywhere'" in rows[2].message


def test_an_example_that_does_not_end_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "LIMIT", 0.5)
    (_, row) = checked(tmp_path, usage(block("A", "while True: pass")))
    assert not row.passed and "took more than" in row.message


def test_nothing_of_this_environment_or_folder_is_imported(tmp_path: Path) -> None:
    """A module in the release's folder, or on PYTHONPATH, would stand in for one."""
    code = "import sys; print([p for p in sys.path if 'site-packages' not in p][0])"
    _, row = checked(tmp_path, usage(block("A", code)))
    assert str(tmp_path) not in row.message and row.message


def test_examples_that_download_are_left_out(tmp_path: Path) -> None:
    card = usage(block("From the Hub", "raise SystemExit(1)"), block("Here", READS))
    rows = checked(tmp_path, card)
    assert [row.name for row in rows] == ["environment", "example 1 (Here)"]


def test_the_release_is_left_as_it_was(tmp_path: Path) -> None:
    folder = assemble(
        fake_artifacts(tmp_path / "artifacts", card=usage(block("A", READS)))
    )
    before = tree(folder)
    check_examples(folder, read_release(folder), Here())
    assert tree(folder) == before


# What isn't run


def test_a_card_that_anybody_may_edit_is_not_run(tmp_path: Path) -> None:
    artifacts = fake_artifacts(tmp_path / "artifacts", card=usage(block("A", READS)))
    folder = assemble(artifacts, card="keep")
    here = Here()
    (row,) = check_examples(folder, read_release(folder), here)
    assert not row.passed and "anybody may edit it" in row.message
    assert here.requirements == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url=https://example.org numpy",
        "-r requirements.txt",
        "git+https://example.org/x",
        "numpy@https://example.org/numpy.whl",
        "./evil",
        "numpy; rm",
        "$(id)",
    ],
)
def test_an_install_line_may_hold_names_and_versions_alone(line: str) -> None:
    install = f"\n```console\n$ pip install {line}\n```\n"
    with pytest.raises(ArtifactError, match="which is no name and version"):
        read_examples(usage(block("A", READS), install=install))


@pytest.mark.parametrize(
    ("card", "lacking"),
    [
        (usage(install=INSTALL), "no example"),
        (usage(block("A", READS), install=""), "no line that installs"),
        ("", "no example"),
    ],
)
def test_a_card_without_examples_fails(tmp_path: Path, card: str, lacking: str) -> None:
    (row,) = checked(tmp_path, card or HEAD)
    assert not row.passed and lacking in row.message


def test_nothing_runs_where_another_check_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = usage(block("A", READS))
    folder = assemble(fake_artifacts(tmp_path / "artifacts", card=card))
    here = Here()
    monkeypatch.setattr(
        "checkpoint_release.release.verify.check_examples",
        lambda folder, release: check_examples(folder, release, here),
    )
    assert main(["verify", str(folder), "--fresh-env"]) == 1  # its formats are fakes
    assert "example" not in capsys.readouterr().out and here.requirements == []


def test_an_environment_that_cannot_be_made_is_one_failed_row(tmp_path: Path) -> None:
    def fails(folder: Path, requirements: Sequence[str]) -> Path:
        raise ArtifactError("the environment can't be made: no network")

    folder = assemble(
        fake_artifacts(tmp_path / "artifacts", card=usage(block("A", READS)))
    )
    (row,) = check_examples(folder, read_release(folder), fails)
    assert (row.name, row.passed) == ("environment", False)
    assert "no network" in row.message


# The whole of it


@pytest.mark.slow
def test_a_real_release_s_examples_run_in_a_new_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "safetensors"]
    found = subprocess.run([*probe, "-d", str(tmp_path)], capture_output=True)
    if found.returncode:
        pytest.skip("no package index can be reached")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = [sys.executable, "-m", "checkpoint_release"]
    demo = str(ROOT / "checkpoints/demo.pth")
    release = str(tmp_path / "release")
    onnx = ["--formats", "onnx", "--set", "parity.sizes={}"]
    made = [*program, "convert", demo, "-o", release, *onnx]
    subprocess.run(made, check=True, capture_output=True)
    done = subprocess.run(
        [*program, "verify", release, "--fresh-env"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok     environment" in done.stdout
    assert "ok     example 1 (ONNX Runtime)" in done.stdout

    shutil.rmtree(tmp_path / "release")
    with pytest.raises(ArtifactError, match="the environment can't be made"):
        make_environment(tmp_path / "environment", ["no-such-package-anywhere==1"])
