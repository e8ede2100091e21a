"""A version that another machine builds again is the same version: what it measured
there differs, and what was published first stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from checkpoint_release.core.artifacts.attestation import RECORD
from checkpoint_release.core.artifacts.parity import PARITY_FOLDER, REPORT, read_report
from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.environment import computing_packages
from tests.support.parity_json import store_report
from tests.support.publishing import CARD, SENDING, Publisher, fake_artifacts

pytestmark = pytest.mark.filterwarnings(SENDING)


def measure_elsewhere(publisher: Publisher) -> None:
    """The parity report of another processor: other figures, and its name."""
    report = read_report(publisher.artifacts / PARITY_FOLDER / REPORT)
    machine = msgspec.structs.replace(report.machine, cpu_capability="AVX512")
    floor = {
        name: msgspec.structs.replace(each, worst=each.worst * 1.5)
        for name, each in report.noise_floor.items()
    }
    other = msgspec.structs.replace(report, machine=machine, noise_floor=floor)
    store_report(publisher.artifacts, other)


@pytest.mark.parametrize("has_receipt", [True, False])
def test_what_was_published_first_stands_and_the_receipt_states_it(
    publisher: Publisher, has_receipt: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish()
    there, commits = publisher.on_hub(), publisher.titles()
    if not has_receipt:
        publisher.receipt_path.unlink()
    measure_elsewhere(publisher)
    capsys.readouterr()
    publisher.publish()
    assert publisher.on_hub() == there and publisher.titles() == commits
    assert publisher.release["parity.json"] != there["parity.json"]
    assert "v1.0.0 was built the same, byte for byte" in capsys.readouterr().out
    stated = {name: each.sha256 for name, each in publisher.receipt.files.items()}
    assert stated == {
        name: hashlib.sha256(content).hexdigest() for name, content in there.items()
    }


@pytest.fixture
def other_packages(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Installs another version of a package that a release is made with."""

    def install() -> None:
        packages = dict(computing_packages())
        packages["numpy"] = replace(packages["numpy"], version="9.9")
        monkeypatch.setattr("pipeline.publish.computing_packages", lambda _: packages)

    return install


def test_other_packages_that_build_the_same_make_no_other_version(
    publisher: Publisher, other_packages: Callable[[], None]
) -> None:
    publisher.publish()
    there, commits = publisher.on_hub(), publisher.titles()
    other_packages()
    publisher.publish()
    assert b"9.9" in publisher.release[RECORD] and b"9.9" not in there[RECORD]
    assert publisher.on_hub() == there and publisher.titles() == commits
    stated = publisher.receipt.files[RECORD].sha256
    assert stated == hashlib.sha256(there[RECORD]).hexdigest()


def test_other_packages_excuse_no_other_card(
    publisher: Publisher, other_packages: Callable[[], None]
) -> None:
    publisher.publish()
    other_packages()
    fake_artifacts(publisher.artifacts, card=CARD + "More text.\n")
    with pytest.raises(PublishError, match=r"v1\.0\.0 of ada/stick is already at"):
        publisher.publish()


def test_what_is_built_otherwise_is_another_version(publisher: Publisher) -> None:
    publisher.publish()
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    measure_elsewhere(publisher)
    with pytest.raises(PublishError, match=r"with other files"):
        publisher.publish()
    publisher.receipt_path.unlink()
    with pytest.raises(PublishError, match=r"v1\.0\.0 of ada/stick is already at"):
        publisher.publish()


def test_a_card_that_was_changed_on_the_same_machine_is_another_version(
    publisher: Publisher,
) -> None:
    publisher.publish()
    fake_artifacts(publisher.artifacts, card=CARD + "More text.\n")
    with pytest.raises(PublishError, match=r"v1\.0\.0 of ada/stick is already at"):
        publisher.publish()


def test_a_version_whose_tag_is_gone_is_not_published_with_other_evidence(
    publisher: Publisher,
) -> None:
    publisher.publish()
    del publisher.repo.tags["v1.0.0"]
    measure_elsewhere(publisher)
    with pytest.raises(PublishError, match=r"was published as commit .* other files"):
        publisher.publish()
    assert len(publisher.titles()) == 2
