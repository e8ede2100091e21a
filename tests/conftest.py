"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import Account, HubServer
from tests.support.project import Project
from tests.support.publishing import TOKEN, Publisher, fake_artifacts


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout in which `dvc repro` has run once; tests take copies of it."""
    project = Project.checkout(tmp_path_factory.mktemp("built") / "project")
    project.dvc("repro")
    project.commit("Built")
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A checkout of the test's own, already built."""
    return built.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def hub_server() -> Iterator[HubServer]:
    """The one Hub of the session; tests take `hub`."""
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> HubServer:
    """A Hub with nothing in it, and a token of ada, who may write to lab and read zoo."""
    from huggingface_hub import constants

    hub_server.reset()
    hub_server.add_token(TOKEN, Account("ada", {"lab": "write", "zoo": "read"}))
    # or huggingface_hub asks huggingface.co for it
    harnesses = tmp_path / "harnesses.json"
    harnesses.write_text('{"standardEnvVars": [], "harnesses": {}}')
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(harnesses))
    return hub_server


@pytest.fixture
def publisher(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Publisher:
    """Ada, with artifacts to publish; waits are noted (`slept`) and not waited."""
    from huggingface_hub.utils import _http

    publisher = Publisher(hub, fake_artifacts(tmp_path / "artifacts"))

    class Clock:
        sleep = staticmethod(publisher.slept.append)

    monkeypatch.setattr(_http, "time", Clock)
    monkeypatch.chdir(tmp_path)  # outside git, whose state would be told in commits
    return publisher
