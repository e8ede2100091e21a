"""What a card has for the Hub: its address in examples, front matter of the author's
own, ids that are the Hub's, and no number twice.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from checkpoint_release.card.address import Address
from checkpoint_release.card.hub_terms import metric_id
from checkpoint_release.card.render import table
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.manifest import (
    read_manifest,
    write_manifest,
)
from checkpoint_release.core.artifacts.release import CARD
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import (
    CardParams,
    HubAddress,
    load_params,
    value_problem,
)
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.training import without_repeats
from pipeline.model_card import MODEL_CARD, write_card
from tests.card.test_model_card import (  # noqa: F401  artifacts and author: fixtures
    Artifacts,
    Author,
    artifacts,
    author,
    card,
    front_matter,
    section,
)
from tests.support.project import ROOT


def addressed(
    artifacts: Artifacts,  # noqa: F811
    params: CardParams,
    version: str | None = "v1.0.0",
) -> str:
    """The card of a release that has an address on the Hub."""
    address = Address("lab/rabbit", version)
    write_card(params, artifacts.path, address=address)
    return (artifacts.path / MODEL_CARD / CARD).read_text(encoding="utf-8")


# Its address


def test_examples_name_the_repository_and_the_version(
    artifacts: Artifacts,  # noqa: F811
    author: Author,  # noqa: F811
) -> None:
    usage = section(addressed(artifacts, author()), "Usage")
    named = "hf download lab/rabbit --revision v1.0.0 --local-dir rabbit"
    assert named in usage
    called = '    "lab/rabbit", revision="v1.0.0", trust_remote_code=True\n'
    assert f"AutoModel.from_pretrained(\n{called})" in usage
    assert 'model = load("lab/rabbit", revision="v1.0.0")' in usage


@pytest.mark.parametrize(
    ("card_options", "publish_options", "expected"),
    [
        ({}, {"repo_id": None, "version": "v1.0.0"}, None),
        ({}, {"repo_id": "lab/rabbit"}, Address("lab/rabbit", None)),
        (
            {},
            {"repo_id": "lab/rabbit", "revision": "dev"},
            Address("lab/rabbit", "dev"),
        ),
        (
            {},
            {"repo_id": "lab/rabbit", "revision": "dev", "version": "v1.0.0"},
            Address("lab/rabbit", "v1.0.0"),
        ),
        ({"address": "lab/hare"}, {}, Address("lab/hare", None)),
        ({"address": "lab/hare@main"}, {}, Address("lab/hare", None)),
        (
            {"address": "lab/hare@step-1"},
            {"repo_id": "lab/rabbit", "version": "v1.0.0"},
            Address("lab/hare", "step-1"),
        ),
    ],
)
def test_the_address_is_where_the_options_put_the_release(
    card_options: dict[str, str],
    publish_options: dict[str, str],
    expected: Address | None,
) -> None:
    params = load_params(ROOT / "params.yaml")
    params = msgspec.structs.replace(
        params,
        card=msgspec.structs.replace(params.card, **card_options),
        publish=msgspec.structs.replace(params.publish, **publish_options),
    )
    assert Address.of(params) == expected


@pytest.mark.parametrize(
    "address", ["rabbit", "lab/rabbit@", "lab/rabbit@a b", "lab/a--b@v1", "lab/a@v..1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert value_problem(HubAddress, "lab/rabbit@dev/v1", "card.address") is None
    found = value_problem(HubAddress, address, "card.address")
    assert found is not None and "organisation/name@revision" in found


@pytest.mark.slow
def test_without_a_version_examples_name_the_repository_alone(
    artifacts: Artifacts,  # noqa: F811
    author: Author,  # noqa: F811
) -> None:
    usage = section(addressed(artifacts, author(), version=None), "Usage")
    assert "hf download lab/rabbit --local-dir rabbit" in usage
    assert 'load("lab/rabbit")' in usage and "revision" not in usage


@pytest.mark.slow
def test_without_a_repository_no_example_names_one(
    artifacts: Artifacts,  # noqa: F811
    author: Author,  # noqa: F811
) -> None:
    text = card(artifacts, author())
    assert "hf download" not in text and "From the Hub" not in text


def test_a_model_that_only_its_author_has_the_code_of_is_loaded_as_onnx(
    tmp_path: Path,
    author: Author,  # noqa: F811
) -> None:
    signature = read_signature(
        {"inputs": [{"name": "x", "shape": ["n", 3]}], "outputs": ["y"]}
    )
    other = Artifacts(tmp_path / "o", Architecture("mine.nets:Net", {}, signature))
    usage = section(addressed(other.write(), author()), "Usage")
    assert 'load("lab/rabbit", revision="v1.0.0", format="onnx")' in usage
    assert "AutoModel" not in usage


# Front matter of the author's own


def test_metadata_passes_through_as_it_is(
    artifacts: Artifacts,  # noqa: F811
    author: Author,  # noqa: F811
) -> None:
    metadata = {
        "thumbnail": "https://example.org/rabbit.png",
        "new_version": "lab/hare",
        "extra_gated_fields": {"Company": "text", "I agree": "checkbox"},
        "widget": [{"text": "hop"}],
        "base_model_relation": None,
    }
    data = front_matter(card(artifacts, author(metadata=metadata))).to_dict()
    del metadata["base_model_relation"]
    assert {name: data[name] for name in metadata} == metadata
    assert "base_model_relation" not in data


@pytest.mark.parametrize("name", ["license", "tags", "model-index", "eval_results"])
def test_metadata_that_has_an_option_of_its_own_is_refused(
    author: Author,  # noqa: F811
    name: str,
) -> None:
    with pytest.raises(ParamsError, match=rf"metadata: .*{name} comes from the other"):
        author(metadata={name: "mit"})


# Ids and numbers


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("val_f1", "f1"),
        ("best_val_accuracy", "accuracy"),
        ("metrics.test_wer", "wer"),
        ("val_loss", None),
    ],
)
def test_a_metric_of_the_hub_is_known_by_its_name(name: str, found: str | None) -> None:
    assert metric_id(name) == found


def test_only_ids_of_the_hub_pass_for_such(
    tmp_path: Path,
    author: Author,  # noqa: F811
) -> None:
    training = {"val_f1": 0.5, "val_smoothness": 0.25}
    made = Artifacts(tmp_path / "artifacts", training=training).write()
    data = front_matter(card(made, author()))
    assert data.metrics == ["f1"]
    results = data.eval_results or []
    assert [result.metric_type for result in results] == ["f1", "val_smoothness"]
    assert {result.dataset_type for result in results} == {"custom"}
    known = front_matter(card(made, author(evaluated_on="org/rabbits")))
    (first, _) = known.eval_results or []
    assert first.dataset_type == "org/rabbits"


def test_no_number_stands_there_twice(
    tmp_path: Path,
    author: Author,  # noqa: F811
) -> None:
    training = {"best_val_loss": 0.125, "val_loss": 0.125, "best_val_f1": 0.75}
    made = Artifacts(tmp_path / "artifacts", training=training).write()
    text = card(made, author())
    assert section(text, "Evaluation").count("`0.125`") == 1
    assert "0.125" not in section(text, "Training")
    values = [result.metric_value for result in front_matter(text).eval_results or []]
    assert sorted(values) == [0.125, 0.75]


def test_a_best_value_that_is_another_number_stays() -> None:
    measured = {"best_val_loss": 0.1, "val_loss": 0.2, "m.best_val_f1": 0.5}
    assert without_repeats(measured) == measured


def test_a_number_of_the_authors_file_is_not_repeated(
    artifacts: Artifacts,  # noqa: F811
    author: Author,  # noqa: F811
) -> None:
    params = author()
    result = {
        "task": {"type": "other"},
        "dataset": {"type": "org/rabbits", "name": "Rabbits"},
        "metrics": [{"type": "mse", "value": 0.25, "name": "val_loss"}],
    }
    (Path(params.notes_dir) / "metrics.json").write_text(json.dumps([result]))
    text = card(artifacts, params)
    assert len(front_matter(text).eval_results or []) == 1
    assert section(text, "Evaluation").count("`0.25`") == 1


def test_the_tag_of_transformers_js_is_there_where_it_loads(
    tmp_path: Path,
    author: Author,  # noqa: F811
) -> None:
    """Not without the configuration in the root, nor with weights beside the graph."""

    def tags(made: Artifacts) -> list[str]:
        return front_matter(card(made, author())).tags or []

    made = Artifacts(tmp_path / "whole").write()
    assert "transformers.js" in tags(made)
    (made.path / "onnx/model.onnx_data").write_bytes(b"weights")
    manifest = read_manifest(made.path / "onnx")
    write_manifest(made.path / "onnx", "onnx", made_from=manifest.made_from)
    made.pass_parity()
    assert "transformers.js" not in tags(made)
    alone = Artifacts(tmp_path / "alone", formats=("onnx",)).write()
    assert "transformers.js" not in tags(alone)


def test_empty_columns_and_tables_are_left_out() -> None:
    rows = [["a", "", "c"], ["d", "", ""]]
    assert (
        table(["x", "y", "z"], rows) == "| x | z |\n| --- | --- |\n| a | c |\n| d |  |"
    )
    assert table(["x", "y"], []) == ""
