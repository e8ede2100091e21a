"""dvc.yaml and the code agree: what a stage imports is within what DVC watches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from tests.support.project import ROOT

STAGES: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
MODULES = {name: name.replace("-", "_") for name in STAGES}
TORCH_FREE = ["load", "export-safetensors", "model-card", "publish"]


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Every import of the stages and the library, those inside functions too."""
    return grimp.build_graph("pipeline", "checkpoint_release")


def modules_watched(stage: str) -> set[str]:
    """The modules below the paths that dvc.yaml names as the stage's code."""
    found: set[str] = set()
    for dep in STAGES[stage]["deps"]:
        if not dep.startswith(("pipeline/", "checkpoint_release/")):
            continue
        path = ROOT / dep
        files = path.rglob("*.py") if path.is_dir() else [path]
        found |= {module_of(file) for file in files}
    return found


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_watches_all_the_code_that_it_imports(
    stage: str, imports: grimp.ImportGraph
) -> None:
    needed = imports.find_upstream_modules(f"pipeline.{MODULES[stage]}")
    assert needed - modules_watched(stage) == set()


@pytest.mark.parametrize("stage", TORCH_FREE)
def test_a_stage_without_tensors_to_compute_does_not_import_torch(stage: str) -> None:
    code = f"import sys, pipeline.{MODULES[stage]}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
