"""What changed between two releases, as `checkpoint-release diff` and the notes of a
publication report it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.release import read_release
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.comparison import Change, compare
from checkpoint_release.release.differences import differences
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.notes import notes
from checkpoint_release.release.versions import previous_version
from checkpoint_release.release.view import view_folder, view_on_hub
from tests.release.test_assemble import make_keys
from tests.support.parity_json import store_report, write_parity
from tests.support.publishing import (
    REPO,
    SENDING,
    TOKEN,
    Publisher,
    fake_artifacts,
    write_artifact,
)

pytestmark = pytest.mark.filterwarnings(SENDING)

CARD = """---
license: {license}
model-index:
- name: m
  results:
  - metrics:
    - type: test_f1
      value: {f1}
---
# A model
"""
OPSET_17 = {"opset": 17, "ir_version": 8, "exporter": "direct", "nodes": 302}
TENSORS = {
    "kept": np.arange(6, dtype=np.float32),
    "moved": np.array([3.0, 4.0], np.float32),
    "gone": np.zeros(2, np.float32),
    "wider": np.ones(2, np.float16),
}
LATER_TENSORS = {
    "kept": TENSORS["kept"],
    "moved": np.array([3.0, 4.5], np.float32),
    "new": np.zeros(3, np.float32),
    "wider": np.ones(2, np.float32),
}


def release(
    folder: Path,
    tensors: dict[str, Any],
    *,
    layers: int,
    val_loss: float,
    license: str,
    **options: Any,
) -> Path:
    """A release with these facts."""
    artifacts = fake_artifacts(
        folder, card=CARD.format(license=license, f1=1 - val_loss), **options
    )
    write_artifact(
        artifacts / "safetensors",
        "safetensors",
        {
            "model.safetensors": save(tensors),
            "config.json": json.dumps({"kwargs": {"layers": layers}}).encode(),
            "training_args.json": json.dumps({"val_loss": val_loss}).encode(),
        },
    )
    write_parity(artifacts)
    return assemble(artifacts)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return release(
        tmp_path / "old",
        TENSORS,
        layers=4,
        val_loss=0.5,
        license="mit",
        facts=OPSET_17,
    )


@pytest.fixture
def new(tmp_path: Path) -> Path:
    folder = release(
        tmp_path / "new",
        LATER_TENSORS,
        layers=6,
        val_loss=0.25,
        license="apache-2.0",
        facts=OPSET_17 | {"opset": 20, "nodes": 267},
    )
    report = write_parity(tmp_path / "new")
    figures = report.formats["onnx"]
    name, output = next(iter(figures.outputs.items()))
    worse = msgspec.structs.replace(output, max_abs_error=0.5, times_floor=7.0)
    figures.outputs[name] = worse
    store_report(tmp_path / "new", report)
    return assemble(folder.parent)


# Two folders


def test_an_error_under_a_fixed_tolerance_is_a_share_of_that(
    old: Path, new: Path
) -> None:
    """Its limit is stated in multiples of the noise floor, as its error is."""
    report = write_parity(new.parent)
    outputs = report.formats["onnx"].outputs
    for name, figures in outputs.items():
        outputs[name] = msgspec.structs.replace(
            figures, share_of_tolerance=0.5, times_floor=4.0, limit=8.0
        )
    store_report(new.parent, report)
    later = view_folder(assemble(new.parent))
    share = compare(view_folder(old), later).parity["onnx"].share_of_limit
    assert share is not None and share.new == 0.5


def test_tensors_that_changed_are_counted_and_their_distance_is_measured(
    old: Path, new: Path
) -> None:
    weights = compare(view_folder(old), view_folder(new)).weights
    assert weights.changed == ["moved"] and weights.reshaped == ["wider"]
    assert (weights.added, weights.removed) == (["new"], ["gone"])
    distance = weights.distance
    assert distance is not None and distance.largest_in == "moved"
    assert math.isclose(distance.largest, 0.5 / 5)
    assert distance.max_abs == 0.5 and distance.measured == 1


def test_graph_configuration_parity_metrics_and_card_are_compared(
    old: Path, new: Path
) -> None:
    found = compare(view_folder(old), view_folder(new))
    assert found.graphs == {
        "onnx": {"opset": Change(old=17, new=20), "nodes": Change(old=302, new=267)}
    }
    assert found.config == {"kwargs.layers": Change(old=4, new=6)}
    assert found.metrics["val_loss"] == Change(old=0.5, new=0.25)
    assert found.metrics["test_f1"] == Change(old=0.5, new=0.75)
    assert found.parity.keys() == {"onnx"}
    share = found.parity["onnx"].share_of_limit
    assert share is not None and share.new == 0.88 and share.old < share.new
    assert found.card is not None
    assert found.card.front_matter == {"license": Change(old="mit", new="apache-2.0")}


def test_the_notes_name_what_changed_and_nothing_else(old: Path, new: Path) -> None:
    text = notes(compare(view_folder(old), view_folder(new)))
    assert "1 of 3 tensors changed; 1 of another dtype or shape (`wider`)" in text
    assert "at most 0.1 (`moved`); no element by more than 0.5" in text
    assert "`onnx`: `opset` 17 → 20, `nodes` 302 → 267" in text
    assert "`val_loss` 0.5 → 0.25 (-50.0%)" in text
    assert "Card: `license` `mit` → `apache-2.0`" in text
    same = notes(compare(view_folder(old), view_folder(old)))
    assert same.splitlines() == [
        "- Weights: none of 4 tensors differs",
        "- Everything that is built is the same, byte for byte",
    ]


def test_the_command_prints_notes_or_json(
    old: Path, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(old), str(new)]) == 0
    assert f"{new} since {old}:\n\n- Weights: 1 of 3" in capsys.readouterr().out
    assert main(["diff", "--json", str(old), str(new)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["graphs"]["onnx"]["opset"] == {"old": 17, "new": 20}
    assert found["weights"]["changed"] == ["moved"]


def test_what_is_no_release_is_one_clear_error(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(old), "nowhere"]) == 1
    assert "neither a folder nor organisation/name@rev" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["diff", str(old), str(tmp_path / "empty")]) == 1
    assert "holds no release.json" in capsys.readouterr().err


def test_a_file_that_is_not_what_the_release_lists_is_not_compared(
    old: Path, new: Path
) -> None:
    (old / "config.json").write_text('{"kwargs": {"layers": 5}}')
    with pytest.raises(ArtifactError, match=r"config\.json of .* is not what its"):
        compare(view_folder(old), view_folder(new))


def test_names_out_of_a_release_can_not_end_their_line(old: Path, new: Path) -> None:
    tensors = {"a`b\n- Weights: all fine": np.ones(1, np.float32)}
    evil = release(
        new.parent.parent / "evil", tensors, layers=4, val_loss=0.5, license="mit"
    )
    text = notes(compare(view_folder(old), view_folder(evil)))
    assert not [line for line in text.splitlines() if "all fine" in line[:30]]
    assert "`a'b" in text


# On a Hub


@pytest.mark.slow
def test_of_large_weights_on_a_hub_the_digests_are_compared(
    publisher: Publisher, tmp_path: Path, new: Path
) -> None:
    """The limit is what keeps them there: without it they come."""
    publisher.publish()
    hub = Hub(publisher.hub.url, TOKEN)
    publisher.hub.requests.clear()

    def downloads() -> list[str]:
        found = [path for _, path, _ in publisher.hub.requests]
        return [path for path in found if path.endswith("model.safetensors")]

    later = assemble(fake_artifacts(tmp_path / "later", weights=b"weighty"))
    with view_on_hub(hub, REPO, "v1.0.0") as old:
        weights = compare(old, view_folder(later), limit=10).weights
        assert weights.changed == ["weight"] and weights.distance is None
        assert "which weren't downloaded" in weights.not_measured
        assert downloads() == []
        weights = compare(old, view_folder(later)).weights
        assert weights.distance is not None and downloads()


def test_the_command_compares_a_version_on_the_hub(
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publisher.publish()
    monkeypatch.setattr(
        "checkpoint_release.release.hub.default_endpoint", lambda: publisher.hub.url
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    release = str(publisher.artifacts / "release")
    assert main(["diff", f"{REPO}@v1.0.0", release]) == 0
    assert "none of 1 tensors differs" in capsys.readouterr().out
    assert main(["diff", f"{REPO}@v9.0.0", release]) == 1
    assert "404" in capsys.readouterr().err


def test_a_version_states_what_changed_since_the_one_before(
    publisher: Publisher,
) -> None:
    publisher.publish()
    assert "CHANGELOG.md" not in publisher.on_hub()
    fake_artifacts(publisher.artifacts, weights=b"weightz", facts=OPSET_17)
    publisher.publish(version="v1.1.0")
    assert publisher.on_hub() == publisher.release
    message = publisher.repo.history()[0].message
    assert message.startswith("Since v1.0.0:\n\n- Weights: 1 of 1 tensors changed")
    assert "Files" not in message  # the record is written after the notes
    text = publisher.on_hub()["CHANGELOG.md"].decode()
    assert text == f"# Changelog\n\n## v1.1.0\n\n{message}\n"
    folder = publisher.artifacts / "release"
    found = differences(folder, read_release(folder))
    assert (found.problems, found.people_files) == ([], [])


def test_attestations_that_are_yet_to_be_made_are_no_files_that_are_gone(
    publisher: Publisher, tmp_path: Path
) -> None:
    key, _ = make_keys(tmp_path)
    publisher.publish(signing_key=str(key))
    fake_artifacts(publisher.artifacts, weights=b"weightz", facts=OPSET_17)
    publisher.publish(version="v1.1.0", signing_key=str(key))
    assert "attestations/provenance.intoto.jsonl" in publisher.on_hub()
    message = publisher.repo.history()[0].message
    assert "Weights: 1 of 1 tensors changed" in message and "attest" not in message


@pytest.mark.slow
def test_a_version_keeps_the_changes_before_it_and_is_the_same_when_made_again(
    publisher: Publisher,
) -> None:
    publisher.publish()
    for version, weights in (("v1.1.0", b"second "), ("v1.2.0", b"third  ")):
        fake_artifacts(publisher.artifacts, weights=weights)
        publisher.publish(version=version)
    text = publisher.on_hub()["CHANGELOG.md"].decode()
    assert text.index("## v1.2.0") < text.index("## v1.1.0")
    assert text.count("# Changelog") == 1
    publisher.publish(version="v1.2.0")
    del publisher.repo.tags["v1.1.0"]
    publisher.publish(version="v1.2.0")
    assert publisher.on_hub()["CHANGELOG.md"].decode() == text
    assert len(publisher.titles()) == 4


def test_a_pull_request_and_a_release_without_version_have_notes_too(
    publisher: Publisher,
) -> None:
    publisher.publish(version=None)
    fake_artifacts(publisher.artifacts, weights=b"second ")
    publisher.publish(version=None, create_pr=True)
    message = publisher.repo.history("refs/pr/1")[0].message
    assert message.startswith("Since main:\n\n- Weights: 1 of 1 tensors changed")
    assert "CHANGELOG.md" not in publisher.on_hub("refs/pr/1")


def test_a_card_that_people_edited_costs_no_notes(publisher: Publisher) -> None:
    """Left to them it isn't compared; and replaced it is, as it is there."""
    publisher.publish(version=None)
    edited = publisher.repo.edit({"README.md": b"---\nlicense: mit\n---\nBy people.\n"})
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    publisher.publish(version=None, card="keep")
    (newest, before, *_) = publisher.repo.history()
    assert before.oid == edited.oid
    assert newest.message.startswith("Since main:") and "- Weights: " in newest.message
    assert "README.md" not in newest.message and "Card" not in newest.message
    fake_artifacts(publisher.artifacts, card="---\nlicense: mit\n---\n# Ours\n")
    publisher.publish(version=None)
    publisher.repo.edit({"README.md": b"---\nlicense: mit\n---\nBy people.\n"})
    fake_artifacts(publisher.artifacts, card="---\nlicense: mit\n---\n# New\n")
    publisher.publish(version=None)
    assert "- Card: 1 lines new, 1 gone" in publisher.repo.history()[0].message


def test_a_changelog_of_people_stays_theirs(publisher: Publisher) -> None:
    publisher.publish()
    publisher.repo.edit({"CHANGELOG.md": b"by hand"})
    fake_artifacts(publisher.artifacts, weights=b"second ")
    publisher.publish(version="v1.1.0")
    assert publisher.on_hub()["CHANGELOG.md"] == b"by hand"
    assert publisher.repo.history()[0].message.startswith("Since v1.0.0")


@pytest.mark.slow
def test_a_changelog_of_ones_own_goes_along_instead(
    publisher: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "extra/CHANGELOG.md").write_text("by the author")
    publisher.publish()
    fake_artifacts(publisher.artifacts, weights=b"second ")
    publisher.publish(version="v1.1.0")
    assert publisher.on_hub()["CHANGELOG.md"] == b"by the author"


@pytest.mark.slow
def test_a_version_before_that_is_no_release_costs_the_notes_alone(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish()
    publisher.repo.edit({"release.json": b'{"format": 0}'})
    publisher.repo.tags["v1.0.1"] = publisher.repo.branches["main"]
    publisher.publish(version="v1.1.0")
    assert "no release notes: " in capsys.readouterr().out
    assert publisher.on_hub() == publisher.release


TAGS = ["v1.0.0", "v1.9.0", "v1.10.0", "v2.0.0-rc.1", "v2.0.0-rc.10", "latest", "v3"]


@pytest.mark.parametrize(
    ("version", "before"),
    [
        ("v1.0.1", "v1.0.0"),
        ("v1.11.0", "v1.10.0"),
        ("v2.0.0-rc.11", "v2.0.0-rc.10"),
        ("v2.0.0-rc.2", "v2.0.0-rc.1"),
        ("v2.0.0", "v1.10.0"),
        ("v1.0.0", None),
        ("v1.0.0+build.2", None),
    ],
)
def test_the_version_before_is_the_next_lower_one(
    version: str, before: str | None
) -> None:
    assert previous_version(version, TAGS) == before
