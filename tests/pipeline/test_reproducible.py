"""The same checkpoint and parameters give the same bytes, wherever and however the
exports run, and no trace of it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.artifacts.manifest import digests
from checkpoint_release.core.trust import OWN_ARTIFACTS
from tests.support import models
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.exports import export_to_onnx
from tests.support.project import ROOT
from tests.support.stick_figure import stick_figure

EXPORT = """
import sys
from pathlib import Path
from pipeline import export_onnx, export_torchscript
from tests.support.exports import run_stage

for name in sys.argv[1:]:
    checkpoint, exporter, opset = name.split(":")
    if exporter in ("torchscript_archive", "torch_export"):
        stage = export_torchscript
        params = {
            "formats__torchscript": exporter == "torchscript_archive",
            "formats__torch_export": exporter == "torch_export",
        }
    else:
        stage = export_onnx
        params = {
            "onnx__opset": int(opset),
            "onnx__exporter": exporter,
            "onnx__variants": ["float16", "int8"] if exporter == "direct" else [],
        }
    folder = Path("exports") / name.replace(":", "-")
    run_stage(stage.main, folder, Path(checkpoint), **params)
"""
QUICK = [
    "figure:direct:17",
    "figure:direct:23",
    "tied:torchscript:17",
    "figure:torchscript_archive:0",
]
SLOW = [
    "figure:torchscript:20",
    "tied:dynamo:18",
    "figure:dynamo:23",
    "figure:torch_export:0",
]

HERE: dict[str, Any] = {
    "PYTHONHASHSEED": "1",
    "OMP_NUM_THREADS": "1",
    "TZ": "UTC",
    "LC_ALL": "C",
    "USER": "somebody",
}
THERE: dict[str, Any] = {
    "PYTHONHASHSEED": "4711",
    "OMP_NUM_THREADS": "2",
    "TZ": "Pacific/Auckland",
    "LC_ALL": "C.UTF-8",
    "USER": "somebody-else",
}


def build(
    folder: Path, exports: list[str], environment: dict[str, str], umask: int
) -> Path:
    """Run stages in a checkout of its own, in one process; returns the folder of the
    exports.
    """
    folder.mkdir(parents=True)
    compiled = shutil.ignore_patterns("__pycache__")
    for package in ("pipeline", "checkpoint_release", "tests/support"):
        shutil.copytree(ROOT / package, folder / package, ignore=compiled)
    shutil.copy(ROOT / "tests" / "__init__.py", folder / "tests")
    shutil.copy(ROOT / "params.yaml", folder)
    architecture = stick_figure(inputs=["motion", "text_embedding", "action_sequence"])
    write_checkpoint(folder / "figure", architecture, state_dict(architecture))
    models.checkpoint(folder / "tied", models.TiedLanguageModel)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXPORT, *exports],
        cwd=folder,
        env=environment,
        umask=umask,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return folder / "exports"


def check_same_bytes(tmp_path: Path, exports: list[str]) -> None:
    first = build(tmp_path / "first", exports, HERE, umask=0o022)
    # The second process has done other exports before each of these.
    second = build(
        tmp_path / "somewhere else/ü", list(reversed(exports)), THERE, umask=0o077
    )
    assert digests(first) == digests(second)
    assert len(digests(first)) >= 3 * len(exports)
    assert not list(leaks(first, first.parent))
    assert not list(leaks(second, second.parent))


def leaks(folder: Path, *places: Path) -> Iterator[str]:
    """Traces of this machine in any file below the folder, or in any record of an
    archive there.
    """
    secrets = [
        *(
            f"{place}/"
            for place in (*places, ROOT, Path.home(), tempfile.gettempdir(), sys.prefix)
        ),
        *("site-packages", '.py", line', "somebody", socket.gethostname()),
    ]
    wanted = [secret.encode() for secret in secrets if len(secret) > 4]
    for path in sorted(folder.rglob("*")):
        contents = [(path.name, path.read_bytes())] if path.is_file() else []
        if contents and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [(name, archive.read(name)) for name in archive.namelist()]
        yield from (
            f"{name}: {secret!r}"
            for name, content in contents
            for secret in wanted
            if secret in content
        )


def test_the_same_checkpoint_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    check_same_bytes(tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("export", SLOW)
def test_every_route_gives_the_same_bytes_anywhere(tmp_path: Path, export: str) -> None:
    check_same_bytes(tmp_path, ["tied:torchscript:17", export])


def test_the_search_finds_what_torch_leaves_in_its_files(tmp_path: Path) -> None:
    import torch

    from checkpoint_release.exporting.tracing import Traceable, silence_known_warnings

    checkpoint = models.checkpoint(tmp_path / "checkpoint", models.TiedLanguageModel)
    traceable = Traceable.open(CheckpointFolder.open(checkpoint, OWN_ARTIFACTS))
    (tmp_path / "raw").mkdir()
    with silence_known_warnings():
        torch.jit.save(
            torch.jit.trace(traceable.module, traceable.arguments),
            tmp_path / "raw/model.pt",
        )
    found = list(leaks(tmp_path / "raw"))
    assert any(".debug_pkl" in leak and str(ROOT) in leak for leak in found)


def test_other_weights_give_other_bytes(tmp_path: Path) -> None:
    architecture = stick_figure(inputs=["motion", "text_embedding"])
    written = []
    for i, seed in enumerate((0, 0, 1)):
        checkpoint = write_checkpoint(
            tmp_path / f"checkpoint{i}", architecture, state_dict(architecture, seed)
        )
        export_to_onnx(checkpoint, tmp_path / f"onnx{i}")
        written.append(digests(tmp_path / f"onnx{i}")["model.onnx"])
    assert written[0] == written[1] != written[2]
