"""The folder of a pipeline that has run, made without running it: small artifacts,
dvc.yaml, dvc.lock, and a git repository.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from checkpoint_release.core.artifacts.benchmark import BENCHMARK
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.artifacts.error_tables import (
    CASE_ERRORS,
    FLOOR,
    OUTPUT_ERRORS,
    POSITION_ERRORS,
    TABLES,
    CaseError,
    OutputError,
    PositionError,
)
from checkpoint_release.core.artifacts.manifest import MANIFEST
from checkpoint_release.core.artifacts.parity import (
    METRICS,
    PARITY_FOLDER,
    ParityMetrics,
)
from checkpoint_release.core.artifacts.receipt import RECEIPT, Statement
from checkpoint_release.core.artifacts.release import Sample
from checkpoint_release.core.files import FileEntry, sha256
from checkpoint_release.report.modules import NodeError
from checkpoint_release.report.nodes import CACHE, NodeErrors, inputs_digest
from tests.support.benchmark_models import benchmark
from tests.support.checkpoint_folder import write_checkpoint
from tests.support.parity_json import write_parity
from tests.support.publishing import write_artifact
from tests.support.stick_figure import stick_figure

FORMATS = ("safetensors", "onnx")
CASES = ("nominal, sequence=5, batch=1", "zeros, sequence=2, batch=3")
STAGES = {
    "load": ["artifacts/checkpoint"],
    "export-safetensors": ["artifacts/safetensors"],
    "export-onnx": ["artifacts/onnx"],
    "parity-check": ["artifacts/parity", "artifacts/parity.json"],
}


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline's folder, and what a test changes in it."""

    root: Path

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def write(
        self,
        outputs: Sequence[str] = ("pose", "action"),
        *,
        weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
        training: Mapping[str, Any] | None = None,
        cases: Sequence[str] = CASES,
    ) -> PipelineFolder:
        """Write what the stages write."""
        shutil.rmtree(self.artifacts / CHECKPOINT, ignore_errors=True)
        kernel = np.linspace(-1, 1, 12, dtype=np.float32)
        write_checkpoint(
            self.artifacts / CHECKPOINT,
            stick_figure(),
            weights or {"layer.weight": kernel, "layer.bias": kernel[:2]},
            training,
        )
        write_artifact(
            self.artifacts / "safetensors", "safetensors", {"model.safetensors": b"w"}
        )
        write_artifact(self.artifacts / "onnx", "onnx", {"model.onnx": b"graph"})
        for name in ("torchscript", "torch_export"):
            write_artifact(self.artifacts / name, name, {}, enabled=False)
        write_parity(self.artifacts, outputs)
        self.write_tables(outputs, cases)
        self.write_metrics({"safetensors": 0.33, "onnx": 0.39})
        self.write_statement({"onnx/model.onnx": b"graph", "model.safetensors": b"w"})
        return self

    def write_tables(self, outputs: Sequence[str], cases: Sequence[str]) -> None:
        """Every figure another number, the largest in the last case."""
        tables = self.artifacts / PARITY_FOLDER / TABLES
        tables.mkdir(parents=True, exist_ok=True)
        by_case, by_output, along = [], [], []
        for number, format in enumerate(FORMATS):
            for place, output in enumerate(outputs):
                by_output.append(
                    OutputError(
                        output=output,
                        format=format,
                        relative_error=1e-6,
                        share_of_limit=0.5,
                    )
                )
                for step, case in enumerate(cases):
                    share = 0.1 + number / 5 + place / 20 + step / 10
                    by_case.append(
                        CaseError(
                            case=case,
                            output=output,
                            format=format,
                            share_of_limit=round(share, 3),
                            times_floor=round(8 * share, 3),
                            max_abs_error=1e-6,
                            index=f"{step},{place},7",
                            expected=0.25,
                            got=0.250001,
                        )
                    )
        for position in range(5):
            for format in (FLOOR, *FORMATS):
                along.append(
                    PositionError(
                        position=position,
                        dimension="sequence",
                        output=outputs[0],
                        format=format,
                        relative_error=1e-6 * (position + 1),
                    )
                )
        OUTPUT_ERRORS.write(tables, by_output)
        CASE_ERRORS.write(tables, by_case)
        POSITION_ERRORS.write(tables, along)

    def write_nodes(self) -> None:
        """Errors of the ONNX graph's nodes, as if they had been computed."""
        sample = self.artifacts / PARITY_FOLDER / Sample().inputs
        sample.parent.mkdir(parents=True, exist_ok=True)
        sample.write_bytes(b"inputs")
        nodes = []
        for number in range(9):
            name = f"layers.{number // 3}/step{number}"
            nodes.append(NodeError(name=name, operator="Gemm", error=1e-7 * number))
        errors = NodeErrors(made_from=inputs_digest(self.artifacts), nodes=nodes)
        (self.root / CACHE).parent.mkdir(parents=True, exist_ok=True)
        errors.write(self.root / CACHE)

    def write_benchmark(self) -> None:
        """Figures of the two formats."""
        digests = {name: sha256(self.artifacts / name / MANIFEST) for name in FORMATS}
        benchmark(digests).write(self.artifacts / BENCHMARK)

    def write_metrics(self, shares: Mapping[str, float]) -> None:
        metrics = ParityMetrics(passed=True, cases=2, share_of_limit=dict(shares))
        metrics.write(self.artifacts / METRICS)

    def write_statement(self, files: Mapping[str, bytes]) -> None:
        """What publish states about a release that it only assembled."""
        entries = {}
        for name, content in files.items():
            (path := self.root / "released").write_bytes(content)
            entries[name] = FileEntry.of(path)
            path.unlink()
        statement = Statement(reason="publish.repo_id is not set", files=entries)
        statement.write(self.artifacts / RECEIPT)

    def write_pipeline(self, params: Mapping[str, Any], pins: str = "1" * 32) -> None:
        """dvc.yaml, and dvc.lock as of a run with these parameters and pins."""
        stages: dict[str, Any] = {}
        locked: dict[str, Any] = {}
        for name, outs in STAGES.items():
            stages[name] = {"desc": f"What {name} does", "cmd": f"run {name}"}
            locked[name] = {
                "cmd": f"run {name}",
                "deps": [{"path": "constraints.txt", "md5": pins, "size": 1}],
                "outs": [{"path": path, "md5": "2" * 32, "size": 1} for path in outs],
            }
        locked["export-onnx"]["params"] = {"params.yaml": dict(params)}
        yaml = YAML()
        yaml.dump({"stages": stages}, self.root / "dvc.yaml")
        yaml.dump({"schema": "2.0", "stages": locked}, self.root / "dvc.lock")

    def commit(self, message: str) -> None:
        for command in (
            ["init", "-q", "-b", "main"],
            [
                "add",
                "-f",
                "dvc.lock",
                "artifacts/parity.json",
                "artifacts/publish.json",
            ],
            ["commit", "-q", "-m", message],
        ):
            names = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
            subprocess.run(["git", *names, *command], cwd=self.root, check=True)
