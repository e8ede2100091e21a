"""The stage benchmark: off it costs nothing, on it measures, and nothing it measured
comes out of a cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import ROOT, Project, tree

FOLLOWING = ["benchmark", "model-card", "publish"]


def benchmark(project: Project) -> dict[str, Any]:
    text = (project.path / "artifacts/benchmark.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def release(project: Project) -> dict[str, Any]:
    text = (project.path / "artifacts/release/release.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.slow
def test_on_it_measures_every_format_and_off_again_all_is_as_before(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert benchmark(project) == {}
    before = tree(project.path / "artifacts/release")
    built = release(project)["built"]

    project.set(
        benchmark__enabled=True,
        benchmark__sizes={"sequence": [5], "frames": [3]},
        benchmark__threads=[1, 1000],
        benchmark__rounds=3,
    )
    on = project.dvc("repro")
    assert project.ran(on.stdout) == FOLLOWING
    assert "benchmark.sizes names 'frames'" in on.stdout
    found = benchmark(project)
    assert list(found["median_ms"]) == ["eager", "safetensors", "onnx", "torchscript"]
    assert all(0 < each["median_ms"] <= each["p95_ms"] for each in found["measured"])
    assert all(each["sizes"]["sequence"] == 5 for each in found["measured"])
    memory = found["peak_mb"]
    assert memory["onnx"] < memory["eager"]  # it needs no torch
    reasons = [each["reason"] for each in found["not_run"]]
    assert "there is no C++ compiler" in reasons[0] and "cores for it" in reasons[1]
    card = (project.path / "artifacts/release/README.md").read_text()
    assert "## Speed and memory" in card and found["machines"][0]["processor"] in card
    assert release(project)["built"] == built
    assert "pictures/latency.svg" in release(project)["evidence"]["files"]
    changed = project.git("status", "--porcelain").split()
    assert set(changed) - {"M"} == {
        *("artifacts/benchmark.json", "artifacts/publish.json"),
        *("dvc.lock", "params.yaml"),
    }
    assert project.ran(project.dvc("repro").stdout) == []

    project.set(benchmark__enabled=False)
    assert project.ran(project.dvc("repro").stdout) == FOLLOWING
    assert benchmark(project) == {}
    assert tree(project.path / "artifacts/release") == before


def test_what_is_gone_is_made_again_and_not_restored_from_a_cache(
    project: Project,
) -> None:
    (project.path / "artifacts/benchmark.json").unlink()
    again = project.dvc("repro", "--single-item", "benchmark")
    assert project.ran(again.stdout) == ["benchmark"]
    assert "is cached" not in again.stdout and benchmark(project) == {}


def run_stage(folder: Path, *code: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the project's stages."""
    return subprocess.run(
        [sys.executable, *code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "artifacts").mkdir()
    return tmp_path


def test_off_it_imports_nothing_that_measures(folder: Path) -> None:
    code = (
        "import sys; from pipeline.benchmark import main; main();"
        "print(sorted({'torch', 'numpy', 'onnxruntime'} & set(sys.modules)))"
    )
    done = run_stage(folder, "-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert (folder / "artifacts/benchmark.json").read_text() == "{}\n"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("  threads: [0]", ["benchmark.threads[0]: found", "from 1 to 1024"]),
        ("  threads: []", ["benchmark.threads: found []"]),
        ("  threads: [2, 2]", ["benchmark.threads: found [2, 2]: a number is there"]),
        ("  thread: [1]", ["benchmark.thread: unknown key", "threads: missing"]),
    ],
)
def test_a_wrong_option_is_named(folder: Path, line: str, parts: list[str]) -> None:
    path = folder / "params.yaml"
    lines = path.read_text().splitlines()
    place = next(i for i, each in enumerate(lines) if each.startswith("  threads: "))
    lines[place] = line
    path.write_text("\n".join(lines) + "\n")
    done = run_stage(folder, "-m", "pipeline.benchmark")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    assert not (folder / "artifacts/benchmark.json").exists()
