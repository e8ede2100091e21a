"""TorchScript and torch.export: files with dynamic sizes that can be used alone and say
nothing of where they were made.
"""

from __future__ import annotations

import pickletools
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.tracing import silence_known_warnings
from checkpoint_release.runtimes.eager import build_eager
from checkpoint_release.runtimes.loader import load
from checkpoint_release.runtimes.open import open_runtime
from tests.support import models, unsound_models
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.exports import (
    TORCH_FORMATS,
    export_to_onnx,
    export_with_torch,
    largest_error,
)
from tests.support.stick_figure import stick_figure, with_images

# Each encoder and each fusion at least once.
IMAGES = [
    ("lightweight_cnn", "gated"),
    ("resnet", "cross_attention"),
    ("mini_vit", "film"),
    ("lightweight_cnn", "concat"),
]
KINDS = [
    models.Convolutions,
    models.Recurrent,
    models.TiedLanguageModel,
    models.Argmax,
]


@pytest.mark.parametrize("format", TORCH_FORMATS)
@pytest.mark.parametrize(
    ("sequence", "batch"),
    [
        (1, 1),
        (2, 5),
        pytest.param(63, 1, marks=pytest.mark.slow),
        pytest.param(5200, 1, marks=pytest.mark.slow),
    ],
)
def test_it_computes_what_the_model_does_at_any_size(
    figure: Path,
    torch_files: dict[str, Path],
    format: str,
    sequence: int,
    batch: int,
) -> None:
    error = largest_error(
        format, figure, torch_files[format].parent, sequence=sequence, batch=batch
    )
    assert error < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "fusion"), IMAGES)
def test_models_with_images_are_exported(
    encoder: str, fusion: str, tmp_path: Path
) -> None:
    architecture = stick_figure(with_images(encoder, fusion))
    checkpoint = write_checkpoint(
        tmp_path / "checkpoint", architecture, state_dict(architecture)
    )
    sizes = {"sequence": 4, "batch": 3}
    for format in TORCH_FORMATS:
        export_with_torch(format, checkpoint, tmp_path / format)
        assert largest_error(format, checkpoint, tmp_path / format, **sizes) < 1e-4
    for opset in (17, 23):
        folder = tmp_path / f"onnx{opset}"
        export_to_onnx(checkpoint, folder, opset=opset, variants=["float16", "int8"])
        assert largest_error("onnx", checkpoint, folder, **sizes) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_any_module_is_traced(kind: type[nn.Module], tmp_path: Path) -> None:
    checkpoint = models.checkpoint(tmp_path / "checkpoint", kind)
    export_with_torch("torchscript", checkpoint, tmp_path / "torchscript")
    signature = open_runtime("checkpoint", checkpoint, trust=OWN_ARTIFACTS).signature
    sizes = {
        name: dimension.example + 3 for name, dimension in signature.dimensions.items()
    }
    folder = tmp_path / "torchscript"
    assert largest_error("torchscript", checkpoint, folder, **sizes) < 1e-5


def test_it_is_loaded_by_torch_alone_and_takes_the_signature_s_names(
    torch_files: dict[str, Path],
) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import torch; m ="
        " torch.jit.load(sys.argv[1]); print([a.name for a in"
        " m.forward.schema.arguments]); print(len(m(text_embedding=torch.zeros(3, 16),"
        " motion=torch.zeros(4, 3, 20), action_sequence=torch.zeros(4, 3,"
        " dtype=torch.int64))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, torch_files["torchscript"]],
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        "['self', 'motion', 'text_embedding', 'action_sequence']",
        "6",
    ]


def test_weights_keep_their_names_and_ask_for_no_gradient(
    figure: Path, torch_files: dict[str, Path]
) -> None:
    with silence_known_warnings():
        loaded = torch.jit.load(torch_files["torchscript"])
    expected = build_eager(figure, OWN_ARTIFACTS)[0].state_dict()
    assert list(loaded.state_dict()) == list(expected)
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in loaded.state_dict().items()
    )
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_torch_export_keeps_the_names_of_weights_and_inputs(
    figure: Path, torch_files: dict[str, Path]
) -> None:
    program = torch.export.load(torch_files["torch_export"])
    assert (
        program.state_dict.keys()
        == build_eager(figure, OWN_ARTIFACTS)[0].state_dict().keys()
    )
    assert list(program.graph_signature.user_inputs) == [
        "motion",
        "text_embedding",
        "action_sequence",
    ]
    assert not any(node.meta.get("stack_trace") for node in program.graph.nodes)


def test_the_archive_holds_no_scopes_no_debugging_and_no_numbers_of_the_process(
    torch_files: dict[str, Path],
) -> None:
    with zipfile.ZipFile(torch_files["torchscript"]) as archive:
        names = archive.namelist()
        code = archive.read("model/code/__torch__.py").decode()
        pickle = archive.read("model/data.pkl")
        assert {info.date_time for info in archive.infolist()} == {
            (1980, 1, 1, 0, 0, 0)
        }
    assert not [name for name in names if "debug" in name or "traced_inputs" in name]
    assert [name for name in names if "/code/" in name] == ["model/code/__torch__.py"]
    classes = [
        str(argument)
        for opcode, argument, _ in pickletools.genops(pickle)
        if opcode.name == "GLOBAL"
    ]
    assert "__torch__ StickFigureTransformer" in classes
    for text in (code, *classes):
        assert "mangle" not in text
        assert "checkpoint_release" not in text
        assert "torch.nn" not in text


@pytest.mark.parametrize("format", TORCH_FORMATS)
def test_tensors_lie_at_multiples_of_64_bytes(
    torch_files: dict[str, Path], format: str
) -> None:
    path = torch_files[format]
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name, extra = (
                int.from_bytes(content[info.header_offset + at :][:2], "little")
                for at in (26, 28)
            )
            assert (info.header_offset + 30 + name + extra) % 64 == 0


@pytest.mark.parametrize("format", TORCH_FORMATS)
def test_the_file_alone_says_what_it_takes_and_gives(
    torch_files: dict[str, Path], tmp_path: Path, format: str
) -> None:
    """Without config.json beside it, as when somebody is handed just the one file."""
    alone = shutil.copy(torch_files[format], tmp_path)
    assert load(alone).signature == load(torch_files[format].parent).signature


def test_what_the_tracer_cannot_follow_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = models.checkpoint(tmp_path / "checkpoint", models.Forking)
    with pytest.raises(ExportError):
        export_with_torch("torchscript", checkpoint, tmp_path / "torchscript")
    notes = capsys.readouterr().err.splitlines()
    assert [note.partition(".py:")[0] for note in notes] == ["note: models"]
    assert (
        "Converting a tensor to a Python boolean might cause the trace to be incorrect"
        in notes[0]
    )


def test_a_dimension_baked_in_by_tracing_is_caught(tmp_path: Path) -> None:
    checkpoint = models.checkpoint(tmp_path / "checkpoint", models.Baked)
    with pytest.raises(
        ExportError, match=r"model.pt at .*sequence 8.* off the eager model's by"
    ):
        export_with_torch("torchscript", checkpoint, tmp_path / "torchscript")


@pytest.mark.parametrize(
    ("format", "exporter"),
    [("torchscript", "torch.jit.trace"), ("torch_export", "torch.export.export")],
)
def test_a_model_that_cannot_be_exported_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, exporter: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the tracer\nsays so")

    checkpoint = models.checkpoint(tmp_path / "checkpoint", models.Baked)
    monkeypatch.setattr(exporter, fail)
    with pytest.raises(ExportError) as error:
        export_with_torch(format, checkpoint, tmp_path / format)
    assert (
        error.value.problem
        == f"{format}: exporting Baked failed: RuntimeError: the tracer says so"
    )
    assert f"set formats.{format} to false" in error.value.remedy


def test_the_trace_fixes_no_device(
    figure: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch.arange in forward would tie the file to this machine's cpu."""
    export_with_torch("torchscript", figure, tmp_path / "figure")
    assert "makes tensors on the device" not in capsys.readouterr().out
    # torch's LSTM makes its first state
    recurrent = models.checkpoint(tmp_path / "checkpoint", models.Recurrent)
    export_with_torch("torchscript", recurrent, tmp_path / "recurrent")
    assert "model.pt makes tensors on the device cpu" in capsys.readouterr().out


def test_what_torch_s_own_layers_note_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = models.checkpoint(tmp_path / "checkpoint", models.Recurrent)
    export_with_torch("torchscript", checkpoint, tmp_path / "torchscript")
    notes = [line for line in capsys.readouterr().err.splitlines() if "rnn.py" in line]
    assert len(notes) == len(set(notes)) == 1


def test_torch_prints_no_graph_where_an_export_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind, format in (
        (unsound_models.DecidesByValue, "torch_export"),
        (models.FourierTransform, "onnx"),
    ):
        stated = {**models.SIGNATURES[models.FourierTransform], "outputs": ["out"]}
        architecture = Architecture(
            f"{kind.__module__}:{kind.__name__}", {}, read_signature(stated)
        )
        checkpoint = write_checkpoint(
            tmp_path / kind.__name__, architecture, state_dict(architecture)
        )
        with pytest.raises(ExportError) as error:
            if format == "onnx":
                export_to_onnx(checkpoint, tmp_path / format)
            else:
                export_with_torch(format, checkpoint, tmp_path / format)
        printed = "".join(capfd.readouterr())
        assert "graph(" not in printed and "def forward" not in printed
        assert len(str(error.value).splitlines()) == 2
