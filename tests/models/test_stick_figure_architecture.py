"""The architecture is read off the tensors; tensors of anything else are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16

from checkpoint_release.core.errors import ArchitectureError, ParamsError
from checkpoint_release.models.stick_figure import (
    build,
    check_weights,
    describe,
    read_architecture,
    signature,
)
from checkpoint_release.models.stick_figure.expected_tensors import expected_tensors
from checkpoint_release.tensors.tensor import Tensor
from tests.support.stick_figure import (
    FIXTURES,
    MOTION_ONLY,
    every_kind,
    fixture_kwargs,
    tensor_shapes,
    with_images,
)


def shapes(kwargs: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    with torch.device("meta"):
        return tensor_shapes(build(**kwargs))


@every_kind
def test_every_kind_of_model_is_read_back(encoder: str, fusion: str) -> None:
    kwargs = with_images(encoder, fusion)
    tensors = shapes(kwargs)
    assert read_architecture(tensors, {}) == kwargs
    assert list(expected_tensors(kwargs).items()) == [
        (name, shape) for name, (_, shape) in tensors.items()
    ]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"input_dim": 48, "output_dim": 48, "num_actions": 64},
        {"d_model": 32, "nhead": 1, "num_layers": 1},
        {"d_model": 64, "nhead": 16, "num_layers": 11, "embedding_dim": 9},
    ],
)
def test_dimensions_are_read_back(change: dict[str, int]) -> None:
    kwargs = {**MOTION_ONLY, **change}
    assert read_architecture(shapes(kwargs), {}) == kwargs


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in FIXTURES.glob("*/info.json"))
)
def test_fixtures_are_read_back(name: str) -> None:
    kwargs = fixture_kwargs(name)
    overrides = {"image_size": kwargs["image_size"]} if "image_size" in kwargs else {}
    assert read_architecture(shapes(kwargs), overrides) == kwargs


def test_half_precision_is_taken_and_float64_is_not() -> None:
    tensors = shapes(MOTION_ONLY)
    half = {name: ("BF16", shape) for name, (_, shape) in tensors.items()}
    assert read_architecture(half, {}) == MOTION_ONLY
    tensors["pose_decoder.3.bias"] = ("F64", (12,))
    with pytest.raises(ArchitectureError, match=r"pose_decoder\.3\.bias F64"):
        read_architecture(tensors, {})


def test_overrides_decide_what_cannot_be_read_and_must_agree_with_the_rest() -> None:
    tensors = shapes(MOTION_ONLY)
    assert (
        read_architecture(tensors, {"dropout": 0.2, "nhead": 3, "d_model": None})[
            "dropout"
        ]
        == 0.2
    )
    with pytest.raises(ArchitectureError, match=r"nhead is 4.*say 3"):
        read_architecture(tensors, {"nhead": 4})
    with pytest.raises(
        ArchitectureError, match=r"enable_image_conditioning is True.*say False"
    ):
        read_architecture(tensors, {"enable_image_conditioning": True})
    with pytest.raises(ParamsError, match=r"\['heads'\]"):
        read_architecture(tensors, {"heads": 4})
    with pytest.raises(ParamsError, match="dropout is 1"):
        read_architecture(tensors, {"dropout": 1})
    with pytest.raises(ParamsError, match="without images"):
        read_architecture(tensors, {"image_size": [32, 32]})


def test_the_image_size_is_stated_for_convolutions_and_read_for_transformers() -> None:
    assert read_architecture(
        shapes(with_images("resnet", "film")), {"image_size": [48, 64]}
    )["image_size"] == [48, 64]
    tensors = shapes(with_images("mini_vit", "film"))
    assert read_architecture(tensors, {"image_size": [32, 32]})["image_size"] == [
        32,
        32,
    ]
    with pytest.raises(ArchitectureError, match=r"\[64, 64\].*\[32, 32\]"):
        read_architecture(tensors, {"image_size": [64, 64]})
    with pytest.raises(ParamsError, match="image_size"):
        read_architecture(tensors, {"image_size": [32]})


Tensors = dict[str, tuple[str, tuple[int, ...]]]
LAYERS = "transformer_encoder.layers"
ROTARY = f"{LAYERS}.0.self_attn.rope.inv_freq"


def whole() -> Tensors:
    return shapes(with_images("lightweight_cnn", "gated"))


def without(part: str) -> Tensors:
    return {name: value for name, value in whole().items() if part not in name}


def having(name: str, shape: tuple[int, ...], dtype: str = "F32") -> Tensors:
    return {**whole(), name: (dtype, shape)}


def with_another_encoder() -> Tensors:
    tensors = {}
    for name, value in whole().items():
        tensors[name.replace("encoder.0.conv", "layer1.conv")] = value
    return tensors


def with_seven_positions() -> Tensors:
    tensors = shapes(with_images("mini_vit", "gated"))
    return {**tensors, "image_encoder.pos_embed": ("F32", (1, 7, 384))}


BROKEN: dict[str, tuple[Callable[[], Tensors], list[str]]] = {
    "nothing at all": (
        lambda: {"fc.weight": ("F32", (3, 4))},
        ["aren't those of a StickFigureTransformer", "fc.weight"],
    ),
    "no inv_freq": (
        lambda: without("inv_freq"),
        ["missing", "layers.0.self_attn.rope.inv_freq"],
    ),
    "a layer missing": (
        lambda: without(".layers.0.ffn."),
        ["3 missing", "layers.0.ffn.gate_proj.weight"],
    ),
    "a layer with a huge number": (
        lambda: having(f"{LAYERS}.{'9' * 5000}.norm1.weight", (24,)),
        ["1 left over", "layers.999"],
    ),
    "a name left over": (
        lambda: having("text_projection.0.lora_A", (8, 16)),
        ["1 left over", "text_projection.0.lora_A"],
    ),
    "another shape": (
        lambda: having(f"{LAYERS}.1.self_attn.k_proj.weight", (8, 24)),
        ["1 of another shape", "k_proj.weight [8, 24] for [24, 24]"],
    ),
    "an integer weight": (
        lambda: having("pose_decoder.0.weight", (12, 24), "I64"),
        ["pose_decoder.0.weight I64"],
    ),
    "a scalar in the place of a matrix": (
        lambda: having("motion_embedding.0.weight", ()),
        ["too few axes", "motion_embedding.0.weight []"],
    ),
    "heads that don't divide": (
        lambda: having(ROTARY, (5,)),
        ["d_model is 24", "head_dim 10"],
    ),
    "an empty rotary buffer": (lambda: having(ROTARY, (0,)), ["head_dim 0"]),
    "two fusions": (
        lambda: having("fusion_module.image_gamma.weight", (16, 16)),
        ["gated", "film"],
    ),
    "an unknown encoder": (
        with_another_encoder,
        ["no known image encoder", "lightweight_cnn, resnet, mini_vit"],
    ),
    "positions that make no square": (with_seven_positions, ["[1, 7, 384]", "n² + 1"]),
    "an encoder without a fusion": (
        lambda: without("fusion_module"),
        ["no known fusion"],
    ),
}


@pytest.mark.parametrize("change", BROKEN)
def test_tensors_of_something_else_are_refused_by_name(change: str) -> None:
    tensors, expected = BROKEN[change]
    with pytest.raises(ArchitectureError) as error:
        read_architecture(tensors(), {})
    for text in expected:
        assert text in str(error.value)
    assert error.value.remedy


@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, bfloat16])
def test_rotary_frequencies_are_checked_within_their_rounding(
    dtype: type, widened: bool
) -> None:
    kwargs = {**MOTION_ONLY, "d_model": 384, "nhead": 3, "num_layers": 1}
    name = "transformer_encoder.layers.0.self_attn.rope.inv_freq"
    right: np.ndarray = (1.0 / 10000 ** (np.arange(0, 128, 2) / 128)).astype(dtype)
    if widened:
        right = right.astype(np.float32)
    check_weights(kwargs, {name: Tensor.of_numpy(right)})
    # half can't hold them
    single = (
        [3.5e33, right[5] * np.float32(1.0001)] if right.dtype == np.float32 else []
    )
    for value in (np.nan, np.inf, 0.0, right[5] * 1.03, *single):
        wrong = right.copy()
        wrong[5] = value
        with pytest.raises(ArchitectureError, match=r"inv_freq\[5\] is"):
            check_weights(kwargs, {name: Tensor.of_numpy(wrong)})


def test_a_signature_names_dimensions_ranges_and_shapes() -> None:
    kwargs = {**MOTION_ONLY, "input_dim": 48, "output_dim": 48}
    found = signature(kwargs, ["motion", "text_embedding", "action_sequence"])
    assert [(spec.name, spec.dtype, spec.shape) for spec in found.inputs] == [
        ("motion", "float32", ("sequence", "batch", 48)),
        ("text_embedding", "float32", ("batch", 16)),
        ("action_sequence", "int64", ("sequence", "batch")),
    ]
    assert (found.inputs[2].low, found.inputs[2].high) == (0, 5)
    assert [(spec.name, spec.shape) for spec in found.outputs] == [
        ("pose", ("sequence", "batch", 48)),
        ("position", ("batch", 2)),
        ("velocity", ("batch", 2)),
        ("action_logits", ("sequence", "batch", 5)),
        ("physics", ("sequence", "batch", 6)),
        ("environment", ("batch", 32)),
    ]
    assert list(found.dimensions) == ["sequence", "batch"]
    assert "pelvis_width" in found.inputs[0].description
    assert all(spec.description for spec in (*found.inputs, *found.outputs))


def test_inputs_come_in_the_order_of_forward_whatever_order_they_are_named_in() -> None:
    kwargs = with_images("resnet", "film")
    chosen = [
        "image_camera_pose",
        "camera_data",
        "text_embedding",
        "image_tensor",
        "motion",
    ]
    found = signature(kwargs, chosen)
    assert [spec.name for spec in found.inputs] == [
        "motion",
        "text_embedding",
        "camera_data",
        "image_tensor",
        "image_camera_pose",
    ]
    assert found.inputs[3].shape == ("batch", 3, "height", "width")
    square = signature(with_images("mini_vit", "film"), chosen)
    assert square.inputs[3].shape == ("batch", 3, 32, 32)
    assert list(square.dimensions) == ["sequence", "batch"]


def test_no_choice_is_every_input_that_the_model_has() -> None:
    assert [spec.name for spec in signature(MOTION_ONLY, None).inputs][2:] == [
        "action_sequence",
        "camera_data",
        "partner_motion",
    ]
    assert len(signature(with_images("resnet", "film"), None).inputs) == 7


def test_images_too_small_to_be_halved_five_times_keep_their_size() -> None:
    chosen = ["motion", "text_embedding", "image_tensor"]
    small = signature({**with_images("resnet", "film"), "image_size": [32, 80]}, chosen)
    assert small.inputs[2].shape == ("batch", 3, 32, 80)
    large = signature({**with_images("resnet", "film"), "image_size": [33, 80]}, chosen)
    assert (large.dimensions["height"].minimum, large.dimensions["height"].example) == (
        33,
        33,
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["motion", "text_embedding", "music"], "'music'"),
        (["motion", "text_embedding", "image_tensor"], "needs a model with images"),
        (["motion"], "text_embedding"),
        (["motion", "text_embedding", "motion"], "more than once"),
        ([], "motion"),
    ],
)
def test_a_choice_of_inputs_that_cannot_be_made_is_one_clear_error(
    inputs: list[str], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        signature(MOTION_ONLY, inputs)


def test_a_camera_pose_without_its_image_is_refused() -> None:
    with pytest.raises(ParamsError, match="image_camera_pose without image_tensor"):
        signature(
            with_images("resnet", "film"),
            ["motion", "text_embedding", "image_camera_pose"],
        )


@pytest.mark.parametrize(
    ("kwargs", "parameters"),
    [
        ({"d_model": 256, "nhead": 8, "num_layers": 6}, 7_248_894),
        (
            {
                "d_model": 256,
                "nhead": 8,
                "num_layers": 6,
                "enable_image_conditioning": True,
                "image_encoder_arch": "lightweight_cnn",
                "fusion_strategy": "gated",
                "image_size": None,
            },
            11_718_184,
        ),
    ],
)
def test_the_description_counts_the_parameters_that_training_fits(
    kwargs: dict[str, Any], parameters: int
) -> None:
    dimensions = {
        "input_dim": 20,
        "output_dim": 20,
        "embedding_dim": 1024,
        "num_actions": 64,
        "dropout": 0.1,
    }
    assert describe({**dimensions, **kwargs})["parameters"] == parameters
