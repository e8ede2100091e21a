"""Loading a .pth: read without running anything in it, LoRA merged, and deprecated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import (
    CheckpointError,
    InferenceError,
    UnsafeCheckpointError,
)
from checkpoint_release.core.files import write_json
from checkpoint_release.core.signature import Arrays, sample_inputs
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.runtimes.loader import load
from tests.support.checkpoint_folder import state_dict
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import (
    assert_close,
    load_quietly,
    sizes_of,
)


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    return stick_figure()


def test_a_pth_still_loads_and_says_how_to_leave_it(
    tiny_release: Path, tiny_inputs: Arrays, tiny_outputs: Arrays
) -> None:
    path = tiny_release / "checkpoint.pth"
    with pytest.warns(
        DeprecationWarning,
        match=r"release of it, with checkpoint\.path set to .*checkpoint\.pth",
    ) as caught:
        model = load(path)
    assert caught[0].filename == __file__
    assert_close(model(**tiny_inputs), tiny_outputs)


def test_a_pth_takes_the_conditioning_it_is_given_and_leaves_out_the_rest(
    tiny_release: Path, tiny_inputs: Arrays
) -> None:
    import torch

    from checkpoint_release.runtimes.eager import build_eager

    model, eager = (
        load_quietly(tiny_release / "checkpoint.pth"),
        build_eager(tiny_release / "checkpoint", OWN_ARTIFACTS)[0],
    )
    for names in (
        ["motion", "text_embedding"],
        ["motion", "text_embedding", "camera_data"],
    ):
        given = {name: tiny_inputs[name] for name in names}
        with torch.inference_mode():
            expected = eager(
                **{name: torch.from_numpy(array) for name, array in given.items()}
            )
        np.testing.assert_allclose(
            model(**given)["pose"], expected.pose.numpy(), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(
        InferenceError, match=r"inputs \['text_embedding'\] are missing"
    ):
        model(motion=tiny_inputs["motion"])
    with pytest.raises(InferenceError, match=r"\['camera'\] are not among"):
        model(**tiny_inputs, camera=tiny_inputs["camera_data"])


def test_a_pth_is_read_without_running_what_it_holds(
    tiny_release: Path, tmp_path: Path
) -> None:
    import torch

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "canary"),)

    torch.save(
        {"model_state_dict": {"w": torch.ones(2)}, "config": Payload()},
        tmp_path / "evil.pth",
    )
    with pytest.raises(UnsafeCheckpointError, match="mkdir"):
        load_quietly(tmp_path / "evil.pth")
    assert not (tmp_path / "canary").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the payload does work
    assert (tmp_path / "canary").exists()


def test_a_pth_of_an_unknown_model_needs_a_config_beside_it(tmp_path: Path) -> None:
    import torch

    layer = torch.nn.Linear(3, 2)
    torch.save(layer.state_dict(), tmp_path / "linear.pth")
    with pytest.raises(
        InferenceError, match=r"(?s)doesn't say which model.*pipeline's model\.factory"
    ):
        load_quietly(tmp_path / "linear.pth")
    signature = {
        "inputs": [{"name": "input", "shape": ["batch", 3]}],
        "outputs": ["output"],
        "dimensions": {},
    }
    write_json(
        tmp_path / "config.json",
        {
            "factory": "torch.nn:Linear",
            "kwargs": {"in_features": 3, "out_features": 2},
            "signature": signature,
        },
    )
    x = np.ones((4, 3), np.float32)
    output = load_quietly(tmp_path / "linear.pth", trust=["torch.nn:Linear"])(input=x)[
        "output"
    ]
    np.testing.assert_allclose(
        output, layer(torch.from_numpy(x)).detach().numpy(), rtol=1e-6
    )


@pytest.fixture
def with_lora(architecture: Architecture) -> dict[str, Any]:
    """A fine-tuning checkpoint of torch.save: base weights, an adapter of two layers,
    the same adapter injected.
    """
    import torch

    base = {
        name: torch.from_numpy(array)
        for name, array in state_dict(architecture).items()
    }
    adapted = ("pose_decoder.0", "action_predictor.0")
    factors: dict[str, Any] = {}
    for layer in adapted:
        wide, narrow = base[f"{layer}.weight"].shape
        factors |= {
            f"{layer}.lora_A": torch.randn(2, narrow),
            f"{layer}.lora_B": torch.randn(wide, 2),
        }
    split = {name: name.rpartition(".") for name in base}
    injected = {
        f"{layer}.base_layer.{leaf}" if layer in adapted else name: base[name]
        for name, (layer, _, leaf) in split.items()
    }
    return {"base": base, "lora": factors, "injected": injected | factors}


def test_an_adapter_beside_plain_weights_is_not_dropped(
    with_lora: dict[str, Any], tmp_path: Path, tiny_inputs: Arrays
) -> None:
    """The same rule as stage load's: neither reading of such a file is the only one."""
    import torch

    path = tmp_path / "tuned.pth"
    beside = {
        "model_state_dict": with_lora["base"],
        "lora_state_dict": with_lora["lora"],
    }
    torch.save({**beside, "lora_config": {"rank": 2, "alpha": 4}}, path)
    with pytest.raises(
        CheckpointError, match=r"a LoRA adapter beside them \(lora_state_dict\)"
    ) as caught:
        load_quietly(path)
    assert "name the weights in state_dict" in caught.value.remedy
    assert (
        "the release pipeline's checkpoint.path and adapter to" in caught.value.remedy
    )
    assert "checkpoint.state_dict" not in caught.value.remedy
    torch.save(with_lora["base"], tmp_path / "base.pth")
    assert_close(
        load_quietly(path, state_dict="model_state_dict")(**tiny_inputs),
        load_quietly(tmp_path / "base.pth")(**tiny_inputs),
    )


def test_lora_without_its_alpha_can_be_given_it(
    with_lora: dict[str, Any], tmp_path: Path, tiny_inputs: Arrays
) -> None:
    import torch

    torch.save({"model_state_dict": with_lora["injected"]}, tmp_path / "silent.pth")
    torch.save(
        {"model_state_dict": with_lora["injected"], "lora_config": {"alpha": 4}},
        tmp_path / "says.pth",
    )
    with pytest.raises(CheckpointError, match="doesn't say their alpha") as caught:
        load_quietly(tmp_path / "silent.pth")
    assert " lora_alpha" in caught.value.remedy
    assert "checkpoint.lora_alpha" not in caught.value.remedy
    assert_close(
        load_quietly(tmp_path / "silent.pth", lora_alpha=4)(**tiny_inputs),
        load_quietly(tmp_path / "says.pth")(**tiny_inputs),
    )
    with pytest.raises(CheckpointError, match=r"says alpha 4, and lora_alpha says 8"):
        load_quietly(tmp_path / "says.pth", lora_alpha=8)
    for alpha in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InferenceError, match="lora_alpha is"):
            load_quietly(tmp_path / "silent.pth", lora_alpha=alpha)


def test_of_several_state_dicts_the_named_one_is_loaded(
    with_lora: dict[str, Any],
    tmp_path: Path,
    tiny_inputs: Arrays,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    path = tmp_path / "both.pth"
    ema = {
        name: t if name.endswith("inv_freq") else t * 2
        for name, t in with_lora["base"].items()
    }
    torch.save({"model_state_dict": with_lora["base"], "nested": {"ema": ema}}, path)
    torch.save(ema, tmp_path / "ema.pth")
    with pytest.raises(CheckpointError, match="holds 2 state dicts") as caught:
        load_quietly(path)
    assert " state_dict" in caught.value.remedy
    assert "checkpoint.state_dict" not in caught.value.remedy
    assert_close(
        load_quietly(path, state_dict="nested.ema")(**tiny_inputs),
        load_quietly(tmp_path / "ema.pth")(**tiny_inputs),
    )
    options = ["--state-dict", "nested.ema", "--lora-alpha", "4", "--describe"]
    assert main(["run", str(path), *options]) == 0
    printed = capsys.readouterr()
    assert "motion" in printed.out
    warning, _, rest = printed.err.partition("\n")
    assert warning.startswith(f"warning: loading {path}: .pth is deprecated")
    assert rest == ""  # and no line of our code


def test_options_of_a_pth_are_refused_for_what_is_none(tiny_release: Path) -> None:
    with pytest.raises(
        InferenceError,
        match=r"lora_alpha and state_dict can be given for a \.pth, and .* is safetens",
    ):
        load(tiny_release, lora_alpha=1.0, state_dict="ema")


@pytest.mark.parametrize("encoder", ["lightweight_cnn", "resnet"])
def test_a_pth_takes_images_that_no_export_with_dynamic_sides_can(
    tmp_path: Path, encoder: str
) -> None:
    import torch

    from tests.support.stick_figure import random_model, with_images

    kwargs = with_images(encoder, "film")
    eager = random_model(kwargs)
    torch.save(eager.state_dict(), tmp_path / "images.pth")
    model = load_quietly(tmp_path / "images.pth")
    for height, width in ((20, 17), (1, 1), (1, 40)):
        names = ("motion", "text_embedding", "image_tensor")
        sizes = sizes_of(model.signature, height=height, width=width)
        given = sample_inputs(model.signature.taking(names), sizes, 3)
        with torch.inference_mode():
            expected = eager(
                **{name: torch.from_numpy(array) for name, array in given.items()}
            )
        np.testing.assert_allclose(
            model(**given)["pose"], expected.pose.numpy(), rtol=1e-4, atol=1e-5
        )
    assert stick_figure(kwargs).signature.dimensions["height"].minimum == 33
