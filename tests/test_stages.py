"""dvc.yaml and the code agree: what a stage imports is what DVC watches, and stages stay apart."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.project import ROOT

STAGES: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
MODULES = {name: name.replace("-", "_") for name in STAGES}
FAMILY = "pipeline/models/stick_figure"  # watched as ${model.source}
TORCH_FREE = ["load", "export-safetensors", "model-card", "publish"]


def imports(path: Path) -> set[Path]:
    """The project's modules that a module imports anywhere in it, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = {"/".join(name.split(".")[: n + 1]) for name in names for n in range(len(name.split(".")))}
    candidates = {
        ROOT / f"{part}{end}" for part in parts if part.startswith("pipeline") for end in (".py", "/__init__.py")
    }
    return {candidate for candidate in candidates if candidate.exists()}


def closure(module: str) -> set[str]:
    """Every module of the project that a stage needs, itself included."""
    found: set[Path] = set()
    todo = [ROOT / f"pipeline/{module}.py"]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += imports(path)
    return {path.relative_to(ROOT).as_posix() for path in found}


def code_deps(stage: str) -> list[str]:
    return [dep for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_watches_exactly_the_code_it_imports(stage: str) -> None:
    needed = {path for path in closure(MODULES[stage]) if not path.startswith(FAMILY)}
    templates = (
        {f"pipeline/{path.name}" for path in (ROOT / "pipeline").glob("*.jinja")} if stage == "model-card" else set()
    )
    assert set(code_deps(stage)) == needed | templates


def test_the_import_rule_sees_imports_inside_functions(tmp_path: Path) -> None:
    (module := tmp_path / "module.py").write_text("def f():\n    from pipeline.eager import build_eager\n")
    assert ROOT / "pipeline/eager.py" in imports(module)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage: str) -> None:
    others = {f"pipeline/{module}.py" for name, module in MODULES.items() if name != stage}
    assert not closure(MODULES[stage]) & others


@pytest.mark.parametrize("stage", TORCH_FREE)
def test_a_stage_without_tensors_to_compute_does_not_import_torch(stage: str) -> None:
    code = f"import sys, pipeline.{MODULES[stage]}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_is_for(stage: str) -> None:
    assert len(STAGES[stage]["desc"].split()) >= 4


@pytest.mark.parametrize("stage", STAGES)
def test_a_change_of_the_pinned_versions_rebuilds(stage: str) -> None:
    assert "constraints.txt" in STAGES[stage]["deps"]
