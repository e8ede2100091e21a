"""Front matter that people set on the Hub outlives a release that replaces the card."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from checkpoint_release.release.front_matter import split_card
from checkpoint_release.release.peoples_fields import peoples_fields, with_fields
from tests.support.publishing import CARD, REPO, SENDING, Publisher, fake_artifacts

pytestmark = pytest.mark.filterwarnings(SENDING)

GATED = {
    "extra_gated_prompt": "Do you agree?\nReally: yes",
    "extra_gated_fields": {"Company": "text", "I agree": "checkbox"},
    "thumbnail": "https://example.org/ü.png",
}


def fields(publisher: Publisher, revision: str = "main") -> dict[str, Any]:
    return split_card(publisher.on_hub(revision)["README.md"].decode())[0]


def set_on_hub(publisher: Publisher, **more: Any) -> None:
    """What a person does in the settings or the editor of the card."""
    held, body = split_card(publisher.on_hub()["README.md"].decode())
    text = f"---\n{yaml.safe_dump(held | more)}---\n{body}"
    publisher.repo.edit({"README.md": text.encode()})


def test_a_gate_that_people_set_survives_the_next_release(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish()
    set_on_hub(publisher, **GATED, license="gpl")
    fake_artifacts(publisher.artifacts, card=CARD + "New numbers.\n")
    publisher.publish(version="v1.1.0")
    found = fields(publisher)
    assert {name: found[name] for name in GATED} == GATED
    assert found["license"] == "mit"  # an option of the pipeline
    assert publisher.on_hub()["README.md"].decode().endswith("New numbers.\n")
    assert "kept of the card on the Hub: extra_gated_fields" in capsys.readouterr().out
    assert publisher.on_hub() == publisher.release


@pytest.mark.slow
def test_it_stays_for_good_and_the_release_is_the_same_when_made_again(
    publisher: Publisher,
) -> None:
    publisher.publish()
    set_on_hub(publisher, **GATED)
    for version in ("v1.1.0", "v1.2.0"):
        fake_artifacts(publisher.artifacts, weights=version.encode())
        publisher.publish(version=version)
    commits = len(publisher.titles())
    publisher.receipt_path.unlink()
    publisher.publish(version="v1.2.0")
    assert len(publisher.titles()) == commits
    assert fields(publisher)["extra_gated_prompt"] == GATED["extra_gated_prompt"]


@pytest.mark.slow
def test_it_goes_where_the_author_names_it(publisher: Publisher) -> None:
    publisher.publish()
    set_on_hub(publisher, **GATED)
    publisher.publish(version="v1.1.0", dropped=["thumbnail"])
    assert "thumbnail" not in fields(publisher)
    assert "extra_gated_prompt" in fields(publisher)


def test_a_repository_that_was_gated_before_its_first_release_stays_gated(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.create(REPO)
    text = f"---\n{yaml.safe_dump(GATED)}---\n"
    publisher.repo.edit({"README.md": text.encode()})
    publisher.publish()
    assert fields(publisher) == {"license": "mit"} | GATED


def test_what_the_new_card_states_itself_is_not_kept() -> None:
    there = with_fields(CARD, {"thumbnail": "theirs", "widget": [1]})
    ours = with_fields(CARD, {"thumbnail": "ours"})
    assert peoples_fields(ours, there) == {"widget": [1]}
    assert peoples_fields(ours, "no front matter") == {}
    assert peoples_fields(ours, "---\nbroken: [\n---\n") == {}
    assert with_fields(CARD, {}) == CARD
