"""The model card says what is so, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt
from safetensors.numpy import save_file

from checkpoint_release.card.hub_terms import LICENSES, TASKS, check_terms
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    CheckpointFolder,
    MergedLora,
)
from checkpoint_release.core.artifacts.config import read_config
from checkpoint_release.core.artifacts.formats import (
    FORMATS,
    ONNX,
    SAFETENSORS,
    TORCHSCRIPT,
)
from checkpoint_release.core.artifacts.manifest import (
    MANIFEST,
    read_manifest,
    write_manifest,
)
from checkpoint_release.core.artifacts.parity import (
    EXAMPLE_INPUTS,
    EXAMPLE_OUTPUTS,
    PARITY_FOLDER,
    REPORT,
    ParityReport,
    read_report,
)
from checkpoint_release.core.artifacts.release import CARD
from checkpoint_release.core.errors import (
    ArtifactError,
    CardError,
    ModelError,
    ParamsError,
)
from checkpoint_release.core.files import FileEntry, sha256, write_json
from checkpoint_release.core.params import CardParams, load_params, parse_section
from checkpoint_release.core.signature import Signature, TensorSpec
from checkpoint_release.core.signing_keys import Signer, named_fingerprint
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.models.stick_figure import example
from pipeline.model_card import MODEL_CARD, write_card
from tests.support.checkpoint_folder import write_checkpoint
from tests.support.parity_json import passed_report, store_report
from tests.support.project import ROOT, Project
from tests.support.stick_figure import WHOLE_FIGURE, stick_figure

HEADINGS = [
    *(
        "Intended use",
        "Out of scope",
        "Architecture",
        "Inputs and outputs",
        "Training",
        "Evaluation",
        "Files",
    ),
    *("Parity", "Usage", "Limitations", "Provenance", "Citation", "Authors", "Licence"),
]
NOTES = """\
Draws rabbits.

## Intended use
Drawing.

## Out of scope
Hares.

## Training data
Rabbits.

## Evaluation
By eye.

## Limitations
- No hats.
"""
CHECKPOINT_SHA256 = "0" * 64
MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass
class Artifacts:
    """Artifacts in a folder of a test's own: a model's facts, and bytes that nobody
    runs.
    """

    path: Path
    architecture: Architecture = field(default_factory=stick_figure)
    training: dict[str, Any] = field(
        default_factory=lambda: {"epoch": 3, "train_loss": 0.5, "val_loss": 0.25}
    )
    formats: tuple[str, ...] = (SAFETENSORS.name, ONNX.name, TORCHSCRIPT.name)

    def write(self) -> Artifacts:
        folder = write_checkpoint(
            self.path / CHECKPOINT,
            self.architecture,
            {"w": np.ones((2, 3), np.float32)},
            self.training,
        )
        config = model_config(CheckpointFolder.open(folder, OWN_ARTIFACTS))
        digests = read_manifest(folder).sha256s
        for name, format in FORMATS.items():
            (out := self.path / name).mkdir(parents=True, exist_ok=True)
            if name not in self.formats:
                write_manifest(out, name, enabled=False)
                continue
            (out / format.file).write_bytes(name.encode() * 100)
            config.write(out)
            facts = {"opset": 17, "exporter": "direct"} if name == ONNX.name else {}
            write_manifest(out, name, made_from=digests, facts=facts)
        self.pass_parity()
        return self

    def pass_parity(self, **changes: Any) -> None:
        """Write a report in which these artifacts passed."""
        checked = {name: sha256(self.path / name / MANIFEST) for name in self.formats}
        outputs = [spec.name for spec in self.architecture.signature.outputs]
        report = passed_report(checked, outputs)
        store_report(self.path, msgspec.structs.replace(report, **changes))

    @property
    def report(self) -> Path:
        return self.path / PARITY_FOLDER / REPORT

    @property
    def parity(self) -> ParityReport:
        return read_report(self.report)

    def change_checkpoint(self, **facts: Any) -> None:
        folder = CheckpointFolder.open(self.path / CHECKPOINT, OWN_ARTIFACTS)
        changed = msgspec.structs.replace(folder.facts, **facts)
        changed.write(folder.path / FACTS_FILE)
        write_manifest(folder.path, CHECKPOINT)
        for name in self.formats:
            manifest = read_manifest(self.path / name)
            write_manifest(self.path / name, name, facts=manifest.facts)
        self.pass_parity()


Author = Callable[..., CardParams]
"""What a test changes → the card options."""


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts").write()


@pytest.fixture
def author(tmp_path: Path) -> Author:
    """An author who has stated everything, but for what a test changes."""
    (folder := tmp_path / "notes").mkdir()
    (folder / "notes.md").write_text(NOTES)
    (folder / "citation.bib").write_text("@misc{rabbit}\n")
    everything: dict[str, Any] = {
        "written_for": None,
        "notes_dir": str(folder),
        "title": "Rabbit",
        "license": "mit",
        "license_name": None,
        "license_link": None,
        "authors": ["A. Author"],
        "language": [],
        "datasets": ["org/rabbits"],
        "base_model": [],
        "pipeline_tag": "other",
        "tags": ["rabbit"],
        "evaluated_on": "Rabbits, held out",
        "address": None,
        "metadata": {},
    }
    return lambda **changes: parse_section(CardParams, {**everything, **changes})


def card(artifacts: Artifacts, params: CardParams) -> str:
    write_card(params, artifacts.path)
    return (artifacts.path / MODEL_CARD / CARD).read_text(encoding="utf-8")


def body(text: str) -> str:
    return str(ModelCard(text).text)


def front_matter(text: str) -> ModelCardData:
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)  # the library declares only its base class
    return data


def headings(text: str, level: str = "h2") -> list[str]:
    tokens = MARKDOWN.parse(body(text))
    return [
        tokens[i + 1].content
        for i, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == level
    ]


def section(text: str, heading: str) -> str:
    return body(text).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


# What it holds


def test_a_card_has_every_section_once_and_in_order(
    artifacts: Artifacts, author: Author
) -> None:
    text = card(artifacts, author())
    assert headings(text, "h1") == ["Rabbit"]
    assert headings(text) == HEADINGS
    assert (
        "Draws rabbits." in text
        and "0.25" in section(text, "Evaluation")
        and "@misc{rabbit}" in text
    )
    assert "\n\n\n" not in text


def test_every_file_of_every_format_is_listed_as_it_is(
    artifacts: Artifacts, author: Author
) -> None:
    listed = section(card(artifacts, author()), "Files")
    rows = {
        row[0]: row
        for row in re.findall(
            r"^\| `(.+?)` \| (.*?) \| ([\d,]+) \| `(\w{64})` \|$", listed, re.MULTILINE
        )
    }
    for folder, format in FORMATS.items():
        for name, entry in read_manifest(artifacts.path / folder).files.items():
            if name == "config.json" and format.release_folder:
                continue  # the same as in the root, and not released
            _, _, size, digest = rows.pop(format.path_in_release(name))
            assert FileEntry(int(size.replace(",", "")), digest) == entry
    assert not rows
    assert "opset 17" in listed


def test_inputs_and_outputs_are_the_signatures(
    artifacts: Artifacts, author: Author
) -> None:
    text = section(card(artifacts, author()), "Inputs and outputs")
    signature = artifacts.architecture.signature
    for spec in (*signature.inputs, *signature.outputs):
        assert (
            f"| `{spec.name}` | `{spec.dtype}` |"
            f" `[{', '.join(map(str, spec.shape or ()))}]` |" in text
        )
    assert "0 to 4" in text  # of the five actions


def test_the_front_matter_is_what_the_hub_takes(
    artifacts: Artifacts, author: Author
) -> None:
    data = front_matter(card(artifacts, author()))
    assert data.license in LICENSES and data.pipeline_tag in TASKS
    assert data.library_name == "transformers"
    assert data.datasets == ["org/rabbits"]
    assert data.tags == [
        *("rabbit", "safetensors", "onnx", "torchscript", "transformers.js")
    ]
    [result] = data.eval_results or []
    assert (result.metric_type, result.metric_value, result.dataset_name) == (
        "val_loss",
        0.25,
        "Rabbits, held out",
    )
    assert data.model_name == "Rabbit"
    assert data.metrics is None and result.dataset_type == "custom"


def test_metrics_without_named_data_stay_out_of_the_model_index(
    artifacts: Artifacts, author: Author
) -> None:
    text = card(artifacts, author(evaluated_on=None))
    assert (
        not front_matter(text).eval_results
        and "metrics" not in front_matter(text).to_dict()
    )
    assert "0.25" in section(text, "Evaluation")
    assert "card.evaluated_on" in section(text, "To be supplied by the author")


def test_a_file_of_metrics_is_on_the_card_and_in_the_model_index(
    artifacts: Artifacts, author: Author
) -> None:
    params = author()
    result = {
        "task": {"type": "other"},
        "dataset": {"type": "org/rabbits", "name": "Rabbits", "split": "test"},
        "metrics": [{"type": "mse", "value": 0.125, "name": "Mean squared error"}],
    }
    (Path(params.notes_dir) / "metrics.json").write_text(json.dumps([result]))
    text = card(artifacts, params)
    assert "| Mean squared error | `0.125` | Rabbits | test |" in section(
        text, "Evaluation"
    )
    assert {
        (r.metric_type, r.metric_value) for r in front_matter(text).eval_results or []
    } == {
        ("mse", 0.125),
        ("val_loss", 0.25),
    }


def test_what_the_author_has_not_stated_is_left_out_and_listed(
    artifacts: Artifacts, author: Author, tmp_path: Path
) -> None:
    (silent := tmp_path / "silent").mkdir()
    text = card(
        artifacts,
        author(
            notes_dir=str(silent),
            title=None,
            license=None,
            authors=[],
            datasets=[],
            pipeline_tag=None,
            tags=[],
        ),
    )
    missing = section(text, "To be supplied by the author")
    assert str(tmp_path) not in text and "`notes.md` in the folder" in missing
    for what in (
        "Description",
        "Intended use",
        "Out of scope",
        "Training data",
        "Licence",
        "Authors",
        "Citation",
    ):
        assert f"- {what}: " in missing and what not in headings(text)
    data = front_matter(text).to_dict()
    assert not data.keys() & {
        "license",
        "datasets",
        "base_model",
        "language",
        "pipeline_tag",
    }
    assert headings(text, "h1") == ["StickFigureTransformer"]


def test_nothing_is_missing_when_everything_was_author(
    artifacts: Artifacts, author: Author
) -> None:
    assert "To be supplied" not in card(artifacts, author())


def test_notes_about_another_checkpoint_stay_off_the_card(
    artifacts: Artifacts,
    author: Author,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = card(artifacts, author(written_for="12345678"))
    for word in ("abbit", "A. Author"):
        assert word not in text
    assert "license" not in front_matter(text).to_dict() and "Licence" not in headings(
        text
    )
    assert "card.written_for" in section(text, "To be supplied by the author")
    assert "12345678" in capsys.readouterr().err
    assert "Draws rabbits." in card(
        artifacts, author(written_for=CHECKPOINT_SHA256[:8])
    )


def test_the_authors_other_sections_and_code_survive(
    artifacts: Artifacts, author: Author
) -> None:
    params = author()
    thanks = "To *all*.\n\n```sh\n## not a heading\n\n\n\necho\n```"
    (Path(params.notes_dir) / "notes.md").write_text(
        f"{NOTES}\n## Thanks\n{thanks}\n\n## INTENDED USE\nMore drawing.\n"
    )
    text = card(artifacts, params)
    assert f"\n## Thanks\n\n{thanks}\n\n## " in text
    assert section(text, "Intended use").strip() == "Drawing.\n\nMore drawing."
    assert headings(text).count("Intended use") == 1


def test_a_format_that_is_off_is_nowhere_on_the_card(
    tmp_path: Path, author: Author
) -> None:
    one = Artifacts(tmp_path / "one", formats=("safetensors",)).write()
    text = card(one, author())
    assert "model.safetensors" in text
    assert not re.search(r"onnx|torchscript|model\.pt|torch\.jit", text, re.IGNORECASE)


def test_a_model_that_does_not_describe_itself_has_a_card_too(
    tmp_path: Path, author: Author
) -> None:
    signature = read_signature(
        {"inputs": [{"name": "x", "shape": ["batch", 3]}], "outputs": ["y"]}
    )
    other = Artifacts(
        tmp_path / "other",
        Architecture("nowhere.at_all:Net", {"hidden": 64}, signature),
    ).write()
    text = card(other, author(title=None))
    assert headings(text, "h1") == ["Net"]
    assert "| `hidden` | `64` |" in text and "nowhere.at\\_all:Net" not in text
    assert front_matter(text).library_name == "pytorch"
    assert "AutoModel" not in text


def test_a_merged_adapter_and_what_the_pickle_named_are_on_the_card(
    artifacts: Artifacts, author: Author
) -> None:
    artifacts.change_checkpoint(
        lora=MergedLora(alpha=16.0, rank=8, layers=["a", "b", "c", "d"]),
        left_out={"harmless": {"numpy.dtype": 4}, "dangerous": {"os.system": 1}},
    )
    text = card(artifacts, author())
    assert "alpha `16`, rank `8`, in 4 layers" in section(text, "Architecture")
    assert "`numpy.dtype` (4×), `os.system` (1×)" in section(text, "Provenance")


def test_a_model_without_arguments_has_no_empty_table(
    tmp_path: Path, author: Author
) -> None:
    signature = Signature((TensorSpec("x", shape=(1,)),), (TensorSpec("y"),), {})
    architecture = Architecture("my_model:build", {}, signature)
    artifacts = Artifacts(tmp_path / "other", architecture).write()
    text = section(card(artifacts, author()), "Architecture")
    assert "The model is built by `my_model:build`." in text and "|---|" not in text


def test_the_same_artifacts_make_the_same_bytes(
    artifacts: Artifacts, author: Author
) -> None:
    one = card(artifacts, author())
    manifest = (artifacts.path / MODEL_CARD / MANIFEST).read_bytes()
    assert card(artifacts, author()) == one
    assert (artifacts.path / MODEL_CARD / MANIFEST).read_bytes() == manifest
    assert str(artifacts.path.parent) not in one
    read_manifest(artifacts.path / MODEL_CARD).verify(artifacts.path / MODEL_CARD)


def test_the_parity_figures_are_those_of_the_report(
    artifacts: Artifacts, author: Author
) -> None:
    shown = section(card(artifacts, author()), "Parity")
    assert "| output | noise floor | `safetensors` | `onnx` | `torchscript` |" in shown
    for name, output in artifacts.parity.formats["onnx"].outputs.items():
        [row] = [
            line for line in shown.splitlines() if line.startswith(f"| `{name}` |")
        ]
        error = f"{output.max_abs_error:.2g} ({output.times_floor:.2g}×)"
        assert row.split(" | ")[1] == "1.5e-07" and row.split(" | ")[3] == error
    assert (
        "`safetensors`: 40 of 50 weights are the checkpoint's, bit for bit; the other"
        " 10 are not in the file" in shown
    )
    assert "; in 11 of 11 cases" in shown
    assert "41 of 50 weights" in shown and "11 cases" in shown
    assert "its limit: 8×" in shown
    assert "in 11 cases, its graph differs from the model by at most 3e-15" in shown


def test_a_variant_of_reduced_precision_is_named_as_such(
    artifacts: Artifacts, author: Author
) -> None:
    formats = artifacts.parity.formats
    onnx = formats["onnx"]
    outputs = {
        name: msgspec.structs.replace(
            output, times_floor=None, share_of_output=0.0123, limit=0.2
        )
        for name, output in onnx.outputs.items()
    }
    int8 = msgspec.structs.replace(
        onnx, rule="reduced", reduced_precision="int8", outputs=outputs
    )
    artifacts.pass_parity(formats={**formats, "onnx int8": int8})
    shown = section(card(artifacts, author()), "Parity")
    assert "`onnx int8`" in shown and "rounded to int8" in shown
    assert "(1.23%)" in shown and "int8 by request" in shown and "20% passes" in shown


def test_an_output_with_a_tolerance_of_its_own_is_shown_as_a_share_of_it(
    artifacts: Artifacts, author: Author
) -> None:
    formats = artifacts.parity.formats
    outputs = dict(formats["onnx"].outputs)
    outputs["pose"] = msgspec.structs.replace(
        outputs["pose"], share_of_tolerance=0.25, limit=40.0
    )
    onnx = msgspec.structs.replace(formats["onnx"], outputs=outputs)
    artifacts.pass_parity(formats={**formats, "onnx": onnx})
    assert "(25% of its tolerance)" in section(card(artifacts, author()), "Parity")


# What it refuses


def failed_parity(artifacts: Artifacts) -> None:
    artifacts.pass_parity(passed=False)


def no_verdict(artifacts: Artifacts) -> None:
    write_json(artifacts.report, {"checked": {}})


def unchecked_format(artifacts: Artifacts) -> None:
    checked = dict(artifacts.parity.checked)
    del checked[ONNX.name]
    artifacts.pass_parity(checked=checked)


def verdict_without_figures(artifacts: Artifacts) -> None:
    report = artifacts.parity.to_json()
    write_json(artifacts.report, {**report, "formats": {"onnx": {"rule": ""}}})


def rebuilt_format(artifacts: Artifacts) -> None:
    (artifacts.path / "onnx/model.onnx").write_bytes(b"another")
    write_manifest(artifacts.path / "onnx", "onnx")


def another_checkpoints_format(artifacts: Artifacts) -> None:
    write_manifest(
        artifacts.path / "onnx", "onnx", made_from={"weights.safetensors": "f" * 64}
    )
    artifacts.pass_parity()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (failed_parity, "doesn't say that the formats passed"),
        (no_verdict, "passed"),
        (verdict_without_figures, r"`passed` - at `\$\.formats"),
        (unchecked_format, "onnx was not checked"),
        (rebuilt_format, "onnx is not what was checked"),
        (another_checkpoints_format, "made from another weights.safetensors"),
    ],
)
def test_artifacts_that_parity_check_did_not_pass_get_no_card(
    artifacts: Artifacts,
    author: Author,
    spoil: Callable[[Artifacts], None],
    named: str,
) -> None:
    before = card(artifacts, author())
    spoil(artifacts)
    with pytest.raises(ArtifactError, match=named):
        write_card(author(), artifacts.path)
    assert (artifacts.path / MODEL_CARD / CARD).read_text() == before


def test_a_file_changed_behind_its_manifest_gets_no_card(
    artifacts: Artifacts, author: Author
) -> None:
    (artifacts.path / "torchscript/model.pt").write_bytes(b"another")
    with pytest.raises(ArtifactError, match=r"model\.pt was changed"):
        write_card(author(), artifacts.path)


HOSTILE = [
    "<script>alert(1)</script>",
    "[click](https://example.org)",
    "x | y | z",
    "a\n\n# Heading\n\n---\nlicense: mit\n---\n",
    "`` `code` ``",
    "![](https://example.org/x.png)",
    "\u202egnp.exe",
    "x" * 10_000,
]


def test_the_card_shows_the_proof_and_the_sizes_and_says_what_they_show(
    artifacts: Artifacts, author: Author
) -> None:
    shown = card(artifacts, author())
    images = [
        child
        for token in MARKDOWN.parse(body(shown))
        for child in token.children or []
        if child.type == "image"
    ]
    alts = {str(image.attrs["src"]): image.content for image in images}
    folder = artifacts.path / MODEL_CARD
    assert alts.keys() == {"pictures/sizes.svg", "pictures/proof.svg"}
    assert "the limit is 8×" in alts["pictures/proof.svg"]
    assert "safetensors" in alts["pictures/sizes.svg"]
    manifest = read_manifest(folder)
    assert alts.keys() <= manifest.files.keys()
    for name in alts:
        assert (folder / name).read_text().startswith("<svg ")


def test_a_family_that_can_shows_its_example(
    tmp_path: Path, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Artifacts(tmp_path / "whole", stick_figure(WHOLE_FIGURE)).write()
    assert "example.svg" not in card(artifacts, author())
    given = example(artifacts.architecture.kwargs, artifacts.architecture.signature)
    assert given is not None
    folder = artifacts.path / PARITY_FOLDER
    (folder / EXAMPLE_INPUTS).parent.mkdir()
    save_file(given, folder / EXAMPLE_INPUTS)
    save_file({"pose": given["motion"]}, folder / EXAMPLE_OUTPUTS)
    shown = card(artifacts, author())
    assert re.search(r"!\[A stick figure moves[^]]+\]\(pictures/example\.svg\)", shown)
    svg = (artifacts.path / MODEL_CARD / "pictures/example.svg").read_text()
    assert svg.count("<animate ") == 2

    family = "checkpoint_release.models.stick_figure.picture"
    monkeypatch.setattr(family, lambda *arguments: {"svg": "<svg/>"})
    with pytest.raises(ModelError, match="has no svg or no alt"):
        card(artifacts, author())


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_checkpoint_holds_stays_text(
    tmp_path: Path, author: Author, text: str
) -> None:
    training = {"stage": text, text: 1, f"val_{text}": 0.5, "config": {text: text}}
    hostile = Artifacts(tmp_path / "hostile", training=training).write()
    hostile.change_checkpoint(left_out={"harmless": {text: 1}, "dangerous": {}})
    shown = card(hostile, author())
    assert set(headings(shown)) <= set(HEADINGS) and headings(shown, "h1") == ["Rabbit"]
    tokens = [
        child
        for token in MARKDOWN.parse(body(shown))
        for child in [token, *(token.children or [])]
    ]
    assert not {token.type for token in tokens} & {"html_block", "html_inline"}
    images = [token.attrs["src"] for token in tokens if token.type == "image"]
    assert images == ["pictures/sizes.svg", "pictures/proof.svg"]
    assert not [
        token
        for token in tokens
        if token.type == "link_open" and token.attrs["href"] != "https://example.org/m"
    ]
    assert "\u202e" not in shown and max(map(len, shown.splitlines())) < 2000
    assert front_matter(shown).license == "mit" and not front_matter(shown).eval_results


def test_harmless_training_facts_are_shown_whole(
    tmp_path: Path, author: Author
) -> None:
    harmless = Artifacts(
        tmp_path / "harmless",
        training={"training_stage": "pre-training", "config": {"lr": 3e-4}},
    ).write()
    text = section(card(harmless, author()), "Training")
    assert (
        "| `training_stage` | `pre-training` |" in text
        and "| `config.lr` | `0.0003` |" in text
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{"),
        ("metrics.json", '[{"task": 1}]'),
        ("metrics.json", '{"val_loss": 1}'),
        ("metrics.json", "[" * 100_000),
        ("metrics.json", '[{"a": NaN}]'),
        ("notes.md", "---\nlicense: mit\n---\n"),
        ("notes.md", "## Thanks\n\n```python\nimport hare\n"),
        ("notes.md", "x" * (1 << 20) + "x"),
        ("citation.bib", b"\xff\xfe\x00"),
    ],
)
def test_an_unusable_file_of_the_authors_is_one_clear_error(
    artifacts: Artifacts,
    author: Author,
    name: str,
    content: str | bytes,
) -> None:
    params = author()
    (Path(params.notes_dir) / name).write_bytes(
        content.encode() if isinstance(content, str) else content
    )
    with pytest.raises(CardError, match=re.escape(name)) as raised:
        write_card(params, artifacts.path)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("license", "Apache 2.0", "apache-2.0"),
        ("license", "other", "license_name"),
        ("pipeline_tag", "text-to-vidoe", "text-to-video"),
        ("datasets", ["not an id"], "card.datasets"),
        ("language", ["English"], "card.language"),
        ("written_for", "v1", "card.written_for"),
    ],
)
def test_front_matter_that_the_hub_would_refuse_is_refused_here(
    tmp_path: Path, key: str, value: Any, hint: str
) -> None:
    from ruamel.yaml import YAML

    params = YAML().load(ROOT / "params.yaml")
    params["card"][key] = value
    YAML().dump(params, tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match=hint):
        check_terms(load_params(tmp_path / "params.yaml").card)


# What readers do with it


def python_snippets(text: str) -> list[str]:
    return [
        token.content
        for token in MARKDOWN.parse(body(text))
        if token.type == "fence" and token.info == "python"
    ]


def run_snippet(snippet: str, folder: Path, home: Path) -> list[str]:
    """Run it in the folder, without the project and without a network; what it printed,
    line by line.
    """
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=folder,
        env={
            "HF_HOME": str(home / "hf"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PATH": "",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_snippet_runs_as_printed_in_the_release(
    built: Project, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    shutil.copytree(built.path / "artifacts/release", release)
    snippets = python_snippets((release / "README.md").read_text())
    assert len(snippets) == 3
    config = read_config(release)
    assert config
    outputs = [spec.name for spec in config.signature.outputs]
    for snippet in snippets:
        lines = run_snippet(snippet, release, tmp_path)
        assert [line.split(" ")[0] for line in lines] == outputs
        assert all(float(line.rpartition(" ")[2]) < 1e-4 for line in lines), lines


def test_the_weights_of_a_model_without_code_load_as_printed(
    tmp_path: Path, author: Author
) -> None:
    signature = read_signature(
        {"inputs": [{"name": "x", "shape": ["batch", 3]}], "outputs": ["y"]}
    )
    other = Artifacts(
        tmp_path / "other",
        Architecture("my_model:Net", {}, signature),
        formats=("safetensors",),
    ).write()
    [snippet] = python_snippets(card(other, author()))
    for shard in (1, 2):
        save_file(
            {f"w{shard}": np.ones(shard)},
            other.path / f"safetensors/model-0000{shard}-of-00002.safetensors",
        )
    (other.path / "safetensors/model.safetensors").unlink()
    assert run_snippet(snippet, other.path / "safetensors", tmp_path) == [
        "w1 (1,)",
        "w2 (2,)",
    ]


def test_the_demo_has_a_card_with_nothing_missing(built: Project) -> None:
    text = (built.path / "artifacts/release/README.md").read_text()
    assert "To be supplied" not in text
    assert "does not understand text" in section(text, "Limitations")
    checkpoint = sha256(built.path / "checkpoints/demo.pth")
    assert checkpoint in section(text, "Provenance")
    assert load_params(ROOT / "params.yaml").card.written_for == checkpoint[:16]


def test_the_card_of_a_signed_release_names_the_key_and_how_to_check_with_it(
    artifacts: Artifacts, author: Callable[..., CardParams]
) -> None:
    assert "## Signature" not in card(artifacts, author())
    write_card(author(), artifacts.path, Signer("ab" * 32, certified=False))
    text = (artifacts.path / MODEL_CARD / CARD).read_text(encoding="utf-8")
    assert f"sha256 of the public key (DER): `{'ab' * 32}`" in text
    assert named_fingerprint(text) == "ab" * 32
    assert "$ model_signing verify key . --signature model.sig" in text
    write_card(author(), artifacts.path, Signer("ab" * 32, certified=True))
    text = (artifacts.path / MODEL_CARD / CARD).read_text(encoding="utf-8")
    assert "$ model_signing verify certificate . --signature model.sig" in text
    assert "verify key" not in text
