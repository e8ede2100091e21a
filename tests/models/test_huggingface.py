"""The release in the hands of the real Hugging Face libraries, in processes that can't
see this project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.signature import sample_inputs
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.runtimes.loader import load
from checkpoint_release.tensors.safetensors import open_sharded, write_safetensors
from checkpoint_release.tensors.tensor import Tensor
from pipeline.export_safetensors import main
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.project import ROOT, Project
from tests.support.stick_figure import MOTION_ONLY, stick_figure
from tests.support.tiny_release import sizes_of

pytestmark = pytest.mark.slow

OUT = Path("artifacts/safetensors")
IMAGES = {
    "enable_image_conditioning": True,
    "image_encoder_arch": "mini_vit",
    "fusion_strategy": "film",
}

# Prints what the library says of the load, and writes the state dict and the outputs
# that it arrives at.
AUTO_MODEL = """
import json, sys, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
folder, case = sys.argv[1:]
model, info = AutoModel.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True
)
state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
save_file(state, "state.safetensors")
model.save_pretrained("again")
inputs = load_file(case)
for name, x in inputs.items():
    inputs[name] = x.to(model.dtype) if x.is_floating_point() else x
with torch.inference_mode():
    outputs = model(**inputs)
results = {name: getattr(outputs, name).contiguous() for name in outputs._fields}
save_file(results, "outputs.safetensors")
print(json.dumps({
    "class": type(model).__name__,
    "training": model.training,
    "fps": model.config.fps,
    "missing": sorted(info["missing_keys"]),
    "unexpected": sorted(info["unexpected_keys"]),
}))
"""

MIXIN = """
import sys, torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file
folder = sys.argv[1]
sys.path.insert(0, folder)
from model import StickFigureTransformer
class Mine(StickFigureTransformer, PyTorchModelHubMixin): pass
model = Mine.from_pretrained(folder, strict=True)
state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
save_file(state, "state.safetensors")
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with params.yaml, in which the stage runs."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def export(
    kwargs: dict[str, Any], inputs: list[str] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Write the folder and a case beside it; returns the checkpoint's weights."""
    architecture = stick_figure(kwargs, inputs)
    weights = state_dict(architecture)
    write_checkpoint(Path("artifacts/checkpoint"), architecture, weights, {"epoch": 3})
    main()
    case = sample_inputs(architecture.signature, sizes_of(architecture.signature), 1)
    write_safetensors(
        Path("case.safetensors"),
        {name: Tensor.of_numpy(array) for name, array in case.items()},
    )
    return weights


def run(code: str, *arguments: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_HOME": str(Path("hf").absolute()),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def auto_model() -> dict[str, Any]:
    printed = run(AUTO_MODEL, str(OUT), "case.safetensors")
    info: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return info


def loaded(path: str = "state.safetensors") -> dict[str, Tensor]:
    return dict(open_sharded(Path(), path.removesuffix(".safetensors")))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (
            tensor.dtype,
            tensor.shape,
        ), name
        assert b"".join(found[name].chunks()) == b"".join(tensor.chunks()), name


@pytest.mark.parametrize(
    ("kwargs", "params"),
    [
        (MOTION_ONLY, {}),
        (
            {**MOTION_ONLY, **IMAGES, "image_size": [32, 32]},
            {"safetensors__max_shard_size": "10MB"},
        ),
        (MOTION_ONLY, {"safetensors__dtype": "bfloat16"}),
    ],
    ids=["motion only", "images in shards", "bfloat16"],
)
def test_transformers_loads_the_folder_bit_for_bit(
    project: Project, kwargs: dict[str, Any], params: dict[str, Any]
) -> None:
    project.set(**params)
    inputs = (
        ["motion", "text_embedding", "image_tensor"] if "image_size" in kwargs else None
    )
    export(kwargs, inputs)
    assert auto_model() == {
        "class": "StickFigureModel",
        "training": False,
        "fps": 25,
        "missing": [],
        "unexpected": [],
    }
    assert_same(loaded(), dict(open_sharded(OUT)))
    again = dict(open_sharded(Path("again")))
    assert_same(again, dict(open_sharded(OUT)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("keep", 0.0), ("bfloat16", 0.05)])
def test_transformers_computes_what_the_checkpoint_computes(
    project: Project, dtype: str, tolerance: float
) -> None:
    import torch
    from safetensors.torch import load_file

    from checkpoint_release.runtimes.eager import build_eager

    project.set(safetensors__dtype=dtype)
    export(MOTION_ONLY)
    auto_model()
    model, _ = build_eager(Path("artifacts/checkpoint"), OWN_ARTIFACTS)
    with torch.inference_mode():
        expected = model(**load_file("case.safetensors"))
    outputs = load_file("outputs.safetensors")
    for name in expected._fields:
        torch.testing.assert_close(
            outputs[name].float(), getattr(expected, name), rtol=0, atol=tolerance
        )


def test_rotary_frequencies_that_a_file_lacks_are_computed() -> None:
    weights = export(MOTION_ONLY)
    lacking = {
        name: Tensor.of_numpy(array)
        for name, array in weights.items()
        if not name.endswith("inv_freq")
    }
    write_safetensors(OUT / "model.safetensors", lacking, {"format": "pt"})
    rotary = sorted(weights.keys() - lacking.keys())
    assert auto_model()["missing"] == rotary
    for name in rotary:
        np.testing.assert_allclose(loaded()[name].numpy(), weights[name], rtol=1e-6)

    # Without the code that does it, transformers leaves something else there.
    modeling = OUT / "modeling_stick_figure.py"
    modeling.write_text(
        modeling.read_text().replace("isinstance(module, RotaryEmbedding)", "False")
    )
    auto_model()
    assert not all(
        np.allclose(loaded()[name].numpy(), weights[name], rtol=1e-6) for name in rotary
    )


def test_a_name_that_does_not_fit_is_reported_by_transformers() -> None:
    weights = export(MOTION_ONLY)
    weights["pose_head.weight"] = weights.pop("pose_decoder.0.weight")
    tensors = {name: Tensor.of_numpy(array) for name, array in weights.items()}
    write_safetensors(OUT / "model.safetensors", tensors, {"format": "pt"})
    info = auto_model()
    assert (info["missing"], info["unexpected"]) == (
        ["pose_decoder.0.weight"],
        ["pose_head.weight"],
    )


def test_the_hub_mixin_loads_the_folder_strictly() -> None:
    weights = export(MOTION_ONLY)
    run(MIXIN, str(OUT.absolute()))
    assert_same(loaded(), dict(open_sharded(OUT)))
    lacking = {
        name: Tensor.of_numpy(array)
        for name, array in weights.items()
        if name != "pose_decoder.0.bias"
    }
    write_safetensors(OUT / "model.safetensors", lacking, {"format": "pt"})
    with pytest.raises(AssertionError, match=r"pose_decoder\.0\.bias"):
        run(MIXIN, str(OUT.absolute()))


def test_the_release_itself_loads_everywhere(built: Project) -> None:
    folder = built.path / "artifacts/release"
    model = load(folder)
    case = sample_inputs(model.signature, sizes_of(model.signature), 1)
    write_safetensors(
        Path("case.safetensors"),
        {name: Tensor.of_numpy(array) for name, array in case.items()},
    )
    printed = run(AUTO_MODEL, str(folder), "case.safetensors")
    info = json.loads(printed.splitlines()[-1])
    assert (info["missing"], info["unexpected"]) == ([], [])
    outputs = loaded("outputs.safetensors")
    # optimum and transformers.js look for onnx/model.onnx below the folder that holds
    # config.json.
    assert (folder / "onnx/model.onnx").is_file() and (folder / "config.json").is_file()
    for format in ("safetensors", "onnx", "torchscript"):
        for name, array in load(folder, format=format)(**case).items():
            np.testing.assert_allclose(
                array,
                outputs[name].numpy(),
                rtol=1e-3,
                atol=1e-4,
                err_msg=f"{format} {name}",
            )
