"""Code that a file from elsewhere names runs only if the user names it, too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from checkpoint_release.core.architecture import Architecture, family_module
from checkpoint_release.core.errors import UntrustedCodeError
from checkpoint_release.core.signature import Signature, TensorSpec
from checkpoint_release.core.trust import NO_TRUST, OWN_ARTIFACTS, Trust
from tests.support.project import ROOT

OWN = "checkpoint_release.models.stick_figure:build"
FOREIGN = [
    "subprocess:run",
    "their.model:Net",
    "checkpoint_release.core.files:sha256",
    "checkpoint_release.models.stick_figure:annotations",
    "checkpoint_release.models.stick_figure.graph:build",
    "checkpoint_release.models.stick_figure:build.__globals__",
    "checkpoint_release.models:build",
    "checkpoint_release.models.stick_figure:build\n",
    "",
]


@pytest.mark.parametrize("factory", FOREIGN)
def test_only_factories_of_the_library_s_own_families_need_no_grant(
    factory: str,
) -> None:
    NO_TRUST.require(OWN, "")
    with pytest.raises(UntrustedCodeError, match="who named it") as caught:
        NO_TRUST.require(factory, "who named it")
    assert f"name {factory} in {{trust}}".format(trust="trust") in caught.value.remedy
    Trust.of([factory]).require(factory, "")
    OWN_ARTIFACTS.require(factory, "")


def test_a_grant_is_for_the_very_name() -> None:
    granted = Trust.of(["their.model:Net", "torchscript"])
    assert granted.covers("their.model:Net") and granted.covers("torchscript")
    assert not granted.covers("their.model:Other")
    assert not granted.covers("torch_export")


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module called canary that leaves a mark when it is imported."""
    mark = tmp_path / "mark"
    (tmp_path / "canary.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n\ndef build():\n    return None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    return mark


def test_a_module_is_imported_only_with_a_grant(canary: Path) -> None:
    with pytest.raises(UntrustedCodeError):
        family_module("canary:build", NO_TRUST)
    with pytest.raises(UntrustedCodeError):
        family_module("canary:build", Trust.of(["canary:other"]))
    assert not canary.exists()
    family_module("canary:build", Trust.of(["canary:build"]))
    assert canary.exists()


@pytest.mark.parametrize("described", [True, False])
def test_an_architecture_out_of_a_file_comes_without_a_grant(
    canary: Path, described: bool
) -> None:
    signature = Signature((TensorSpec("x", shape=(1,)),), (TensorSpec("y"),), {})
    written = Architecture("canary:build", {}, signature, described)
    read = Architecture.from_json(written.to_json())
    with pytest.raises(UntrustedCodeError):
        read.find_factory()
    if described:
        with pytest.raises(UntrustedCodeError):
            read.hook("config")
    else:
        assert read.hook("config") is None
    assert not canary.exists()
    assert read.trusting(OWN_ARTIFACTS).find_factory()() is None


def test_modules_are_imported_by_name_in_one_place() -> None:
    """A new format can't forget to ask: nothing else can import what a file names."""
    constants = {
        "checkpoint_release/__init__.py",  # the public names
        "checkpoint_release/fleet/builder.py",  # what it imports ahead of its members
    }
    found = set()
    for path in (ROOT / "checkpoint_release").rglob("*.py"):
        text = path.read_text()
        if "import_module(" in text or "__import__(" in text:
            found.add(path.relative_to(ROOT).as_posix())
    assert found == {*constants, "checkpoint_release/core/architecture.py"}
