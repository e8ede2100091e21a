"""A card shows speed and memory where they were measured on the very artifacts that it
describes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from markdown_it import MarkdownIt

from checkpoint_release.core.artifacts.benchmark import BENCHMARK, Benchmark
from checkpoint_release.core.artifacts.manifest import MANIFEST, read_manifest
from checkpoint_release.core.files import sha256
from checkpoint_release.core.params import CardParams
from pipeline.model_card import MODEL_CARD, write_card
from tests.card.test_model_card import Artifacts, Author, artifacts, author
from tests.support.benchmark_models import MACHINE, benchmark

__all__ = ["artifacts", "author"]
NOTE = "is about other artifacts"


def measure(artifacts: Artifacts) -> Benchmark:
    """Write the figures of these artifacts."""
    formats = {
        name: sha256(artifacts.path / name / MANIFEST) for name in artifacts.formats
    }
    measured = benchmark(formats)
    measured.write(artifacts.path / BENCHMARK)
    return measured


def card(artifacts: Artifacts, params: CardParams) -> str:
    write_card(params, artifacts.path)
    return (artifacts.path / MODEL_CARD / "README.md").read_text(encoding="utf-8")


def picture(artifacts: Artifacts) -> Path:
    return artifacts.path / MODEL_CARD / "pictures/latency.svg"


def test_figures_are_shown_with_the_machine_and_what_was_not_run(
    artifacts: Artifacts, author: Author, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(artifacts)
    text = card(artifacts, author())
    assert "## Speed and memory" in text and "in each of 20 rounds" in text.lower()
    assert "| batch=1 | 1 | 10 (20) | 11 (21), 1.25× |" in text
    assert "| batch=8 | 1 | 350 | 351 |" in text
    assert "torch.compile: not run with 1 thread: there is no C++ compiler" in text
    assert "Test Processor 9000, 8 cores, 16 GB of memory, Linux 6.1" in text
    assert "](pictures/latency.svg)" in text and picture(artifacts).is_file()
    tables = MarkdownIt("commonmark").enable("table").render(text)
    assert tables.count("<th>torchscript</th>") == 2  # times, memory
    made_from = read_manifest(artifacts.path / MODEL_CARD).made_from
    assert made_from[BENCHMARK] == sha256(artifacts.path / BENCHMARK)
    assert NOTE not in capsys.readouterr().err


def test_figures_of_other_artifacts_are_left_out_with_a_note(
    artifacts: Artifacts, author: Author, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(artifacts)
    shown = card(artifacts, author())
    assert NOTE not in capsys.readouterr().err
    manifest = artifacts.path / "onnx" / MANIFEST
    manifest.write_text(manifest.read_text().replace("direct", "dynamo"))
    artifacts.pass_parity()
    text = card(artifacts, author())
    assert "Speed and memory" in shown and "Speed and memory" not in text
    assert NOTE in capsys.readouterr().err and not picture(artifacts).exists()
    assert BENCHMARK not in read_manifest(artifacts.path / MODEL_CARD).made_from


def test_where_nothing_was_measured_the_card_is_as_without_the_stage(
    artifacts: Artifacts, author: Author, capsys: pytest.CaptureFixture[str]
) -> None:
    without = card(artifacts, author())
    Benchmark().write(artifacts.path / BENCHMARK)
    assert card(artifacts, author()) == without
    assert NOTE not in capsys.readouterr().err and not picture(artifacts).exists()


def test_a_machine_that_was_busy_is_named_so(
    artifacts: Artifacts, author: Author
) -> None:
    measured = measure(artifacts)
    busy = msgspec.structs.replace(MACHINE, load=7.5)
    changed = msgspec.structs.replace(measured, machines=[busy])
    changed.write(artifacts.path / BENCHMARK)
    assert "it was busy (load 7.5)" in card(artifacts, author())


def test_reasons_from_a_compiler_stay_text(
    artifacts: Artifacts, author: Author
) -> None:
    measured = measure(artifacts)
    hostile = "<script>alert(1)</script> | x `y` **bold**"
    failed = msgspec.structs.replace(measured.not_run[0], reason=hostile)
    changed = msgspec.structs.replace(measured, not_run=[failed])
    changed.write(artifacts.path / BENCHMARK)
    rendered = (
        MarkdownIt("commonmark").enable("table").render(card(artifacts, author()))
    )
    assert "<script>" not in rendered and "<strong>bold" not in rendered
