"""A family's example is one more case, and is kept for the card."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.parity import EXAMPLE_INPUTS, EXAMPLE_OUTPUTS
from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.models.stick_figure.example import FRAMES
from checkpoint_release.parity.example import EXAMPLE, example_cases, write_example
from tests.support.parity_world import World
from tests.support.stick_figure import WHOLE_FIGURE, stick_figure


def trusted(architecture: Architecture) -> Architecture:
    return architecture.trusting(OWN_ARTIFACTS)


def family(monkeypatch: pytest.MonkeyPatch, example: Any) -> Architecture:
    """The stick figure's architecture, its family returning another example."""
    module = ModuleType("other_family")
    module.example = lambda kwargs, signature: example  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_family", module)
    figure = stick_figure(WHOLE_FIGURE)
    return trusted(
        Architecture("other_family:build", figure.kwargs, figure.signature, True)
    )


def test_the_example_of_a_family_is_a_case() -> None:
    (case,) = example_cases(trusted(stick_figure(WHOLE_FIGURE)))
    assert case.name == f"example, sequence={FRAMES}, batch=1"
    assert case.kind == EXAMPLE and not case.drawn


def test_a_family_without_an_example_has_no_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert example_cases(family(monkeypatch, None)) == []
    stated = Architecture("torch.nn:Linear", {}, stick_figure(WHOLE_FIGURE).signature)
    assert example_cases(stated) == []


@pytest.mark.parametrize("wrong", [["motion"], {}, {"motion": np.zeros((2, 1, 48))}])
def test_an_example_that_the_model_does_not_take_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    with pytest.raises(ModelError, match="isn't what the model takes") as error:
        example_cases(family(monkeypatch, wrong))
    assert "function `example`" in error.value.remedy


def test_what_the_model_makes_of_the_example_is_written(
    world: World, tmp_path: Path
) -> None:
    write_example(tmp_path, world.reference)
    assert not list(tmp_path.iterdir())  # these cases have no example
    first = world.reference.cases[0]
    example = replace(first, case=replace(first.case, kind=EXAMPLE))
    write_example(tmp_path, replace(world.reference, cases=[example]))
    inputs = load_file(tmp_path / EXAMPLE_INPUTS)
    outputs = load_file(tmp_path / EXAMPLE_OUTPUTS)
    assert all(np.array_equal(inputs[name], first.case.inputs[name]) for name in inputs)
    assert np.array_equal(outputs["pose"], first.outputs["pose"].rounded)
