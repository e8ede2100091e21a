"""Stage export-torchscript: both folders are as params.yaml asks, or stay as they
were.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoint_release.core.artifacts.manifest import read_manifest
from checkpoint_release.core.errors import ExportError
from pipeline.export_torchscript import main
from tests.support import models
from tests.support.exports import TORCH_FORMATS, run_stage


def test_the_manifests_state_what_was_written(figure: Path, tmp_path: Path) -> None:
    artifacts = run_stage(main, tmp_path, figure, formats__torch_export=True)
    for format in TORCH_FORMATS:
        manifest = read_manifest(artifacts / format)
        manifest.verify(artifacts / format)
        assert manifest.enabled and len(manifest.files) == 2
        version = torch.__version__.partition("+")[0]
        assert manifest.facts == {"versions": {"torch": version}}


def test_a_format_that_is_off_leaves_a_folder_that_says_so(
    figure: Path, tmp_path: Path
) -> None:
    artifacts = run_stage(
        main, tmp_path, figure, formats__torchscript=False, formats__torch_export=False
    )
    for format in TORCH_FORMATS:
        names = [path.name for path in (artifacts / format).iterdir()]
        assert names == ["manifest.json"]
        assert not read_manifest(artifacts / format).enabled


def test_a_file_that_fails_its_check_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = models.checkpoint(tmp_path / "checkpoint", models.Baked)
    with pytest.raises(ExportError, match="off the eager model's by"):
        run_stage(main, tmp_path, checkpoint)
    assert not (tmp_path / "artifacts/torchscript").exists()
