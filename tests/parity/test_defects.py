"""Every mistake that exports are known to make is stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from checkpoint_release.models.stick_figure import model as stick_figure
from tests.support.parity_world import KWARGS, World


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
    assert verdict.evidence is not None
    if name == "dropout_left_on" and format == "onnx":
        # ONNX Runtime optimises it away; others don't
        assert "is in training mode" in str(verdict.problem)
        return
    # By its numbers: what the comparison of weights may find beside them doesn't count
    # here.
    assert not verdict.outputs or verdict.wrong_outputs


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
