"""The model computes what the original computed, and what is left out is left out."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from checkpoint_release.models.stick_figure.model import (
    RotaryEmbedding,
    StickFigureOutput,
    StickFigureTransformer,
)
from tests.support.stick_figure import (
    FIXTURES,
    MOTION_ONLY,
    every_kind_most_slow,
    fixture_cases,
    fixture_kwargs,
    fixture_weights,
    random_model,
    with_images,
)

FIXTURE_NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/info.json"))


def run(model: torch.nn.Module, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    dtype = next(model.parameters()).dtype
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        outputs = model(
            **{
                n: t.to(dtype) if t.is_floating_point() else t
                for n, t in tensors.items()
            }
        )
    return {name: tensor.numpy() for name, tensor in outputs._asdict().items()}


def furthest(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    assert got.keys() == expected.keys()
    assert all(got[name].shape == expected[name].shape for name in got)
    return max(
        float(np.abs(got[name].astype(np.float64) - expected[name]).max())
        for name in got
    )


@pytest.mark.parametrize("name", FIXTURE_NAMES)
def test_it_computes_what_the_original_computed(name: str) -> None:
    weights = fixture_weights(name)
    model = StickFigureTransformer(**fixture_kwargs(name)).eval()
    model.load_state_dict(weights, strict=True)
    assert list(model.state_dict()) == list(weights)
    wide = copy.deepcopy(model).double()
    cases = fixture_cases(name)
    assert cases
    for inputs, narrow_outputs, wide_outputs in cases:
        assert furthest(run(wide, inputs), wide_outputs) < 1e-13
        noise = furthest(narrow_outputs, wide_outputs)
        assert furthest(run(model, inputs), wide_outputs) < 4 * noise


def test_a_model_with_other_weights_differs_from_the_original() -> None:
    model = StickFigureTransformer(**fixture_kwargs("v3_48_state_dict")).eval()
    weights = fixture_weights("v3_48_state_dict")
    weights["transformer_encoder.layers.1.norm2.weight"] = (
        weights["transformer_encoder.layers.1.norm2.weight"] * 1.001
    )
    model.load_state_dict(weights)
    inputs, _, wide_outputs = fixture_cases("v3_48_state_dict")[0]
    assert furthest(run(model.double(), inputs), wide_outputs) > 1e-6


def sample(
    kwargs: dict[str, Any], names: tuple[str, ...], length: int = 5, batch: int = 2
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    frame = (length, batch)
    shapes = {
        "motion": (*frame, kwargs["input_dim"]),
        "text_embedding": (batch, kwargs["embedding_dim"]),
        "camera_data": (*frame, 3),
        "partner_motion": (*frame, kwargs["input_dim"]),
        "image_tensor": (batch, 3, 32, 32),
        "image_camera_pose": (batch, 7),
    }
    inputs: dict[str, np.ndarray] = {
        name: random.standard_normal(shapes[name]).astype(np.float32)
        for name in names
        if name in shapes
    }
    if "action_sequence" in names:
        inputs["action_sequence"] = random.integers(0, kwargs["num_actions"], frame)
    return inputs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("buffers_too", [False, True])
def test_half_precision_still_counts_positions(
    dtype: torch.dtype, buffers_too: bool
) -> None:
    """Bfloat16 holds no whole numbers beyond 256 without gaps; a model that counted in
    it would lose its place.
    """
    kwargs = {**MOTION_ONLY, "d_model": 64, "nhead": 1}
    model = random_model(kwargs)
    inputs = sample(kwargs, ("motion", "text_embedding"), length=2000, batch=1)
    ropes = [
        module for module in model.modules() if isinstance(module, RotaryEmbedding)
    ]
    frequencies = ropes[0].inv_freq.clone()
    expected = run(model, inputs)
    model.to(dtype)
    if not buffers_too:
        for rope in ropes:
            rope.inv_freq = frequencies
    cos, _ = ropes[0](torch.zeros(1, 2000, 64, dtype=dtype))
    assert cos.dtype == dtype
    assert len(cos[1000:1064, 0].unique()) > 30
    with torch.inference_mode():
        pose = model(
            **{
                name: torch.from_numpy(array).to(dtype)
                for name, array in inputs.items()
            }
        ).pose
    assert np.abs(pose.float().numpy() - expected["pose"]).max() < 0.1


@pytest.mark.parametrize(
    "conditioning", ["action_sequence", "camera_data", "partner_motion"]
)
def test_a_conditioning_input_left_out_is_not_one_of_zeros(conditioning: str) -> None:
    model = random_model(MOTION_ONLY)
    inputs = sample(MOTION_ONLY, ("motion", "text_embedding", conditioning))
    zeros = {**inputs, conditioning: np.zeros_like(inputs[conditioning])}
    without = {name: array for name, array in inputs.items() if name != conditioning}
    outputs = [run(model, case) for case in (inputs, zeros, without)]
    assert furthest(outputs[1], outputs[2]) > 1e-2
    assert furthest(outputs[0], outputs[2]) > 1e-2


@every_kind_most_slow
def test_an_image_and_its_camera_change_the_result_and_zeros_are_not_nothing(
    encoder: str, fusion: str
) -> None:
    kwargs = with_images(encoder, fusion)
    model = random_model(kwargs)
    inputs = sample(
        kwargs, ("motion", "text_embedding", "image_tensor", "image_camera_pose")
    )
    cases = {
        "all": inputs,
        "no pose": {
            name: inputs[name] for name in ("motion", "text_embedding", "image_tensor")
        },
        "no image": {name: inputs[name] for name in ("motion", "text_embedding")},
        "black image": {
            **inputs,
            "image_tensor": np.zeros_like(inputs["image_tensor"]),
        },
        "zero pose": {
            **inputs,
            "image_camera_pose": np.zeros_like(inputs["image_camera_pose"]),
        },
        "pose alone": {
            name: inputs[name]
            for name in ("motion", "text_embedding", "image_camera_pose")
        },
    }
    outputs = {name: run(model, case) for name, case in cases.items()}
    assert furthest(outputs["all"], outputs["no pose"]) > 1e-4
    assert furthest(outputs["no pose"], outputs["no image"]) > 1e-3
    assert furthest(outputs["black image"], outputs["no image"]) > 1e-3
    # Concatenation says "no pose" with zeros; the other fusions leave its term out.
    zero_pose = furthest(outputs["zero pose"], outputs["no pose"])
    assert zero_pose == 0 if fusion == "concat" else zero_pose > 1e-4
    assert furthest(outputs["pose alone"], outputs["no image"]) == 0


def test_attention_layers_agree_with_those_of_torch_that_they_are_named_after() -> None:
    kwargs = with_images("mini_vit", "cross_attention")
    model = random_model(kwargs).double()
    block = model.get_submodule("image_encoder.transformer.layers.0")
    reference = (
        torch.nn.TransformerEncoderLayer(384, 6, 1536, 0.1, "gelu", batch_first=True)
        .double()
        .eval()
    )
    reference.load_state_dict(block.state_dict())
    x = torch.randn(2, 5, 384, dtype=torch.float64)
    torch.testing.assert_close(block(x), reference(x), rtol=0, atol=1e-12)

    attention = model.get_submodule("fusion_module.cross_attn")
    packed = torch.nn.MultiheadAttention(16, 8, batch_first=True).double().eval()
    packed.load_state_dict(attention.state_dict())
    query, source = (
        torch.randn(2, 1, 16, dtype=torch.float64),
        torch.randn(2, 3, 16, dtype=torch.float64),
    )
    torch.testing.assert_close(
        attention(query, source), packed(query, source, source)[0], rtol=0, atol=1e-12
    )


def test_it_traces_with_any_length_and_batch() -> None:
    model = random_model(MOTION_ONLY)
    names = ("motion", "text_embedding", "action_sequence")

    def call(inputs: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(inputs[name]) for name in names)

    with torch.no_grad(), pytest.warns(DeprecationWarning):
        traced = torch.jit.trace(model, call(sample(MOTION_ONLY, names)))
    for length, batch in ((1, 1), (17, 3), (6001, 1)):
        inputs = sample(MOTION_ONLY, names, length, batch)
        with torch.inference_mode():
            outputs = traced(*call(inputs))
        got = {
            name: output.numpy()
            for name, output in zip(StickFigureOutput._fields, outputs, strict=True)
        }
        assert furthest(got, run(model, inputs)) < 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 26}, "multiple of 4"),
        ({"nhead": 5}, "nhead 5"),
        ({"enable_image_conditioning": True, "image_encoder_arch": "vgg"}, "'vgg'"),
        ({"enable_image_conditioning": True, "fusion_strategy": "sum"}, "'sum'"),
        (
            {"enable_image_conditioning": True, "image_encoder_arch": "mini_vit"},
            "needs image_size",
        ),
        (
            {
                "enable_image_conditioning": True,
                "image_encoder_arch": "mini_vit",
                "image_size": [32, 48],
            },
            "32×48",
        ),
        (
            {
                "enable_image_conditioning": True,
                "fusion_strategy": "cross_attention",
                "embedding_dim": 12,
            },
            "12",
        ),
    ],
)
def test_arguments_that_make_no_model_are_named(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        StickFigureTransformer(**{**MOTION_ONLY, **change})


def test_an_image_for_a_model_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        run(
            random_model(MOTION_ONLY),
            sample(MOTION_ONLY, ("motion", "text_embedding", "image_tensor")),
        )
