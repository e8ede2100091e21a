"""An unchanged export passes, whatever the seed and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.parity_world import (
    Opened,
    World,
    drawn,
    stick_figure_architecture,
)


@pytest.mark.parametrize("format", ["safetensors", "onnx", "torchscript"])
def test_an_unchanged_export_passes(
    world: World, exported: dict[str, Path], format: str
) -> None:
    verdict = world.judge(format, exported[format])
    assert verdict.passed, verdict.problem
    if format != "onnx":
        held = verdict.weights
        assert held is not None and held.found == held.total
        for output in verdict.outputs.values():
            assert output.identical >= len(world.cases) - 1


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
        world = World.create(
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
    world = World.create(
        tmp_path, stick_figure_architecture(**VARIANTS[variant]), longest=20
    )
    exports = []
    for format in ("onnx", "torchscript"):
        folder = world.export(format, tmp_path / format)
        exports.append(Opened.open(world.checkpoint, format, folder))
    for seed in range(200):
        cases = drawn(world.architecture.signature, seed, longest=20)
        opened = exports[seed % 2]
        verdict = opened.judge_numbers(cases)
        name = opened.candidate.format
        assert verdict.passed, f"seed {seed}, {name}: {verdict.problem}"
