"""The model runs alone first: what it can't do is reported as the model's or its
signature's, and nothing else is.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.runtimes import model_check
from checkpoint_release.runtimes.model_check import Behaviour, check_model
from tests.support import models, number_models, unsound_models

FEATURES: dict[str, Any] = {"name": "features", "shape": ["batch", "sequence", 4]}
TOKENS: dict[str, Any] = {
    "name": "tokens",
    "dtype": "int64",
    "shape": ["batch", "sequence"],
    "low": 0,
    "high": 11,
}
SEQUENCE = {"sequence": {"minimum": 6, "maximum": 64, "example": 8}}


def signature(
    *inputs: dict[str, Any],
    outputs: list[Any] | None = None,
    dimensions: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "inputs": list(inputs) or [FEATURES],
        "outputs": outputs or ["out"],
        "dimensions": SEQUENCE if dimensions is None else dimensions,
    }


def check(
    kind: type[nn.Module], stated: dict[str, Any] | None = None, **options: Any
) -> Behaviour:
    torch.manual_seed(0)
    read = read_signature(stated or signature())
    architecture = Architecture(f"{kind.__module__}:{kind.__name__}", {}, read)
    return check_model(kind().eval(), architecture, **options)


def message(kind: type[nn.Module], stated: dict[str, Any] | None = None) -> str:
    with pytest.raises(ModelError) as error:
        check(kind, stated)
    return str(error.value)


SOUND: list[tuple[type[nn.Module], dict[str, Any]]] = [
    *models.SIGNATURES.items(),
    *(
        (kind, signature())
        for kind in (
            number_models.FourierLayer,
            number_models.Rotations,
            number_models.StateSpace,
            number_models.DoubleBuffer,
            number_models.BFloat16,
            number_models.Float16,
            unsound_models.Buffered,
            unsound_models.Regularised,
            unsound_models.DecidesByValue,
        )
    ),
]


@pytest.mark.parametrize(
    ("kind", "stated"), SOUND, ids=[kind.__name__ for kind, _ in SOUND]
)
def test_a_sound_model_passes(kind: type[nn.Module], stated: dict[str, Any]) -> None:
    assert check(kind, stated).notes == ()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (unsound_models.Noisy, ["draws random numbers", "randn_like (unsound_models"]),
        (unsound_models.DropsAlways, ["draws random numbers", "dropout (unsound_mod"]),
        (unsound_models.RandomOutsideTorch, ["draws random numbers", "outside of tor"]),
        (
            unsound_models.StaysInTraining,
            ["in training mode after eval()", "drop (Dropout)", "overrides eval()"],
        ),
        (unsound_models.Counts, ["keeps something between calls", "changes calls"]),
        (unsound_models.Accumulates, ["keeps something between calls", "last"]),
        (unsound_models.Optional, ["returned 2 tensors", "aux was None"]),
        (unsound_models.Spectrum, ["'out' is complex64", "view_as_real"]),
        (unsound_models.HalfOutput, ["'out' is bfloat16", "x.float()"]),
        (unsound_models.Broken, ["the model by itself", "KeyError: 'lost'"]),
        (number_models.Double, ["dtype of 'features' is float32", "dtype: float64"]),
    ],
)
def test_what_a_model_does_wrong_is_named(
    kind: type[nn.Module], said: list[str]
) -> None:
    text = message(kind)
    for words in said:
        assert words in text
    assert "constant" not in text and "exporter" not in text


@pytest.mark.parametrize(
    ("kind", "stated", "said"),
    [
        (
            unsound_models.Table,
            signature(),
            ["model.signature.dimensions.sequence.maximum is 64", "set it to 16"],
        ),
        (
            unsound_models.Table,
            signature(dimensions={"sequence": {"example": 8}}),
            ["model.signature.dimensions.sequence.maximum is null", "set it to 16"],
        ),
        (
            unsound_models.Windows,
            signature(dimensions={"sequence": {"minimum": 1, "example": 8}}),
            ["model.signature.dimensions.sequence.minimum is 1", "set it to 3"],
        ),
        (
            unsound_models.Halves,
            signature(),
            [
                "model.signature.dimensions.sequence allows",
                "multiples of 2",
                "state `multiple: 2`",
            ],
        ),
        (
            unsound_models.TwoInputs,
            signature(FEATURES, {"name": "others", "shape": ["batch", "length", 4]}),
            ["sequence and length are two", "write sequence in the place of length"],
        ),
        (
            unsound_models.Words,
            signature({**TOKENS, "high": 12}),
            ["high of 'tokens' is 12", "index out of range", "high: 11"],
        ),
        (
            unsound_models.Words,
            signature({**TOKENS, "high": 500}),
            ["high of 'tokens' is 500", "high: 11"],
        ),
        (
            unsound_models.Words,
            signature({**TOKENS, "low": -1}),
            ["low of 'tokens' is -1", "low: 0"],
        ),
        (
            unsound_models.Words,
            signature({"name": "tokens", "shape": ["batch", "sequence"]}),
            ["dtype of 'tokens' is float32", "dtype: int64"],
        ),
        (
            unsound_models.Head,
            signature({**FEATURES, "dtype": "int64", "low": 0, "high": 3}),
            ["dtype of 'features' is int64", "dtype: float32"],
        ),
        (
            unsound_models.Head,
            signature({**FEATURES, "shape": ["batch", "sequence", 5]}),
            ["shape of 'features'", "state ['batch', 'sequence', 4]"],
        ),
        (
            unsound_models.Head,
            signature({**FEATURES, "shape": ["batch", "sequence"]}),
            ["dimensions.sequence is 8 in examples", "write 4 in its place"],
        ),
        (
            unsound_models.Head,
            signature(outputs=[{"name": "out", "dtype": "int64"}]),
            ["outputs: dtype of 'out' is int64", "dtype: float32"],
        ),
        (
            unsound_models.Head,
            signature(outputs=[{"name": "out", "shape": ["batch", 4]}]),
            ["outputs: shape of 'out' is ['batch', 4]", "gives [2, 8, 4]"],
        ),
        (
            unsound_models.Head,
            signature(outputs=["one", "two"]),
            ["returned 1 tensor, and the signature names ['one', 'two']"],
        ),
    ],
)
def test_the_key_of_the_signature_that_is_wrong_is_named(
    kind: type[nn.Module], stated: dict[str, Any], said: list[str]
) -> None:
    text = message(kind, stated)
    for words in said:
        assert words in text
    assert "model.signature" in text
    assert "change what forward does" not in text


def test_the_corrected_signature_passes() -> None:
    """What the messages say to state is right."""
    check(unsound_models.Table, signature(dimensions={"sequence": {"maximum": 16}}))
    three = {"minimum": 3, "example": 3}
    check(unsound_models.Windows, signature(dimensions={"sequence": three}))
    check(unsound_models.Words, signature(TOKENS))
    others = {"name": "others", "shape": ["batch", "sequence", 4]}
    check(unsound_models.TwoInputs, signature(FEATURES, others))
    float64 = {**FEATURES, "dtype": "float64"}
    output = {"name": "out", "dtype": "float64"}
    check(number_models.Double, signature(float64, outputs=[output]))


def test_decisions_by_values_and_complex_numbers_are_seen_with_their_lines() -> None:
    plain = check(unsound_models.Head)
    assert plain.decisions == () and plain.complex_at == ()
    (decision,) = check(unsound_models.DecidesByValue).decisions
    assert decision.startswith("unsound_models.py:")
    assert check(number_models.Rotations).complex_at[0].startswith("number_models.py:")
    # torch's own layers decide by their inputs too, and follow them in a graph
    assert check(unsound_models.Regularised).decisions == ()


def test_random_numbers_of_others_stay_as_they_were() -> None:
    def drawn() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.rand()), random.random()

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    expected = drawn()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    kind = unsound_models.Noisy
    architecture = Architecture("any:model", {}, read_signature(signature()))
    with torch.random.fork_rng():
        model = kind().eval()
    with pytest.raises(ModelError):
        check_model(model, architecture)
    assert drawn() == expected


def test_a_model_that_takes_long_is_not_run_at_its_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_check, "_PATIENCE", 0.0)
    stated = signature(dimensions={"sequence": {"maximum": 10**9, "example": 8}})
    notes = check(unsound_models.Head, stated).notes
    assert "sequence was tried up to 11" in notes[0] and "1000000000" in notes[0]


def test_a_signature_that_a_family_describes_is_named_as_its_own() -> None:
    read = read_signature(signature())
    architecture = Architecture("my.family:build", {}, read, described=True)
    with pytest.raises(ModelError, match=r"maximum in what my\.family\.signature"):
        check_model(unsound_models.Table().eval(), architecture)
