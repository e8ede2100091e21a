"""Rows of the table that are quickly installed are run with every change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.runtime_rows.__main__ import is_changed
from tests.runtime_rows.measuring import NOT_RUN, Bench, Outcome
from tests.runtime_rows.rows import QUICK, ROWS, WRONG, Row
from tests.support.project import Project

pytestmark = pytest.mark.slow
PATIENCE = 120  # seconds


@pytest.fixture(scope="module")
def bench(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The demo's release, as `dvc repro` makes it."""
    project = built.copy(tmp_path_factory.mktemp("rows") / "project")
    bench = Bench(project.path)
    bench.write_ort()
    return bench


def measure(bench: Bench, row: Row) -> Outcome:
    """What comes of a row; one that can't be had here is skipped."""
    outcome = bench.measure(row, PATIENCE)
    if outcome.verdict == NOT_RUN:
        pytest.skip(outcome.line.result)
    return outcome


@pytest.mark.parametrize("name", QUICK)
def test_a_runtime_gives_the_demos_outputs(bench: Bench, name: str) -> None:
    row = row_of(name)
    outcome = measure(bench, row)
    assert not is_changed(row, outcome), outcome.line
    assert outcome.line.version


@pytest.mark.parametrize("name", ["onnxruntime-node", "tract"])
def test_a_runtime_that_reads_a_wrong_weight_is_seen_to_be_wrong(
    bench: Bench, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.onnx"
    write_with_a_wrong_weight(bench.path(row_of(name).reads), path)
    outcome = measure(bench, replace(row_of(name), reads=str(path)))
    assert outcome.verdict == WRONG, outcome.line


def row_of(name: str) -> Row:
    (row,) = [row for row in ROWS if row.name == name]
    return row


def write_with_a_wrong_weight(path: Path, changed: Path) -> None:
    """Write an ONNX file whose largest weight has an element that is off by 1%."""
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda weight: len(weight.raw_data))
    array = numpy_helper.to_array(largest).copy()
    array.flat[abs(array).argmax()] *= 1.01
    largest.CopyFrom(numpy_helper.from_array(array, largest.name))
    onnx.save(model, changed)
