"""The gate: an unchanged export passes it, and every mistake that exports are known to
make is stopped by it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.files import read_json, write_json
from checkpoint_release.core.params import ToleranceParams, load_params
from checkpoint_release.core.signature import Signature, sample_inputs
from checkpoint_release.models.stick_figure import model as stick_figure
from checkpoint_release.models.stick_figure import signature as stick_figure_signature
from checkpoint_release.parity.cases import Case, draw_cases
from checkpoint_release.parity.error_stats import error_stats, identical, noise_floors
from checkpoint_release.parity.judge import EXACT, NOISE, Subject, Truth, Verdict, judge
from checkpoint_release.parity.report import write_plots, write_sample
from checkpoint_release.parity.weights import compare_by_name
from checkpoint_release.parity.workers import (
    Job,
    read_cases,
    run_isolated,
    run_job,
    torch_worker,
    write_cases,
)
from checkpoint_release.runtimes.eager import ExportModule, build_model
from checkpoint_release.runtimes.open import Runtime, open_runtime
from checkpoint_release.tensors.safetensors import open_sharded
from pipeline.parity_check import EAGER
from tests.support.models import SIGNATURES, Guided
from tests.support.project import ROOT
from tests.support.tiny_release import sizes_of

PARITY = load_params(ROOT / "params.yaml").parity
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
    model = build_model(architecture)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_checkpoint(
    folder: Path, architecture: Architecture, model: nn.Module
) -> None:
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "weights.safetensors")
    write_json(folder / "checkpoint.json", {"model": architecture.to_json()})
    write_manifest(folder, "checkpoint")


def write_format(
    format: str, folder: Path, architecture: Architecture, model: nn.Module
) -> None:
    """Export the model as it stands, the plain way."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", architecture.to_json())
    signature = architecture.signature
    inputs = sample_inputs(signature, sizes_of(signature), 0)
    tensors = tuple(torch.from_numpy(array) for array in inputs.values())
    module = ExportModule(model, signature).train(model.training)
    with quiet():
        if format == "safetensors":
            save_file(model.state_dict(), folder / "model.safetensors")
        elif format == "torchscript":
            torch.jit.save(
                torch.jit.trace(module, tensors, check_trace=False),
                str(folder / "model.pt"),
            )
        else:
            axes = {
                spec.name: {
                    axis: size
                    for axis, size in enumerate(spec.shape or ())
                    if isinstance(size, str)
                }
                for spec in signature.inputs
            }
            torch.onnx.export(
                module,
                tensors,
                str(folder / "model.onnx"),
                dynamo=False,
                opset_version=17,
                input_names=list(inputs),
                output_names=[spec.name for spec in signature.outputs],
                dynamic_axes=axes,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
            )
    write_manifest(folder, format)


def drawn(signature: Signature, seed: int, longest: int) -> list[Case]:
    """The cases of a seed."""
    further = {"sequence": [longest]} if "sequence" in signature.dimensions else {}
    return draw_cases(signature, seed=seed, sizes=further, magnitudes=PARITY.magnitudes)


def open_eager(checkpoint: Path) -> list[Runtime]:
    return [
        open_runtime("checkpoint", checkpoint, threads=1, dtype=dtype)
        for dtype in EAGER
    ]


def truth_of(runtimes: list[Runtime], cases: list[Case]) -> Truth:
    reference, eager = (
        [runtime.run(case.inputs) for case in cases] for runtime in runtimes
    )
    return Truth(
        reference, eager, noise_floors(reference, eager, [case.kind for case in cases])
    )


@dataclass(frozen=True)
class World:
    """A checkpoint, what it computes, and a place for artifacts."""

    folder: Path
    architecture: Architecture
    model: nn.Module
    cases: list[Case]
    truth: Truth

    @classmethod
    def make(
        cls, folder: Path, architecture: Architecture, seed: int = 0, longest: int = 40
    ) -> World:
        model = trained(architecture, seed)
        write_checkpoint(folder / "checkpoint", architecture, model)
        cases = drawn(architecture.signature, seed, longest)
        return cls(
            folder,
            architecture,
            model,
            cases,
            truth_of(open_eager(folder / "checkpoint"), cases),
        )

    def judge(self, format: str, folder: Path, params: Any = PARITY) -> Verdict:
        """The verdict on an artifact, run in this process."""
        subject = Subject(
            format, format, folder, EXACT if format == "safetensors" else NOISE
        )
        compared = str(self.folder / "checkpoint") if subject.rule == NOISE else None
        ran = run_job(
            Job(format, str(folder), checkpoint=compared),
            [case.inputs for case in self.cases],
        )
        if format == "safetensors":
            held = compare_by_name(
                open_sharded(folder), self.folder / "checkpoint", "keep"
            )
            ran = replace(ran, weights=held)
        return judge(subject, ran, self.truth, self.cases, params)

    def export(self, format: str, folder: Path, model: nn.Module | None = None) -> Path:
        write_format(
            format, folder, self.architecture, self.model if model is None else model
        )
        return folder

    def copy_of_model(self) -> nn.Module:
        model = build_model(self.architecture)
        model.load_state_dict(self.model.state_dict())
        return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), stick_figure_architecture())


@pytest.fixture(scope="module")
def exported(world: World) -> dict[str, Path]:
    """Unchanged exports of the world's checkpoint."""
    return {
        format: world.export(format, world.folder / format)
        for format in ("safetensors", "onnx", "torchscript")
    }


# --------------------------------------------------------------------------------------
# Unchanged exports pass


@pytest.mark.parametrize("format", ["safetensors", "onnx", "torchscript"])
def test_an_unchanged_export_passes(
    world: World, exported: dict[str, Path], format: str
) -> None:
    verdict = world.judge(format, exported[format])
    assert verdict.passed, verdict.problem
    if format != "onnx":
        assert (
            verdict.ran.weights is not None
            and verdict.ran.weights.found == verdict.ran.weights.total
        )
        assert all(
            output.identical >= len(world.cases) - 1
            for output in verdict.outputs.values()
        )


VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "narrow and deep": {"num_layers": 6},
    "wide": {"d_model": 128, "nhead": 4},
    **{
        encoder: {
            "enable_image_conditioning": True,
            "image_encoder_arch": encoder,
            "image_size": [32, 32],
            "fusion_strategy": "gated",
        }
        for encoder in ("lightweight_cnn", "resnet", "mini_vit")
    },
}


@pytest.mark.parametrize("variant", ["tiny", "lightweight_cnn"])
def test_other_seeds_and_variants_raise_no_false_alarm(
    tmp_path: Path, variant: str
) -> None:
    for seed in (1, 2):
        world = World.make(
            tmp_path / str(seed), stick_figure_architecture(**VARIANTS[variant]), seed
        )
        verdict = world.judge(
            "onnx", world.export("onnx", tmp_path / str(seed) / "onnx")
        )
        assert verdict.passed, f"seed {seed}: {verdict.problem}"


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_hundred_seeds_raise_no_false_alarm(tmp_path: Path, variant: str) -> None:
    """On unchanged exports of one checkpoint, opened and their weights compared once;
    the formats take turns.
    """
    world = World.make(
        tmp_path, stick_figure_architecture(**VARIANTS[variant]), longest=20
    )
    formats = ("onnx", "torchscript")
    verdicts = [
        world.judge(format, world.export(format, tmp_path / format))
        for format in formats
    ]
    artifacts = [
        open_runtime(format, tmp_path / format, threads=1) for format in formats
    ]
    eager = open_eager(tmp_path / "checkpoint")
    for seed in range(200):
        cases = drawn(world.architecture.signature, seed, longest=20)
        verdict, artifact = verdicts[seed % 2], artifacts[seed % 2]
        ran = replace(
            verdict.ran, outputs=[artifact.run(case.inputs) for case in cases]
        )
        verdict = judge(verdict.subject, ran, truth_of(eager, cases), cases, PARITY)
        assert verdict.passed, f"seed {seed}, {artifact.format}: {verdict.problem}"


# --------------------------------------------------------------------------------------
# Mistakes are caught


def change_one_weight(format: str, folder: Path, name: str, index: int = 3) -> None:
    """Make one number of one weight a thousandth larger, in the file."""
    if format == "safetensors":
        weights = load_file(folder / "model.safetensors")
        weights[name].view(-1)[index] *= 1.001
        save_file(weights, folder / "model.safetensors")
    elif format == "torchscript":
        with quiet():
            module = torch.jit.load(str(folder / "model.pt"))
            module.state_dict()[f"model.{name}"].view(-1)[index] *= 1.001
            torch.jit.save(module, str(folder / "model.pt"))
    else:
        model = onnx.load(folder / "model.onnx")
        (tensor,) = (
            tensor
            for tensor in model.graph.initializer
            if tensor.name == f"model.{name}"
        )
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[index] *= np.float32(1.001)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        onnx.save(model, folder / "model.onnx")
    write_manifest(folder, format)


# Of the last, a change by a thousandth disappears in float32's rounding of the outputs.
WEIGHTS = [
    "transformer_encoder.layers.0.norm1.weight",
    "transformer_encoder.layers.1.self_attn.k_proj.bias",
]


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("format", ["safetensors", "onnx", "torchscript"])
def test_one_number_of_one_weight_off_by_a_thousandth_is_caught(
    world: World, exported: dict[str, Path], tmp_path: Path, format: str, name: str
) -> None:
    folder = Path(shutil.copytree(exported[format], tmp_path / format))
    change_one_weight(format, folder, name)
    verdict = world.judge(format, folder)
    assert not verdict.passed
    assert name in str(verdict.problem) and "1 of 32 elements" in str(verdict.problem)


@pytest.mark.parametrize("format", ["safetensors", "onnx", "torchscript"])
def test_float16_weights_passed_off_as_float32_are_caught(
    world: World, tmp_path: Path, format: str
) -> None:
    model = world.copy_of_model().half().float()
    verdict = world.judge(format, world.export(format, tmp_path / format, model))
    assert not verdict.passed
    if format == "onnx":
        assert "rounded to float16" in str(verdict.problem)
        assert all(not output.passed for output in verdict.outputs.values())


class Wrapped(nn.Module):
    """The model with its call or its results changed."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, motion: Any, text_embedding: Any, action_sequence: Any) -> Any:
        return self.call(self.model, motion, text_embedding, action_sequence)


def swap_outputs(model: nn.Module, *inputs: Any) -> Any:
    outputs = model(*inputs)
    return outputs._replace(position=outputs.velocity, velocity=outputs.position)


def bake_the_sequence(model: nn.Module, *inputs: Any) -> Any:
    outputs = model(*inputs)  # as if the mean divided by the length of the example
    return outputs._replace(environment=outputs.environment * inputs[0].shape[0] / 25)


def interleaved(x: Any, cos: Any, sin: Any) -> Any:
    first, second = x[..., ::2], x[..., 1::2]
    return torch.stack(
        (first * cos - second * sin, second * cos + first * sin), dim=-1
    ).flatten(-2)


def rotary_from(position: Callable[[Any], Any]) -> Callable[..., Any]:
    def forward(self: Any, x: Any) -> Any:
        positions = position(torch.arange(x.shape[1], dtype=self.inv_freq.dtype))
        angles = positions[:, None] * self.inv_freq
        return angles.cos(), angles.sin()

    return forward


Patch = pytest.MonkeyPatch
DEFECTS: dict[str, Callable[[nn.Module, Patch], nn.Module]] = {}


def defect(make: Callable[[nn.Module, Patch], nn.Module]) -> None:
    DEFECTS[make.__name__] = make


@defect
def two_outputs_swapped(model: nn.Module, patch: Patch) -> nn.Module:
    return Wrapped(model, swap_outputs)


@defect
def an_input_ignored(model: nn.Module, patch: Patch) -> nn.Module:
    return Wrapped(
        model, lambda model, motion, text, action: model(motion, text, action * 0 + 1)
    )


@defect
def a_length_baked_into_numbers(model: nn.Module, patch: Patch) -> nn.Module:
    return Wrapped(model, bake_the_sequence)


@defect
def a_length_baked_into_shapes(model: nn.Module, patch: Patch) -> nn.Module:
    fixed = torch.zeros(25, 1, KWARGS["input_dim"])
    return Wrapped(
        model, lambda model, motion, text, action: model(motion + fixed, text, action)
    )


@defect
def the_action_embedding_off_by_one(model: nn.Module, patch: Patch) -> nn.Module:
    with torch.no_grad():
        embedding = model.get_parameter("action_embedding.weight")
        embedding.copy_(embedding.roll(1, 0).clone())
    return model


@defect
def gelu_by_tanh(model: nn.Module, patch: Patch) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"
    return model


@defect
def another_epsilon(model: nn.Module, patch: Patch) -> nn.Module:
    patch.setattr(stick_figure, "RMS_EPSILON", 1e-5)
    return model


@defect
def rotary_interleaved(model: nn.Module, patch: Patch) -> nn.Module:
    patch.setattr(stick_figure, "rotate", interleaved)
    return model


@defect
def positions_that_leave_out_the_text(model: nn.Module, patch: Patch) -> nn.Module:
    patch.setattr(
        stick_figure.RotaryEmbedding,
        "forward",
        rotary_from(lambda p: (p - 1).clamp(min=0)),
    )
    return model


@defect
def dropout_left_on(model: nn.Module, patch: Patch) -> nn.Module:
    return model.train()


@pytest.mark.parametrize("name", DEFECTS)
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_a_model_exported_wrongly_is_caught(
    world: World, tmp_path: Path, monkeypatch: Patch, format: str, name: str
) -> None:
    folder = world.export(
        format, tmp_path / format, DEFECTS[name](world.copy_of_model(), monkeypatch)
    )
    monkeypatch.undo()
    verdict = world.judge(format, folder)
    assert not verdict.passed
    assert verdict.case is not None
    if name == "dropout_left_on" and format == "onnx":
        # ONNX Runtime optimises it away; others don't
        assert "is in training mode" in str(verdict.problem)
        return
    # By its numbers: what the comparison of weights may find beside them doesn't count
    # here.
    assert not verdict.outputs or any(
        not output.passed for output in verdict.outputs.values()
    )


def test_all_positions_shifted_by_one_is_the_same_function_and_passes(
    world: World, tmp_path: Path, monkeypatch: Patch
) -> None:
    """Rotary attention sees differences of positions alone: counting from 1 changes
    rounding and nothing else.
    """
    monkeypatch.setattr(
        stick_figure.RotaryEmbedding, "forward", rotary_from(lambda p: p + 1)
    )
    folder = world.export("onnx", tmp_path / "onnx")
    monkeypatch.undo()
    assert world.judge("onnx", folder).passed


def test_a_weight_whose_equal_is_intact_elsewhere_is_still_compared(
    world: World, tmp_path: Path
) -> None:
    """The rotary frequencies are the same in every layer."""
    folder = world.export("torchscript", tmp_path / "torchscript")
    change_one_weight(
        "torchscript", folder, "transformer_encoder.layers.1.self_attn.rope.inv_freq"
    )
    verdict = world.judge("torchscript", folder)
    assert "layers.1.self_attn.rope.inv_freq" in str(
        verdict.problem
    ) and "1 of 8 elements" in str(verdict.problem)


def test_a_defect_in_one_case_of_many_is_not_averaged_away(
    world: World, exported: dict[str, Path]
) -> None:
    verdict = world.judge("onnx", exported["onnx"])
    outputs = [dict(arrays) for arrays in verdict.ran.outputs]
    for number, case in enumerate(world.cases):
        changed = [dict(arrays) for arrays in outputs]
        pose = changed[number]["pose"].copy()
        pose.reshape(-1)[-1] += (
            1e-4 * (10 if case.magnitude > 1 else 1) * float(np.abs(pose).max())
        )
        changed[number]["pose"] = pose
        ran = replace(verdict.ran, outputs=changed)
        again = judge(verdict.subject, ran, world.truth, world.cases, PARITY)
        assert not again.passed and again.case == number


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_never_pass_not_even_with_a_huge_tolerance(
    world: World, exported: dict[str, Path], bad: float
) -> None:
    verdict = world.judge("onnx", exported["onnx"])
    changed = [dict(arrays) for arrays in verdict.ran.outputs]
    changed[2]["physics"] = changed[2]["physics"].copy()
    changed[2]["physics"][0, 0, 0] = bad
    ran = replace(verdict.ran, outputs=changed)
    lenient = msgspec.structs.replace(PARITY, noise_multiple=1e30, large_multiple=1e30)
    assert not judge(verdict.subject, ran, world.truth, world.cases, lenient).passed


def test_names_dtypes_and_shapes_of_outputs_are_compared(
    world: World, exported: dict[str, Path]
) -> None:
    verdict = world.judge("onnx", exported["onnx"])
    good = verdict.ran.outputs
    forms: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "outputs are": lambda arrays: dict(reversed(arrays.items())),
        "float64": lambda arrays: {
            name: array.astype(np.float64) for name, array in arrays.items()
        },
        "pose is float32 [": lambda arrays: {
            **arrays,
            "pose": arrays["pose"].swapaxes(0, 1),
        },
    }
    for said, change in forms.items():
        ran = replace(verdict.ran, outputs=[change(arrays) for arrays in good])
        again = judge(verdict.subject, ran, world.truth, world.cases, PARITY)
        assert not again.passed and said in str(again.problem)


def test_a_fixed_tolerance_replaces_the_rule_for_its_output_alone(
    world: World, exported: dict[str, Path]
) -> None:
    def with_tolerance(atol: float) -> Verdict:
        tolerances = {"velocity": ToleranceParams(atol=atol, rtol=0.0)}
        params = msgspec.structs.replace(PARITY, tolerances=tolerances)
        return world.judge("onnx", exported["onnx"], params)

    assert with_tolerance(1e-2).passed
    strict = with_tolerance(1e-12)
    assert [name for name, output in strict.outputs.items() if not output.passed] == [
        "velocity"
    ]
    assert "times its tolerance" in str(strict.problem)


# --------------------------------------------------------------------------------------
# Other models


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


def counter_architecture() -> Architecture:
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
    return Architecture(f"{__name__}:Counter", {}, Signature.from_json(signature))


def test_whole_numbers_and_exact_outputs_are_judged_too(tmp_path: Path) -> None:
    world = World.make(tmp_path, counter_architecture())
    folder = world.export("onnx", tmp_path / "onnx")
    verdict = world.judge("onnx", folder)
    assert verdict.passed, verdict.problem
    assert (
        verdict.outputs["winner"].identical
        == verdict.outputs["tokens_again"].identical
        == len(world.cases)
    )

    changed = [dict(arrays) for arrays in verdict.ran.outputs]
    changed[0]["winner"] = changed[0]["winner"] + 1
    ran = replace(verdict.ran, outputs=changed)
    wrong = judge(verdict.subject, ran, world.truth, world.cases, PARITY)
    assert [name for name, output in wrong.outputs.items() if not output.passed] == [
        "winner"
    ]


def test_inputs_and_outputs_of_no_dimension_are_judged_too(tmp_path: Path) -> None:
    signature = Signature.from_json(SIGNATURES[Guided])
    world = World.make(
        tmp_path, Architecture("tests.support.models:Guided", {}, signature)
    )
    assert all(
        type(array) is np.ndarray
        for case in world.cases
        for array in case.inputs.values()
    )
    verdicts = [
        world.judge(format, world.export(format, tmp_path / format))
        for format in ("onnx", "torchscript")
    ]
    for verdict in verdicts:
        assert verdict.passed, verdict.problem
        assert verdict.ran.outputs[0]["mean"].shape == ()
    write_cases(tmp_path / "cases", [case.inputs for case in world.cases])
    assert {case["strength"].shape for case in read_cases(tmp_path / "cases")} == {()}
    write_sample(tmp_path / "sample", world.truth, world.cases)
    assert load_file(tmp_path / "sample/inputs.safetensors")["strength"].shape == ()
    write_plots(tmp_path / "plots", verdicts, world.truth, signature, world.cases)


class Fatal(Counter):
    """Ends the process that runs it, as a fault in a native library would."""

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


class Quits(Counter):
    """Ends the program, as a script that was taken for a model does."""

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        sys.exit("usage: quits [options]")


def test_when_the_process_that_imports_torch_dies_its_jobs_say_so(
    tmp_path: Path,
) -> None:
    with torch_worker() as importing:
        importing.kill()
        ran = run_isolated(
            {"some": Job("checkpoint", str(tmp_path))}, [{"x": np.zeros(1)}], importing
        )
    assert "ended with -9" in str(ran["some"].failure)


def test_a_process_that_dies_is_its_jobs_failure_and_no_other_jobs(
    tmp_path: Path,
) -> None:
    good = counter_architecture()
    fatal = Architecture(f"{__name__}:Fatal", {}, good.signature)
    quits = Architecture(f"{__name__}:Quits", {}, good.signature)
    for name, architecture in (("good", good), ("fatal", fatal), ("quits", quits)):
        write_checkpoint(tmp_path / name, architecture, trained(good))
    (tmp_path / "not-onnx").mkdir()
    (tmp_path / "not-onnx/model.onnx").write_bytes(b"no graph")
    jobs = {
        name: Job("checkpoint", str(tmp_path / name))
        for name in ("fatal", "quits", "good")
    }
    jobs["not-onnx"] = Job("onnx", str(tmp_path / "not-onnx"))
    cases = draw_cases(good.signature, seed=0, sizes={}, magnitudes=[])
    with torch_worker() as importing:
        ran = run_isolated(jobs, [case.inputs for case in cases], importing)
    assert "ended with -9" in str(ran["fatal"].failure) and not ran["fatal"].outputs
    assert "SystemExit: usage: quits" in str(ran["quits"].failure)
    assert ran["good"].failure is None and list(ran["good"].outputs[0]) == [
        "scores",
        "winner",
        "tokens_again",
    ]
    assert "can't be opened" in str(ran["not-onnx"].failure)


# --------------------------------------------------------------------------------------
# Cases


def test_cases_try_sizes_and_values_that_the_export_did_not_see() -> None:
    signature = stick_figure_architecture().signature
    cases = draw_cases(
        signature, seed=0, sizes={"sequence": [250]}, magnitudes=[0.0, 1e-3, 1e3]
    )
    sequences = {case.inputs["motion"].shape[0] for case in cases}
    batches = {case.inputs["motion"].shape[1] for case in cases}
    assert {1, 2, 250} <= sequences and 1 in batches and max(batches) > 1
    assert (
        any(size % 2 and size > 2 for size in sequences) and max(sequences - {250}) > 25
    )
    example = sizes_of(signature)
    assert example["sequence"] not in sequences and example["batch"] not in batches
    actions = [case.inputs["action_sequence"] for case in cases]
    assert any((action == 0).all() for action in actions) and any(
        (action == 9).all() for action in actions
    )
    reach = sorted(float(np.abs(case.inputs["motion"]).max()) for case in cases)
    assert reach[0] == 0 and 0 < reach[1] < 0.01 and reach[-1] > 1000


def test_cases_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    signature = stick_figure_architecture().signature

    def drawn(seed: int) -> list[Case]:
        return draw_cases(signature, seed=seed, sizes={}, magnitudes=[1.0], repeats=2)

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert [case.name for case in first] == [case.name for case in again] and len(
        {c.name for c in first}
    ) == len(first)
    for one, two, three in zip(first, again, other, strict=True):
        assert all(identical(one.inputs[name], two.inputs[name]) for name in one.inputs)
        assert not identical(one.inputs["motion"], three.inputs["motion"])


def test_cases_stay_within_the_bounds_of_a_dimension() -> None:
    signature = counter_architecture().signature
    lengths = {
        case.inputs["tokens"].shape[1]
        for case in draw_cases(signature, seed=0, sizes={}, magnitudes=[])
    }
    assert max(lengths) <= 9
    with pytest.raises(ParamsError, match=r"parity\.sizes\.length holds 10"):
        draw_cases(signature, seed=0, sizes={"length": [10]}, magnitudes=[])


# --------------------------------------------------------------------------------------
# Numbers


def test_errors_are_measured_as_their_names_say() -> None:
    expected = np.array([[1.0, -2.0], [4.0, 0.0]])
    got = expected.astype(np.float32)
    got[1, 0] = np.nextafter(np.float32(4), np.float32(5))
    found = error_stats(expected, got)
    step = 2.0**-21
    assert found.largest == step and found.index == (1, 0) and found.mean == step / 4
    assert math.isclose(found.rms, step / 2) and found.max_ulps == 1 and found.ulps == 0
    assert found.cosine == pytest.approx(1, abs=1e-12)
    assert error_stats(expected, -got).cosine == pytest.approx(-1, abs=1e-12)


def test_nan_is_no_match_for_nan() -> None:
    both = np.array([np.nan, 1.0])
    assert error_stats(both, both.astype(np.float32)).largest == math.inf


def test_bits_are_compared_with_signs_of_zero_and_dtypes() -> None:
    zero = np.zeros(2, np.float32)
    assert identical(zero, zero.copy())
    assert not identical(zero, -zero) and not identical(zero, zero.astype(np.float64))


def test_a_large_case_does_not_hide_an_error_in_a_small_one() -> None:
    random = np.random.default_rng(0)
    scales = {"plain": 1.0, "large": 1e6, "tiny": 1e-6}
    reference = [
        {"y": random.standard_normal(1000) * scale} for scale in scales.values()
    ]
    eager = [{"y": case["y"].astype(np.float32)} for case in reference]
    floor = noise_floors(reference, eager, list(scales))["y"]
    assert floor.multiple(2, error_stats(reference[2]["y"], eager[2]["y"])) <= 1
    wrong = (reference[2]["y"] * (1 + 1e-5)).astype(np.float32)
    assert (
        floor.multiple(2, error_stats(reference[2]["y"], wrong)) > PARITY.noise_multiple
    )


# --------------------------------------------------------------------------------------
# The stage


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
    shutil.copytree(world.folder / "checkpoint", folder / "artifacts/checkpoint")
    for format, path in exported.items():
        shutil.copytree(path, folder / "artifacts" / format)
    (folder / "artifacts/torch_export").mkdir()
    write_manifest(folder / "artifacts/torch_export", "torch_export", enabled=False)
    return folder


def parity_check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.parity_check"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_stage_passes_good_artifacts_and_stops_wrong_ones(project: Path) -> None:
    from checkpoint_release.core.files import sha256

    done = parity_check(project)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:4]] == [
        "safetensors",
        "onnx",
        "torchscript",
    ]
    report = read_json(project / "artifacts/parity.json")
    assert report["passed"] is True
    manifests = {
        name: sha256(project / f"artifacts/{name}/manifest.json")
        for name in report["checked"]
    }
    assert report["checked"] == manifests and set(manifests) == {
        "safetensors",
        "onnx",
        "torchscript",
    }
    assert (
        report["formats"]["onnx"]["outputs"]["pose"]["times_floor"]
        <= report["rule"]["noise_multiple"]
    )
    for name in ("outputs.csv", "along.csv"):
        assert (
            len((project / "artifacts/parity/plots" / name).read_text().splitlines())
            > 10
        )

    # The sample agrees with the artifact, for somebody with onnxruntime alone.
    import onnxruntime
    from safetensors.numpy import load_file as load_arrays

    sample = {
        name: load_arrays(project / f"artifacts/parity/sample/{name}.safetensors")
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
    assert "the first node that departs is Mul" in failed.stderr
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_reduced_precision_is_named_and_held_to_its_own_tolerance(
    world: World, tmp_path: Path, dtype: str
) -> None:
    from checkpoint_release.parity.judge import REDUCED

    folder = tmp_path / "safetensors"
    folder.mkdir()
    write_json(folder / "config.json", world.architecture.to_json())
    weights = {
        name: tensor.to(getattr(torch, dtype))
        for name, tensor in world.model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors")
    held = compare_by_name(open_sharded(folder), world.folder / "checkpoint", dtype)
    assert held.found == held.total and not held.wrong
    assert compare_by_name(
        open_sharded(folder), world.folder / "checkpoint", "keep"
    ).wrong

    ran = replace(
        run_job(Job("safetensors", str(folder)), [case.inputs for case in world.cases]),
        weights=held,
    )
    subject = Subject(f"safetensors {dtype}", "safetensors", folder, REDUCED, dtype)
    assert judge(subject, ran, world.truth, world.cases, PARITY).passed
    as_float32 = Subject("safetensors", "safetensors", folder, NOISE)
    assert not judge(as_float32, ran, world.truth, world.cases, PARITY).passed

    weights["pose_decoder.3.bias"][0] += 0.5
    save_file(weights, folder / "model.safetensors")
    assert compare_by_name(
        open_sharded(folder), world.folder / "checkpoint", dtype
    ).wrong


def test_the_metrics_are_nested_numbers_that_json_can_hold(project: Path) -> None:
    report = json.loads(
        (project / "artifacts/parity.json").read_text(),
        parse_constant=lambda name: pytest.fail(name),
    )
    assert isinstance(
        report["formats"]["onnx"]["outputs"]["pose"]["max_abs_error"], float
    )
