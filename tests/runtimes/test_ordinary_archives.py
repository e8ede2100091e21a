"""Whatever torch writes of ordinary models needs no trust."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from checkpoint_release.core.trust import NO_TRUST
from checkpoint_release.runtimes.archive_trust import trusted_archive
from tests.support.ordinary_models import ORDINARY, Example

# What torch itself can't: lambdas in TorchScript, threads in a graph, and the like.
NOT_TRACED = {"branches"}
NOT_SCRIPTED = {"branches", "counts", "signal", "sizes"}
NOT_EXPORTED = {"named", "language"}

FAST = {"convolutions", "attention", "language", "odd_names", "branches", "counts"}

Writer = Callable[[nn.Module, Example, Path], None]


@pytest.fixture(autouse=True)
def _warnings_are_expected() -> Iterator[None]:
    """TorchScript is deprecated, and tracing warns of what it can't follow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def opened(format: str, file: Path) -> None:
    """Look into the file; what needs trust raises."""
    with trusted_archive(format, file, NO_TRUST) as path:
        assert path.read_bytes() == file.read_bytes()


def names(without: set[str]) -> list[object]:
    """The ordinary models; most of them in the slow suite."""
    return [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in ORDINARY
        if name not in without
    ]


@pytest.mark.parametrize("name", names(NOT_TRACED))
def test_traced_models_need_no_trust(name: str, tmp_path: Path) -> None:
    build, inputs = ORDINARY[name]
    traced = torch.jit.trace(build().eval(), inputs, check_trace=False, strict=False)
    torch.jit.save(traced, str(tmp_path / "model.pt"))
    opened("torchscript", tmp_path / "model.pt")


@pytest.mark.parametrize("name", names(NOT_SCRIPTED))
def test_scripted_and_frozen_models_need_no_trust(name: str, tmp_path: Path) -> None:
    scripted = torch.jit.script(ORDINARY[name][0]().eval())
    for module in (scripted, torch.jit.freeze(scripted)):
        torch.jit.save(module, str(tmp_path / "model.pt"))
        opened("torchscript", tmp_path / "model.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["convolutions", "lstm", "gru", "cells", "attention", "vision", "coder"]
)
def test_dynamically_quantized_models_need_no_trust(name: str, tmp_path: Path) -> None:
    """Packed weights are objects of C++, with a __setstate__ in their code."""
    quantized = torch.ao.quantization.quantize_dynamic(
        ORDINARY[name][0]().eval(), {nn.Linear, nn.LSTM, nn.GRU}
    )
    torch.jit.save(torch.jit.script(quantized), str(tmp_path / "model.pt"))
    opened("torchscript", tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["odd_names", "transformer"])
def test_models_for_phones_and_with_extra_files_need_no_trust(
    name: str, tmp_path: Path
) -> None:
    scripted = torch.jit.script(ORDINARY[name][0]().eval())
    scripted._save_for_lite_interpreter(str(tmp_path / "model.ptl"))
    opened("torchscript", tmp_path / "model.ptl")
    extra = {"notes.txt": "it's", "code/train.py": "import os; torch.save()"}
    torch.jit.save(scripted, str(tmp_path / "model.pt"), _extra_files=extra)
    opened("torchscript", tmp_path / "model.pt")


@pytest.mark.parametrize("name", names(NOT_EXPORTED))
@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_models_need_no_trust(
    name: str, dynamic: bool, tmp_path: Path
) -> None:
    build, inputs = ORDINARY[name]
    sizes = tuple({0: torch.export.Dim.AUTO} for _ in inputs) if dynamic else None
    program = torch.export.export(build().eval(), inputs, dynamic_shapes=sizes)
    for version in (program, program.run_decompositions()):
        torch.export.save(version, str(tmp_path / "model.pt2"))
        opened("torch_export", tmp_path / "model.pt2")
