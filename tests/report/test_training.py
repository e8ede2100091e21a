"""Curves of training are found where a checkpoint or its trainer left them."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint_release.report.training import (
    curves_of_facts,
    curves_of_table,
    history_beside,
    training_picture,
)


def test_lists_of_numbers_and_of_records_are_curves() -> None:
    facts = {
        "history": {"loss": [3, 2.5, 2.0], "note": ["a", "b", "c"]},
        "log": [{"step": n, "accuracy": n / 10} for n in range(4)],
        "betas": [0.9, 0.999],
        "flags": [True, False, True],
        "broken": [1.0, float("nan"), 2.0],
    }
    assert curves_of_facts(facts) == {
        "history.loss": [3.0, 2.5, 2.0],
        "log.step": [0.0, 1.0, 2.0, 3.0],
        "log.accuracy": [0.0, 0.1, 0.2, 0.3],
    }


def test_the_table_beside_a_checkpoint_is_read(tmp_path: Path) -> None:
    table = history_beside(tmp_path / "model.pth")
    assert table == tmp_path / "model-history.csv"
    assert curves_of_table(table) == {}
    table.write_text("epoch,val_loss,stage\n0,2.0,warm\n1,1.0,warm\n2,0.5,main\n")
    assert curves_of_table(table) == {
        "epoch": [0.0, 1.0, 2.0],
        "val_loss": [2.0, 1.0, 0.5],
    }


@pytest.mark.parametrize(
    "content", [b"", b"epoch\n", b"a,b\n1\n2\n3\n", b"\xff\xfe\x00", b"a\nx\ny\nz\n"]
)
def test_a_file_that_is_no_such_table_has_no_curves(
    tmp_path: Path, content: bytes
) -> None:
    (table := tmp_path / "model-history.csv").write_bytes(content)
    assert curves_of_table(table) == {}


def test_one_measure_on_two_data_sets_is_one_chart_along_the_epochs() -> None:
    curves = {
        "epoch": [0.0, 1.0, 2.0],
        "train_loss": [1.0, 0.1, 0.01],
        "val_loss": [1.1, 0.2, 0.03],
        "learning_rate": [3.0, 2.0, 1.0],
    }
    picture = training_picture(curves)
    assert picture is not None
    assert picture.alt == "Curves of training: loss, learning_rate."
    assert picture.svg.count(">epoch</text>") == 2
    assert ">train</text>" in picture.svg and ">val</text>" in picture.svg
    assert training_picture({"epoch": [0.0, 1.0, 2.0]}) is None
