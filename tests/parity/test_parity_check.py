"""The stage: good artifacts pass, wrong ones stop it and leave evidence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.artifacts.parity import read_report
from checkpoint_release.core.files import sha256
from tests.support.fake_openvino import RIGHT, WRONG, fake_openvino
from tests.support.parity_world import World
from tests.support.project import ROOT


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, world: World, exported: dict[str, Path]
) -> Path:
    """A folder in which the stages before parity-check have run, and parity-check has,
    well.
    """
    folder = tmp_path_factory.mktemp("project")
    text = (
        (ROOT / "params.yaml").read_text().replace("sequence: [250]", "sequence: [40]")
    )
    (folder / "params.yaml").write_text(text)
    for package in ("pipeline", "checkpoint_release"):
        (folder / package).symlink_to(ROOT / package)
    shutil.copytree(world.checkpoint, folder / "artifacts/checkpoint")
    for format, path in exported.items():
        shutil.copytree(path, folder / "artifacts" / format)
    (folder / "artifacts/torch_export").mkdir()
    write_manifest(folder / "artifacts/torch_export", "torch_export", enabled=False)
    return folder


def parity_check(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.parity_check"]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_stage_passes_good_artifacts_and_stops_wrong_ones(project: Path) -> None:
    done = parity_check(project)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:4]] == [
        "safetensors",
        "onnx",
        "torchscript",
    ]
    report = read_report(project / "artifacts/parity/report.json")
    assert report.passed
    manifests = {
        name: sha256(project / f"artifacts/{name}/manifest.json")
        for name in report.checked
    }
    assert report.checked == manifests and set(manifests) == {
        "safetensors",
        "onnx",
        "torchscript",
    }
    times_floor = report.formats["onnx"].outputs["pose"].times_floor
    assert times_floor is not None and times_floor <= report.rule.noise_multiple
    for name in ("outputs.csv", "along.csv"):
        assert (
            len((project / "artifacts/parity/plots" / name).read_text().splitlines())
            > 10
        )

    # The sample agrees with the artifact, for somebody with onnxruntime alone.
    sample = {
        name: load_file(project / f"artifacts/parity/sample/{name}.safetensors")
        for name in ("inputs", "outputs")
    }
    session = onnxruntime.InferenceSession(
        str(project / "artifacts/onnx/model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    for name, got in zip(names, session.run(None, sample["inputs"]), strict=True):
        np.testing.assert_allclose(got, sample["outputs"][name], rtol=1e-4, atol=1e-5)

    # One layer's weight, all of it, a thousandth too large.
    broken = project.parent / f"{project.name}-broken"
    shutil.copytree(project, broken, symlinks=True)
    file = broken / "artifacts/onnx/model.onnx"
    model = onnx.load(file)
    (tensor,) = (
        t
        for t in model.graph.initializer
        if t.name == "model.transformer_encoder.layers.1.norm2.weight"
    )
    tensor.CopyFrom(
        numpy_helper.from_array(
            numpy_helper.to_array(tensor) * np.float32(1.001), tensor.name
        )
    )
    onnx.save(model, file)
    assert "was changed after it was written" in parity_check(broken).stderr
    write_manifest(file.parent, "onnx")
    failed = parity_check(broken)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert "times the noise floor" in failed.stderr and "WRONG" in failed.stdout
    assert "the first node that diverges is Mul" in failed.stderr
    assert "transformer_encoder.layers.1.norm2 (RMSNorm)" in failed.stderr
    assert (broken / "artifacts/parity.json").read_bytes() == (
        project / "artifacts/parity.json"
    ).read_bytes()
    script = broken / "scratch/parity/onnx/reproduce.py"
    assert str(script.relative_to(broken)) in failed.stderr
    again = subprocess.run(
        [sys.executable, str(script)],
        cwd=broken,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        "pose" in again.stdout
        and "checkpoint_release" not in script.read_text().split('"""')[2]
    )


@pytest.mark.slow
def test_the_report_has_the_same_bytes_on_every_run(project: Path) -> None:
    def outputs() -> dict[str, bytes]:
        assert parity_check(project).returncode == 0
        folder = project / "artifacts"
        files = [folder / "parity.json", *sorted((folder / "parity").rglob("*"))]
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in files
            if path.is_file()
        }

    assert outputs() == outputs()


def test_the_metrics_are_nested_numbers_that_json_can_hold(project: Path) -> None:
    assert parity_check(project).returncode == 0
    metrics = json.loads(
        (project / "artifacts/parity/report.json").read_text(),
        parse_constant=lambda name: pytest.fail(name),
    )
    figures = metrics["formats"]["onnx"]["outputs"]["pose"]
    assert isinstance(figures["max_abs_error"], float)


@pytest.mark.slow
def test_another_runtime_that_is_named_is_a_row_and_stops_the_stage_if_it_is_wrong(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder, symlinks=True)
    text = (folder / "params.yaml").read_text()
    named = text.replace("[onnxruntime] ", "[onnxruntime, openvino, tract] ")
    (folder / "params.yaml").write_text(named)
    right = str(fake_openvino(tmp_path / "right", RIGHT))
    done = parity_check(folder, PYTHONPATH=right)
    assert done.returncode == 0, done.stderr
    assert "onnx on openvino" in done.stdout
    assert "tract: not run, for tract isn't installed" in done.stdout
    report = read_report(folder / "artifacts/parity/report.json")
    own, other = report.formats["onnx"], report.formats["onnx on openvino"]
    assert other.outputs["pose"].times_floor == own.outputs["pose"].times_floor
    assert report.machine.libraries["openvino"] == "2999.1"
    assert set(report.checked) == {"safetensors", "onnx", "torchscript"}

    wrong = str(fake_openvino(tmp_path / "wrong", WRONG))
    failed = parity_check(folder, PYTHONPATH=wrong)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert "take it out of parity.runtimes: openvino" in failed.stderr
