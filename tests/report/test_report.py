"""The report shows what the pipeline made, and leads from a figure to its element."""

from __future__ import annotations

import os
from base64 import b64decode
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.error_tables import CASE_ERRORS
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.stage_runs import FOLDER, record_run
from checkpoint_release.report.contents import Contents
from checkpoint_release.report.stages import CACHED, MISSING, RAN, stage_rows
from tests.support.pipeline_folder import PipelineFolder

Printed = pytest.CaptureFixture[str]
VOID = {"meta", "img", "br", "link", "input"}


@dataclass
class Page(HTMLParser):
    """What a browser finds in a report."""

    html: str
    tags: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    alts: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    text: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        if tag == "img":
            self.alts.append(values["alt"])
            head, _, data = values["src"].partition(",")
            assert head == "data:image/svg+xml;base64"
            self.drawn.append(b64decode(data).decode())
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += f"{data.strip()} " if data.strip() else ""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineFolder:
    """A pipeline's folder, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    return PipelineFolder(tmp_path).write()


def report() -> Page:
    """Run the command, and read what it wrote."""
    assert main(["report"]) == 0
    return Page(Path("artifacts/report.html").read_text(encoding="utf-8"))


def test_the_report_has_the_verdict_the_pictures_and_the_figures(
    folder: PipelineFolder,
) -> None:
    page = report()
    assert "Verdict passed" in page.text
    assert [alt for alt in page.alts if "the limit is 8×" in alt]
    assert [alt for alt in page.alts if alt.startswith("Error along sequence of pose")]
    assert [alt for alt in page.alts if alt.startswith("Size of each format")]
    assert [alt for alt in page.alts if alt.startswith("Histograms of the weights")]
    assert "limit 8×" in "".join(page.drawn)
    assert "40 of 50" in page.text and "3e-15" in page.text


def test_the_worst_figure_leads_to_its_case_and_element(folder: PipelineFolder) -> None:
    page = report()
    assert "Closest to its limit 45%" in page.text
    assert "action[1,1,7]" in page.text.replace(" ", "")
    assert "in the case “zeros, sequence=2, batch=3”: expected 0.25, got 0.250001" in (
        page.text
    )
    targets = [link.removeprefix("#") for link in page.links]
    assert set(targets) <= set(page.ids) and len(page.ids) == len(set(page.ids))
    figures = [target for target in targets if target.startswith("error-")]
    assert len(set(figures)) == 2 * 2 * 2  # formats, outputs and cases


def test_speed_and_memory_are_shown_where_they_are_about_these_artifacts(
    folder: PipelineFolder,
) -> None:
    assert "Speed" not in report().text
    folder.write_benchmark()
    page = report()
    assert "Speed and memory" in page.text and "11 (21), 1.25×" in page.text
    assert "torch.compile was not run with 1 thread" in page.text
    assert "Test Processor 9000, 8 cores" in page.text
    assert [alt for alt in page.alts if alt.startswith("Size against latency of batch")]
    manifest = folder.artifacts / "onnx/manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"facts": {', '"facts": {"new": 1', 1)
    )
    assert "Speed" not in report().text


def test_the_graph_s_nodes_are_shown_by_module(folder: PipelineFolder) -> None:
    assert "node by node" not in report().text
    folder.write_nodes()
    page = report()
    assert "3 modules in the graph's order" in page.text
    assert "error is 8.0e-07 of the value, at layers.2/step8 (Gemm)" in page.text
    assert "layers.2 3 Gemm 8.0e-07 8.0e-07 step8" in page.text
    assert [alt for alt in page.alts if alt.startswith("Error of each node")]


def test_the_report_is_one_file_without_scripts_that_asks_for_nothing(
    folder: PipelineFolder,
) -> None:
    page = report()
    assert not page.tags & {"script", "iframe", "link", "object", "form"}
    assert all(link.startswith("#") for link in page.links)
    assert "default-src 'none'" in page.html
    namespaces = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
    everything = page.html + "".join(page.drawn)
    for namespace in namespaces:
        everything = everything.replace(namespace, "")
    assert "http:" not in everything and "https:" not in everything


HOSTILE = [
    "</td><script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "\u202egnp.exe\x1b[2J",
    "x" * 5000,
    '" onmouseover="alert(1)',
]


def test_names_and_facts_from_elsewhere_stay_text(folder: PipelineFolder) -> None:
    folder.write(
        [*HOSTILE, "pose"],
        weights={text: np.ones(3, np.float32) for text in HOSTILE},
        training={text: text for text in HOSTILE} | {"log": {HOSTILE[0]: [3, 2, 1]}},
        cases=[*HOSTILE, "nominal"],
    )
    page = report()
    assert "script" not in page.tags and not page.attributes & {"onmouseover"}
    assert "\u202e" not in page.html and "\x1b" not in page.html
    assert "{{ 7 * 7 }}" in page.text and "49" not in page.text.split()
    assert max(map(len, page.text.split())) < 300


def test_before_anything_ran_the_report_says_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifacts").mkdir()
    monkeypatch.chdir(tmp_path)
    page = report()
    assert "The checkpoint was not read yet." in page.text
    assert "No format was checked yet." in page.text
    assert "No release was assembled yet." in page.text
    assert not page.alts


def test_outside_a_pipeline_the_command_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: artifacts is no folder")
    assert "--artifacts" in message


def test_a_damaged_table_is_one_clear_error_and_the_last_report_stays(
    folder: PipelineFolder, capsys: Printed
) -> None:
    report()
    before = Path("artifacts/report.html").read_bytes()
    table = folder.artifacts / "parity/plots" / CASE_ERRORS.name
    table.write_text(table.read_text().replace("0.250001", "a quarter"))
    with pytest.raises(ArtifactError, match="not as it was written"):
        CASE_ERRORS.read(table.parent)
    assert main(["report"]) == 1
    message = capsys.readouterr().err
    assert "cases.csv is not as it was written" in message
    assert "Traceback" not in message
    assert Path("artifacts/report.html").read_bytes() == before


def test_a_table_is_read_as_it_was_written(folder: PipelineFolder) -> None:
    rows = CASE_ERRORS.read(folder.artifacts / "parity/plots")
    assert rows[0].case == "nominal, sequence=5, batch=1" and rows[0].index == "0,0,7"
    assert (rows[0].expected, rows[0].got) == (0.25, 0.250001)


def test_a_check_that_stopped_the_pipeline_is_named_first(
    folder: PipelineFolder,
) -> None:
    assert "stopped the pipeline" not in report().text
    (failed := folder.root / "scratch/parity/onnx").mkdir(parents=True)
    (failed / "reproduce.py").write_text("")
    page = report()
    assert "The last parity check stopped the pipeline at onnx." in page.text
    assert "python scratch/parity/onnx/reproduce.py" in page.text
    assert "Verdict stopped at onnx; before that: passed" in page.text


def test_the_changes_since_the_last_release_are_shown(folder: PipelineFolder) -> None:
    folder.write_pipeline({"onnx": {"opset": 17}})
    folder.write_metrics({"safetensors": 0.33, "onnx": 0.21})
    folder.write_statement({"model.safetensors": b"w", "onnx/model.onnx": b"older"})
    folder.commit("First release")
    folder.write_pipeline({"onnx": {"opset": 18}}, pins="3" * 32)
    folder.write_metrics({"safetensors": 0.33, "onnx": 0.39})
    new = {"model.safetensors": b"w", "onnx/model.onnx": b"newer one", "page": b"p"}
    folder.write_statement(new)
    page = report()
    assert "First release" in page.text
    assert "onnx.opset 17 18" in page.text
    assert "onnx 21% 39%" in page.text
    assert "onnx/model.onnx 5 9" in page.text and "page – 1" in page.text
    assert "2 files of the release differ, 1 are the same" in page.text
    assert "1 other inputs changed" in page.text
    folder.commit("Second release")
    committed = Contents(folder.root, "artifacts", None).comparison
    assert committed is not None and committed.commit.subject == "First release"


def test_without_an_earlier_release_nothing_is_held_against_it(
    folder: PipelineFolder,
) -> None:
    folder.write_pipeline({"onnx": {"opset": 17}})
    assert Contents(folder.root, "artifacts", None).comparison is None
    folder.commit("The only release")
    assert "Git has no earlier release" in report().text


def origins(folder: PipelineFolder) -> dict[str, str]:
    return {row.name: row.origin for row in stage_rows(folder.root)}


def test_stages_that_ran_here_are_told_from_those_that_dvc_had_cached(
    folder: PipelineFolder,
) -> None:
    (folder.root / ".dvc").mkdir()
    folder.write_pipeline({"onnx": {"opset": 17}})
    folder.commit("As it was")
    folder.write_pipeline({"onnx": {"opset": 18}})
    record_run("export-onnx", 4.24, Path("artifacts"))
    assert origins(folder) == {
        "load": CACHED,
        "export-safetensors": CACHED,
        "export-onnx": RAN,
        "parity-check": CACHED,
    }
    row = stage_rows(folder.root)[2]
    assert row.seconds == 4.2 and row.changes == ["onnx.opset: 17 → 18"]
    # What DVC links from its cache may be older than the run of other outputs.
    manifest = folder.artifacts / "onnx/manifest.json"
    manifest.write_text(manifest.read_text().replace("onnx", "other", 1))
    os.utime(manifest, (0, 0))
    assert origins(folder)["export-onnx"] == CACHED
    (folder.artifacts / "onnx/manifest.json").unlink()
    (folder.artifacts / "onnx/model.onnx").unlink()
    (folder.artifacts / "onnx").rmdir()
    assert origins(folder)["export-onnx"] == MISSING


def test_a_record_that_cannot_be_read_is_no_record(folder: PipelineFolder) -> None:
    (folder.root / ".dvc").mkdir()
    folder.write_pipeline({})
    record_run("load", 1.0, Path("artifacts"))
    assert origins(folder)["load"] == RAN
    (folder.root / FOLDER / "load.json").write_text("{")
    assert origins(folder)["load"] == CACHED


def test_a_lock_that_cannot_be_read_names_no_stages(folder: PipelineFolder) -> None:
    folder.write_pipeline({})
    (folder.root / "dvc.lock").write_text("stages: [")
    assert origins(folder) == {}


def test_curves_of_training_come_from_the_checkpoints_facts(
    folder: PipelineFolder,
) -> None:
    losses = {"train_loss": [3.0, 2.0, 1.5], "val_loss": [3.1, 2.2, 1.9]}
    folder.write(training={"history": losses})
    assert "Curves of training: history.loss." in report().alts
