"""Where an error comes from is looked for apart, and what is found is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.parity import divergence, machine
from tests.support.parity_world import World


def test_a_right_graph_diverges_in_no_node(
    world: World, exported: dict[str, Path]
) -> None:
    file, inputs = exported["onnx"] / ONNX.file, world.cases[0].inputs
    assert divergence.find_divergence(world.checkpoint, file, inputs, "pose") == (
        "evaluated in float64 the graph computes what the model computes, so no node of"
        " it diverges: the error arises where ONNX Runtime computes in less precision"
    )


def test_the_search_is_named_by_what_it_looks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(divergence, "search_isolated", lambda *call: asked.extend(call))
    folder, file = Path("checkpoint"), Path("model.onnx")
    divergence.explain_divergence(folder, file, {}, "pose")
    search = divergence.find_divergence
    expected = ["the first node that diverges", search, folder, file, {}, "pose"]
    assert asked == expected


def test_the_machine_is_described_by_the_libraries_that_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "call_isolated", lambda *call, **how: "AVX2")
    found = machine.this_machine()
    assert list(found.libraries) == ["numpy", "onnxruntime", "torch"]
    assert found.cpu_capability == "AVX2"
