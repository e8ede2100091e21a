"""A graph past what protobuf holds in one message, from checkpoint to verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.project import ROOT
from tests.support.wide_model import SIGNATURE, random_weights

pytestmark = pytest.mark.slow

FACTORY = ("--factory", "tests.support.wide_model:Wide")
FORMATS = ("--formats", "safetensors", "onnx")
NEEDED = 12 << 30  # bytes of memory
LIMIT = 1200  # seconds


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "checkpoint_release", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def raise_one_weight(file: Path) -> None:
    """By its last bit, in the middle of all weights."""
    weights = np.memmap(file, dtype=np.float32, mode="r+")
    somewhere = weights[weights.size // 2 :][:1_000_000]
    largest = int(np.argmax(np.abs(somewhere)))
    somewhere[largest] = np.nextafter(somewhere[largest], np.float32(np.inf))
    weights.flush()


def available_memory() -> int:
    """In bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":") for line in lines)
    return int(fields["MemAvailable"].split()[0]) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its memory")
def test_a_graph_past_two_gigabytes_is_proven_and_a_flipped_bit_in_it_found(
    tmp_path: Path,
) -> None:
    if available_memory() < NEEDED:
        pytest.skip("takes 12 GB of memory")
    torch.save(random_weights(), tmp_path / "wide.pth")
    (tmp_path / "signature.json").write_text(json.dumps(SIGNATURE))
    asked = (*FACTORY, "--source", str(ROOT / "tests/support/wide_model.py"))
    signature = ("--signature", "signature.json")
    made = run(
        tmp_path, "convert", "wide.pth", "-o", "out", *asked, *signature, *FORMATS
    )
    assert made.returncode == 0, made.stderr
    graph = tmp_path / "out/onnx/model.onnx"
    data = graph.with_name("model.onnx_data")
    assert data.stat().st_size > 2 << 30
    proven = json.loads((tmp_path / "out/parity.json").read_text())
    assert proven["passed"]

    raise_one_weight(data)
    inputs = ("--inputs", "out/sample/inputs.safetensors")
    compared = run(tmp_path, "parity", "wide.pth", str(graph), *FACTORY, *inputs)
    assert compared.returncode == 1, compared.stdout + compared.stderr
    assert "its graph is not the model's" in compared.stdout + compared.stderr
