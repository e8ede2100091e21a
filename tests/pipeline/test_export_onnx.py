"""Stage export-onnx: artifacts/onnx is as params.yaml asks, or stays as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from checkpoint_release.core.artifacts.manifest import read_manifest
from checkpoint_release.core.errors import ExportError, OpsetError
from pipeline.export_onnx import main
from tests.support import models
from tests.support.exports import prepare_stage, run_stage
from tests.support.project import ROOT


def test_the_manifest_states_what_was_written(figure: Path, tmp_path: Path) -> None:
    variants = ["float16", "int8"]
    artifacts = run_stage(
        main, tmp_path, figure, onnx__opset=18, onnx__variants=variants
    )
    folder = artifacts / "onnx"
    manifest = read_manifest(folder)
    manifest.verify(folder)
    facts = manifest.facts
    assert (facts["opset"], facts["ir_version"], facts["exporter"]) == (18, 8, "direct")
    assert facts["nodes"] == len(onnx.load(folder / "model.onnx").graph.node)
    assert facts["versions"] == {"onnx": onnx.__version__}
    assert facts["variants"] == [
        {"file": "model_fp16.onnx", "precision": "float16"},
        {"file": "model_int8.onnx", "precision": "int8"},
    ]
    for variant in facts["variants"]:
        properties = onnx.load(folder / variant["file"]).metadata_props
        assert ("precision", variant["precision"]) in [
            (entry.key, entry.value) for entry in properties
        ]


def test_the_format_switched_off_leaves_a_folder_that_says_so(
    figure: Path, tmp_path: Path
) -> None:
    for enabled in (True, False):
        artifacts = run_stage(main, tmp_path, figure, formats__onnx=enabled)
        assert read_manifest(artifacts / "onnx").enabled == enabled
    names = [path.name for path in (artifacts / "onnx").iterdir()]
    assert names == ["manifest.json"]


def test_the_direct_route_needs_no_torch(figure: Path, tmp_path: Path) -> None:
    prepare_stage(tmp_path, figure)
    code = (
        "import sys; from pipeline.export_onnx import main; main();"
        " sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert done.returncode == 0
    assert read_manifest(tmp_path / "artifacts/onnx").facts["exporter"] == "direct"


def test_an_opset_that_cannot_be_had_leaves_nothing(
    figure: Path, tmp_path: Path
) -> None:
    with pytest.raises(OpsetError):
        run_stage(main, tmp_path, figure, onnx__opset=21, onnx__exporter="torchscript")
    assert not (tmp_path / "artifacts/onnx").exists()


def test_a_file_that_fails_its_check_leaves_the_last_good_ones(
    figure: Path, tmp_path: Path
) -> None:
    artifacts = run_stage(main, tmp_path / "good", figure)
    good = read_manifest(artifacts / "onnx")
    baked = models.checkpoint(tmp_path / "baked", models.Baked)
    with pytest.raises(ExportError, match=r"sequence 8.* off the eager model's by"):
        run_stage(main, tmp_path / "good", baked)
    assert read_manifest(artifacts / "onnx") == good
    good.verify(artifacts / "onnx")
    with pytest.raises(ExportError):
        run_stage(main, tmp_path / "new", baked)
    assert not (tmp_path / "new/artifacts/onnx").exists()
