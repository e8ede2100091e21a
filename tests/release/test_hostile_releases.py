"""Releases of strangers are verified under an audit hook that allows only reading: what
they name doesn't run, and none of them passes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from checkpoint_release.core.signing_keys import load_signing_key
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.signing import sign
from tests.release.test_assemble import make_keys
from tests.support.hostile_models import (
    change_models,
    write_honest_model,
    write_modules,
)
from tests.support.hostile_names import CANARY
from tests.support.hostile_releases import FORGED, as_it_is
from tests.support.publishing import fake_artifacts
from tests.support.watched_code import Case, Outcome, outcomes_of

PASSED = "the release is what was published"


class Cases:
    """Copies of one release whose model is the canary, and how each is verified."""

    def __init__(self, root: Path) -> None:
        self.modules = write_modules(root / "modules")
        self.hostile = write_honest_model(root / "hostile")
        self.private, self.public = make_keys(root)
        self.listed: dict[str, Case] = {}
        self._root = root
        self._copies = 0
        self._assembled = assemble(fake_artifacts(root / "artifacts"))
        change_models(
            self.hostile, lambda model: model.update(factory=CANARY, kwargs={})
        )
        for name in ("config.json", "model.safetensors"):
            shutil.copy(self.hostile / name, self._assembled / name)
        as_it_is(self._assembled)

    def release(self) -> Path:
        """A copy, in a folder of its own."""
        self._copies += 1
        folder = self._root / f"copy{self._copies}" / "release"
        shutil.copytree(self._assembled, folder)
        return folder

    def verify(
        self, name: str, release: Path, key: Path | None = None, *trust: str
    ) -> None:
        """Have a release verified, by Python and by the command line in its folder."""
        mark = str(release.parent / "mark")
        options = {"public_key": str(key)} if key else {}
        flags = ["--public-key", str(key)] if key else []
        for trusted in trust:
            flags += ["--trust", trusted]
        self.listed[name] = Case("verify", [str(release), options], mark, trust)
        self.listed[f"command: {name}"] = Case(
            "command", ["verify", ".", *flags], mark, cwd=str(release)
        )

    def open(self, format: str, path: Path) -> None:
        """Have the hostile model opened and trusted."""
        mark = str(self._root / f"mark of {format}")
        arguments = [str(path), {"format": format}]
        self.listed[f"opened as {format}"] = Case("open", arguments, mark, [CANARY])

    def outcomes(self) -> dict[str, Outcome]:
        """What came of each case, by name."""
        sign(signed := self.release(), load_signing_key(self.private))
        options = {"public_key": str(self.public)}
        command = ["verify", str(signed), "--public-key", str(self.public)]
        honest = [
            Case("verify", [str(signed), options], os.devnull),
            Case("command", command, os.devnull),
        ]
        found = outcomes_of(list(self.listed.values()), honest, self.modules)
        return dict(zip(self.listed, found, strict=True))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All cases of this file; those whose code runs come last."""
    cases = Cases(tmp_path_factory.mktemp("strangers"))
    for name, forge in FORGED.items():
        forge(release := cases.release())
        cases.verify(name, release)
        cases.verify(f"{name}, trusted", release, None, CANARY)
        cases.verify(f"{name}, key", release, cases.public, CANARY)

    missing = cases.modules / "no-such-key.pub"
    private, public = make_keys(cases.modules)  # of the stranger
    sign(signed := cases.release(), load_signing_key(private))
    cases.verify("sealed", cases.release())
    cases.verify("sealed, key", cases.release(), cases.public, CANARY)
    cases.verify("sealed, missing key", cases.release(), missing, CANARY)
    cases.verify("signed by them", signed, cases.public, CANARY)
    cases.verify("signed by them, private key", signed, private, CANARY)
    cases.verify("signed by them, their key", signed, public)
    sign(changed := cases.release(), load_signing_key(cases.private))
    (changed / "onnx/model.onnx").write_bytes(b"another")
    as_it_is(changed)
    cases.verify("changed after it was signed", changed, cases.public, CANARY)

    cases.verify("sealed, trusted", cases.release(), None, CANARY)
    cases.verify("their key, trusted", signed, public, CANARY)
    cases.open("safetensors", cases.hostile)
    cases.open("checkpoint", cases.hostile / "checkpoint")
    return cases.outcomes()


def require_failed(outcome: Outcome) -> None:
    """It didn't pass, nothing but reading happened, and the error is one message."""
    assert not outcome.ran
    assert outcome.violations == []
    errors = ("", "ArtifactError", "PublishError")  # the last of a key
    assert outcome.error in errors, outcome.message
    assert outcome.error or "FAILED" in outcome.message or "error: " in outcome.message
    assert PASSED not in outcome.message


@pytest.mark.parametrize("way", ["", ", trusted", ", key"])
@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_release_is_refused_before_its_code_runs(
    outcomes: dict[str, Outcome], forged: str, way: str
) -> None:
    """Even trusted code doesn't run, as the release is refused before."""
    require_failed(outcomes[f"{forged}{way}"])
    require_failed(outcomes[f"command: {forged}{way}"])


@pytest.mark.parametrize(
    "name",
    [
        "sealed, key",
        "signed by them",
        "changed after it was signed",
    ],
)
def test_nothing_runs_after_a_signature_that_does_not_hold(
    outcomes: dict[str, Outcome], name: str
) -> None:
    for outcome in (outcomes[name], outcomes[f"command: {name}"]):
        require_failed(outcome)
        assert "FAILED signature" in outcome.message


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("sealed, missing key", "no-such-key.pub can't be read"),
        ("signed by them, private key", "is a private key"),
    ],
)
def test_nothing_runs_where_the_key_can_not_check_a_signature(
    outcomes: dict[str, Outcome], name: str, problem: str
) -> None:
    for outcome in (outcomes[name], outcomes[f"command: {name}"]):
        require_failed(outcome)
        assert problem in outcome.message


@pytest.mark.parametrize("name", ["sealed", "signed by them, their key"])
def test_right_digests_and_signatures_are_no_trust(
    outcomes: dict[str, Outcome], name: str
) -> None:
    for outcome in (outcomes[name], outcomes[f"command: {name}"]):
        assert not outcome.ran
        assert "not run: 'canary:build' is named as its model code" in outcome.message
        assert PASSED not in outcome.message


@pytest.mark.parametrize("name", ["sealed, trusted", "their key, trusted"])
def test_code_of_a_release_runs_once_it_is_trusted(
    outcomes: dict[str, Outcome], name: str
) -> None:
    assert outcomes[name].ran
    assert outcomes[f"command: {name}"].violations


@pytest.mark.parametrize("format", ["safetensors", "checkpoint"])
def test_the_code_would_run_in_the_formats_that_forged_releases_point_at(
    outcomes: dict[str, Outcome], format: str
) -> None:
    assert outcomes[f"opened as {format}"].ran
