"""checkpoint-release signature: a draft that the model itself confirms."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from checkpoint_release.__main__ import main
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ModelError, UntrustedCodeError
from checkpoint_release.core.signature import (
    Signature,
    TensorSpec,
    known_shape,
    sample_inputs,
)
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import NO_TRUST, OWN_ARTIFACTS
from checkpoint_release.core.yaml_text import parse_yaml
from checkpoint_release.drafting.draft import Draft, draft_signature
from checkpoint_release.drafting.relations import separated
from checkpoint_release.drafting.text import draft_yaml
from checkpoint_release.drafting.trials import Trials
from checkpoint_release.runtimes.model_alone import ModelAlone
from checkpoint_release.runtimes.model_check import check_model
from tests.drafting.models import Choosing, Remembering
from tests.support.own_repository import own_repository

Printed = pytest.CaptureFixture[str]
MODELS = "tests.support.models"
OWN = "tests.drafting.models"
HERE = __name__


class Positions(nn.Module):
    """Words at learned positions, of which there are 20."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 4)
        self.places = nn.Embedding(20, 4)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        places = torch.arange(tokens.shape[1])
        return self.words(tokens) + self.places(places)


class Flattened(nn.Module):
    """Takes images of one size alone: 64 × 64."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 1, 1)
        self.head = nn.Linear(64 * 64, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.filter(image).flatten(1))


class Recurrent(nn.Module):
    """A sequence before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(6, 5)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(steps)


class Frames(nn.Module):
    """Takes frames of sound, of one length, and prints when it is built."""

    def __init__(self) -> None:
        super().__init__()
        print("built")
        self.filter = nn.Conv1d(1, 2, 512, stride=4)
        self.head = nn.Linear(2 * 129, 3)

    def forward(self, sound: Tensor) -> Tensor:
        return self.head(self.filter(sound[:, None]).flatten(1))


class Normalised(nn.Module):
    """Takes what its first layer normalises."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([2, 7])
        self.filter = nn.Conv1d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(self.norm(x))


class Text(nn.Module):
    """Takes what no tensor is."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, text: str) -> Tensor:
        return self.head(torch.ones(len(text.split()), 2))


def whole_draft(factory: str, **kwargs: Any) -> Draft:
    nothing = Signature((), (), {})
    return draft_signature(Architecture(factory, kwargs, nothing, trust=OWN_ARTIFACTS))


def draft(factory: str, **kwargs: Any) -> Signature:
    return whole_draft(factory, **kwargs).signature


def shapes(specs: Iterable[TensorSpec]) -> dict[str, Any]:
    return {spec.name: spec.shape for spec in specs}


@pytest.mark.parametrize(
    ("factory", "kwargs", "inputs", "dimensions"),
    [
        pytest.param(
            f"{MODELS}:TinyUNet",
            {},
            {"image": ("batch", 1, "height", "width")},
            {"height": "4 to any number, multiples of 4"},
            marks=pytest.mark.slow,
        ),
        (
            f"{MODELS}:TiedLanguageModel",
            {"tokens": 11, "width": 4},
            {"tokens": ("batch", "sequence")},
            {"sequence": "1 to any number"},
        ),
        (
            f"{MODELS}:Guided",
            {},
            {"features": ("batch", 4), "step": ("batch",), "strength": ("batch", 4)},
            {},
        ),
        (
            f"{HERE}:Positions",
            {},
            {"tokens": ("batch", "sequence")},
            {"sequence": "1 to 20"},
        ),
        (f"{HERE}:Flattened", {}, {"image": ("batch", 3, 64, 64)}, {}),
        (f"{HERE}:Frames", {}, {"sound": ("batch", 1024)}, {}),
        (f"{HERE}:Normalised", {}, {"x": ("batch", 2, 7)}, {}),
        (f"{HERE}:Recurrent", {}, {"steps": ("sequence", "batch", 6)}, {}),
        (
            f"{OWN}:Translating",
            {},
            {"source": ("batch", "sequence"), "target": ("batch", "target_sequence")},
            {"sequence": "1 to any number", "target_sequence": "1 to any number"},
        ),
        (
            f"{OWN}:Aligned",
            {},
            {"source": ("batch", "sequence"), "target": ("batch", "sequence")},
            {},
        ),
        (
            f"{OWN}:Spoken",
            {},
            {
                "tokens": ("batch", "sequence"),
                "frames": ("batch", "2*sequence + 1", 8),
            },
            {"sequence": "1 to any number"},
        ),
        pytest.param(
            f"{OWN}:Square",
            {},
            {"image": ("batch", 3, "side", "side")},
            {},
            marks=pytest.mark.slow,  # many sides are tried
        ),
        (
            f"{OWN}:Streaming",
            {},
            {
                "frames": ("batch", "sequence", 5),
                "h": (2, "batch", 7),
                "c": (2, "batch", 7),
            },
            {"batch": "1 to any number", "sequence": "1 to any number"},
        ),
        pytest.param(
            f"{OWN}:Starting",
            {},
            {"frames": ("batch", "sequence", 5)},
            {"sequence": "1 to any number"},
            marks=pytest.mark.slow,
        ),
        (
            f"{OWN}:Recognising",
            {},
            {"sound": ("batch", 4, "length"), "sound_lengths": ("batch",)},
            {},
        ),
        (
            f"{OWN}:Placed",
            {},
            {"tokens": ("batch", "sequence")},
            {"sequence": "1 to 1000", "batch": "1 to any number"},
        ),
        (
            f"{OWN}:Merging",
            {},
            {"sound": ("batch", 2, "length")},
            {"length": "4 to any number, multiples of 4"},
        ),
    ],
)
def test_a_draft_is_a_signature_that_the_model_keeps(
    factory: str, kwargs: dict[str, Any], inputs: Any, dimensions: Any
) -> None:
    signature = draft(factory, **kwargs)
    assert {spec.name: spec.shape for spec in signature.inputs} == inputs
    found = {name: each.bounds for name, each in signature.dimensions.items()}
    assert {**found, **dimensions} == found
    # as params.yaml reads it, it stands the check that comes before every export
    again = read_signature(parse_yaml(draft_yaml(Draft(signature)).encode()))
    assert again == signature
    architecture = Architecture(factory, kwargs, again, trust=OWN_ARTIFACTS)
    model = architecture.find_factory()(**kwargs).eval()
    sizes = {name: each.example for name, each in again.dimensions.items()}
    outputs = ModelAlone(model, architecture).run(sample_inputs(again, sizes, 0))
    for spec, tensor in zip(again.outputs, outputs, strict=True):
        assert known_shape(spec, sizes) == tuple(tensor.shape)
    check_model(model, architecture)  # widens it


def test_the_highest_integers_are_those_of_the_table_that_is_asked() -> None:
    (tokens,) = draft(f"{HERE}:Positions").inputs
    assert (tokens.low, tokens.high) == (0, 50)


def test_a_model_that_runs_on_no_guess_is_one_error() -> None:
    with pytest.raises(
        ModelError, match=r"takes \['text'\], and ran on none"
    ) as caught:
        draft(f"{HERE}:Text")
    assert "gave TypeError: Tensor.split() missing" in caught.value.problem


def test_a_state_that_is_a_tuple_is_put_right_by_a_subclass() -> None:
    with pytest.raises(ModelError, match="the state is that of a batch") as caught:
        draft(f"{OWN}:Paired")
    assert "a subclass whose forward takes the tensors" in caught.value.remedy


def test_lengths_are_integers_of_the_batch() -> None:
    signature = draft(f"{OWN}:Recognising")
    lengths = signature.inputs[1]
    assert (lengths.dtype, lengths.low, lengths.high) == ("int64", 1, 13)
    assert signature.outputs[1].dtype == "int64"


def test_a_draft_on_a_busy_machine_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Time that others take of the processor is none of the draft's patience."""
    expected = draft(f"{HERE}:Positions")
    clock = count(step=3600.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert draft(f"{HERE}:Positions") == expected
    monkeypatch.setattr(time, "thread_time", lambda: next(clock))
    with pytest.raises(ModelError, match="ran on none"):
        draft(f"{HERE}:Positions")


def test_nobody_else_s_code_runs_for_a_draft() -> None:
    nothing = Signature((), (), {})
    with pytest.raises(UntrustedCodeError):
        draft_signature(Architecture(f"{HERE}:Text", {}, nothing, trust=NO_TRUST))


def test_what_the_model_prints_is_no_part_of_the_draft(capsys: Printed) -> None:
    assert main(["signature", f"{HERE}:Frames"]) == 0
    printed = capsys.readouterr()
    assert read_signature(parse_yaml(printed.out.encode())) == draft(f"{HERE}:Frames")
    assert printed.err == "built\n"


# Outputs


@pytest.mark.parametrize(
    ("factory", "outputs"),
    [
        (
            "Merging",
            {"merged": ("batch", 3, "length/4"), "again": ("batch", 3, "2*length")},
        ),
        ("Rounding", {"output": None}),
        ("Translating", {"output": ("batch", "target_sequence", 4)}),
    ],
)
def test_outputs_are_what_follows_from_the_inputs(factory: str, outputs: Any) -> None:
    assert shapes(draft(f"{OWN}:{factory}").outputs) == outputs


# Relations


def test_a_mask_of_two_texts_has_the_sum_of_their_lengths() -> None:
    module = Remembering().eval()
    guess = (
        TensorSpec("tokens", "int64", ("batch", "sequence"), 0, 30),
        TensorSpec("memory", shape=("batch", "sequence", 8)),
        TensorSpec("mask", shape=("batch", "2*sequence")),
    )
    specs, sizes = separated(Trials(module), guess, {"batch": 3, "sequence": 12})
    assert shapes(specs) == {
        "tokens": ("batch", "sequence"),
        "memory": ("batch", "memory_sequence", 8),
        "mask": ("batch", "sequence + memory_sequence"),
    }
    assert sizes == {"batch": 3, "sequence": 12, "memory_sequence": 12}


# Ranges


def test_floats_of_which_there_is_no_logarithm_get_a_range() -> None:
    power, gain = draft(f"{OWN}:Logarithm").inputs
    assert (power.low, power.high) == (0.001, 1.0)
    assert gain.low is None and gain.high is None


def test_floats_that_the_model_refuses_are_scaled() -> None:
    (x,) = draft(f"{OWN}:Strict").inputs
    assert (x.shape, x.low, x.high) == (("batch", 4), 0.0, 1.0)


# Optional inputs


def test_an_input_that_forward_can_do_without_is_offered_if_it_changes_something() -> (
    None
):
    found = whole_draft(f"{OWN}:Choosing")
    assert found.signature.input_names == ["tokens"]
    assert shapes(found.optional) == {"mask": ("batch", "sequence")}
    text = draft_yaml(found)
    assert read_signature(parse_yaml(text.encode())) == found.signature
    taken = text.replace("#  - {name: mask", "  - {name: mask")
    assert taken != text
    both = read_signature(parse_yaml(taken.encode()))
    assert both.input_names == ["tokens", "mask"]
    kept = Architecture(f"{OWN}:Choosing", {}, both, trust=OWN_ARTIFACTS)
    check_model(Choosing().eval(), kept)


# The command


def test_names_that_yaml_takes_for_something_else_are_quoted() -> None:
    spec = TensorSpec("on", shape=("batch", "2*no + 1", "no"), description="a: b, c")
    named = Signature(
        (spec,), (TensorSpec("null"),), draft(f"{HERE}:Normalised").dimensions
    )
    text = draft_yaml(Draft(named))
    (again,) = read_signature(parse_yaml(text.encode())).inputs
    assert again == spec


def test_a_module_that_describes_its_models_is_asked_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    (tmp_path / "family_of_its_own.py").write_text(
        "from checkpoint_release.core.stated_signature import read_signature\n"
        "def read_architecture(tensors, overrides):\n"
        "    return {'width': 5, **overrides}\n"
        "def signature(kwargs, inputs):\n"
        "    return read_signature({\n"
        "        'inputs': [{'name': 'x', 'shape': ['batch', kwargs['width']]}],\n"
        "        'outputs': ['y'],\n"
        "    })\n"
        "def build(width):\n"
        "    raise RuntimeError('nothing is built')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["signature", "family_of_its_own:build", "--kwargs", "{width: 7}"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# family_of_its_own states it itself")
    (x,) = read_signature(parse_yaml(text.encode())).inputs
    assert x.shape == ("batch", 7)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["tagger.net.build"], ["names no callable", "such as tagger.net:build"]),
        (["tagger/net.py:build"], ["such as tagger.net:build"]),
        (["tagger/net.py"], ["such as tagger.net:build"]),
        (["5"], ["name it as package.module:callable\n"]),
        (
            ["tagger.net:biuld"],
            ["tagger.net has no callable 'biuld'", "that it has: Tagger, build"],
        ),
        (
            ["tagger.net:Tagger"],
            ["missing 1 required", "arguments (hidden) in --kwargs", "a function that"],
        ),
        (["tagger.net:build", "--kwargs", "{hiden: 8}"], ["(hidden=8) in --kwargs"]),
        (
            ["tagger.net:build", "--kwargs", "{hidden: -1}"],
            ["(tagger.net, line ", "in --kwargs"],
        ),
        (["tagger.nut:build"], ["is there a tagger.nut", "--source"]),
    ],
)
def test_a_factory_that_is_none_is_corrected_by_the_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
    arguments: list[str],
    parts: list[str],
) -> None:
    own_repository(tmp_path / "house", git=False)
    monkeypatch.chdir(tmp_path / "house")
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["signature", *arguments]) == 1
    printed = capsys.readouterr().err
    assert [part for part in parts if part not in printed] == []
    for name in ("tagger.net", "tagger.layers", "tagger"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_command_prints_what_new_and_convert_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    repository = own_repository(tmp_path / "house", git=False)
    monkeypatch.chdir(repository.path)
    command = ["-m", "checkpoint_release", "signature", "tagger.net:build"]
    done = repository.run("python", *command, "--kwargs", "{hidden: 8}")
    stated = read_signature(parse_yaml(done.stdout.encode()))
    assert stated.inputs[0].high == 100 and "# drafted" in done.stdout
    for arguments, message in (
        (["nowhere:build"], "is there a nowhere"),
        (["nowhere"], "names no callable"),
        (["tagger.net:build", "--kwargs", "5"], "--kwargs is '5'"),
        (["tagger.net:build", "--source", "lib"], "no such file"),
    ):
        assert main(["signature", *arguments]) == 1
        assert message in capsys.readouterr().err
