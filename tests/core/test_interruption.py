"""What a killed run or a full disk leaves behind is dealt with by the next run, and
nothing is left in part.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML

from checkpoint_release.core import dvc_files
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import artifact_folder, replace_file, require_room
from checkpoint_release.core.leftovers import sweep_beside_artifacts, sweep_leftovers
from checkpoint_release.core.stage import _explained
from tests.support.project import Project

Captured = pytest.CaptureFixture[str]
Usage = namedtuple("Usage", "total used free")


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("umask", "file"), [(0o022, 0o644), (0o077, 0o600)])
def test_all_files_of_an_artifact_have_the_mode_of_the_umask(
    tmp_path: Path, umask: int, file: int
) -> None:
    before = os.umask(umask)
    try:
        with artifact_folder(tmp_path / "made") as folder:
            (folder / "inner").mkdir(mode=0o700)
            (folder / "inner/a").write_text("")
            (folder / "b").write_text("")
            (folder / "b").chmod(0o640)
        replace_file(tmp_path / "made/c.json", b"{}")
    finally:
        os.umask(before)
    assert modes(tmp_path / "made") == {file}
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tmp_path / "made/inner").stat().st_mode & 0o777 == 0o777 & ~umask


def age(path: Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))


def test_what_a_killed_run_left_is_swept_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    target = tmp_path / "onnx"
    dead, alive, young = (tmp_path / f".onnx.{name}" for name in ("a", "b", "c"))
    for folder in (dead, alive, young):
        folder.mkdir()
        (folder / "model.onnx").write_text("")
    other = tmp_path / ".onnxlike.d"
    other.mkdir()
    for folder in (dead, alive, other):
        age(folder)
    handle = os.open(alive, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.utime(young)
    with artifact_folder(target) as folder:
        (folder / "model.onnx").write_text("new")
    os.close(handle)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"onnx", alive.name, young.name, other.name}
    sweep_leftovers(target)
    assert not alive.exists(), "its run is dead now"


def test_every_stage_sweeps_what_a_run_of_any_other_left(tmp_path: Path) -> None:
    """The stage itself may not run again: DVC has its outputs in the cache."""
    sweep_beside_artifacts(tmp_path / "missing")
    for name in ("onnx", "torchscript"):
        (tmp_path / name).mkdir()
    (tmp_path / "parity.json").write_text("{}")
    for name in (".onnx.a", ".torchscript.b", ".parity.json.c"):
        (tmp_path / name).mkdir()
        age(tmp_path / name)
    (tmp_path / ".gitignore").write_text("/onnx")
    age(tmp_path / ".gitignore")
    sweep_beside_artifacts(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".gitignore", "onnx", "parity.json", "torchscript"]


KILLED_BETWEEN_TWO_RENAMES = """
import os, sys
from pathlib import Path
from checkpoint_release.core import files

rename = Path.rename
def renamed(self, target):
    if self.name.startswith(".onnx."):
        print("set aside", flush=True)
        sys.stdin.readline()
        os._exit(9)
    return rename(self, target)

Path.rename = renamed
with files.artifact_folder(Path(sys.argv[1])) as folder:
    (folder / "model.onnx").write_text("new")
"""


def test_the_last_artifact_comes_back_after_a_kill_between_the_two_renames(
    tmp_path: Path,
) -> None:
    target = tmp_path / "onnx"
    with artifact_folder(target) as folder:
        (folder / "model.onnx").write_text("old")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED_BETWEEN_TWO_RENAMES, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "set aside\n"
    for path in tmp_path.iterdir():
        age(path)
    sweep_leftovers(target)
    assert not target.exists(), "a living run puts its own there"
    child.communicate("\n", timeout=60)
    assert child.returncode == 9
    sweep_leftovers(target)
    assert (target / "model.onnx").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_a_full_disk_is_known_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_room(tmp_path, 1, "writing it")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 60, 40))
    with pytest.raises(ArtifactError, match=r"takes 1,000 bytes.* has 40 left"):
        require_room(tmp_path, 1000, "writing model.pt")


def test_an_export_by_torch_asks_for_room_before_torch_would_abort(
    figure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.exports import export_with_torch

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 60, 40))
    for format in ("torchscript", "torch_export"):
        with pytest.raises(ArtifactError, match="has 40 left"):
            export_with_torch(format, figure, tmp_path / format)


def test_the_message_of_a_full_disk_says_where_and_how_much_is_left() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    message = _explained(error).message()
    assert "No space left" in message and str(Path.cwd()) in message
    assert "bytes left" in message and "make room" in message


def test_an_output_that_can_not_be_restored_whole_is_gone_and_named(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dvc.output import Output

    from checkpoint_release.core.stage import restore

    monkeypatch.chdir(project.path)
    checkout = Output.checkout

    def half(self: Output, *args: object, **kwargs: object) -> None:
        checkout(self, *args, **kwargs)
        Path(self.fs_path, "model.onnx").unlink()
        raise OSError(errno.ENOSPC, "No space left on device")

    shutil.rmtree("artifacts/onnx")
    with monkeypatch.context() as patch:
        patch.setattr(Output, "checkout", half)
        restore("export-onnx")
    assert not Path("artifacts/onnx").exists()
    assert "artifacts/onnx could not be restored" in capsys.readouterr().err
    restore("export-onnx")
    assert Path("artifacts/onnx/model.onnx").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_that_is_interrupted_while_it_imports_shows_no_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The import that takes long is one of a module of this folder's."""
    (tmp_path / "slow.py").write_text("import time\nprint('importing', flush=True)\n")
    with (tmp_path / "slow.py").open("a") as file:
        file.write("time.sleep(30)\n")
    child = subprocess.Popen(
        [sys.executable, "-c", "import pipeline, slow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "DVC_STAGE": "load",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "importing\n"
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert "Traceback" not in errors


# DVC's own files


def test_a_cut_dvc_lock_stops_dvc_and_comes_back_from_git(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project.path)
    whole = Path("dvc.lock").read_text()
    dvc_files.main()  # the first may say how DVC links artifacts on this machine
    capsys.readouterr()
    dvc_files.main()
    assert capsys.readouterr().out == ""
    for key in ("deps:", "params:", "outs:"):
        Path("dvc.lock").write_text(whole[: whole.rindex(key) + len(key)])
        dvc_files.main()
        assert "restored from git" in capsys.readouterr().out
        assert Path("dvc.lock").read_text() == whole
    assert "up to date" in project.dvc("status").stdout


@pytest.mark.slow
def test_a_dvc_lock_cut_at_any_line_is_seen_where_dvc_refuses_it(
    built: Project, tmp_path: Path
) -> None:
    """By DVC's own schema, behind every line and behind every colon."""
    whole = (built.path / "dvc.lock").read_text()
    ends = [number for number, sign in enumerate(whole, 1) if sign in ":\n"]
    path = tmp_path / "dvc.lock"
    refused = 0
    for end in ends[:: max(1, len(ends) // 120)]:
        path.write_text(whole[:end])
        if dvc_files._is_whole(path):
            COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(path) or {})
        else:
            refused += 1
    assert refused > 20


def test_a_cut_table_of_locks_is_removed(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project.path)
    dvc_files.TABLE.parent.mkdir(parents=True, exist_ok=True)
    for text in ("", '{"/x": {"wri'):
        dvc_files.TABLE.write_text(text)
        failed = project.dvc("status", check=False)
        assert failed.returncode != 0
        dvc_files.main()
        assert "is removed" in capsys.readouterr().out
    assert "up to date" in project.dvc("status").stdout
