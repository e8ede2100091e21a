"""Models that would have code of their author's run are loaded under an audit hook that
allows only reading; and then with that code trusted, where it does run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_models import (
    IGNORED,
    KINDS,
    PLACES,
    UNREADABLE,
    change_models,
    filled_in,
    write_honest_model,
    write_modules,
)
from tests.support.hostile_names import (
    CANARY,
    FACTORIES,
    IMPOSSIBLE_ARGUMENTS,
    ODD_NAMES,
)
from tests.support.watched_code import Case, Outcome, outcomes_of

# what these write is opened by libraries in C++ and Rust, out of the hook's sight
UNSEEN = ("torch:save", "safetensors.numpy:save_file")
IMPOSSIBLE = {json.dumps(changes)[:40]: changes for changes in IMPOSSIBLE_ARGUMENTS}
every_kind = pytest.mark.parametrize("kind", KINDS)


class Cases:
    """Copies of an honest model, changed, and what is to be done with each."""

    def __init__(self, root: Path) -> None:
        self.modules = write_modules(root / "modules")
        self.honest = write_honest_model(root / "honest")
        self.listed: dict[str, Case] = {}
        self._root = root

    def add(
        self, name: str, change: Callable[[Path, Path], Path], trust: str | None = None
    ) -> None:
        """Add the loading of a model, by Python and by the command line.

        Args:
            name: of the case; that of the command line begins with "run".
            change: changes the model, given its folder and the mark that its code is to
                leave, and returns the path to load.
            trust: the code to trust; None: nothing.
        """
        parent = self._root / f"case{len(self.listed)}"
        shutil.copytree(self.honest, parent / "model")
        path = str(change(parent / "model", parent / "mark"))
        mark = str(parent / "mark")
        trusted = [] if trust is None else [trust]
        flags = [] if trust is None else ["--trust", trust]
        described = ["run", path, "--describe", *flags]
        self.listed[name] = Case("load", [path, {}], mark, trusted)
        self.listed[f"run {name}"] = Case("command", described, mark)

    def outcomes(self) -> dict[str, Outcome]:
        """What came of each case, by name."""
        cases = list(self.listed.values())
        honest = []
        for place in KINDS.values():
            path = str(self.honest / place)
            honest.append(Case("load", [path, {}], os.devnull))
            honest.append(Case("command", ["run", path, "--describe"], os.devnull))
        found = outcomes_of(cases, honest, self.modules)
        return dict(zip(self.listed, found, strict=True))

    def naming(
        self, kind: str, factory: str, kwargs: dict[str, Any]
    ) -> Callable[[Path, Path], Path]:
        """A change: a model of one of KINDS names a factory and its arguments."""

        def change(folder: Path, mark: Path) -> Path:
            stated = filled_in(kwargs, MARK=mark, MODULES=self.modules)
            named = {"factory": factory, "kwargs": stated, "described": True}
            change_models(folder, lambda model: model.update(named))
            return folder / KINDS[kind]

        return change


def placing(place: Callable[[Path], Path]) -> Callable[[Path, Path], Path]:
    """A change: the canary is named in a certain place."""
    return lambda folder, mark: place(folder)


def asking_for(kind: str, arguments: dict[str, Any]) -> Callable[[Path, Path], Path]:
    """A change: a model of the library's own has other arguments."""

    def change(folder: Path, mark: Path) -> Path:
        change_models(folder, lambda model: model["kwargs"].update(arguments))
        return folder / KINDS[kind]

    return change


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All cases of this file; those whose code runs come last."""
    cases = Cases(tmp_path_factory.mktemp("elsewhere"))
    for kind in KINDS:
        for factory, kwargs in FACTORIES.items():
            cases.add(f"{kind} {factory}", cases.naming(kind, factory, kwargs))
        for factory in ODD_NAMES:
            cases.add(f"{kind} {factory}", cases.naming(kind, factory, {}))
        for name, arguments in IMPOSSIBLE.items():
            cases.add(f"{kind} {name}", asking_for(kind, arguments))
        cases.add(f"{kind} honest", asking_for(kind, {}))
    for name, place in (PLACES | IGNORED).items():
        cases.add(name, placing(place))
    for name, place in UNREADABLE.items():
        cases.add(name, placing(place), CANARY)
    for kind in KINDS:
        for factory, kwargs in FACTORIES.items():
            change = cases.naming(kind, factory, kwargs)
            cases.add(f"trusted {kind} {factory}", change, factory)
    for name, place in PLACES.items():
        cases.add(f"trusted {name}", placing(place), CANARY)
    return cases.outcomes()


def require_refused(outcomes: dict[str, Outcome], name: str) -> None:
    """Nothing but reading happened, and the user was asked for trust."""
    loaded, printed = outcomes[name], outcomes[f"run {name}"]
    assert not (loaded.ran or printed.ran)
    assert loaded.violations == printed.violations == []
    assert loaded.error == "UntrustedCodeError", loaded.message
    assert "is named as its model code, which is not known here" in loaded.message
    assert printed.message.startswith("exit code 1")
    assert " in --trust; or load the ONNX file" in printed.message


@every_kind
@pytest.mark.parametrize("factory", [*FACTORIES, *ODD_NAMES])
def test_no_factory_that_a_file_names_is_looked_up_or_called(
    outcomes: dict[str, Outcome], kind: str, factory: str
) -> None:
    require_refused(outcomes, f"{kind} {factory}")


@every_kind
@pytest.mark.parametrize("factory", FACTORIES)
def test_each_factory_is_called_once_it_is_trusted(
    outcomes: dict[str, Outcome], kind: str, factory: str
) -> None:
    outcome = outcomes[f"trusted {kind} {factory}"]
    assert outcome.ran, outcome.message
    assert outcome.violations or factory in UNSEEN


@pytest.mark.parametrize("place", PLACES)
def test_code_is_refused_wherever_it_is_named(
    outcomes: dict[str, Outcome], place: str
) -> None:
    require_refused(outcomes, place)


@pytest.mark.parametrize("place", PLACES)
def test_code_in_each_place_runs_once_it_is_trusted(
    outcomes: dict[str, Outcome], place: str
) -> None:
    outcome = outcomes[f"trusted {place}"]
    assert outcome.ran, outcome.message
    assert outcome.violations


@pytest.mark.parametrize("place", UNREADABLE)
def test_a_file_that_two_readers_could_read_in_two_ways_is_refused_though_trusted(
    outcomes: dict[str, Outcome], place: str
) -> None:
    loaded, printed = outcomes[place], outcomes[f"run {place}"]
    assert loaded.error == "ArtifactError", loaded.message
    assert printed.message.startswith("exit code 1")
    assert not (loaded.ran or printed.ran)
    assert loaded.violations == printed.violations == []


@pytest.mark.parametrize("place", IGNORED)
def test_code_that_merely_lies_there_is_not_looked_at(
    outcomes: dict[str, Outcome], place: str
) -> None:
    loaded, printed = outcomes[place], outcomes[f"run {place}"]
    assert loaded.message.startswith("<safetensors model"), loaded.message
    assert printed.message.startswith("exit code 0")
    assert not (loaded.ran or printed.ran)
    assert loaded.violations == printed.violations == []


@every_kind
@pytest.mark.parametrize("arguments", IMPOSSIBLE)
def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_is_built(
    outcomes: dict[str, Outcome], kind: str, arguments: str
) -> None:
    outcome = outcomes[f"{kind} {arguments}"]
    assert outcome.error == "ModelError"
    assert "and the weights don't belong together: " in outcome.message
    # the weights of a .pth go through a temporary folder
    assert kind == "pth" or outcome.violations == []


@every_kind
def test_the_sizes_that_the_weights_have_are_built(
    outcomes: dict[str, Outcome], kind: str
) -> None:
    assert " model " in outcomes[f"{kind} honest"].message
