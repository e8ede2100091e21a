"""Running a release by a row's runtime, and the judgement on what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.params import ParityParams, load_params
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.parity.candidates import NOISE, Candidate
from checkpoint_release.parity.cases import NOMINAL, Case, draw_cases
from checkpoint_release.parity.check import check_parity
from checkpoint_release.parity.judge import OutputVerdict, Verdict, judge
from checkpoint_release.parity.other_runtimes import OtherRuntime, run_elsewhere
from checkpoint_release.parity.reference import Reference
from checkpoint_release.parity.rules import Limits
from checkpoint_release.project.one_shot import run_project
from checkpoint_release.project.template import project_files
from tests.runtime_rows.environments import EnvironmentLackingError, Npm
from tests.runtime_rows.rows import (
    FAILS,
    FIXED_SIZES,
    ONNX,
    ORT,
    PASSES,
    RELEASE,
    WRONG,
    Row,
)
from tests.runtime_rows.table import Line
from tests.support.project import ROOT

NOT_RUN = "not run"
CHECKPOINT = ROOT / "checkpoints/demo.pth"
_FIXED_CASES = 3
_LONGEST = 200  # characters of a failure in the table


@dataclass(frozen=True)
class Outcome:
    """What came of a row.

    Attributes:
        verdict: passes, WRONG, fails or not run.
        line: of the table.
    """

    verdict: str
    line: Line


@dataclass(frozen=True)
class Bench:
    """The demo's release with everything that rows are held against.

    Attributes:
        folder: of the project, whose stages have run.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Bench:
        """Release the demo in every format."""
        options = {
            "checkpoint.path": str(CHECKPOINT),
            "model.factory": "checkpoint_release.models.stick_figure:build",
            "formats.torch_export": True,
            "onnx.fixed": FIXED_SIZES,
            "parity.sizes": {"sequence": [250]},
        }
        run_project(project_files(options), folder)
        bench = cls(folder)
        bench.write_ort()
        return bench

    @property
    def release(self) -> Path:
        """The release's folder."""
        return self.folder / "artifacts/release"

    @property
    def checkpoint(self) -> CheckpointFolder:
        """The checkpoint."""
        folder = self.folder / "artifacts/checkpoint"
        return CheckpointFolder.open(folder, OWN_ARTIFACTS)

    @property
    def params(self) -> ParityParams:
        """How the project's own check is made."""
        return load_params(self.folder / "params.yaml").parity

    @property
    def limits(self) -> Limits:
        """What is close enough: the same as for the release."""
        reduced = msgspec.structs.asdict(self.params.reduced)
        return Limits(self.params.noise_multiple, reduced)

    @cached_property
    def dynamic(self) -> Reference:
        """The cases of the release's own check."""
        params = self.params
        cases = draw_cases(
            self.checkpoint.architecture.signature,
            seed=params.seed,
            sizes=params.sizes,
            magnitudes=params.magnitudes,
        )
        return self._reference(cases)

    @cached_property
    def fixed(self) -> Reference:
        """Cases at FIXED_SIZES."""
        signature = self.checkpoint.architecture.signature
        sizes = {name: [size] for name, size in FIXED_SIZES.items()}
        kept = []
        for seed in range(_FIXED_CASES):
            for case in draw_cases(signature, seed=seed, sizes=sizes, magnitudes=[]):
                if _has_fixed_sizes(case, signature):
                    name = f"{case.name}, seed={seed}"
                    kept.append(replace(case, name=name))
        return self._reference(kept)

    def _reference(self, cases: Sequence[Case]) -> Reference:
        path = self.checkpoint.path
        return check_parity(path, [], cases, self.limits).reference

    def write_ort(self) -> None:
        """Write the ONNX file in ONNX Runtime's own format."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(self.folder / ORT)
        options.add_session_config_entry("session.save_model_format", "ORT")
        # what it knows of this processor isn't for another's
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.graph_optimization_level = level
        onnxruntime.InferenceSession(str(self.release / ONNX), options)

    def path(self, reads: str) -> Path:
        """What a row is given."""
        return (self.folder if reads == ORT else self.release) / reads

    def measure(self, row: Row) -> Outcome:
        """Run a row, whatever comes of it."""
        reads = "the folder" if row.reads == RELEASE else f"`{row.reads}`"
        try:
            runtime = _runtime(row)
        except EnvironmentLackingError as error:
            line = Line(row.title, "", reads, "", f"not run: {error}")
            return Outcome(NOT_RUN, line)
        reference = self.fixed if row.fixed else self.dynamic
        cases = [case.case for case in reference.cases]
        path = self.path(RELEASE if "chromium" in row.name else row.reads)
        found = run_elsewhere(runtime, path, cases, reference.outputs)
        candidate = Candidate("onnx", "onnx", path, NOISE).on(row.name)
        verdict = judge(candidate, found.result, reference, self.limits)
        count = f"{len(cases)} of one shape" if row.fixed else str(len(cases))
        line = Line(row.title, found.version, reads, count, describe(verdict))
        return Outcome(kind(verdict), line)


def _has_fixed_sizes(case: Case, signature: Signature) -> bool:
    """Whether a case has FIXED_SIZES in all dimensions."""
    for spec in signature.inputs:
        expected = [FIXED_SIZES.get(str(size), size) for size in spec.shape or ()]
        if list(case.inputs[spec.name].shape) != expected:
            return False
    return True


def _runtime(row: Row) -> OtherRuntime:
    """A row's runtime in its environment.

    Raises:
        EnvironmentLackingError: that can't be had.
    """
    place = row.environment.make()
    if isinstance(row.environment, Npm):
        return OtherRuntime(row.name, row.package, row.adapter, folder=place)
    return OtherRuntime(row.name, row.package, row.adapter, python=str(place))


def kind(verdict: Verdict) -> str:
    """Whether it passes, is wrong, or didn't run to the end."""
    if verdict.passed:
        return PASSES
    return WRONG if verdict.outputs else FAILS


def describe(verdict: Verdict) -> str:
    """The verdict for the table."""
    if not verdict.outputs:
        return f"**fails**: {(verdict.problem or '')[:_LONGEST]}"
    worst = max(verdict.outputs.values(), key=lambda each: each.worst.excess)
    times = worst.worst.times_floor or 0.0
    error = f"largest error {_largest(verdict.outputs.values()):.1e}"
    if verdict.passed:
        return f"passes: {times:.1f}× the noise floor, {error}"
    return f"**WRONG**: {worst.name} errs by {times:.3g}× the floor, {error}"


def _largest(outputs: Iterable[OutputVerdict]) -> float:
    """The largest absolute error where inputs are nominal."""
    errors = []
    for output in outputs:
        for result in output.results:
            if result.case.kind == NOMINAL:
                errors.append(result.errors.max_abs)
    return max(errors, default=0.0)
