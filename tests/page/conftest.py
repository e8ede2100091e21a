"""Releases of models of several kinds, and a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser

from tests.support.browser import Visit
from tests.support.models import SIGNATURES, Argmax, Convolutions, Framed
from tests.support.project import ROOT


def convert(folder: Path, checkpoint: Path, *arguments: str | Path) -> Path:
    """A release with an ONNX model and a page, by `checkpoint-release convert`."""
    command = [sys.executable, "-m", "checkpoint_release", "convert", str(checkpoint)]
    asked = ["-o", str(folder), "--formats", "onnx", *map(str, arguments)]
    subprocess.run([*command, *asked], cwd=ROOT, check=True, capture_output=True)
    return folder


def foreign(folder: Path, kind: type[torch.nn.Module], *more: str) -> Path:
    """A release of a model that isn't this library's, with random weights."""
    torch.manual_seed(0)
    folder.mkdir()
    checkpoint, signature = folder / "model.pth", folder / "signature.json"
    torch.save(kind().state_dict(), checkpoint)
    signature.write_text(json.dumps(SIGNATURES[kind]))
    factory = f"{kind.__module__}:{kind.__name__}"
    asked = ("--factory", factory, "--signature", signature)
    return convert(folder / "release", checkpoint, *asked, *more)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's release; not to be changed."""
    folder = tmp_path_factory.mktemp("demo") / "release"
    return convert(folder, ROOT / "checkpoints/demo.pth")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of a foreign model that takes images, in full and in reduced
    precision; not to be changed.
    """
    variants = ("--set", "onnx.variants=[float16, int8]")
    folder = tmp_path_factory.mktemp("images") / "model"
    return foreign(folder, Convolutions, *variants)


@pytest.fixture(scope="session")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of a foreign model that gives whole numbers; not to be changed."""
    return foreign(tmp_path_factory.mktemp("choices") / "model", Argmax)


@pytest.fixture(scope="session")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose sizes follow from others; not to be changed."""
    return foreign(tmp_path_factory.mktemp("framed") / "model", Framed)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """An empty page of a visitor whom nobody knows."""
    context = browser.new_context()
    yield Visit(context)
    context.close()
