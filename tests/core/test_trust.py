"""Model code that a stranger's config.json names runs only if somebody trusts it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from checkpoint_release.core.trust import is_trusted
from tests.support.project import ROOT

OWN = "checkpoint_release.models.stick_figure:build"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a params.yaml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_this_project_s_models_and_named_ones_are_trusted() -> None:
    assert is_trusted(OWN)
    assert is_trusted("their.model:Net", ["their.model:Net"])
    assert not is_trusted("their.model:Net", ["their.model:Other"])
    assert not is_trusted("subprocess:run")
    assert not is_trusted("checkpoint_release.core.files:sha256")


def test_the_model_of_the_params_at_hand_is_trusted(elsewhere: Path) -> None:
    params = (ROOT / "params.yaml").read_text()
    (elsewhere / "params.yaml").write_text(params.replace(OWN, "my_model:build"))
    assert is_trusted("my_model:build")
    assert not is_trusted("their.model:Net")
    (elsewhere / "params.yaml").write_text("another: project")
    assert not is_trusted("my_model:build")


def test_without_a_reader_of_yaml_no_other_model_is_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "checkpoint_release.core.params", None)
    assert is_trusted(OWN)
    assert not is_trusted("my_model:build")
