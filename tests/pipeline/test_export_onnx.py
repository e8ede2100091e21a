"""export-onnx delivers exactly what was asked for, by any route, or says why not before
or after the work.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.manifest import read_manifest
from checkpoint_release.core.errors import (
    CheckpointReleaseError,
    ExportError,
    OpsetError,
)
from checkpoint_release.core.params import OnnxParams
from checkpoint_release.core.signature import Signature, sample_inputs
from checkpoint_release.onnx.check import check_onnx
from checkpoint_release.onnx.file import read_skeleton, write_onnx
from checkpoint_release.onnx.routes import plan
from checkpoint_release.runtimes.eager import build_eager
from checkpoint_release.runtimes.open import open_runtime
from pipeline.export_onnx import export_onnx, main
from tests.support import models
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.project import ROOT
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import sizes_of

GENERAL = [
    ("torchscript", 14),
    ("torchscript", 17),
    ("torchscript", 20),
    ("dynamo", 18),
    ("dynamo", 23),
]
LOWEST_IR = {
    14: 7,
    15: 8,
    16: 8,
    17: 8,
    18: 8,
    19: 9,
    20: 9,
    21: 10,
    22: 10,
    23: 11,
    24: 12,
    25: 13,
}


def asked(opset: int = 17, exporter: Any = "auto", **others: Any) -> OnnxParams:
    return OnnxParams(
        **{
            "opset": opset,
            "exporter": exporter,
            "ir_version": None,
            "variants": [],
            **others,
        }
    )


@pytest.fixture(scope="session")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture = stick_figure(inputs=["motion", "text_embedding", "action_sequence"])
    return write_checkpoint(
        tmp_path_factory.mktemp("figure") / "checkpoint",
        architecture,
        state_dict(architecture),
    )


@pytest.fixture(scope="session")
def exported(figure: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/onnx at opset 17 by the direct route, with both variants."""
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export_onnx(figure, asked(variants=["float16", "int8"]), folder)
    return folder


def largest_error(checkpoint: Path, artifact: Path, **sizes: int) -> float:
    """Against the eager model, relative to the largest value of each output."""
    eager, runtime = (
        open_runtime("checkpoint", checkpoint),
        open_runtime("onnx", artifact),
    )
    inputs = sample_inputs(
        runtime.signature, sizes_of(runtime.signature, **sizes), seed=3
    )
    expected, found = eager.run(inputs), runtime.run(inputs)
    assert expected.keys() == found.keys()
    return max(
        float(np.abs(found[k] - expected[k]).max() / np.abs(expected[k]).max())
        for k in expected
    )


# --------------------------------------------------------------------------------------
# What was asked for


@pytest.mark.parametrize("opset", LOWEST_IR)
def test_every_opset_comes_out_as_asked_and_in_the_lowest_ir_version(
    figure: Path, tmp_path: Path, opset: int
) -> None:
    export_onnx(figure, asked(opset), tmp_path / "onnx")
    model = onnx.load(tmp_path / "onnx/model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [
        ("", opset)
    ]
    assert model.ir_version == LOWEST_IR[opset]
    assert read_manifest(tmp_path / "onnx").facts["exporter"] == "direct"
    assert largest_error(figure, tmp_path / "onnx", sequence=11, batch=3) < 1e-5


def test_the_ir_version_can_be_pinned(figure: Path, tmp_path: Path) -> None:
    export_onnx(figure, asked(ir_version=10), tmp_path / "onnx")
    assert onnx.load(tmp_path / "onnx/model.onnx").ir_version == 10


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (
            asked(21, "torchscript"),
            [
                "onnx.opset is 21",
                "torchscript 14 to 20",
                "dynamo 18 to 25",
                "direct 14 to 25",
            ],
        ),
        (asked(17, "dynamo"), ["onnx.opset is 17", "dynamo 18 to 25"]),
        (asked(21, ir_version=9), ["onnx.ir_version is 9", "opset 21", "10 to"]),
        (asked(17, ir_version=99), ["onnx.ir_version is 99", "8 to"]),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_work(
    params: OnnxParams, told: list[str], tmp_path: Path
) -> None:
    architecture = stick_figure()
    folder = write_checkpoint(
        tmp_path / "checkpoint", architecture, {"no": np.zeros(1, np.float32)}
    )
    with pytest.raises(OpsetError) as error:  # with weights that no route could export
        export_onnx(folder, params, tmp_path / "onnx")
    assert all(text in str(error.value) for text in told)
    assert not (tmp_path / "onnx").exists()


def test_a_model_without_a_graph_of_its_own_has_no_direct_route(tmp_path: Path) -> None:
    architecture = Architecture(
        "tests.support.models:TiedLanguageModel",
        {},
        Signature.from_json(models.SIGNATURES[models.TiedLanguageModel]),
    )
    with pytest.raises(ExportError, match=r"onnx\.exporter is direct"):
        plan(asked(exporter="direct"), architecture)
    assert plan(asked(17), architecture)[0] == ["torchscript"]
    assert plan(asked(19), architecture)[0] == ["torchscript", "dynamo"]
    assert plan(asked(25), architecture)[0] == ["dynamo"]


def test_a_direct_graph_that_fails_is_told_by_its_name_and_auto_takes_another_route(
    figure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> ModelProto:
        raise KeyError("absent")

    monkeypatch.setattr("checkpoint_release.models.stick_figure.onnx_graph", broken)
    with pytest.raises(
        ExportError,
        match=(
            r"checkpoint_release\.models\.stick_figure\.onnx_graph failed: KeyError:"
            r" 'absent'"
        ),
    ):
        export_onnx(figure, asked(exporter="direct"), tmp_path / "onnx")
    export_onnx(figure, asked(), tmp_path / "onnx")
    assert read_manifest(tmp_path / "onnx").facts["exporter"] == "torchscript"


# --------------------------------------------------------------------------------------
# Any module, by the general routes


def check_general(
    kind: type[nn.Module], exporter: str, opset: int, tmp_path: Path
) -> ModelProto:
    folder = models.checkpoint(tmp_path / "checkpoint", kind)
    export_onnx(folder, asked(opset, exporter), tmp_path / "onnx")
    model = onnx.load(tmp_path / "onnx/model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [
        ("", opset)
    ]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    sizes = {
        name: dimension.example + 4
        for name, dimension in build_eager(folder)[1].dimensions.items()
    }
    assert largest_error(folder, tmp_path / "onnx", **sizes) < 1e-5
    return model


KINDS = [
    models.Convolutions,
    models.Recurrent,
    models.TiedLanguageModel,
    models.Argmax,
    models.Guided,
]


@pytest.mark.parametrize("kind", KINDS)
def test_any_module_is_exported_by_tracing(
    kind: type[nn.Module], tmp_path: Path
) -> None:
    check_general(kind, "torchscript", 17, tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        models.TiedLanguageModel,
        pytest.param(models.Convolutions, marks=pytest.mark.slow),
    ],
)
def test_any_module_is_exported_by_torch_export(
    kind: type[nn.Module], tmp_path: Path
) -> None:
    check_general(kind, "dynamo", 22, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("exporter", "opset"), GENERAL)
def test_any_module_is_exported_at_any_opset(
    kind: type[nn.Module], exporter: str, opset: int, tmp_path: Path
) -> None:
    if (kind, exporter) == (models.Recurrent, "dynamo"):
        pytest.skip("torch.export unrolls LSTMs for one length")
    check_general(kind, exporter, opset, tmp_path)


@pytest.mark.parametrize(
    ("exporter", "opset"),
    [("torchscript", 17), pytest.param("dynamo", 23, marks=pytest.mark.slow)],
)
def test_weights_keep_their_names_and_bytes(
    figure: Path, tmp_path: Path, exporter: str, opset: int
) -> None:
    export_onnx(figure, asked(opset, exporter), tmp_path / "onnx")
    expected = {
        name: tensor.numpy()
        for name, tensor in build_eager(figure)[0].state_dict().items()
    }
    stored = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "onnx/model.onnx").graph.initializer
    }
    own = {
        name: array
        for name, array in stored.items()
        if not name.startswith("constant_")
    }
    unused = {
        name
        for name in expected
        if name.split(".")[0] in ("camera_projection", "partner_projection")
    }
    assert own.keys() == expected.keys() - unused
    assert all(np.array_equal(own[name], expected[name]) for name in own)
    assert sum(array.nbytes for name, array in stored.items() if name not in own) < 1000


def test_tied_weights_are_stored_once_and_equal_ones_under_their_own_names(
    tmp_path: Path,
) -> None:
    model = check_general(models.TiedLanguageModel, "torchscript", 17, tmp_path)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len({"embedding.weight", "head.weight"} & set(names)) == 1
    assert {"first.weight", "second.weight", "first.bias", "second.bias", "table"} <= {
        *names,
        "table",
    }


def test_nodes_are_called_after_the_modules_that_they_are_in(
    figure: Path, tmp_path: Path
) -> None:
    export_onnx(figure, asked(17, "torchscript"), tmp_path / "onnx")
    model = onnx.load(tmp_path / "onnx/model.onnx")
    names = [node.name for node in model.graph.node]
    assert "transformer_encoder.layers.0.self_attn.q_proj/MatMul" in names
    assert len(set(names)) == len(names)
    assert model.graph.name == "StickFigureTransformer"
    ranks = {
        value.name
        for value in model.graph.value_info
        if value.type.tensor_type.HasField("shape")
    }
    assert {name for node in model.graph.node for name in node.output} - {
        o.name for o in model.graph.output
    } <= ranks


def test_a_dimension_baked_in_by_tracing_is_caught(tmp_path: Path) -> None:
    folder = models.checkpoint(tmp_path / "checkpoint", models.Baked)
    with pytest.raises(ExportError, match=r"sequence 8.* off the eager model's by"):
        export_onnx(folder, asked(17), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_model_that_a_route_cannot_export_is_one_clear_error(tmp_path: Path) -> None:
    folder = models.checkpoint(tmp_path / "checkpoint", models.FourierTransform)
    with pytest.raises(ExportError) as error:
        export_onnx(folder, asked(18, "torchscript"), tmp_path / "onnx")
    assert (
        "the torchscript route can't export the model at opset 18"
        in error.value.problem
    )
    assert "fft_rfft" in error.value.problem
    assert "\n" not in error.value.problem
    assert "set onnx.exporter to dynamo" in error.value.remedy


def test_where_nothing_can_export_the_model_each_route_s_cause_is_told(
    tmp_path: Path,
) -> None:
    folder = models.checkpoint(tmp_path / "checkpoint", models.Forking)
    with pytest.raises(ExportError) as error:
        export_onnx(folder, asked(18), tmp_path / "onnx")
    assert "model.onnx at" in error.value.problem  # the trace took one side of the fork
    assert "the dynamo route can't export the model at opset 18" in error.value.problem
    assert not (tmp_path / "onnx").exists()


@pytest.mark.slow
def test_a_model_that_tracing_cannot_export_takes_the_other_route(
    tmp_path: Path,
) -> None:
    folder = models.checkpoint(tmp_path / "checkpoint", models.FourierTransform)
    export_onnx(folder, asked(18), tmp_path / "onnx")
    assert read_manifest(tmp_path / "onnx").facts["exporter"] == "dynamo"
    assert largest_error(folder, tmp_path / "onnx", sequence=9, batch=3) < 1e-5


def test_the_format_switched_off_leaves_a_folder_that_says_so(
    figure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/checkpoint").symlink_to(figure)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    for on in (True, False):
        (tmp_path / "params.yaml").write_text(
            text.replace("  onnx: true", f"  onnx: {str(on).lower()}")
        )
        main()
        assert read_manifest(tmp_path / "artifacts/onnx").enabled == on
    assert [path.name for path in (tmp_path / "artifacts/onnx").iterdir()] == [
        "manifest.json"
    ]


# --------------------------------------------------------------------------------------
# The check reads the file: each thing that it looks for is broken once


def no_change(model: ModelProto) -> None:
    pass


def wrong_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 16


def wrong_ir_version(model: ModelProto) -> None:
    model.ir_version = 13


def unused_domain(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def unused_initialiser(model: ModelProto) -> None:
    model.graph.initializer.append(
        numpy_helper.from_array(np.zeros(3, np.float32), "left.over")
    )


def leaked_path(model: ModelProto) -> None:
    model.graph.node[0].doc_string = 'File "/home/someone/training/model.py", line 3'


def swapped_inputs(model: ModelProto) -> None:
    first, second, *rest = [
        onnx.ValueInfoProto.FromString(value.SerializeToString())
        for value in model.graph.input
    ]
    del model.graph.input[:]
    model.graph.input.extend([second, first, *rest])


def fixed_dimension(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7


def other_dtype(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def unknown_rank(model: ModelProto) -> None:
    model.graph.node.append(
        helper.make_node("Reshape", ["motion", "shape"], ["flat"], name="flat")
    )
    model.graph.node.append(
        helper.make_node("NonZero", ["motion"], ["where"], name="where")
    )
    model.graph.node.append(
        helper.make_node("Shape", ["where"], ["sizes"], name="sizes")
    )
    model.graph.node.append(
        helper.make_node("NonZero", ["sizes"], ["shape"], name="shape")
    )


def invalid_node(model: ModelProto) -> None:
    model.graph.node[-1].op_type = "Lineer"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (wrong_opset, "has opset 16, and onnx.opset is 17"),
        (wrong_ir_version, "IR version 13"),
        (unused_domain, "imports the domains"),
        (unused_initialiser, "nothing reads 1 initialisers, 'left.over'"),
        (leaked_path, "/home/someone"),
        (swapped_inputs, "has the inputs ['text_embedding', 'motion'"),
        (fixed_dimension, "has the shape [7, 'batch', 20]"),
        (other_dtype, "float64|valid ONNX"),
        (unknown_rank, "no rank|valid ONNX"),
        (invalid_node, "valid ONNX"),
    ],
)
def test_a_file_that_is_not_what_was_asked_for_is_caught(
    exported: Path, tmp_path: Path, damage: Any, told: str
) -> None:
    signature = open_runtime("onnx", exported).signature
    model = onnx.load(exported / "model.onnx")
    for change in (no_change, damage):
        change(model)
        onnx.save(model, tmp_path / f"{change.__name__}.onnx")
    check_onnx(tmp_path / "no_change.onnx", signature, 17, 8)
    with pytest.raises(CheckpointReleaseError) as error:
        check_onnx(tmp_path / f"{damage.__name__}.onnx", signature, 17, 8)
    assert any(text in str(error.value) for text in told.split("|"))


# --------------------------------------------------------------------------------------
# Variants


@pytest.mark.parametrize(
    ("file", "low", "high", "share"),
    [("fp16", 1e-7, 2e-3, 0.62), ("int8", 1e-5, 0.2, 0.5)],
)
def test_a_variant_is_smaller_and_its_error_is_its_precision_s(
    figure: Path, exported: Path, file: str, low: float, high: float, share: float
) -> None:
    error = largest_error(figure, exported / f"model_{file}.onnx", sequence=9, batch=2)
    assert low < error < high
    weights = {
        name: sum(
            len(tensor.raw_data)
            for tensor in onnx.load(exported / name).graph.initializer
        )
        for name in ("model.onnx", f"model_{file}.onnx")
    }
    assert weights[f"model_{file}.onnx"] < share * weights["model.onnx"]


def test_the_manifest_says_which_precision_each_file_has(exported: Path) -> None:
    manifest = read_manifest(exported)
    manifest.verify(exported)
    assert manifest.facts["variants"] == [
        {"file": "model_fp16.onnx", "precision": "float16"},
        {"file": "model_int8.onnx", "precision": "int8"},
    ]
    for variant in manifest.facts["variants"]:
        properties = onnx.load(exported / variant["file"]).metadata_props
        assert ("precision", variant["precision"]) in [
            (entry.key, entry.value) for entry in properties
        ]


def test_rotary_frequencies_stay_exact_in_float16(figure: Path, exported: Path) -> None:
    kept = {
        t.name: t.data_type
        for t in onnx.load(exported / "model_fp16.onnx").graph.initializer
    }
    assert {kind for name, kind in kept.items() if name.endswith("inv_freq")} == {
        TensorProto.FLOAT
    }
    assert TensorProto.FLOAT16 in kept.values()


def test_int8_of_a_traced_model_quantises_its_transposed_weights(
    figure: Path, tmp_path: Path
) -> None:
    export_onnx(figure, asked(17, "torchscript", variants=["int8"]), tmp_path / "onnx")
    operators = [
        node.op_type for node in onnx.load(tmp_path / "onnx/model_int8.onnx").graph.node
    ]
    assert operators.count("MatMulInteger") > 10


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_int8_of_a_half_precision_checkpoint_quantises_as_that_of_its_wide_one(
    tmp_path: Path, dtype: Any
) -> None:
    """The direct graph keeps half-precision weights and casts them, and the quantiser
    sees no constant behind that.
    """
    architecture = stick_figure(inputs=["motion", "text_embedding", "action_sequence"])
    halves = {
        name: array.astype(dtype) for name, array in state_dict(architecture).items()
    }
    wide = {name: array.astype(np.float32) for name, array in halves.items()}
    nodes = {}
    for name, weights in (("halves", halves), ("wide", wide)):
        checkpoint = write_checkpoint(
            tmp_path / name / "checkpoint", architecture, weights
        )
        export_onnx(checkpoint, asked(variants=["int8"]), tmp_path / name / "onnx")
        graph = onnx.load(tmp_path / name / "onnx/model_int8.onnx").graph
        nodes[name] = [node.op_type for node in graph.node].count("MatMulInteger")
        assert (
            largest_error(
                checkpoint,
                tmp_path / name / "onnx/model_int8.onnx",
                sequence=9,
                batch=2,
            )
            < 0.2
        )
    assert nodes["halves"] == nodes["wide"] > 10


def test_int8_of_a_model_with_nothing_to_quantise_is_refused(tmp_path: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "relu",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        )
    )
    from checkpoint_release.onnx.variants import make_variant

    with pytest.raises(ExportError, match="no matrix product"):
        make_variant("int8", model, {})


# --------------------------------------------------------------------------------------
# The file


def test_past_the_limit_weights_go_into_one_external_file(
    exported: Path, tmp_path: Path
) -> None:
    whole = onnx.load(exported / "model.onnx")
    weights = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer
    }
    skeleton = read_skeleton(exported / "model.onnx", keep=0)
    write_onnx(tmp_path / "model.onnx", skeleton, weights, embedded_limit=1000)
    shutil.copy(exported / "config.json", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.onnx",
        "model.onnx.data",
        "config.json",
    }
    loaded = onnx.load(tmp_path / "model.onnx")
    assert {t.name: t.raw_data for t in loaded.graph.initializer} == {
        t.name: t.raw_data for t in whole.graph.initializer
    }
    signature = open_runtime("onnx", exported).signature
    check_onnx(tmp_path / "model.onnx", signature, 17, 8)
    (tmp_path / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(ExportError):
        check_onnx(tmp_path / "model.onnx", signature, 17, 8)


def test_the_skeleton_is_the_model_without_data(exported: Path) -> None:
    whole, skeleton = (
        onnx.load(exported / "model.onnx"),
        read_skeleton(exported / "model.onnx", keep=0),
    )
    for tensor in whole.graph.initializer:
        tensor.ClearField("raw_data")
    assert skeleton == whole
    assert (
        exported / "model.onnx"
    ).stat().st_size > 5 * skeleton.ByteSize() or skeleton.ByteSize() > 0


def test_the_direct_route_needs_no_torch(figure: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.export_onnx import"
        " export_onnx; from checkpoint_release.core.params import OnnxParams;"
        " export_onnx(Path(sys.argv[1]), OnnxParams(opset=17, exporter='auto',"
        " ir_version=None, variants=[]), Path(sys.argv[2])); sys.exit('torch' in"
        " sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, figure, tmp_path / "onnx"], cwd=ROOT
    )
    assert done.returncode == 0


def test_a_file_loads_in_onnxruntime_by_itself(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    assert [value.name for value in session.get_inputs()] == [
        "motion",
        "text_embedding",
        "action_sequence",
    ]
    assert session.get_inputs()[0].shape == ["sequence", "batch", 20]
