"""A bar appears where somebody waits, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from checkpoint_release.core import progress
from checkpoint_release.core.progress import Progress
from tests.support.project import ROOT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(stream: io.StringIO) -> str:
    with Progress("writing weights", 10_000_000, stream) as bar:
        bar.add(2_500_000)
        bar.add(2_500_000)
    return stream.getvalue()


def test_a_terminal_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BEGINS_AFTER", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    shown = drawn(Terminal())
    assert "writing weights [###############...............]  50%, 5 of 10 MB" in shown
    assert shown.endswith("\r\x1b[K")  # and leaves nothing behind


def test_what_is_quick_shows_nothing() -> None:
    assert drawn(Terminal()) == ""


def test_a_log_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BEGINS_AFTER", 0.0)
    assert drawn(io.StringIO()) == ""


def test_writing_weights_draws_on_standard_error_of_a_terminal() -> None:
    code = (
        "import tempfile\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from checkpoint_release.core import progress\n"
        "from checkpoint_release.tensors.safetensors import write_safetensors\n"
        "from checkpoint_release.tensors.tensor import Tensor\n"
        "progress.BEGINS_AFTER = 0.0\n"
        "path = Path(tempfile.mkdtemp()) / 'weights.safetensors'\n"
        "tensor = Tensor.of_numpy(np.ones(500_000, np.float32))\n"
        "write_safetensors(path, {'w': tensor})\n"
    )
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 0 and done.stdout == b""
    assert "writing weights.safetensors [" in shown and "of 2 MB" in shown
