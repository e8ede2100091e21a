"""The loader: any format by its content, the same call, the same errors, and no library
that isn't needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.errors import (
    ArtifactError,
    CheckpointError,
    CheckpointReleaseError,
    InferenceError,
    ModelError,
    UnsafeCheckpointError,
)
from checkpoint_release.core.files import read_json, write_json
from checkpoint_release.core.signature import Arrays, Signature, sample_inputs
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.runtimes.eager import build_model
from checkpoint_release.runtimes.loader import load, main
from checkpoint_release.tensors.safetensors import (
    open_safetensors,
    write_safetensors,
    write_shards,
)
from checkpoint_release.tensors.tensor import Tensor
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.hub_server import HubServer
from tests.support.project import ROOT
from tests.support.stick_figure import stick_figure

FILES = {
    "safetensors": "model.safetensors",
    "onnx": "onnx/model.onnx",
    "torchscript": "torchscript/model.pt",
    "torch_export": "torch_export/model.pt2",
    "pth": "checkpoint.pth",
}
POSITIONS = {"inputs": [{"name": "x", "shape": ["length", 4]}], "outputs": ["output"]}


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    return stick_figure()


@pytest.fixture(scope="session")
def release(
    tmp_path_factory: pytest.TempPathFactory, architecture: Architecture
) -> Path:
    """A tiny model in every format, as a release holds them, exported with torch alone."""
    import torch

    from checkpoint_release.runtimes.eager import ExportModule, build_eager

    root = tmp_path_factory.mktemp("release")
    checkpoint = write_checkpoint(
        root / "checkpoint", architecture, state_dict(architecture), {"epoch": 3}
    )
    config = model_config(CheckpointFolder.open(checkpoint).facts)
    for folder in (".", "onnx", "torchscript", "torch_export"):
        config.write(root / folder)
    shutil.copy(checkpoint / "weights.safetensors", root / "model.safetensors")
    model, signature = build_eager(checkpoint)
    torch.save(
        {"model_state_dict": model.state_dict(), "epoch": 3}, root / "checkpoint.pth"
    )
    module = ExportModule(model, signature).eval()
    inputs = tuple(
        map(torch.from_numpy, sample_inputs(signature, signature.sizes(), 1).values())
    )
    names = [spec.name for spec in signature.inputs]
    axes = {
        spec.name: {
            axis: size
            for axis, size in enumerate(spec.shape or ())
            if isinstance(size, str)
        }
        for spec in (*signature.inputs, *signature.outputs)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            root / "onnx/model.onnx",
            input_names=names,
            output_names=[spec.name for spec in signature.outputs],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        torch.jit.save(
            torch.jit.trace(module, inputs, check_trace=False),
            root / "torchscript/model.pt",
        )
        torch.export.save(
            torch.export.export(module, inputs), root / "torch_export/model.pt2"
        )
    return root


@pytest.fixture(scope="session")
def inputs(architecture: Architecture) -> Arrays:
    return sample_inputs(architecture.signature, architecture.signature.sizes(), 2)


@pytest.fixture(scope="session")
def expected(release: Path, inputs: Arrays) -> Arrays:
    """What the model itself computes."""
    import torch

    from checkpoint_release.runtimes.eager import build_eager

    model, _ = build_eager(release / "checkpoint")
    with torch.inference_mode():
        outputs = model(
            **{name: torch.from_numpy(array) for name, array in inputs.items()}
        )
    return {name: getattr(outputs, name).numpy() for name in outputs._fields}


def open_file(path: Path, **options: Any) -> Any:
    """Load, and let a .pth warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return load(path, **options)


def assert_close(outputs: Arrays, expected: Arrays) -> None:
    assert list(outputs) == list(expected)
    for name, array in outputs.items():
        np.testing.assert_allclose(
            array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("format", FILES)
def test_every_format_is_called_alike_and_computes_the_same(
    release: Path,
    inputs: Arrays,
    expected: Arrays,
    format: str,
    architecture: Architecture,
) -> None:
    model = open_file(release / FILES[format])
    assert model.format == format
    assert model.signature == architecture.signature
    assert_close(model(**inputs), expected)


@pytest.mark.parametrize("format", FILES)
def test_a_file_under_a_wrong_name_is_told_by_its_content(
    release: Path, tmp_path: Path, inputs: Arrays, expected: Arrays, format: str
) -> None:
    wrong = "weights.onnx" if format != "onnx" else "weights.pth"
    shutil.copy(release / FILES[format], tmp_path / wrong)
    shutil.copy(release / "config.json", tmp_path)
    model = open_file(tmp_path / wrong)
    assert model.format == format
    assert_close(model(**inputs), expected)


@pytest.mark.parametrize(
    "format", ["safetensors", "onnx", "torchscript", "torch_export", "checkpoint"]
)
def test_a_folder_is_loaded_in_its_first_or_in_the_asked_format(
    release: Path, inputs: Arrays, expected: Arrays, format: str
) -> None:
    assert load(release).format == "safetensors"
    model = (
        load(release / "checkpoint")
        if format == "checkpoint"
        else load(release, format=format)
    )
    assert model.format == format
    assert_close(model(**inputs), expected)
    if format not in ("safetensors", "checkpoint"):
        assert load(release / format).format == format


def test_shards_are_loaded_together_from_the_folder_or_from_one_of_them(
    release: Path, tmp_path: Path, inputs: Arrays, expected: Arrays
) -> None:
    names = list(
        write_shards(
            tmp_path, dict(open_safetensors(release / "model.safetensors")), 10_000
        )
    )
    shutil.copy(release / "config.json", tmp_path)
    assert len(names) > 3
    assert_close(load(tmp_path)(**inputs), expected)
    assert_close(load(tmp_path / names[1])(**inputs), expected)
    (tmp_path / names[0]).unlink()
    with pytest.raises(ArtifactError, match=names[0]):
        load(tmp_path)


def test_half_precision_weights_compute_in_float32(
    release: Path, tmp_path: Path, inputs: Arrays
) -> None:
    halves = {
        name: Tensor.of_numpy(tensor.numpy().astype(np.float16))
        for name, tensor in open_safetensors(release / "model.safetensors").items()
    }
    write_safetensors(tmp_path / "model.safetensors", halves)
    shutil.copy(release / "config.json", tmp_path)
    outputs = load(tmp_path)(**inputs)
    assert {array.dtype for array in outputs.values()} == {np.dtype("float32")}


def test_onnx_without_a_config_describes_itself(
    release: Path,
    tmp_path: Path,
    inputs: Arrays,
    expected: Arrays,
    architecture: Architecture,
) -> None:
    shutil.copy(release / "onnx/model.onnx", tmp_path / "lone.onnx")
    model = load(tmp_path / "lone.onnx")
    for own, stated in zip(
        model.signature.inputs, architecture.signature.inputs, strict=True
    ):
        assert (own.name, own.dtype, own.shape) == (
            stated.name,
            stated.dtype,
            stated.shape,
        )
    assert_close(model(**inputs), expected)
    with pytest.raises(InferenceError, match="'motion' is float64"):
        model(**{**inputs, "motion": inputs["motion"].astype(float)})


def test_onnx_may_carry_its_signature(
    release: Path, tmp_path: Path, architecture: Architecture
) -> None:
    import onnx

    model = onnx.load(release / "onnx/model.onnx")
    onnx.helper.set_model_props(
        model, {"signature": json.dumps(architecture.signature.to_json())}
    )
    onnx.save(model, tmp_path / "lone.onnx")
    assert load(tmp_path / "lone.onnx").signature == architecture.signature


def test_torchscript_may_carry_its_config(
    release: Path, tmp_path: Path, inputs: Arrays, expected: Arrays
) -> None:
    import torch

    lone = tmp_path / "lone.pt"
    shutil.copy(release / "torchscript/model.pt", lone)
    with pytest.raises(ArtifactError, match=r"config\.json is missing"):
        load(lone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        config = (release / "config.json").read_text()
        torch.jit.save(
            torch.jit.load(str(lone)), lone, _extra_files={"config.json": config}
        )
    assert_close(load(lone)(**inputs), expected)


def test_a_config_of_someone_else_is_not_taken_for_ours(
    release: Path, tmp_path: Path
) -> None:
    shutil.copy(release / "model.safetensors", tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    with pytest.raises(ArtifactError, match="has no signature"):
        load(tmp_path)


def test_weights_of_another_model_are_refused_whole(
    release: Path, tmp_path: Path
) -> None:
    tensors = dict(open_safetensors(release / "model.safetensors"))
    tensors["extra.weight"] = tensors.pop("pose_decoder.0.weight")
    write_safetensors(tmp_path / "model.safetensors", tensors)
    shutil.copy(release / "config.json", tmp_path)
    with pytest.raises(
        CheckpointReleaseError, match=r"pose_decoder\.0\.weight.*extra\.weight"
    ):
        load(tmp_path)


# --------------------------------------------------------------------------------------
# .pth


def test_a_pth_still_loads_and_says_how_to_leave_it(
    release: Path, inputs: Arrays, expected: Arrays
) -> None:
    path = release / "checkpoint.pth"
    with pytest.warns(
        DeprecationWarning, match=r"set checkpoint\.path to .*checkpoint\.pth in params"
    ) as caught:
        model = load(path)
    assert caught[0].filename == __file__
    assert_close(model(**inputs), expected)


def test_a_pth_takes_the_conditioning_it_is_given_and_leaves_out_the_rest(
    release: Path, inputs: Arrays
) -> None:
    import torch

    from checkpoint_release.runtimes.eager import build_eager

    model, eager = (
        open_file(release / "checkpoint.pth"),
        build_eager(release / "checkpoint")[0],
    )
    for names in (
        ["motion", "text_embedding"],
        ["motion", "text_embedding", "camera_data"],
    ):
        given = {name: inputs[name] for name in names}
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
        model(motion=inputs["motion"])
    with pytest.raises(InferenceError, match=r"\['camera'\] are not among"):
        model(**inputs, camera=inputs["camera_data"])


def test_a_pth_is_read_without_running_what_it_holds(
    release: Path, tmp_path: Path
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
        open_file(tmp_path / "evil.pth")
    assert not (tmp_path / "canary").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the payload does work
    assert (tmp_path / "canary").exists()


def test_a_pth_of_an_unknown_model_needs_a_config_beside_it(tmp_path: Path) -> None:
    import torch

    layer = torch.nn.Linear(3, 2)
    torch.save(layer.state_dict(), tmp_path / "linear.pth")
    with pytest.raises(
        InferenceError, match=r"(?s)doesn't say which model.*state model\.factory"
    ):
        open_file(tmp_path / "linear.pth")
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
    output = open_file(tmp_path / "linear.pth", trust=["torch.nn:Linear"])(input=x)[
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
    with_lora: dict[str, Any], tmp_path: Path, inputs: Arrays
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
        open_file(path)
    assert "state_dict (--state-dict)" in caught.value.remedy
    assert (
        f"checkpoint.adapter to {path} in params.yaml, run `dvc repro`"
        in caught.value.remedy
    )
    torch.save(with_lora["base"], tmp_path / "base.pth")
    assert_close(
        open_file(path, state_dict="model_state_dict")(**inputs),
        open_file(tmp_path / "base.pth")(**inputs),
    )


def test_lora_without_its_alpha_can_be_told_it(
    with_lora: dict[str, Any], tmp_path: Path, inputs: Arrays
) -> None:
    import torch

    torch.save({"model_state_dict": with_lora["injected"]}, tmp_path / "silent.pth")
    torch.save(
        {"model_state_dict": with_lora["injected"], "lora_config": {"alpha": 4}},
        tmp_path / "says.pth",
    )
    with pytest.raises(CheckpointError, match="doesn't say their alpha") as caught:
        open_file(tmp_path / "silent.pth")
    assert (
        "lora_alpha (--lora-alpha)" in caught.value.remedy
        and "params.yaml" not in caught.value.remedy
    )
    assert_close(
        open_file(tmp_path / "silent.pth", lora_alpha=4)(**inputs),
        open_file(tmp_path / "says.pth")(**inputs),
    )
    with pytest.raises(
        CheckpointError, match=r"says alpha 4, and lora_alpha \(--lora-alpha\) says 8"
    ):
        open_file(tmp_path / "says.pth", lora_alpha=8)
    for alpha in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InferenceError, match="lora_alpha is"):
            open_file(tmp_path / "silent.pth", lora_alpha=alpha)


def test_of_several_state_dicts_the_named_one_is_loaded(
    with_lora: dict[str, Any],
    tmp_path: Path,
    inputs: Arrays,
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
        open_file(path)
    assert (
        "state_dict (--state-dict)" in caught.value.remedy
        and "params.yaml" not in caught.value.remedy
    )
    assert_close(
        open_file(path, state_dict="nested.ema")(**inputs),
        open_file(tmp_path / "ema.pth")(**inputs),
    )
    with pytest.warns(DeprecationWarning):
        main(
            [str(path), "--state-dict", "nested.ema", "--lora-alpha", "4", "--describe"]
        )
    assert "motion" in capsys.readouterr().out


def test_options_of_a_pth_are_refused_for_what_is_none(release: Path) -> None:
    with pytest.raises(
        InferenceError,
        match=r"lora_alpha and state_dict can be given for a \.pth, and .* is safetens",
    ):
        load(release, lora_alpha=1.0, state_dict="ema")


@pytest.mark.parametrize("encoder", ["lightweight_cnn", "resnet"])
def test_a_pth_takes_images_that_no_export_with_dynamic_sides_can(
    tmp_path: Path, encoder: str
) -> None:
    import torch

    from tests.support.stick_figure import random_model, with_images

    kwargs = with_images(encoder, "film")
    eager = random_model(kwargs)
    torch.save(eager.state_dict(), tmp_path / "images.pth")
    model = open_file(tmp_path / "images.pth")
    for height, width in ((20, 17), (1, 1), (1, 40)):
        names = ("motion", "text_embedding", "image_tensor")
        sizes = model.signature.sizes(height=height, width=width)
        given = sample_inputs(model.signature.taking(names), sizes, 3)
        with torch.inference_mode():
            expected = eager(
                **{name: torch.from_numpy(array) for name, array in given.items()}
            )
        np.testing.assert_allclose(
            model(**given)["pose"], expected.pose.numpy(), rtol=1e-4, atol=1e-5
        )
    assert stick_figure(kwargs).signature.dimensions["height"].minimum == 33


# --------------------------------------------------------------------------------------
# What can't be loaded


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes/a.txt", "hello")


UNKNOWN: dict[str, tuple[Callable[[Path], object], str]] = {
    "model.onnx": (lambda path: path.write_bytes(b""), "is empty: 0 bytes"),
    "model.safetensors": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS",
    ),
    "model.pt": (lambda path: path.write_text("<!DOCTYPE html><html>"), "web page"),
    "model.pt2": (zipped, "zip archive of 1 files (notes/a.txt"),
    "model.pth": (
        lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 200),
        "damaged or cut short",
    ),
    "model.bin": (lambda path: path.write_bytes(b"GGUF" + b"\0" * 100), "GGUF"),
    "notes.onnx": (
        lambda path: path.write_text("some notes, no model"),
        "though its name ends in .onnx",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_no_model_is_told_by_what_it_is(tmp_path: Path, name: str) -> None:
    write, found = UNKNOWN[name]
    write(tmp_path / name)
    with pytest.raises(InferenceError) as caught:
        load(tmp_path / name)
    assert found in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_cut_files_are_errors_of_the_pipeline(release: Path, tmp_path: Path) -> None:
    for file in FILES.values():
        content = (release / file).read_bytes()
        (cut := tmp_path / Path(file).name).write_bytes(content[: len(content) // 2])
        shutil.copy(release / "config.json", tmp_path)
        with pytest.raises(CheckpointReleaseError, match=cut.name):
            open_file(cut)


def test_a_folder_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InferenceError, match=r"holds manifest\.json\n.*switches off"):
        load(tmp_path)


def test_what_is_asked_for_has_to_be_there(release: Path, tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match=r"missing\.onnx is missing"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(InferenceError, match="is onnx, and torchscript was asked for"):
        load(release / "onnx/model.onnx", format="torchscript")
    with pytest.raises(InferenceError, match="no model in the format onnx"):
        load(release / "torchscript", format="onnx")
    with pytest.raises(InferenceError, match="there is no format 'tflite'"):
        load(release, format="tflite")
    with pytest.raises(InferenceError, match="revision"):
        load(release, revision="v1.0.0")


def test_devices_and_providers_that_are_not_there_are_named(release: Path) -> None:
    with pytest.raises(
        InferenceError, match=r"NoSuchProvider; it has .*CPUExecutionProvider"
    ):
        load(release, providers=["NoSuchProvider"])
    with pytest.raises(InferenceError, match="device 'nowhere'"):
        load(release, device="nowhere")
    with pytest.raises(InferenceError, match="ONNX Runtime's, and this isn't ONNX"):
        load(release / "model.safetensors", providers=["CPUExecutionProvider"])
    with pytest.raises(InferenceError, match="device 'nowhere'"):
        open_file(release / "checkpoint.pth", device="nowhere")
    assert load(release, providers=["CPUExecutionProvider"], threads=1).format == "onnx"


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused_in_every_format(
    release: Path, format: str, threads: int
) -> None:
    with pytest.raises(InferenceError, match=f"threads is {threads}"):
        open_file(release / FILES[format], threads=threads)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"motion": None}, r"inputs \['motion'\] are missing"),
        ({"movement": np.zeros(1)}, r"\['movement'\] are not among"),
        ({"motion": np.zeros((4, 2, 20))}, "'motion' is float64.*takes float32"),
        ({"motion": [[1.0, 2.0], [3.0]]}, r"'motion' is no array: .*inhomogeneous"),
        (
            {"motion": np.zeros((4, 20), np.float32)},
            r"takes float32 \['sequence', 'batch', 20\]",
        ),
        ({"motion": np.zeros((4, 2, 48), np.float32)}, "axis 2 must have 20"),
        (
            {"action_sequence": np.full((25, 2), 5)},
            "holds 5 to 5, and the model takes 0 to 4",
        ),
        ({"action_sequence": np.full((25, 2), -1)}, "holds -1 to -1"),
        (
            {"text_embedding": np.zeros((3, 16), np.float32)},
            "'batch' is 3, and another input's is 2",
        ),
    ],
)
@pytest.mark.parametrize("format", ["safetensors", "onnx"])
def test_wrong_inputs_are_told_by_what_was_expected(
    release: Path, inputs: Arrays, format: str, change: dict[str, Any], told: str
) -> None:
    given = {
        name: array for name, array in {**inputs, **change}.items() if array is not None
    }
    with pytest.raises(InferenceError, match=told):
        load(release, format=format)(**given)


# --------------------------------------------------------------------------------------
# What it costs


@pytest.mark.parametrize(
    ("format", "absent"), [("onnx", "torch"), ("safetensors", "onnxruntime")]
)
def test_a_format_imports_only_what_it_needs(
    release: Path, inputs: Arrays, format: str, absent: str
) -> None:
    write_safetensors(
        release / "case.safetensors",
        {name: Tensor.of_numpy(x) for name, x in inputs.items()},
    )
    code = (
        "import sys; from checkpoint_release.runtimes.loader import load, main\nassert"
        " not {'torch', 'onnxruntime', 'onnx', 'huggingface_hub'} &"
        f" set(sys.modules)\nmain([{str(release)!r}, '--format', {format!r},"
        " '--inputs', 'case.safetensors', '--outputs', 'o'])\nprint({'torch',"
        " 'onnxruntime', 'onnx', 'msgspec'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=release,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert absent not in done.stdout.splitlines()[-1]


def test_weights_are_not_copied_and_no_random_numbers_are_drawn_for_them(
    release: Path,
) -> None:
    import torch
    from safetensors.torch import load_file

    from checkpoint_release.runtimes.eager import load_model

    architecture = Architecture.from_json(read_json(release / "config.json"))
    before = torch.get_rng_state()
    weights = load_file(release / "model.safetensors")
    model = load_model(architecture, weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        tensor.data_ptr() == weights[name].data_ptr()
        for name, tensor in model.state_dict().items()
    )
    build_model(architecture)
    # drawn where nothing replaces them
    assert not torch.equal(torch.get_rng_state(), before)


def test_what_a_constructor_computes_and_no_state_dict_holds_survives(
    tmp_path: Path,
) -> None:
    import torch

    architecture = Architecture(
        "tests.support.models:Positions", {"width": 4}, Signature.from_json(POSITIONS)
    )
    model = build_model(architecture)
    assert list(model.state_dict()) == ["scale"]
    weights = {"scale": np.full(4, 2, np.float32)}
    write_safetensors(
        tmp_path / "model.safetensors",
        {name: Tensor.of_numpy(x) for name, x in weights.items()},
    )
    write_json(tmp_path / "config.json", architecture.to_json())
    output = load(tmp_path, trust=[architecture.factory])(
        x=np.ones((3, 4), np.float32)
    )["output"]
    model.load_state_dict(
        {name: torch.from_numpy(array) for name, array in weights.items()}
    )
    np.testing.assert_array_equal(output, model(torch.ones(3, 4)).detach().numpy())


# --------------------------------------------------------------------------------------
# Command line


def test_the_command_line_runs_a_case(
    release: Path, tmp_path: Path, inputs: Arrays, expected: Arrays
) -> None:
    case, out = tmp_path / "case.safetensors", tmp_path / "out.safetensors"
    write_safetensors(
        case, {name: Tensor.of_numpy(array) for name, array in inputs.items()}
    )
    main([str(release / "onnx"), "--inputs", str(case), "--outputs", str(out)])
    assert_close(
        {name: open_safetensors(out)[name].numpy() for name in expected}, expected
    )


@pytest.mark.parametrize(
    ("outputs", "told"), [("no/folder/out", "there is no folder"), (".", "is a folder")]
)
def test_where_outputs_cannot_go_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], outputs: str, told: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(
            [
                str(tmp_path / "no.onnx"),
                "--inputs",
                "case",
                "--outputs",
                str(tmp_path / outputs),
            ]
        )
    assert caught.value.code == 1
    assert told in capsys.readouterr().err


def test_a_case_that_cannot_be_read_is_the_callers_to_mend(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "case").write_text("no tensors")
    for case in ("case", "missing"):
        with pytest.raises(SystemExit) as caught:
            main(
                [
                    str(release),
                    "--inputs",
                    str(tmp_path / case),
                    "--outputs",
                    str(tmp_path / "out"),
                ]
            )
        assert caught.value.code == 1
        printed = capsys.readouterr().err
        assert (
            f"{tmp_path / case} " in printed
            and "give a safetensors file that holds the inputs" in printed
        )
    assert not (tmp_path / "out").exists()


def test_the_command_line_describes_a_model(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(release), "--describe"])
    printed = capsys.readouterr().out
    assert "motion           float32  [sequence, batch, 20]" in printed
    assert (
        "0 to 4" in printed
        and "action_logits" in printed
        and "sequence  1 to any number" in printed
    )


def test_the_command_line_tells_an_error_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "no.onnx"), "--describe"])
    assert caught.value.code == 1
    printed = capsys.readouterr().err
    assert (
        printed.startswith("error: ")
        and "what to do: " in printed
        and "Traceback" not in printed
    )


def test_the_command_line_needs_something_to_do(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(release)])
    assert caught.value.code == 2
    assert "--describe" in capsys.readouterr().err


def test_a_signature_is_plain_json(release: Path) -> None:
    assert (
        json.loads(json.dumps(load(release).signature.to_json()))["inputs"][0]["name"]
        == "motion"
    )


# --------------------------------------------------------------------------------------
# A repository on a Hub


@pytest.fixture
def hub(release: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        names = (
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "torchscript/model.pt",
        )
        repo = server.hub.create("ada/stick", private=False)
        repo.edit({name: (release / name).read_bytes() for name in names})
        yield server


def from_hub(
    hub: HubServer, folder: Path, *arguments: str, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own: huggingface_hub reads its address when
    it is imported.
    """
    environment = {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "NO_PROXY": "*",
    }
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    command = [sys.executable, "-m", "checkpoint_release.runtimes.loader", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_repository_is_fetched_as_far_as_it_is_needed_and_then_kept(
    hub: HubServer, tmp_path: Path, inputs: Arrays, expected: Arrays
) -> None:
    write_safetensors(
        tmp_path / "case",
        {name: Tensor.of_numpy(array) for name, array in inputs.items()},
    )
    done = from_hub(
        hub,
        tmp_path,
        "ada/stick",
        "--format",
        "onnx",
        "--inputs",
        "case",
        "--outputs",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert_close(
        {name: open_safetensors(tmp_path / "out")[name].numpy() for name in expected},
        expected,
    )
    fetched = {path.rpartition("/")[2] for _, path, _ in hub.requests}
    assert "model.onnx" in fetched and not {"model.safetensors", "model.pt"} & fetched

    offline = from_hub(
        hub, tmp_path, "ada/stick", "--format", "onnx", "--describe", offline=True
    )
    assert offline.returncode == 0, offline.stderr
    assert "motion" in offline.stdout


def test_a_revision_is_what_is_loaded(hub: HubServer, tmp_path: Path) -> None:
    first = hub.repo("ada/stick").history()[0].oid
    hub.repo("ada/stick").edit({"onnx/model.onnx": b"spoilt"})
    spoilt = from_hub(hub, tmp_path, "ada/stick", "--format", "onnx", "--describe")
    assert spoilt.returncode == 1 and "model.onnx can't be opened" in spoilt.stderr
    whole = from_hub(
        hub,
        tmp_path,
        "ada/stick",
        "--format",
        "onnx",
        "--revision",
        first,
        "--describe",
    )
    assert whole.returncode == 0, whole.stderr
    assert "ada/stick: onnx" in whole.stdout


def test_a_repository_that_is_not_there_is_one_clear_error(
    hub: HubServer, tmp_path: Path
) -> None:
    done = from_hub(hub, tmp_path, "ada/nothing", "--describe")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no ada/nothing on this machine")
    assert "Traceback" not in done.stderr


def test_model_code_from_elsewhere_runs_only_when_it_is_trusted(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """subprocess:run is a callable too."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(release, elsewhere)
    config = json.loads((elsewhere / "config.json").read_text())
    marker = tmp_path / "ran"
    config |= {"factory": "subprocess:run", "kwargs": {"args": ["touch", str(marker)]}}
    (elsewhere / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InferenceError, match="'subprocess:run' as its model code"
    ) as error:
        load(elsewhere)
    assert "--trust subprocess:run" in error.value.remedy
    assert not marker.exists()
    with pytest.raises(ModelError):
        load(elsewhere / "model.safetensors", trust=["subprocess:run"])
    assert marker.exists(), "the canary would not have seen it run"
