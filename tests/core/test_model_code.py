"""The one door to a model's code: what it asks for, and how its failures are told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.architecture import (
    Architecture,
    family_module,
    read_architecture,
)
from checkpoint_release.core.errors import (
    ArtifactError,
    ModelError,
    ParamsError,
    one_line,
)
from checkpoint_release.core.params import ModelParams
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import NO_TRUST, OWN_ARTIFACTS

STATED: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [2]}, {"name": "k", "shape": [3]}],
    "outputs": ["y"],
}
SIGNATURE = read_signature(STATED)
Writer = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """Writes a module of somebody's, and gives its factory."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = 0

    def write(code: str) -> str:
        nonlocal count
        count += 1
        name = f"somebodys_model_{tmp_path.name}_{count}"
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return f"{name}:build"

    return write


def options(factory: str, **more: Any) -> ModelParams:
    defaults: dict[str, Any] = {
        "source": None,
        "factory": factory,
        "kwargs": {},
        "signature": None,
        "inputs": None,
        "image_size": None,
    }
    return ModelParams(**{**defaults, **more})


def architecture(factory: str, **more: Any) -> Architecture:
    return Architecture(factory, {}, SIGNATURE, trust=OWN_ARTIFACTS, **more)


def test_a_factory_is_found_and_one_that_is_not_there_is_named(module: Writer) -> None:
    factory = module("def build():\n    return 5\n\nnumber = 5\n")
    assert architecture(factory).find_factory()() == 5
    code = factory.removesuffix(":build")
    for name in ("number", "nothing"):
        with pytest.raises(ModelError) as caught:
            architecture(f"{code}:{name}").find_factory()
        assert caught.value.problem == (
            f"model.factory is '{code}:{name}', and {code} has no callable '{name}'"
        )
        assert caught.value.remedy == "name one of those that it has: build"
        assert caught.value.options == ("model.factory",)


def test_trust_is_no_part_of_what_an_architecture_is() -> None:
    trusting = architecture("a:b")
    assert trusting == replace(trusting, trust=NO_TRUST)
    assert "trust" not in repr(trusting)
    assert Architecture("a:b", {}, SIGNATURE).trust is NO_TRUST
    assert not Architecture("a:b", {}, SIGNATURE).described


def test_a_module_that_is_missing_is_told_from_one_that_it_imports(
    module: Writer,
) -> None:
    with pytest.raises(ModelError) as caught:
        family_module("not_there_at_all.inner:build", OWN_ARTIFACTS)
    assert caught.value.problem == (
        "model.factory is 'not_there_at_all.inner:build', and importing"
        " not_there_at_all.inner failed: No module named 'not_there_at_all'"
    )
    assert caught.value.remedy == (
        "name it as package.module:callable, and its code's path in model.source,"
        " unless it lies in this folder or is installed"
    )
    assert caught.value.options == ("model.factory", "model.source")
    factory = module("import not_there_at_all\n")
    with pytest.raises(ModelError) as caught:
        family_module(factory, OWN_ARTIFACTS)
    name = factory.partition(":")[0]
    assert "ModuleNotFoundError: No module named 'not_there" in caught.value.problem
    assert caught.value.problem.endswith(f"({name}, line 1)")
    assert caught.value.remedy == (
        f"correct that module; `python -c 'import {name}'` shows the whole error"
    )
    assert caught.value.options == ("model.factory",)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("def broken(:\n", "SyntaxError: "),
        ("\nraise ValueError\n", "failed: ValueError (somebodys_model_"),
        ("raise SystemExit('usage')\n", "failed: SystemExit: usage ("),
        (
            "raise ValueError('x' * 900)\n",
            f"ValueError: {one_line(ValueError('x' * 900), 400)} (",
        ),
    ],
)
def test_whatever_a_module_raises_is_one_error(
    module: Writer, code: str, problem: str
) -> None:
    factory = module(code)
    with pytest.raises(ModelError) as caught:
        family_module(factory, OWN_ARTIFACTS)
    assert problem in caught.value.problem and len(caught.value.problem) < 700


READING = """
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.stated_signature import read_signature

def read_architecture(tensors, overrides):
    return {**overrides, "read": sorted(tensors)}

def signature(kwargs, inputs):
    found = read_signature({
        "inputs": [{"name": "x", "shape": ["n"]}], "outputs": ["y"]
    })
    return found

def broken():
    raise KeyError("inside")

title = "A model"
"""


def test_a_family_reads_its_architecture_from_the_weights(module: Writer) -> None:
    factory = module(READING)
    found = read_architecture(
        options(factory, kwargs={"size": 3}, image_size=64),
        {"w": ("F32", (2,))},
    )
    assert found.factory == factory and found.described
    assert found.kwargs == {"size": 3, "image_size": 64, "read": ["w"]}
    assert found.trust is OWN_ARTIFACTS
    assert "image_size" not in read_architecture(options(factory), {}).kwargs
    bounds = {"dimensions": {"n": {"maximum": 9, "example": 6}}}
    bounded = read_architecture(options(factory, signature=bounds), {})
    assert bounded.signature.dimensions["n"].maximum == 9


def test_hooks_are_those_of_a_family_that_described_the_model(module: Writer) -> None:
    factory = module(READING)
    described = architecture(factory, described=True)
    assert described.hook("title") == "A model"
    assert described.hook("nothing", 7) == 7 and described.hook("nothing") is None
    assert architecture("not_there:build").hook("title", 7) == 7
    with pytest.raises(ModelError) as caught:
        described.hook("broken")()
    name = factory.partition(":")[0]
    assert caught.value.problem.startswith(f"{name}.broken failed: KeyError: 'inside'")
    assert f"({name}, line " in caught.value.problem
    assert caught.value.remedy == "correct that function"


@pytest.mark.parametrize(
    ("stated", "how"),
    [
        (None, "is null"),
        ({"dimensions": {"n": {"maximum": 9, "example": 6}}}, "states bounds alone"),
    ],
)
def test_without_hooks_a_signature_has_to_be_stated(
    module: Writer, stated: Any, how: str
) -> None:
    factory = module("read_architecture = dict\n")
    with pytest.raises(ModelError) as caught:
        read_architecture(options(factory, signature=stated), {})
    assert caught.value.problem == (
        f"model.signature {how}, and {factory.partition(':')[0]} has no"
        " read_architecture and signature functions"
    )
    assert f"`checkpoint-release signature {factory}`" in caught.value.remedy
    assert caught.value.options == ("model.signature", "model.kwargs")


@pytest.mark.parametrize(
    ("hooks", "kinds"),
    [
        ("lambda *a: 5", ("int", "str")),
        ("lambda *a: {}", ("dict", "str")),
    ],
)
def test_hooks_that_give_something_else_are_an_error(
    module: Writer, hooks: str, kinds: tuple[str, str]
) -> None:
    factory = module(f"read_architecture = {hooks}\nsignature = lambda *a: 'x'\n")
    with pytest.raises(ModelError) as caught:
        read_architecture(options(factory), {})
    name = factory.partition(":")[0]
    assert caught.value.problem == (
        f"{name}.read_architecture returned a {kinds[0]}, and its signature a"
        f" {kinds[1]}"
    )
    assert "return a dict and a checkpoint_release.core" in caught.value.remedy


def test_a_stated_signature_needs_no_module_and_takes_the_inputs_that_are_named() -> (
    None
):
    stated = options("not_there:build", signature=STATED, inputs=["k"])
    found = read_architecture(stated, {})
    assert [spec.name for spec in found.signature.inputs] == ["k"]
    assert not found.described and found.trust is OWN_ARTIFACTS
    everything = read_architecture(options("not_there:build", signature=STATED), {})
    assert everything.signature == SIGNATURE
    with pytest.raises(ParamsError) as caught:
        read_architecture(options("a:b", signature=STATED, inputs=["z", "k"]), {})
    assert caught.value.problem == (
        "model.inputs names ['z'], and the model's inputs are ['x', 'k']"
    )
    assert caught.value.options == ("model.inputs",)
    assert "set it to null to take them all" in caught.value.remedy


def test_what_is_written_is_read_again_without_its_trust() -> None:
    written = Architecture("a:b", {"n": 1}, SIGNATURE, True, OWN_ARTIFACTS)
    read = Architecture.from_json(written.to_json())
    assert read == written and read.trust is NO_TRUST
    assert list(written.to_json()) == ["factory", "described", "kwargs", "signature"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"factory": 5}, "doesn't describe a model: "),
        ({"kwargs": 5}, "doesn't describe a model: "),
        ({"signature": {"inputs": 5}}, "is broken: signature"),
    ],
)
def test_what_somebody_else_wrote_is_one_error(
    change: dict[str, Any], problem: str
) -> None:
    value = Architecture("a:b", {}, SIGNATURE).to_json() | change
    with pytest.raises(ArtifactError) as caught:
        Architecture.from_json(value)
    assert caught.value.problem.startswith(problem)
