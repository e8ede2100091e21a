"""A checkpoint, exports of it, and what the judge says of them: for tests of parity.

The exports are written here, as plainly as torch does it, so that they don't depend on
the stages' own exporters.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.config import ModelConfig
from checkpoint_release.core.artifacts.formats import FORMATS, ONNX, SAFETENSORS
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.params import load_params
from checkpoint_release.core.signature import Signature, TensorSpec, sample_inputs
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.models.stick_figure import signature as stick_figure_signature
from checkpoint_release.parity.candidates import EXACT, NOISE, Candidate
from checkpoint_release.parity.cases import Case, draw_cases
from checkpoint_release.parity.check import EAGER
from checkpoint_release.parity.constants import Weights, weights_of
from checkpoint_release.parity.graph_job import expected_of
from checkpoint_release.parity.graph_proof import DoubleResult
from checkpoint_release.parity.judge import Verdict, judge
from checkpoint_release.parity.onnx_in_double import evaluate_onnx
from checkpoint_release.parity.reference import Reference, measure_reference
from checkpoint_release.parity.rules import Limits
from checkpoint_release.parity.weights import compare_by_name
from checkpoint_release.parity.workers import Job, JobResult, run_job
from checkpoint_release.runtimes.eager import ExportModule, build_model
from checkpoint_release.runtimes.open import Runtime, open_runtime
from checkpoint_release.tensors.safetensors import open_sharded
from tests.support import checkpoint_folder
from tests.support.project import ROOT
from tests.support.tiny_release import sizes_of

PARITY = load_params(ROOT / "params.yaml").parity
LIMITS = Limits(
    PARITY.noise_multiple,
    msgspec.structs.asdict(PARITY.reduced),
)
KWARGS = {
    "input_dim": 20,
    "output_dim": 20,
    "d_model": 32,
    "nhead": 2,
    "num_layers": 2,
    "embedding_dim": 16,
    "num_actions": 10,
}


def stick_figure_architecture(**kwargs: Any) -> Architecture:
    kwargs = {**KWARGS, **kwargs}
    inputs = ["motion", "text_embedding", "action_sequence"]
    inputs += ["image_tensor"] if kwargs.get("enable_image_conditioning") else []
    return Architecture(
        "checkpoint_release.models.stick_figure:build",
        kwargs,
        stick_figure_signature(kwargs, inputs),
    )


def trained(architecture: Architecture, seed: int = 0) -> nn.Module:
    """The model with weights that are no longer as they were initialised."""
    torch.manual_seed(seed)
    model = build_model(architecture.trusting(OWN_ARTIFACTS))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@contextmanager
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_checkpoint(
    folder: Path, architecture: Architecture, model: nn.Module
) -> None:
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    checkpoint_folder.write_checkpoint(folder, architecture, weights)


def write_format(
    format: str, folder: Path, architecture: Architecture, model: nn.Module
) -> None:
    """Export the model as it stands."""
    folder.mkdir(parents=True)
    ModelConfig(architecture).write(folder)
    file = folder / FORMATS[format].file
    if format == SAFETENSORS.name:
        save_file(model.state_dict(), file)
    else:
        _trace(format, file, architecture.signature, model)
    write_manifest(folder, format)


def _trace(format: str, file: Path, signature: Signature, model: nn.Module) -> None:
    inputs = sample_inputs(signature, sizes_of(signature), 0)
    tensors = tuple(torch.from_numpy(array) for array in inputs.values())
    module = ExportModule(model, signature).train(model.training)
    with no_warnings():
        if format != ONNX.name:
            traced = torch.jit.trace(module, tensors, check_trace=False)
            torch.jit.save(traced, str(file))
            return
        torch.onnx.export(
            module,
            tensors,
            str(file),
            dynamo=False,
            opset_version=17,
            input_names=list(inputs),
            output_names=[spec.name for spec in signature.outputs],
            dynamic_axes={spec.name: _axes(spec) for spec in signature.inputs},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )


def _axes(spec: TensorSpec) -> dict[int, str]:
    """The axes of an input that are dynamic, and their names."""
    shape = enumerate(spec.shape or ())
    return {axis: size for axis, size in shape if isinstance(size, str)}


def drawn(signature: Signature, seed: int, longest: int) -> list[Case]:
    """The cases of a seed."""
    further = {"sequence": [longest]} if "sequence" in signature.dimensions else {}
    return draw_cases(signature, seed=seed, sizes=further, magnitudes=PARITY.magnitudes)


def open_eager(checkpoint: Path) -> list[Runtime]:
    """The checkpoint's own model in float64 and in float32."""
    return [
        open_runtime(
            "checkpoint", checkpoint, threads=1, dtype=dtype, trust=OWN_ARTIFACTS
        )
        for dtype in EAGER
    ]


def reference_of(runtimes: list[Runtime], cases: list[Case]) -> Reference:
    """What these runtimes of the checkpoint's own model compute."""
    float64, float32 = (
        [runtime.run(case.inputs) for case in cases] for runtime in runtimes
    )
    return measure_reference(cases, float64, float32)


def with_output(
    result: JobResult, case: int, name: str, array: np.ndarray[Any, Any]
) -> JobResult:
    """The result with one output of one case replaced."""
    outputs = [dict(arrays) for arrays in result.outputs]
    outputs[case][name] = array
    return replace(result, outputs=outputs)


@dataclass(frozen=True)
class World:
    """A checkpoint, what it computes, and a place for artifacts."""

    folder: Path
    architecture: Architecture
    model: nn.Module
    cases: list[Case]
    reference: Reference

    @classmethod
    def create(
        cls, folder: Path, architecture: Architecture, seed: int = 0, longest: int = 40
    ) -> World:
        """A checkpoint with other weights for each seed."""
        checkpoint = folder / "checkpoint"
        model = trained(architecture, seed)
        write_checkpoint(checkpoint, architecture, model)
        cases = drawn(architecture.signature, seed, longest)
        reference = reference_of(open_eager(checkpoint), cases)
        return cls(folder, architecture, model, cases, reference)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def candidate(self, format: str, folder: Path) -> Candidate:
        rule = EXACT if format == SAFETENSORS.name else NOISE
        return Candidate(format, format, folder, rule)

    def run(self, format: str, folder: Path) -> JobResult:
        """What an artifact computes, in this process, and its weights."""
        if format != SAFETENSORS.name:
            return run_job(Job(format, folder, checkpoint=self.checkpoint), self.cases)
        report = compare_by_name(open_sharded(folder), self.checkpoint, "keep")
        return replace(run_job(Job(format, folder), self.cases), weights=report)

    def judge(self, format: str, folder: Path) -> Verdict:
        """The verdict on an artifact."""
        return self.judge_result(format, folder, self.run(format, folder))

    def judge_result(
        self, format: str, folder: Path, result: JobResult, limits: Limits = LIMITS
    ) -> Verdict:
        """The verdict on what an artifact computed."""
        return judge(self.candidate(format, folder), result, self.reference, limits)

    def export(self, format: str, folder: Path, model: nn.Module | None = None) -> Path:
        """Export the model, or another in its place."""
        write_format(format, folder, self.architecture, model or self.model)
        return folder

    def copy_of_model(self) -> nn.Module:
        model = build_model(self.architecture.trusting(OWN_ARTIFACTS))
        model.load_state_dict(self.model.state_dict())
        return model


@dataclass(frozen=True)
class Opened:
    """A checkpoint and one export of it, open to be judged on many cases.

    Attributes:
        eager: the checkpoint's own model, in float64 and in its own dtypes.
        artifact: the export.
        in_double: the export in float64; None: onnx's evaluator runs it.
        candidate: the export, as the judge has it.
        weights: as of DoubleGraph.
    """

    eager: list[Runtime]
    artifact: Runtime
    in_double: Runtime | None
    candidate: Candidate
    weights: Weights

    @classmethod
    def open(cls, checkpoint: Path, format: str, folder: Path) -> Opened:
        """Open both."""

        def opened(dtype: Literal["own", "float64"]) -> Runtime:
            return open_runtime(
                format, folder, threads=1, dtype=dtype, trust=OWN_ARTIFACTS
            )

        return cls(
            open_eager(checkpoint),
            opened("own"),
            None if format == ONNX.name else opened("float64"),
            Candidate(format, format, folder, NOISE),
            weights_of(checkpoint),
        )

    def judge(self, cases: list[Case]) -> Verdict:
        """The verdict on the export, both questions asked, in this process."""
        reference, result = self._run(cases)
        names = [case.name for case in cases]
        if self.in_double is not None:
            outputs = [self.in_double.run(case.inputs) for case in cases]
            double = DoubleResult(dict(zip(names, outputs, strict=True)))
            return judge(self.candidate, result, reference, LIMITS, double)
        first = judge(self.candidate, result, reference, LIMITS)
        return self._judge_graph(result, reference, names, first.beyond_floor)

    def judge_numbers(self, cases: list[Case]) -> Verdict:
        """The verdict on the export, question two asked alone: its graph is evaluated
        only in cases beyond the noise floor, for what kernels may cost there.
        """
        reference, result = self._run(cases)
        verdict = judge(self.candidate, result, reference, LIMITS)
        beyond = verdict.beyond_floor
        if not beyond or self.candidate.format != ONNX.name:
            return verdict
        return self._judge_graph(result, reference, list(beyond), beyond)

    def _run(self, cases: list[Case]) -> tuple[Reference, JobResult]:
        """What the checkpoint's own model and the export compute."""
        reference = reference_of(self.eager, cases)
        return reference, JobResult([self.artifact.run(case.inputs) for case in cases])

    def _judge_graph(
        self,
        result: JobResult,
        reference: Reference,
        names: list[str],
        beyond_floor: frozenset[str],
    ) -> Verdict:
        """The verdict with an ONNX file evaluated in the cases of these names."""
        expected = expected_of(reference, names)
        file = self.candidate.file
        double = evaluate_onnx(file, self.weights, expected, beyond_floor)
        return judge(self.candidate, result, reference, LIMITS, double)


class Counter(nn.Module):
    """Scores and the winner among them, out of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(7, 5), nn.Linear(5, 4)

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.linear(self.embedding(tokens)).mean(1)
        return {
            "scores": scores,
            "winner": scores.argmax(-1),
            "tokens_again": tokens.float(),
        }


class Fatal(Counter):
    """Ends the process that runs it, as a fault in a native library would."""

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        print("first words\nlast words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


class Exits(Counter):
    """Ends the process without a signal, as C code does that calls exit."""

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        os._exit(3)


class Quits(Counter):
    """Ends the program, as a script that was taken for a model does."""

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        sys.exit("usage: quits [options]")


class Hangs(Counter):
    """Never comes back."""

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        time.sleep(3600)
        raise AssertionError("unreachable")


class Patricide(Counter):
    """Ends the process that it was forked off, and goes on."""

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        os.kill(os.getppid(), signal.SIGKILL)
        return super().forward(tokens)


def counter_architecture(kind: type[nn.Module] = Counter) -> Architecture:
    signature = {
        "inputs": [
            {
                "name": "tokens",
                "dtype": "int64",
                "shape": ["batch", "length"],
                "low": 0,
                "high": 7,
            }
        ],
        "outputs": [
            {"name": "scores"},
            {"name": "winner", "dtype": "int64"},
            {"name": "tokens_again"},
        ],
        "dimensions": {"length": {"maximum": 9, "example": 6}},
    }
    return Architecture(f"{__name__}:{kind.__name__}", {}, read_signature(signature))
