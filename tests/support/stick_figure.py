"""Small stick figures of every kind, and the fixtures of the original model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.dtypes import BY_TORCH_NAME
from checkpoint_release.models.stick_figure import build, signature
from checkpoint_release.models.stick_figure.architecture import ENCODERS, FUSIONS

FIXTURES = Path(__file__).parents[1] / "fixtures"
# No two sizes that could be confused are equal.
MOTION_ONLY: dict[str, Any] = {
    "input_dim": 20,
    "output_dim": 12,
    "d_model": 24,
    "nhead": 3,
    "num_layers": 2,
    "embedding_dim": 16,
    "num_actions": 5,
    "dropout": 0.1,
}
# the twelve segments that the family has an example of
WHOLE_FIGURE = MOTION_ONLY | {"input_dim": 48, "output_dim": 48}
KINDS = [(encoder, fusion) for encoder in ENCODERS for fusion in FUSIONS]
every_kind = pytest.mark.parametrize(
    ("encoder", "fusion"), KINDS, ids=[f"{e}-{f}" for e, f in KINDS]
)
_FAST = {("lightweight_cnn", "concat"), ("resnet", "film"), ("mini_vit", "gated")}
every_kind_most_slow = pytest.mark.parametrize(
    ("encoder", "fusion"),
    [
        pytest.param(*kind, marks=[] if kind in _FAST else [pytest.mark.slow])
        for kind in KINDS
    ],
)


def stick_figure(
    kwargs: Mapping[str, Any] = MOTION_ONLY, inputs: list[str] | None = None
) -> Architecture:
    """The architecture as `load` reads it off a checkpoint."""
    return Architecture(
        "checkpoint_release.models.stick_figure:build",
        dict(kwargs),
        signature(kwargs, inputs),
        described=True,
    )


def with_images(encoder: str, fusion: str) -> dict[str, Any]:
    """The constructor's arguments for a small model with images."""
    return {
        **MOTION_ONLY,
        "enable_image_conditioning": True,
        "image_encoder_arch": encoder,
        "fusion_strategy": fusion,
        "image_size": [32, 32] if encoder == "mini_vit" else None,
    }


def random_model(kwargs: dict[str, Any], seed: int = 0) -> nn.Module:
    """A model in evaluation mode in which every number matters: no norm is the
    identity, no bias is zero.
    """
    torch.manual_seed(seed)
    model = build(**kwargs).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif (
                tensor.ndim <= 1
                and tensor.is_floating_point()
                and not name.endswith("inv_freq")
            ):
                tensor.add_(torch.randn(tensor.shape) * 0.2)
            elif name.endswith(("cls_token", "pos_embed")):
                tensor.normal_(std=0.5)
    return model


def tensor_shapes(model: nn.Module) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → (safetensors dtype, shape) of a state dict."""
    shapes = {}
    for name, tensor in model.state_dict().items():
        dtype = BY_TORCH_NAME[str(tensor.dtype).removeprefix("torch.")]
        shapes[name] = (dtype.name, tuple(tensor.shape))
    return shapes


def fixture_kwargs(name: str) -> dict[str, Any]:
    """The constructor's arguments that made a fixture."""
    return json.loads((FIXTURES / name / "info.json").read_text())["model"]


def fixture_cases(
    name: str,
) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """A fixture's cases: inputs, the original's float32 outputs, its float64 outputs,
    by name.
    """
    cases = []
    for path in sorted((FIXTURES / name).glob("case*.safetensors")):
        tensors = load_file(path)
        inputs, narrow, wide = (
            {key[len(p) :]: t for key, t in tensors.items() if key.startswith(p)}
            for p in ("in.", "out.", "out64.")
        )
        cases.append((inputs, narrow, wide))
    return cases


def fixture_weights(name: str) -> dict[str, torch.Tensor]:
    """A fixture's weights, LoRA merged in float64 and rounded once."""
    checkpoint = torch.load(
        FIXTURES / name / "checkpoint.pth", map_location="cpu", weights_only=False
    )
    weights = checkpoint.get("model_state_dict", checkpoint)
    if not checkpoint.get("lora_enabled"):
        return weights
    scale = checkpoint["lora_config"]["alpha"] / checkpoint["lora_config"]["rank"]
    merged = {}
    for key, tensor in weights.items():
        if key.endswith(".base_layer.weight"):
            layer = key.removesuffix(".base_layer.weight")
            update = (
                weights[f"{layer}.lora_B"].double()
                @ weights[f"{layer}.lora_A"].double()
            )
            tensor = (tensor.double() + scale * update).float()
        if ".lora_" not in key:
            merged[key.replace(".base_layer.", ".")] = tensor
    return merged
