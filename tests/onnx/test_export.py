"""An export is exactly what was asked for, by any route, or says why it can't be before
or after the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ExportError, OpsetError
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.onnx.routes import Plan, other_plans, plan_export
from checkpoint_release.runtimes.eager import build_eager
from tests.support import models
from tests.support.checkpoint_folder import write_checkpoint
from tests.support.exports import export_to_onnx, largest_error
from tests.support.stick_figure import stick_figure

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


def opsets(model: ModelProto) -> list[tuple[str, int]]:
    return [(entry.domain, entry.version) for entry in model.opset_import]


# --------------------------------------------------------------------------------------
# What was asked for


@pytest.mark.parametrize("opset", LOWEST_IR)
def test_every_opset_comes_out_as_asked_and_in_the_lowest_ir_version(
    figure: Path, tmp_path: Path, opset: int
) -> None:
    export = export_to_onnx(figure, tmp_path / "onnx", opset=opset)
    model = onnx.load(tmp_path / "onnx/model.onnx")
    assert opsets(model) == [("", opset)]
    assert model.ir_version == LOWEST_IR[opset]
    assert export.exporter == "direct"
    error = largest_error("onnx", figure, tmp_path / "onnx", sequence=11, batch=3)
    assert error < 1e-5


def test_the_ir_version_can_be_pinned(figure: Path, tmp_path: Path) -> None:
    export_to_onnx(figure, tmp_path / "onnx", ir_version=10)
    assert onnx.load(tmp_path / "onnx/model.onnx").ir_version == 10


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"opset": 21, "exporter": "torchscript"},
            [
                "onnx.opset is 21",
                "torchscript 14 to 20",
                "dynamo 18 to 25",
                "direct 14 to 25",
            ],
        ),
        (
            {"opset": 17, "exporter": "dynamo"},
            ["onnx.opset is 17", "dynamo 18 to 25"],
        ),
        (
            {"opset": 21, "ir_version": 9},
            ["onnx.ir_version is 9", "opset 21", "10 to"],
        ),
        ({"opset": 17, "ir_version": 99}, ["onnx.ir_version is 99", "8 to"]),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_work(
    options: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    folder = write_checkpoint(
        tmp_path / "checkpoint", stick_figure(), {"no": np.zeros(1, np.float32)}
    )
    with pytest.raises(OpsetError) as error:  # with weights that no route could export
        export_to_onnx(folder, tmp_path / "onnx", **options)
    for text in expected:
        assert text in str(error.value)
    assert not list((tmp_path / "onnx").iterdir())


def test_a_command_line_spells_the_options_that_an_error_names() -> None:
    with pytest.raises(OpsetError) as error:
        plan_export(stick_figure(), 21, exporter="torchscript")
    message = error.value.message(lambda option: "--" + option.partition(".")[2])
    assert message.startswith(
        "--opset is 21, and --exporter torchscript can't write it"
    )


def test_a_model_without_a_graph_of_its_own_has_no_direct_route() -> None:
    architecture = Architecture(
        "tests.support.models:TiedLanguageModel",
        {},
        read_signature(models.SIGNATURES[models.TiedLanguageModel]),
    )
    with pytest.raises(ExportError, match=r"onnx\.exporter is direct"):
        plan_export(architecture, 17, exporter="direct")
    assert plan_export(architecture, 17).routes == ["torchscript"]
    assert plan_export(architecture, 19).routes == ["torchscript", "dynamo"]
    assert plan_export(architecture, 25).routes == ["dynamo"]


def test_a_family_states_the_opsets_of_its_own_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = "checkpoint_release.models.stick_figure"
    monkeypatch.setattr(f"{family}.ONNX_OPSETS", range(17, 19), raising=False)
    assert plan_export(stick_figure(), 18).routes[0] == "direct"
    assert plan_export(stick_figure(), 16).routes == ["torchscript"]
    monkeypatch.delattr(f"{family}.ONNX_OPSETS")  # it can be asked for any
    assert plan_export(stick_figure(), 14).routes[0] == "direct"
    assert plan_export(stick_figure(), 25).routes[0] == "direct"


def test_a_direct_graph_that_fails_is_named_and_auto_takes_another_route(
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
        export_to_onnx(figure, tmp_path / "direct", exporter="direct")
    export = export_to_onnx(figure, tmp_path / "auto")
    assert export.exporter == "torchscript"


def test_a_file_loads_in_onnxruntime_by_itself(onnx_files: Path) -> None:
    session = onnxruntime.InferenceSession(onnx_files / "model.onnx")
    assert [value.name for value in session.get_inputs()] == [
        "motion",
        "text_embedding",
        "action_sequence",
    ]
    assert session.get_inputs()[0].shape == ["sequence", "batch", 20]


# --------------------------------------------------------------------------------------
# Any module, by the general routes


def check_general(
    kind: type[nn.Module], exporter: str, opset: int, tmp_path: Path
) -> ModelProto:
    folder = models.checkpoint(tmp_path / "checkpoint", kind)
    export_to_onnx(folder, tmp_path / "onnx", opset=opset, exporter=exporter)
    model = onnx.load(tmp_path / "onnx/model.onnx")
    assert opsets(model) == [("", opset)]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    sizes = {
        name: dimension.example + 4
        for name, dimension in build_eager(folder, OWN_ARTIFACTS)[1].dimensions.items()
    }
    assert largest_error("onnx", folder, tmp_path / "onnx", **sizes) < 1e-5
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
    export_to_onnx(figure, tmp_path / "onnx", opset=opset, exporter=exporter)
    expected = {
        name: tensor.numpy()
        for name, tensor in build_eager(figure, OWN_ARTIFACTS)[0].state_dict().items()
    }
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "onnx/model.onnx").graph.initializer
    }
    own = {
        name: array
        for name, array in stored.items()
        if not name.startswith(("constant_", "constant/"))
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
    names = {tensor.name for tensor in model.graph.initializer}
    assert len({"embedding.weight", "head.weight"} & names) == 1
    assert {"first.weight", "second.weight", "first.bias", "second.bias"} <= names


def test_nodes_are_called_after_the_modules_that_they_are_in(
    figure: Path, tmp_path: Path
) -> None:
    export_to_onnx(figure, tmp_path / "onnx", exporter="torchscript")
    graph = onnx.load(tmp_path / "onnx/model.onnx").graph
    names = [node.name for node in graph.node]
    assert "transformer_encoder.layers.0.self_attn.q_proj/MatMul" in names
    assert len(set(names)) == len(names)
    assert graph.name == "StickFigureTransformer"
    ranked = {
        value.name
        for value in graph.value_info
        if value.type.tensor_type.HasField("shape")
    }
    computed = {name for node in graph.node for name in node.output}
    assert computed - {value.name for value in graph.output} <= ranked


def test_a_dimension_baked_in_by_tracing_is_caught(tmp_path: Path) -> None:
    folder = models.checkpoint(tmp_path / "checkpoint", models.Baked)
    with pytest.raises(ExportError, match=r"sequence 8.* off the eager model's by"):
        export_to_onnx(folder, tmp_path / "onnx")
    assert not list((tmp_path / "onnx").iterdir())


def test_a_model_that_a_route_cannot_export_is_one_clear_error(tmp_path: Path) -> None:
    folder = models.checkpoint(tmp_path / "checkpoint", models.FourierTransform)
    with pytest.raises(ExportError) as error:
        export_to_onnx(folder, tmp_path / "onnx", opset=18, exporter="torchscript")
    problem = error.value.problem
    assert "the torchscript route can't export the model at opset 18" in problem
    assert "fft_rfft" in problem
    assert "\n" not in problem
    assert "set onnx.exporter to dynamo" in error.value.remedy


def test_where_nothing_can_export_the_model_the_error_names_each_route_s_cause(
    tmp_path: Path,
) -> None:
    folder = models.checkpoint(tmp_path / "checkpoint", models.Forking)
    with pytest.raises(ExportError) as error:
        export_to_onnx(folder, tmp_path / "onnx", opset=18)
    assert "model.onnx at" in error.value.problem  # the trace took one side of the fork
    assert "the dynamo route can't export the model at opset 18" in error.value.problem
    assert not list((tmp_path / "onnx").iterdir())


@pytest.mark.slow
def test_a_model_that_tracing_cannot_export_takes_the_other_route(
    tmp_path: Path,
) -> None:
    folder = models.checkpoint(tmp_path / "checkpoint", models.FourierTransform)
    export = export_to_onnx(folder, tmp_path / "onnx", opset=18)
    assert export.exporter == "dynamo"
    assert largest_error("onnx", folder, tmp_path / "onnx", sequence=9, batch=3) < 1e-5


def test_what_is_tried_after_a_failure_is_the_other_routes_and_then_newer_opsets() -> (
    None
):
    signature = read_signature(
        {"inputs": [{"name": "x", "shape": [3]}], "outputs": ["y"]}
    )
    architecture = Architecture("tests.support.models:Argmax", {}, signature)
    others = other_plans(architecture, Plan(17, 8, ["torchscript"]))
    assert [(*plan.routes, plan.opset) for plan in others] == [
        ("dynamo", 18),
        ("torchscript", 20),
        ("dynamo", 25),
    ]
    last = Plan(25, 13, ["dynamo"])
    assert [plan.opset for plan in other_plans(architecture, last)] == [20]
