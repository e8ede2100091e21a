"""The command line: what it prints, its exit codes, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.commands import run
from checkpoint_release.core.errors import InferenceError
from checkpoint_release.core.signature import Arrays
from checkpoint_release.tensors.safetensors import open_safetensors, write_safetensors
from checkpoint_release.tensors.tensor import Tensor
from tests.support.project import ROOT
from tests.support.tiny_release import assert_close

Printed = pytest.CaptureFixture[str]
COMMANDS = ("convert", "inspect", "new", "parity", "run", "signature", "verify")


def test_a_case_is_run(
    tiny_release: Path, tmp_path: Path, tiny_inputs: Arrays, tiny_outputs: Arrays
) -> None:
    case, out = tmp_path / "case.safetensors", tmp_path / "out.safetensors"
    write_safetensors(
        case, {name: Tensor.of_numpy(array) for name, array in tiny_inputs.items()}
    )
    model = str(tiny_release / "onnx")
    assert main(["run", model, "--inputs", str(case), "--outputs", str(out)]) == 0
    computed = open_safetensors(out)
    assert_close({name: computed[name].numpy() for name in tiny_outputs}, tiny_outputs)


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [("no/folder/out", "there is no folder"), (".", "is a folder")],
)
def test_where_outputs_cannot_go_is_reported_before_anything_is_loaded(
    tmp_path: Path, capsys: Printed, outputs: str, problem: str
) -> None:
    out = str(tmp_path / outputs)
    missing = str(tmp_path / "no.onnx")
    assert main(["run", missing, "--inputs", "case", "--outputs", out]) == 1
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("name", ["case", "missing"])
def test_inputs_that_cannot_be_read_are_named(
    tiny_release: Path, tmp_path: Path, capsys: Printed, name: str
) -> None:
    (tmp_path / "case").write_text("no tensors")
    case, out = tmp_path / name, tmp_path / "out"
    model = str(tiny_release)
    assert main(["run", model, "--inputs", str(case), "--outputs", str(out)]) == 1
    printed = capsys.readouterr().err
    assert f"{case} " in printed
    assert "give a safetensors file that holds the inputs" in printed
    assert not out.exists()


def test_a_model_is_described(tiny_release: Path, capsys: Printed) -> None:
    assert main(["run", str(tiny_release), "--describe"]) == 0
    printed = capsys.readouterr().out
    assert "motion           float32  [sequence, batch, 20]" in printed
    assert "0 to 4" in printed
    assert "action_logits" in printed
    assert "sequence  1 to any number" in printed


def test_an_error_is_one_message_without_a_traceback(
    tmp_path: Path, capsys: Printed
) -> None:
    assert main(["run", str(tmp_path / "no.onnx"), "--describe"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "what to do: " in printed
    assert "Traceback" not in printed


def test_run_needs_something_to_do(tiny_release: Path, capsys: Printed) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", str(tiny_release)])
    assert caught.value.code == 2
    assert "--describe" in capsys.readouterr().err


def test_a_revision_is_of_a_repository(tiny_release: Path, capsys: Printed) -> None:
    assert main(["verify", str(tiny_release), "--revision", "v1.0.0"]) == 1
    assert "--revision is of a repository on the Hub" in capsys.readouterr().err


def test_options_are_spelled_as_the_command_s_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    def fail(*_: object) -> int:
        raise InferenceError(
            "{state_dict} is 'ema'",
            "set {checkpoint.salvage}",
            options=["state_dict", "checkpoint.salvage"],
        )

    monkeypatch.setattr(run, "run", fail)
    assert main(["run", "model.pth"]) == 1
    printed = capsys.readouterr().err
    assert printed == (
        "error: --state-dict is 'ema'\n  what to do: set checkpoint.salvage\n"
    )


def test_a_file_that_the_system_refuses_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    def fail(*_: object) -> int:
        raise PermissionError(13, "Permission denied", "model.onnx")

    monkeypatch.setattr(run, "run", fail)
    assert main(["run", "model.onnx"]) == 1
    assert "Permission denied: 'model.onnx'" in capsys.readouterr().err


def test_an_interrupt_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", interrupt)
    assert main(["run", "model.onnx"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_costs_no_heavy_import(command: str) -> None:
    code = (
        "import sys\n"
        "from checkpoint_release.__main__ import main\n"
        "try:\n"
        f"    main([{command!r}, '--help'])\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'onnxruntime', 'onnx', 'huggingface_hub', 'numpy'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"checkpoint-release {command}" in done.stdout


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "checkpoint_release", "run", "none.onnx", "--describe"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: none.onnx is missing")


def test_a_reader_that_needs_no_more_is_not_an_error(tmp_path: Path) -> None:
    model = ROOT / "tests/fixtures/v3_48_state_dict/checkpoint.pth"
    with subprocess.Popen(
        [sys.executable, "-m", "checkpoint_release", "inspect", str(model)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
