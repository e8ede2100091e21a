"""Which clusters are taken, and what is reported of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint_release.core.errors import FleetError, ParamsError
from checkpoint_release.fleet.clusters import connected
from checkpoint_release.fleet.ssh import load_hosts
from checkpoint_release.fleet.transcript import Transcript


@pytest.mark.parametrize(
    ("cluster", "problem"),
    [
        ("kubernetes", "'kubernetes' is none"),
        ("local:0", "no number of workers"),
        ("local:many", "no number of workers"),
        ("tcp://10.0.0.1:8786", "neither on loopback nor behind TLS"),
        ("tcp://scheduler.example:8786", "neither on loopback nor behind TLS"),
        ("ssh:missing.yaml", r"missing\.yaml is missing"),
    ],
)
def test_a_cluster_that_cannot_be_or_must_not_be_is_refused(
    cluster: str, problem: str
) -> None:
    with pytest.raises(ParamsError, match=problem), connected(cluster):
        raise AssertionError("it was taken")


def test_a_scheduler_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("checkpoint_release.fleet.clusters.SECONDS", 0.3)
    address = "tcp://127.0.0.1:9"
    problem = f"no Dask scheduler answers at {address}"
    with pytest.raises(FleetError, match=problem), connected(address):
        raise AssertionError("it was reached")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("scheduler: a\nhosts: []\n", "names no hosts"),
        ("hosts: [{host: a}]\n", "scheduler: missing"),
        ("scheduler: a\nhosts: [{host: a, workers: 0}]\n", r"hosts\[0\].*\n.*workers"),
        ("scheduler: a\nhosts: [{name: a}]\n", "name: unknown key"),
    ],
)
def test_a_file_of_hosts_is_read_strictly(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=problem):
        load_hosts(path)


FAILED = """\
Running stage 'load':
> python -m pipeline.load
Updating lock file 'dvc.lock'
Running stage 'export-onnx':
> python -m pipeline.export_onnx
error: the opset can't be had
  what to do: ask for another
artifacts/onnx restored from the last good run
ERROR: failed to reproduce 'export-onnx': failed to run: python -m …, exited with 1
"""


@pytest.mark.parametrize(
    ("status", "killed"), [("1", False), ("-9", True), ("137", True), ("130", True)]
)
def test_what_a_stage_prints_says_whether_it_failed_or_was_killed(
    status: str, killed: bool
) -> None:
    stages: list[str] = []
    transcript = Transcript(stages.append)
    for line in FAILED.replace("exited with 1", f"exited with {status}").splitlines():
        transcript.feed(line)
    assert stages == transcript.ran == ["load", "export-onnx"]
    assert transcript.stage == "export-onnx"
    expected = ["the opset can't be had", "  what to do: ask for another"]
    assert transcript.error == expected
    assert transcript.was_killed is killed
