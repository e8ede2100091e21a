"""The report shows where in the ONNX graph an error arises."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.artifacts.parity import PARITY_FOLDER
from checkpoint_release.core.artifacts.release import Sample
from checkpoint_release.parity.sample import save_arrays
from checkpoint_release.report import nodes as nodes_module
from checkpoint_release.report.modules import NodeError, by_module, nodes_picture
from checkpoint_release.report.node_errors import compute_node_errors
from checkpoint_release.report.nodes import CACHE, node_errors
from tests.support.exports import FIGURE_INPUTS, export_to_onnx
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import random_inputs

NARROWED = "motion_embedding.0/linear"


def node(name: str, error: float, operator: str = "Gemm") -> NodeError:
    return NodeError(name=name, operator=operator, error=error)


NODES = [
    node("a.0/linear", 1e-7),
    node("a.1/scaled", 3e-7, "Mul"),
    node("a.0/again", 2e-7),
    node("b/rows", 0.0, "Reshape"),
]


def test_nodes_are_counted_by_module_in_the_order_of_the_graph() -> None:
    modules = by_module(NODES)
    assert [module.name for module in modules] == ["a.0", "a.1", "b"]
    first = modules[0]
    assert first.operators == "2 Gemm" and first.last.name == "a.0/again"
    assert first.worst.error == 2e-7


def test_the_picture_names_the_worst_node_and_leaves_out_exact_ones() -> None:
    picture = nodes_picture(NODES)
    assert picture is not None
    assert "4 nodes; the largest is 3.0e-07 of the value, at a.1/scaled (Mul)" in (
        picture.alt
    )
    assert picture.svg.count('aria-roledescription="point"') == 3
    assert nodes_picture([NODES[-1]]) is None


def test_of_many_parts_the_smallest_share_a_name() -> None:
    many = [node(f"part{number}.0/x", 1e-7) for number in range(30)]
    many += [node("large/x", 1e-7)] * 40
    picture = nodes_picture(many)
    assert picture is not None
    assert ">others<" in picture.svg and ">large<" in picture.svg
    assert ">part29<" not in picture.svg


@pytest.fixture
def artifacts(figure: Path, tmp_path: Path) -> Path:
    """The small stick figure with its graph and a sample."""
    folder = tmp_path / "artifacts"
    shutil.copytree(figure, folder / CHECKPOINT)
    export_to_onnx(figure, folder / ONNX.name)
    write_manifest(folder / ONNX.name, ONNX.name)
    sample = folder / PARITY_FOLDER / Sample().inputs
    sample.parent.mkdir(parents=True)
    save_arrays(sample, random_inputs(stick_figure(inputs=FIGURE_INPUTS)))
    return folder


def narrow(artifacts: Path) -> None:
    """Round what one node gives to float16, and compute on in float32."""
    file = artifacts / ONNX.name / ONNX.file
    model = onnx.load(file)
    place = [each.name for each in model.graph.node].index(NARROWED)
    exact = model.graph.node[place]
    (output,) = exact.output
    exact.name = exact.output[0] = f"{output}/exact"
    for number, (source, target, dtype) in enumerate(
        (
            (f"{output}/exact", f"{output}/half", TensorProto.FLOAT16),
            (f"{output}/half", output, TensorProto.FLOAT),
        )
    ):
        cast = helper.make_node("Cast", [source], [target], name=target, to=dtype)
        model.graph.node.insert(place + 1 + number, cast)
    onnx.save(model, file)
    write_manifest(file.parent, ONNX.name)


def test_a_node_that_rounds_to_float16_is_where_the_error_begins(
    artifacts: Path,
) -> None:
    right = {each.name: each.error for each in compute_node_errors(artifacts)}
    assert len(right) > 100 and max(right.values()) < 1e-5
    narrow(artifacts)
    wrong = compute_node_errors(artifacts)
    names = [each.name for each in wrong]
    place = names.index(f"{NARROWED}/half")
    before = [each for each in wrong[:place] if each.module != "frames"]
    assert max(each.error for each in before) < 1e-5
    assert 1e-5 < wrong[place].error < 1e-2
    assert next(each for each in wrong if each.error > 1e-5).name == names[place]


@pytest.mark.slow
def test_the_report_computes_the_nodes_once_and_again_after_a_change(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = artifacts.parent
    monkeypatch.chdir(root)
    (root / CACHE).parent.mkdir(parents=True)
    assert main(["report"]) == 0
    page = (artifacts / "report.html").read_text(encoding="utf-8")
    assert "The ONNX graph, node by node" in page and NARROWED in page

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("it was computed again")

    with monkeypatch.context() as patched:
        patched.setattr(nodes_module, "call_isolated", refused)
        known = node_errors(root, artifacts)
        assert known is not None and len(known.nodes) > 100
        narrow(artifacts)
        with pytest.raises(AssertionError, match="computed again"):
            node_errors(root, artifacts)
    changed = node_errors(root, artifacts)
    assert changed is not None and changed.made_from != known.made_from
    (artifacts / ONNX.name / ONNX.file).write_bytes(b"no graph")
    write_manifest(artifacts / ONNX.name, ONNX.name)
    broken = node_errors(root, artifacts)
    assert broken is not None and "the process ended" in broken.reason
    assert main(["report"]) == 0
    page = (artifacts / "report.html").read_text(encoding="utf-8")
    assert "Its nodes could not be compared" in page


def test_a_graph_that_is_too_large_is_not_evaluated(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "LARGEST", 1000)
    found = node_errors(artifacts.parent, artifacts)
    assert found is not None and not found.nodes
    assert "isn't evaluated node by node" in found.reason


def test_without_a_graph_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert node_errors(tmp_path, tmp_path / "artifacts") is None
