"""The loader: any format by its content, the same call, the same errors, and no library
that isn't needed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import (
    ArtifactError,
    CheckpointReleaseError,
    InferenceError,
    ModelError,
)
from checkpoint_release.core.files import read_json, write_json
from checkpoint_release.core.signature import Arrays
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.runtimes.eager import build_model
from checkpoint_release.runtimes.loader import load
from checkpoint_release.tensors.safetensors import (
    open_safetensors,
    write_safetensors,
    write_shards,
)
from checkpoint_release.tensors.tensor import Tensor
from tests.support.project import ROOT
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import (
    FILES,
    assert_close,
    load_quietly,
)

POSITIONS = {"inputs": [{"name": "x", "shape": ["length", 4]}], "outputs": ["output"]}


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    return stick_figure()


@pytest.mark.parametrize("format", FILES)
def test_every_format_is_called_alike_and_computes_the_same(
    tiny_release: Path,
    tiny_inputs: Arrays,
    tiny_outputs: Arrays,
    format: str,
    architecture: Architecture,
) -> None:
    model = load_quietly(tiny_release / FILES[format])
    assert model.format == format
    assert model.signature == architecture.signature
    assert_close(model(**tiny_inputs), tiny_outputs)


@pytest.mark.parametrize("format", FILES)
def test_a_file_under_a_wrong_name_is_recognised_by_its_content(
    tiny_release: Path,
    tmp_path: Path,
    tiny_inputs: Arrays,
    tiny_outputs: Arrays,
    format: str,
) -> None:
    wrong = "weights.onnx" if format != "onnx" else "weights.pth"
    shutil.copy(tiny_release / FILES[format], tmp_path / wrong)
    shutil.copy(tiny_release / "config.json", tmp_path)
    model = load_quietly(tmp_path / wrong)
    assert model.format == format
    assert_close(model(**tiny_inputs), tiny_outputs)


@pytest.mark.parametrize(
    "format", ["safetensors", "onnx", "torchscript", "torch_export", "checkpoint"]
)
def test_a_folder_is_loaded_in_its_first_or_in_the_asked_format(
    tiny_release: Path, tiny_inputs: Arrays, tiny_outputs: Arrays, format: str
) -> None:
    assert load(tiny_release).format == "safetensors"
    model = (
        load(tiny_release / "checkpoint")
        if format == "checkpoint"
        else load(tiny_release, format=format)
    )
    assert model.format == format
    assert_close(model(**tiny_inputs), tiny_outputs)
    if format not in ("safetensors", "checkpoint"):
        assert load(tiny_release / format).format == format


def test_shards_are_loaded_together_from_the_folder_or_from_one_of_them(
    tiny_release: Path, tmp_path: Path, tiny_inputs: Arrays, tiny_outputs: Arrays
) -> None:
    names = list(
        write_shards(
            tmp_path, dict(open_safetensors(tiny_release / "model.safetensors")), 10_000
        )
    )
    shutil.copy(tiny_release / "config.json", tmp_path)
    assert len(names) > 3
    assert_close(load(tmp_path)(**tiny_inputs), tiny_outputs)
    assert_close(load(tmp_path / names[1])(**tiny_inputs), tiny_outputs)
    (tmp_path / names[0]).unlink()
    with pytest.raises(ArtifactError, match=names[0]):
        load(tmp_path)


def test_half_precision_weights_compute_in_float32(
    tiny_release: Path, tmp_path: Path, tiny_inputs: Arrays
) -> None:
    halves = {
        name: Tensor.of_numpy(tensor.numpy().astype(np.float16))
        for name, tensor in open_safetensors(tiny_release / "model.safetensors").items()
    }
    write_safetensors(tmp_path / "model.safetensors", halves)
    shutil.copy(tiny_release / "config.json", tmp_path)
    outputs = load(tmp_path)(**tiny_inputs)
    assert {array.dtype for array in outputs.values()} == {np.dtype("float32")}


def test_onnx_without_a_config_describes_itself(
    tiny_release: Path,
    tmp_path: Path,
    tiny_inputs: Arrays,
    tiny_outputs: Arrays,
    architecture: Architecture,
) -> None:
    shutil.copy(tiny_release / "onnx/model.onnx", tmp_path / "lone.onnx")
    model = load(tmp_path / "lone.onnx")
    for own, stated in zip(
        model.signature.inputs, architecture.signature.inputs, strict=True
    ):
        assert (own.name, own.dtype, own.shape) == (
            stated.name,
            stated.dtype,
            stated.shape,
        )
    assert_close(model(**tiny_inputs), tiny_outputs)
    with pytest.raises(InferenceError, match="'motion' is float64"):
        model(**{**tiny_inputs, "motion": tiny_inputs["motion"].astype(float)})


def test_onnx_may_carry_its_signature(
    tiny_release: Path, tmp_path: Path, architecture: Architecture
) -> None:
    import onnx

    model = onnx.load(tiny_release / "onnx/model.onnx")
    onnx.helper.set_model_props(
        model, {"signature": json.dumps(architecture.signature.to_json())}
    )
    onnx.save(model, tmp_path / "lone.onnx")
    assert load(tmp_path / "lone.onnx").signature == architecture.signature


def test_torchscript_may_carry_its_config(
    tiny_release: Path, tmp_path: Path, tiny_inputs: Arrays, tiny_outputs: Arrays
) -> None:
    import torch

    lone = tmp_path / "lone.pt"
    shutil.copy(tiny_release / "torchscript/model.pt", lone)
    with pytest.raises(ArtifactError, match=r"config\.json is missing"):
        load(lone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        config = (tiny_release / "config.json").read_text()
        torch.jit.save(
            torch.jit.load(str(lone)), lone, _extra_files={"config.json": config}
        )
    assert_close(load(lone)(**tiny_inputs), tiny_outputs)


def test_a_config_of_someone_else_is_not_taken_for_ours(
    tiny_release: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_release / "model.safetensors", tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    with pytest.raises(ArtifactError, match="has no signature"):
        load(tmp_path)


def test_a_broken_signature_is_an_error_of_its_config(
    tiny_release: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_release / "onnx/model.onnx", tmp_path)
    config = json.loads((tiny_release / "config.json").read_text())
    config["signature"]["inputs"][0]["dtype"] = "int4"
    write_json(tmp_path / "config.json", config)
    problem = r"config\.json is broken: signature\.inputs\[0\]\.dtype is 'int4'"
    with pytest.raises(ArtifactError, match=problem):
        load(tmp_path)


def test_weights_of_another_model_are_refused_whole(
    tiny_release: Path, tmp_path: Path
) -> None:
    tensors = dict(open_safetensors(tiny_release / "model.safetensors"))
    tensors["extra.weight"] = tensors.pop("pose_decoder.0.weight")
    write_safetensors(tmp_path / "model.safetensors", tensors)
    shutil.copy(tiny_release / "config.json", tmp_path)
    with pytest.raises(
        CheckpointReleaseError, match=r"pose_decoder\.0\.weight.*extra\.weight"
    ):
        load(tmp_path)


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
def test_a_file_that_is_no_model_is_named_by_what_it_is(
    tmp_path: Path, name: str
) -> None:
    write, found = UNKNOWN[name]
    write(tmp_path / name)
    with pytest.raises(InferenceError) as caught:
        load(tmp_path / name)
    assert found in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_cut_files_are_expected_errors(tiny_release: Path, tmp_path: Path) -> None:
    for file in FILES.values():
        content = (tiny_release / file).read_bytes()
        (cut := tmp_path / Path(file).name).write_bytes(content[: len(content) // 2])
        shutil.copy(tiny_release / "config.json", tmp_path)
        with pytest.raises(CheckpointReleaseError, match=cut.name):
            load_quietly(cut)


def test_a_folder_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InferenceError, match=r"holds manifest\.json\n.*switched off"):
        load(tmp_path)


def test_what_is_asked_for_has_to_be_there(tiny_release: Path, tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match=r"missing\.onnx is missing"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(InferenceError, match="is onnx, and torchscript was asked for"):
        load(tiny_release / "onnx/model.onnx", format="torchscript")
    with pytest.raises(InferenceError, match="no model in the format onnx"):
        load(tiny_release / "torchscript", format="onnx")
    with pytest.raises(InferenceError, match="there is no format 'tflite'"):
        load(tiny_release, format="tflite")
    with pytest.raises(InferenceError, match="revision"):
        load(tiny_release, revision="v1.0.0")


def test_devices_and_providers_that_are_not_there_are_named(tiny_release: Path) -> None:
    with pytest.raises(
        InferenceError, match=r"NoSuchProvider; it has .*CPUExecutionProvider"
    ):
        load(tiny_release, providers=["NoSuchProvider"])
    with pytest.raises(InferenceError, match="device 'nowhere'"):
        load(tiny_release, device="nowhere")
    with pytest.raises(InferenceError, match="ONNX Runtime's, and this isn't ONNX"):
        load(tiny_release / "model.safetensors", providers=["CPUExecutionProvider"])
    with pytest.raises(InferenceError, match="device 'nowhere'"):
        load_quietly(tiny_release / "checkpoint.pth", device="nowhere")
    assert (
        load(tiny_release, providers=["CPUExecutionProvider"], threads=1).format
        == "onnx"
    )


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused_in_every_format(
    tiny_release: Path, format: str, threads: int
) -> None:
    with pytest.raises(InferenceError, match=f"threads is {threads}"):
        load_quietly(tiny_release / FILES[format], threads=threads)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"motion": None}, r"inputs \['motion'\] are missing"),
        ({"movement": np.zeros(1)}, r"\['movement'\] are not among"),
        ({"motion": np.zeros((4, 2, 20))}, "'motion' is float64.*takes float32"),
        ({"motion": [[1.0, 2.0], [3.0]]}, r"'motion' is not an array: .*inhomogeneous"),
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
def test_wrong_inputs_are_errors_that_state_what_was_expected(
    tiny_release: Path,
    tiny_inputs: Arrays,
    format: str,
    change: dict[str, Any],
    problem: str,
) -> None:
    given = {
        name: array
        for name, array in {**tiny_inputs, **change}.items()
        if array is not None
    }
    with pytest.raises(InferenceError, match=problem):
        load(tiny_release, format=format)(**given)


# --------------------------------------------------------------------------------------
# What it costs


@pytest.mark.parametrize(
    ("format", "absent"), [("onnx", "torch"), ("safetensors", "onnxruntime")]
)
def test_a_format_imports_only_what_it_needs(
    tiny_release: Path, tiny_inputs: Arrays, format: str, absent: str
) -> None:
    write_safetensors(
        tiny_release / "case.safetensors",
        {name: Tensor.of_numpy(x) for name, x in tiny_inputs.items()},
    )
    code = (
        "import sys\n"
        "from checkpoint_release.__main__ import main\n"
        "from checkpoint_release.runtimes.loader import load\n"
        "libraries = {'torch', 'onnxruntime', 'onnx', 'huggingface_hub'}\n"
        "assert not libraries & set(sys.modules)\n"
        f"main(['run', {str(tiny_release)!r}, '--format', {format!r},"
        " '--inputs', 'case.safetensors', '--outputs', 'o'])\n"
        "print(libraries & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tiny_release,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert absent not in done.stdout.splitlines()[-1]


def test_weights_are_not_copied_and_no_random_numbers_are_drawn_for_them(
    tiny_release: Path,
) -> None:
    import torch
    from safetensors.torch import load_file

    from checkpoint_release.runtimes.eager import load_model

    architecture = Architecture.from_json(read_json(tiny_release / "config.json"))
    before = torch.get_rng_state()
    weights = load_file(tiny_release / "model.safetensors")
    model = load_model(architecture, weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        tensor.data_ptr() == weights[name].data_ptr()
        for name, tensor in model.state_dict().items()
    )
    build_model(architecture.trusting(OWN_ARTIFACTS))
    # drawn where nothing replaces them
    assert not torch.equal(torch.get_rng_state(), before)


def test_what_a_constructor_computes_and_no_state_dict_holds_survives(
    tmp_path: Path,
) -> None:
    import torch

    architecture = Architecture(
        "tests.support.models:Positions",
        {"width": 4},
        read_signature(POSITIONS),
        trust=OWN_ARTIFACTS,
    )
    model = build_model(architecture.trusting(OWN_ARTIFACTS))
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


def test_a_signature_is_plain_json(tiny_release: Path) -> None:
    assert (
        json.loads(json.dumps(load(tiny_release).signature.to_json()))["inputs"][0][
            "name"
        ]
        == "motion"
    )


def test_model_code_from_elsewhere_runs_only_when_it_is_trusted(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """subprocess:run is a callable too."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tiny_release, elsewhere)
    config = json.loads((elsewhere / "config.json").read_text())
    marker = tmp_path / "ran"
    config |= {"factory": "subprocess:run", "kwargs": {"args": ["touch", str(marker)]}}
    (elsewhere / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InferenceError, match="'subprocess:run' is named as its model code"
    ) as error:
        load(elsewhere)
    assert "name subprocess:run in trust" in error.value.remedy
    assert not marker.exists()
    with pytest.raises(ModelError):
        load(elsewhere / "model.safetensors", trust=["subprocess:run"])
    assert marker.exists(), "the canary would not have seen it run"


def test_names_and_descriptions_of_a_file_cannot_steer_a_terminal(
    tiny_release: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "onnx"
    shutil.copytree(tiny_release / "onnx", folder)
    config = json.loads((folder / "config.json").read_text())
    config["signature"]["inputs"][0]["description"] = "x\nok   forged\x1b[2J\u202e"
    (folder / "config.json").write_text(json.dumps(config))
    described = load(folder).describe()
    assert r"x\nok   forged\x1b[2J\u202e" in described
    assert all(line.isprintable() for line in described.splitlines())
