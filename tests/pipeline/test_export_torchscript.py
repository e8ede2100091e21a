"""export-torchscript: a flat trace with dynamic sizes in an archive that says nothing
of where it was made.
"""

from __future__ import annotations

import pickletools
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from checkpoint_release.core.artifacts.manifest import read_manifest
from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.params import OnnxParams
from checkpoint_release.core.signature import sample_inputs
from checkpoint_release.exporting.torch_archive import (
    is_debugging,
    rename_classes,
    rewrite,
)
from checkpoint_release.runtimes.loader import load
from checkpoint_release.runtimes.open import open_runtime
from pipeline import export_torchscript as stage
from pipeline.export_onnx import export_onnx
from pipeline.export_torchscript import (
    check_archive,
    export,
    write_torch_export,
    write_torchscript,
)
from tests.support import models
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.project import ROOT
from tests.support.stick_figure import stick_figure, with_images
from tests.support.tiny_release import sizes_of

WRITERS = {"torchscript": write_torchscript, "torch_export": write_torch_export}
FILES = {"torchscript": "model.pt", "torch_export": "model.pt2"}
# Each encoder and each fusion at least once.
IMAGES = [
    ("lightweight_cnn", "gated"),
    ("resnet", "cross_attention"),
    ("mini_vit", "film"),
    ("lightweight_cnn", "concat"),
]
KINDS = [models.Convolutions, models.Recurrent, models.TiedLanguageModel, models.Argmax]


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture = stick_figure(inputs=["motion", "text_embedding", "action_sequence"])
    return write_checkpoint(
        tmp_path_factory.mktemp("figure") / "checkpoint",
        architecture,
        state_dict(architecture),
    )


@pytest.fixture(scope="module")
def exported(figure: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the folders of both formats."""
    artifacts = tmp_path_factory.mktemp("exported")
    for format, write in WRITERS.items():
        export(figure, artifacts / format, format, write)
    return artifacts


def error_of(format: str, checkpoint: Path, folder: Path, **sizes: int) -> float:
    """Against the eager model, relative to the largest value of each output."""
    eager, runtime = (
        open_runtime("checkpoint", checkpoint),
        open_runtime(format, folder),
    )
    inputs = sample_inputs(
        runtime.signature, sizes_of(runtime.signature, **sizes), seed=3
    )
    expected, found = eager.run(inputs), runtime.run(inputs)
    assert list(expected) == list(found)
    return max(
        float(np.abs(found[k] - expected[k]).max() / np.abs(expected[k]).max())
        for k in expected
    )


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize(("sequence", "batch"), [(1, 1), (2, 5), (63, 1), (5200, 1)])
def test_it_computes_what_the_model_does_at_any_size(
    figure: Path, exported: Path, format: str, sequence: int, batch: int
) -> None:
    assert (
        error_of(format, figure, exported / format, sequence=sequence, batch=batch)
        < 1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "fusion"), IMAGES)
def test_models_with_images_are_exported(
    encoder: str, fusion: str, tmp_path: Path
) -> None:
    architecture = stick_figure(with_images(encoder, fusion))
    checkpoint = write_checkpoint(
        tmp_path / "checkpoint", architecture, state_dict(architecture)
    )
    for format, write in WRITERS.items():
        export(checkpoint, tmp_path / format, format, write)
        assert (
            error_of(format, checkpoint, tmp_path / format, sequence=4, batch=3) < 1e-4
        )
    for opset in (17, 23):
        params = OnnxParams(
            opset=opset, exporter="auto", ir_version=None, variants=["float16", "int8"]
        )
        export_onnx(checkpoint, params, tmp_path / "onnx")
        assert (
            error_of("onnx", checkpoint, tmp_path / "onnx", sequence=4, batch=3) < 1e-4
        )


@pytest.mark.parametrize("kind", KINDS)
def test_any_module_is_traced(kind: type[nn.Module], tmp_path: Path) -> None:
    checkpoint = models.checkpoint(tmp_path / "checkpoint", kind)
    export(checkpoint, tmp_path / "torchscript", "torchscript", write_torchscript)
    signature = open_runtime("checkpoint", checkpoint).signature
    sizes = {
        name: dimension.example + 3 for name, dimension in signature.dimensions.items()
    }
    assert error_of("torchscript", checkpoint, tmp_path / "torchscript", **sizes) < 1e-5


def test_it_is_loaded_by_torch_alone_and_takes_the_signature_s_names(
    exported: Path,
) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import torch; m ="
        " torch.jit.load(sys.argv[1]); print([a.name for a in"
        " m.forward.schema.arguments]); print(len(m(text_embedding=torch.zeros(3, 16),"
        " motion=torch.zeros(4, 3, 20), action_sequence=torch.zeros(4, 3,"
        " dtype=torch.int64))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, exported / "torchscript/model.pt"],
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        "['self', 'motion', 'text_embedding', 'action_sequence']",
        "6",
    ]


def test_weights_keep_their_names_and_ask_for_no_gradient(
    figure: Path, exported: Path
) -> None:
    from checkpoint_release.exporting.tracing import silence_known_warnings
    from checkpoint_release.runtimes.eager import build_eager

    with silence_known_warnings():
        loaded = torch.jit.load(exported / "torchscript/model.pt")
    expected = build_eager(figure)[0].state_dict()
    assert list(loaded.state_dict()) == list(expected)
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in loaded.state_dict().items()
    )
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_torch_export_keeps_the_names_of_weights_and_inputs(
    figure: Path, exported: Path
) -> None:
    from checkpoint_release.runtimes.eager import build_eager

    program = torch.export.load(exported / "torch_export/model.pt2")
    assert program.state_dict.keys() == build_eager(figure)[0].state_dict().keys()
    assert list(program.graph_signature.user_inputs) == [
        "motion",
        "text_embedding",
        "action_sequence",
    ]
    assert not any(node.meta.get("stack_trace") for node in program.graph.nodes)


def test_the_archive_holds_no_scopes_no_debugging_and_no_numbers_of_the_process(
    exported: Path,
) -> None:
    with zipfile.ZipFile(exported / "torchscript/model.pt") as archive:
        names = archive.namelist()
        code = archive.read("model/code/__torch__.py").decode()
        pickle = archive.read("model/data.pkl")
        assert {info.date_time for info in archive.infolist()} == {
            (1980, 1, 1, 0, 0, 0)
        }
    assert not [name for name in names if "debug" in name or "traced_inputs" in name]
    assert [name for name in names if "/code/" in name] == ["model/code/__torch__.py"]
    assert "mangle" not in code and "pipeline" not in code and "torch.nn" not in code
    classes = {
        argument
        for opcode, argument, _ in pickletools.genops(pickle)
        if opcode.name == "GLOBAL"
    }
    assert "__torch__ StickFigureTransformer" in classes
    assert not any("mangle" in str(name) or "pipeline" in str(name) for name in classes)


@pytest.mark.parametrize("format", WRITERS)
def test_tensors_lie_at_multiples_of_64_bytes(exported: Path, format: str) -> None:
    path = exported / format / FILES[format]
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name, extra = (
                int.from_bytes(content[info.header_offset + at :][:2], "little")
                for at in (26, 28)
            )
            assert (info.header_offset + 30 + name + extra) % 64 == 0


def test_what_the_tracer_cannot_follow_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = models.checkpoint(tmp_path / "checkpoint", models.Forking)
    with pytest.raises(ExportError):
        export(checkpoint, tmp_path / "torchscript", "torchscript", write_torchscript)
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
        export(checkpoint, tmp_path / "torchscript", "torchscript", write_torchscript)
    assert not (tmp_path / "torchscript").exists()


def test_a_path_in_the_archive_is_caught(exported: Path, tmp_path: Path) -> None:
    source = exported / "torchscript/model.pt"
    check_archive(source)

    def leak(records: dict[str, bytes]) -> dict[str, bytes]:
        return {
            **records,
            "code/__torch__.py": (
                records["code/__torch__.py"] + b"# /home/someone/model.py\n"
            ),
        }

    rewrite(source, tmp_path / "model.pt", edit=leak)
    with pytest.raises(
        ExportError, match=r"__torch__.py holds '/home/someone/model.py'"
    ):
        check_archive(tmp_path / "model.pt")


def test_a_model_that_cannot_be_exported_is_one_clear_error(tmp_path: Path) -> None:
    checkpoint = models.checkpoint(tmp_path / "checkpoint", models.Baked)

    def fail(traceable: object, folder: Path, config: str) -> None:
        raise RuntimeError("the tracer\nsays so")

    with pytest.raises(ExportError) as error:
        export(checkpoint, tmp_path / "torchscript", "torchscript", fail)
    assert (
        error.value.problem
        == "torchscript: exporting Baked failed: RuntimeError: the tracer says so"
    )
    assert "formats.torchscript" in error.value.remedy


def test_classes_of_equal_text_become_one_and_others_are_numbered() -> None:
    def module(body: str) -> bytes:
        return f"class Linear(Module):\n  {body}\n".encode()

    top = (
        b"class Top(Module):\n  a : __torch__.x.Linear\n  b :"
        b" __torch__.x.___torch_mangle_1.Linear\n  c :"
        b" __torch__.x.___torch_mangle_2.Linear\n"
    )
    records = {
        "data.pkl": (
            b"\x80\x02c__torch__.x.___torch_mangle_1\nLinear\nc__torch__.x.___torch_mangle_2\nLinear\n0."
        ),
        "code/__torch__/y/___torch_mangle_9.py": top,
        "code/__torch__/x.py": module("weight : Tensor"),
        "code/__torch__/x/___torch_mangle_1.py": module("bias : Tensor"),
        "code/__torch__/x/___torch_mangle_2.py": module("weight : Tensor"),
    }
    renamed = rename_classes(records)
    assert (
        renamed["data.pkl"] == b"\x80\x02c__torch__\nLinear_1\nc__torch__\nLinear\n0."
    )
    assert (
        renamed["code/__torch__.py"].decode()
        == "class Linear(Module):\n  weight : Tensor\nclass Linear_1(Module):\n  bias :"
        " Tensor\nclass Top(Module):\n  a : __torch__.Linear\n  b :"
        " __torch__.Linear_1\n  c : __torch__.Linear\n"
    )


def test_an_archive_is_the_same_whatever_the_process_traced_before_and_the_file_was_called(
    tmp_path: Path,
) -> None:
    files = []
    for number in range(2):
        raw, file = tmp_path / f"name{number}.pt", tmp_path / f"{number}.pt"
        checkpoint = models.checkpoint(
            tmp_path / f"checkpoint{number}", models.TiedLanguageModel
        )
        from checkpoint_release.exporting.tracing import (
            Traceable,
            silence_known_warnings,
        )

        traceable = Traceable.open(checkpoint)
        with silence_known_warnings():
            torch.jit.save(
                torch.jit.trace(
                    stage._flat(traceable), traceable.arguments, check_trace=False
                ),
                raw,
            )
        rewrite(raw, file, drop=is_debugging, edit=rename_classes)
        files.append((raw.read_bytes(), file.read_bytes()))
    assert files[0][0] != files[1][0]  # torch's own differ, or this would show nothing
    assert files[0][1] == files[1][1]


def test_a_format_that_is_off_leaves_a_folder_that_says_so(
    figure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        (ROOT / "params.yaml")
        .read_text()
        .replace("torchscript: true", "torchscript: false")
    )
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/checkpoint").symlink_to(figure)
    monkeypatch.chdir(tmp_path)
    stage.main()
    for format in WRITERS:
        assert [path.name for path in (tmp_path / "artifacts" / format).iterdir()] == [
            "manifest.json"
        ]
        assert not read_manifest(tmp_path / "artifacts" / format).enabled


@pytest.mark.parametrize("format", WRITERS)
def test_the_file_alone_says_what_it_takes_and_gives(
    exported: Path, tmp_path: Path, format: str
) -> None:
    """Without config.json beside it, as when somebody is handed just the one file."""
    alone = shutil.copy(exported / format / FILES[format], tmp_path)
    assert load(alone).signature == load(exported / format).signature


def test_the_trace_fixes_no_device(
    figure: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch.arange in forward would tie the file to this machine's cpu."""
    export(figure, tmp_path / "figure", "torchscript", write_torchscript)
    assert "makes tensors on the device" not in capsys.readouterr().out
    # torch's LSTM makes its first state
    recurrent = models.checkpoint(tmp_path / "checkpoint", models.Recurrent)
    export(recurrent, tmp_path / "recurrent", "torchscript", write_torchscript)
    assert "model.pt makes tensors on the device cpu" in capsys.readouterr().out
