"""Models of diffusers by their configuration alone, with random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoint_release.__main__ import main
from checkpoint_release.core.errors import ModelError, ParamsError, UntrustedCodeError
from checkpoint_release.core.trust import DIFFUSERS_FACTORY
from checkpoint_release.models import diffusers as family
from checkpoint_release.runtimes.loader import load
from tests.support.documents import Document

BLOCKS: dict[str, Any] = {
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "UNet2DModel": {
        **BLOCKS,
        "sample_size": 16,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    },
    "UNet2DConditionModel": {
        **BLOCKS,
        "sample_size": 16,
        "cross_attention_dim": 16,
        "attention_head_dim": 8,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    },
    "AutoencoderKL": {
        **BLOCKS,
        "sample_size": 32,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    },
    "VQModel": {
        **BLOCKS,
        "num_vq_embeddings": 16,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    },
    "DiTTransformer2DModel": {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 1,
        "sample_size": 8,
        "patch_size": 2,
        "num_embeds_ada_norm": 10,
    },
}
"""Class → configuration."""


def write_config(folder: Path, name: str, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    value = {"_class_name": name, **CONFIGURATIONS.get(name, {}), **changes}
    (folder / "config.json").write_text(json.dumps(value))
    return folder


def read(folder: Path, **overrides: Any) -> dict[str, Any]:
    return family.read_architecture({}, {"config": str(folder), **overrides})


def test_a_configuration_is_needed() -> None:
    with pytest.raises(ParamsError, match=r"model\.kwargs has no config"):
        family.read_architecture({}, {"sample_size": 3})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"model_type": "bert"}', "has no _class_name"),
        ("[]", "has no _class_name"),
        ("no JSON", "isn't JSON|not JSON"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_error(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ParamsError, match=problem) as caught:
        read(tmp_path)
    assert "such as its folder unet" in caught.value.remedy


@pytest.mark.slow
def test_the_whole_configuration_is_kept_and_no_trace_of_the_machine(
    tmp_path: Path,
) -> None:
    folder = write_config(tmp_path / "unet", "UNet2DModel", _name_or_path="/home/me")
    kwargs = read(folder, sample_size=24)
    assert kwargs["_class_name"] == "UNet2DModel" and kwargs["sample_size"] == 24
    assert kwargs["act_fn"] == "silu"  # diffusers' default, stated
    text = json.dumps(kwargs)
    assert "/home" not in text and str(tmp_path) not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("Nonesuch", {}, "no model class 'Nonesuch'"),
        ("DDPMScheduler", {}, "no model class 'DDPMScheduler'"),
        ("UNet2DModel", {"down_block_types": ["NoBlock"]}, "makes no model of diffu"),
    ],
)
def test_a_configuration_of_no_model_of_the_library_is_one_error(
    tmp_path: Path, name: str, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ParamsError, match=problem):
        read(write_config(tmp_path, name, **changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inputs", "output"),
    [
        (
            "UNet2DModel",
            {"sample": ("batch", 3, "height", "width"), "timestep": ("batch",)},
            ("batch", 3, "height", "width"),
        ),
        (
            "UNet2DConditionModel",
            {
                "sample": ("batch", 4, "height", "width"),
                "timestep": ("batch",),
                "encoder_hidden_states": ("batch", "tokens", 16),
            },
            ("batch", 4, "height", "width"),
        ),
        (
            "AutoencoderKL",
            {"sample": ("batch", 3, "height", "width")},
            ("batch", 3, "height", "width"),
        ),
        (
            "VQModel",
            {"sample": ("batch", 3, "height", "width")},
            ("batch", 3, "height", "width"),
        ),
        (
            "DiTTransformer2DModel",
            {
                "hidden_states": ("batch", 4, 8, 8),
                "timestep": ("batch",),
                "class_labels": ("batch",),
            },
            ("batch", 8, 8, 8),
        ),
    ],
)
def test_a_model_describes_its_own_signature(
    tmp_path: Path, name: str, inputs: dict[str, Any], output: Any
) -> None:
    signature = family.signature(read(write_config(tmp_path, name)), None)
    assert {spec.name: spec.shape for spec in signature.inputs} == inputs
    (only,) = signature.outputs
    assert only.shape == output and only.name not in inputs
    if "height" in signature.dimensions:
        assert signature.dimensions["height"].multiple == 2


@pytest.mark.slow
def test_a_model_that_cannot_be_described_is_one_error(tmp_path: Path) -> None:
    config = {"_class_name": "UNet2DConditionModel", "addition_embed_type": "text_time"}
    with pytest.raises(ModelError, match="needs text_time beside its tensors"):
        family.signature(config, None)
    with pytest.raises(ModelError, match=r"FluxTransformer2DModel isn't described"):
        family.signature({"_class_name": "FluxTransformer2DModel"}, None)
    kwargs = read(write_config(tmp_path, "UNet2DModel"))
    with pytest.raises(ModelError, match=r"names \['text'\]"):
        family.signature(kwargs, ["sample", "text"])


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net out of a state dict and the folder with its configuration."""
    root = tmp_path_factory.mktemp("released")
    folder = write_config(root / "unet", "UNet2DModel")
    torch.manual_seed(0)
    torch.save(family.build(**read(folder)).state_dict(), root / "best.pth")
    arguments = ["--config", str(folder), "-o", str(root / "release")]
    arguments += ["--formats", "safetensors", "onnx"]
    arguments += ["--set", "safetensors.max_shard_size=300KB"]
    assert main(["convert", str(root / "best.pth"), *arguments]) == 0
    return root / "release"


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["UNet2DModel", "AutoModel"])
def test_a_release_of_a_unet_is_one_to_diffusers(released: Path, loader: str) -> None:
    import diffusers

    assert len(list(released.glob("model-*.safetensors"))) > 1
    model = getattr(diffusers, loader).from_pretrained(str(released)).eval()
    assert type(model).__name__ == "UNet2DModel"
    inputs = load_file(released / "sample/inputs.safetensors")
    with torch.inference_mode():
        found = model(**inputs).sample
    (expected,) = load_file(released / "sample/outputs.safetensors").values()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert str(released.parent) not in (released / "config.json").read_text()


@pytest.mark.slow
def test_weights_that_the_index_does_not_name_are_missed(
    released: Path, tmp_path: Path
) -> None:
    import diffusers

    for path in released.iterdir():
        if path.is_file() and path.name != family.WEIGHTS_INDEX:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(OSError, match="diffusion_pytorch_model"):
        diffusers.UNet2DModel.from_pretrained(tmp_path)


@pytest.mark.slow
def test_the_card_of_the_release_runs_as_printed(released: Path) -> None:
    text = (released / "README.md").read_text()
    blocks = [
        block.text
        for section in Document("README.md", text).sections
        for block in section.blocks
        if block.language == "python"
    ]
    (own,) = (block for block in blocks if "from diffusers import" in block)
    done = subprocess.run(
        [sys.executable, "-c", own], cwd=released, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    name, *_, error = done.stdout.split()
    assert name == "sample_out" and float(error) < 1e-4
    assert "library_name: diffusers" in text


@pytest.mark.slow
def test_the_loader_asks_for_trust(released: Path) -> None:
    with pytest.raises(UntrustedCodeError):
        load(released, format="safetensors")
    model = load(released, format="safetensors", trust=[DIFFUSERS_FACTORY])
    assert model.signature.input_names == ["sample", "timestep"]


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "flip"), [(32, True), (33, False)])
def test_steps_are_embedded_as_diffusers_does(channels: int, flip: bool) -> None:
    from diffusers.models import embeddings

    from checkpoint_release.models.diffusers.timesteps import Timesteps

    original: Any = embeddings.Timesteps(channels, flip, downscale_freq_shift=1)
    steps = torch.tensor([0, 5, 999])
    assert torch.equal(original(steps), Timesteps(original)(steps))
