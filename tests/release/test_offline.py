"""verify where no Hub can be reached: it reports that, and what it checked instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from checkpoint_release.__main__ import main
from checkpoint_release.release.verify import verify_release
from tests.release.test_verify import run
from tests.support.publishing import REPO, SENDING, TOKEN, Publisher

pytestmark = pytest.mark.filterwarnings(SENDING)
NO_HUB = "http://127.0.0.1:9"  # nothing listens there
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return folder


@pytest.fixture
def cached(publisher: Publisher, cache: Path) -> Publisher:
    """Ada's release, downloaded once."""
    publisher.publish()
    publisher.repo.edit({"LICENSE": b"Theirs"})
    snapshot_download(
        REPO, endpoint=publisher.hub.url, token=TOKEN, cache_dir=str(cache)
    )
    return publisher


def unreachable(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(constants, "ENDPOINT", NO_HUB)
    return f"offline: {NO_HUB} can't be reached ("


def switched_off(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return "offline: HF_HUB_OFFLINE is set"


Offline = Callable[[pytest.MonkeyPatch], str]
WAYS = pytest.mark.parametrize("offline", [unreachable, switched_off])


@WAYS
def test_a_release_that_is_not_on_this_machine_is_one_clear_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed, offline: Offline
) -> None:
    message = offline(monkeypatch)
    assert main(["verify", "ada/nothing"]) == 1
    text = capsys.readouterr().err
    assert message in text
    assert "no whole copy of ada/nothing on this machine" in text
    assert "name the folder of a release" in text and "check the disk" not in text


@WAYS
def test_the_copy_in_the_cache_is_checked_and_that_is_reported(
    cached: Publisher, monkeypatch: pytest.MonkeyPatch, offline: Offline
) -> None:
    message = offline(monkeypatch)
    source, files, *_ = verify_release(REPO)
    assert source.message.startswith(message)
    head = cached.repo.branches["main"]
    assert f"cache, commit {head[:12]}, which may not be the Hub's" in source.message
    assert files.passed and "LICENSE" in files.message


def test_a_changed_copy_in_the_cache_fails(
    cached: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(monkeypatch)
    (copy,) = cache.rglob("snapshots/*/config.json")
    copy.unlink()
    copy.write_text("{ }")
    source, files = verify_release(REPO)
    assert source.name == "source" and not files.passed


def test_with_a_hub_nothing_is_reported_of_a_cache(
    cached: Publisher, tmp_path: Path
) -> None:
    home = {
        "HF_ENDPOINT": cached.hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
    }
    assert run(REPO, **home).stdout.startswith("ok     files")


def test_a_hub_that_answers_with_an_error_is_not_offline(
    cached: Publisher, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """Its copy in the cache stays out of it."""
    monkeypatch.setattr(constants, "ENDPOINT", cached.hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    assert main(["verify", REPO]) == 1
    text = capsys.readouterr().err
    assert "offline" not in text and "token" in text
    assert f"error: {REPO} is no folder here, so the Hub was asked: " in text
