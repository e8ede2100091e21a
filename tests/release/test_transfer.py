"""How large files go up: by git LFS or by Xet, in one commit, and never twice.

Xet's own client runs, against a storage that puts files together again from what it
sends.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

from checkpoint_release.core.errors import PublishError
from tests.support.hub_server import Fault
from tests.support.project import ROOT, Project
from tests.support.publishing import REPO, SENDING, TOKEN, Publisher, fake_artifacts

pytestmark = pytest.mark.filterwarnings(SENDING)


@pytest.fixture(autouse=True)
def _xet_client(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads these once, with its first upload."""
    monkeypatch.setenv("HF_XET_XORB_COMPRESSION_POLICY", "none")
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path_factory.mktemp("xet")))


def asked(publisher: Publisher, part: str) -> list[str]:
    """The requests so far whose path holds a text."""
    return [path for _, path, _ in publisher.hub.requests if part in path]


def weights(seed: int, size: int = 400_000) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize(
    "transfer", [pytest.param("xet", marks=pytest.mark.slow), "auto"]
)
def test_xet_makes_one_commit_of_exactly_the_release(
    publisher: Publisher, transfer: str
) -> None:
    publisher.hub.xet.spoken = True
    publisher.publish(transfer=transfer)
    publisher.require_published()
    assert asked(publisher, "/xorbs/") and asked(publisher, "/v1/shards")
    assert not asked(publisher, "/objects/batch")
    assert constants.HF_HUB_DISABLE_XET is True


@pytest.mark.parametrize("spoken", [True, False])
def test_lfs_asks_for_no_xet(publisher: Publisher, spoken: bool) -> None:
    publisher.hub.xet.spoken = spoken
    publisher.publish()
    publisher.require_published()
    assert asked(publisher, "/objects/batch") and not asked(publisher, "xet")


def test_auto_takes_lfs_where_the_hub_has_no_xet(publisher: Publisher) -> None:
    publisher.publish(transfer="auto")
    publisher.require_published()
    assert asked(publisher, "/objects/batch") and not asked(publisher, "/xorbs/")


@pytest.mark.parametrize("dry_run", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_hub_without_xet_is_found_before_anything_goes_up(
    publisher: Publisher, dry_run: bool
) -> None:
    publisher.hub.hub.create(REPO)
    with pytest.raises(PublishError, match="doesn't store ada/stick in Xet") as caught:
        publisher.publish(transfer="xet", dry_run=dry_run)
    assert "set publish.transfer to auto or lfs" in caught.value.remedy
    assert not asked(publisher, "/preupload/")
    publisher.publish()
    publisher.require_published()


def test_without_xet_s_client_xet_is_one_clear_error_and_auto_is_lfs(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_client(name: str) -> Any:
        return None if name == "hf_xet" else importlib.util.find_spec(name)

    monkeypatch.setattr(
        "checkpoint_release.release.transfer.importlib",
        type(
            "importlib", (), {"util": type("util", (), {"find_spec": without_client})}
        ),
    )
    publisher.hub.xet.spoken = True
    with pytest.raises(PublishError, match="hf_xet is not installed"):
        publisher.publish(transfer="xet")
    publisher.publish(transfer="auto")
    publisher.require_published()
    assert asked(publisher, "/objects/batch")


@pytest.mark.slow
@pytest.mark.parametrize(("transfer", "share"), [("xet", 0.5), ("lfs", 1.0)])
def test_of_a_file_that_changed_in_part_xet_sends_that_part(
    publisher: Publisher, transfer: str, share: float
) -> None:
    publisher.hub.xet.spoken = True
    before = weights(1)
    fake_artifacts(publisher.artifacts, weights=before)
    publisher.publish(transfer=transfer)
    publisher.hub.xet.received = 0
    held = set(publisher.repo.lfs)
    fake_artifacts(publisher.artifacts, weights=before[:-100] + weights(2, 100))
    publisher.publish(transfer=transfer, version="v1.1.0")
    publisher.require_published(version="v1.1.0", releases=2)
    new = {name: publisher.repo.lfs[name] for name in publisher.repo.lfs.keys() - held}
    size = sum(len(content) for content in new.values())
    sent = publisher.hub.xet.received if transfer == "xet" else size
    assert size > 1_000_000 and sent <= share * size


@pytest.mark.slow
def test_a_xet_storage_that_refuses_is_one_clear_error(publisher: Publisher) -> None:
    publisher.hub.xet.spoken = True
    publisher.hub.break_with(Fault("status", status=403, path="*/xorbs/*", times=9))
    with pytest.raises(PublishError, match=r"uploading by Xet: .*403") as caught:
        publisher.publish(transfer="xet")
    assert "set publish.transfer to lfs" in caught.value.remedy
    assert publisher.receipt_text is None and TOKEN not in str(caught.value)
    publisher.hub.break_with()
    publisher.publish(transfer="xet")
    publisher.require_published()


# After a kill


def stage(publisher: Publisher, folder: Path) -> Project:
    """A project in which only publish is left to do."""
    shutil.move(publisher.artifacts, folder / "artifacts")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "checkpoints/extra").mkdir(parents=True)
    project = Project(folder)
    project.set(publish__repo_id=REPO, publish__version="v1.0.0", publish__page=False)
    return project


def wait_for(true: Callable[[], object]) -> None:
    """Return when something is true; it isn't within a minute: the test fails."""
    end, pause = time.monotonic() + 60, threading.Event()
    while not true():
        assert time.monotonic() < end, "it didn't happen"
        pause.wait(0.05)


@pytest.mark.slow
def test_after_a_kill_no_file_that_is_there_goes_up_again(
    publisher: Publisher, tmp_path: Path
) -> None:
    """Of five, one was on its way when the process was killed."""
    project = stage(publisher, tmp_path)
    environment = {
        "HF_ENDPOINT": publisher.hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(ROOT),
    }
    on_its_way = Fault("hang", method="PUT", path="/storage/*", nth=1)
    publisher.hub.break_with(on_its_way)
    command = [sys.executable, "-m", "pipeline.publish"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **environment}
    ) as process:
        wait_for(lambda: REPO in publisher.hub.hub.repos)
        wait_for(lambda: on_its_way.happened and len(publisher.repo.lfs) == 4)
        process.kill()
    assert publisher.titles() == ["initial commit"]
    there = set(publisher.repo.lfs)
    publisher.hub.break_with()
    publisher.hub.requests.clear()
    project.run(*command, environment=environment)
    (sent,) = asked(publisher, "/storage/")
    assert sent.rpartition("/")[2] not in there
    assert len(publisher.titles()) == 2 and len(publisher.repo.lfs) == 5
