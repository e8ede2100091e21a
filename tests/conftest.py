"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from huggingface_hub import constants

from checkpoint_release.core.signature import Arrays
from tests.support.exports import write_figure
from tests.support.hub_server import Account, HubServer
from tests.support.project import ROOT, Project
from tests.support.publishing import TOKEN, Publisher, fake_artifacts
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import (
    eager_outputs,
    random_inputs,
    write_tiny_release,
)

if TYPE_CHECKING:  # only tests in a browser need it
    from playwright.sync_api import Browser, Playwright


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout in which `dvc repro` has run once; tests take copies of it.

    The processes of a run share one: the first that needs it builds it.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    done = shared / "built/project"
    with FileLock(shared / "built.lock"):
        if not done.exists():
            project = Project.checkout(shared / "being-built/project")
            project.dvc("repro")
            project.commit("Built")
            project.path.parent.rename(done.parent)
    return Project(done)


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A checkout of the test's own, already built."""
    return built.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in every format; not to be changed."""
    root = tmp_path_factory.mktemp("tiny_release")
    write_tiny_release(root, stick_figure())
    return root


@pytest.fixture(scope="session")
def tiny_inputs() -> Arrays:
    """Random inputs of the tiny model."""
    return random_inputs(stick_figure())


@pytest.fixture(scope="session")
def tiny_outputs(tiny_release: Path, tiny_inputs: Arrays) -> Arrays:
    """What the tiny model itself computes of the inputs."""
    return eager_outputs(tiny_release, tiny_inputs)


@pytest.fixture(scope="session")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small stick figure."""
    return write_figure(tmp_path_factory.mktemp("figure") / "checkpoint")


@pytest.fixture(scope="session")
def hub_server() -> Iterator[HubServer]:
    """The one Hub of the session; tests take `hub`."""
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """An empty Hub, and a token of ada, who may write to lab and read zoo."""
    hub_server.reset()
    hub_server.add_token(TOKEN, Account("ada", {"lab": "write", "zoo": "read"}))
    # for its telemetry huggingface_hub asks huggingface.co which programs may call it
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    return hub_server


@pytest.fixture
def publisher(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Publisher:
    """Ada, with artifacts to publish; waits are recorded (`slept`) and not waited."""
    publisher = Publisher(hub, fake_artifacts(tmp_path / "artifacts"))
    # huggingface_hub has no option for the waits between its own tries
    monkeypatch.setattr(time, "sleep", publisher.slept.append)
    monkeypatch.chdir(tmp_path)  # outside git, whose state commits would name
    (tmp_path / "extra").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)  # which the record of a release states
    return publisher


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """What drives browsers; there is one in a process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A headless Chromium to which no name leads anywhere."""
    from tests.support.browser import chromium

    with chromium(playwright) as started:
        yield started
