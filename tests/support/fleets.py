"""Fleets of tiny checkpoints: a project with a fleet.yaml, and its command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from checkpoint_release.core.files import FileEntry
from checkpoint_release.fleet.checkpoints import Checkpoint
from checkpoint_release.fleet.fetch import FOLDER as FLEET_FOLDER
from checkpoint_release.fleet.outcome import Built, PointBuilt
from checkpoint_release.fleet.plan import FleetPlan, Member
from checkpoint_release.fleet.refs import member_refs, read_members
from tests.support.containers import Call, pickled, zipped
from tests.support.project import ROOT, Project
from tests.support.stick_figure import MOTION_ONLY, random_model

FOLDER = "runs"
SPEC: dict[str, Any] = {
    "name": "tiny",
    "source": [{"files": f"{FOLDER}/step-{{step}}.pth"}],
    "params": {"formats": {"torchscript": False}},
}
"""Without TorchScript, members take a second less."""
COMMAND = (sys.executable, "-P", "-m", "checkpoint_release", "fleet")
"""Not by the working folder, which may hold a part of the library's folders."""


@dataclass(frozen=True)
class Fleet:
    """A project with a fleet, and a folder for this host's caches."""

    project: Project
    home: Path

    @property
    def path(self) -> Path:
        return self.project.path

    def spec(self, **changes: Any) -> None:
        """Write fleet.yaml: SPEC with other values."""
        with (self.path / "fleet.yaml").open("w") as file:
            YAML().dump({**SPEC, **changes}, file)

    @property
    def environment(self) -> dict[str, str]:
        return {"CHECKPOINT_RELEASE_FLEET_HOME": str(self.home)}

    def command(
        self,
        *arguments: str,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `checkpoint-release fleet` to its end."""
        return self.project.run(
            *COMMAND,
            *arguments,
            check=check,
            environment={**self.environment, **(environment or {})},
        )

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start `checkpoint-release fleet`, in a process group of its own, which has
        ended at the end.
        """
        run = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.path,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield run
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.communicate()

    def built(self) -> dict[str, Built]:
        """Name → what its ref holds, of the members that are built."""
        refs = member_refs(self.path, "tiny")
        commits = [ref.commit for ref in refs.values()]
        return dict(zip(refs, read_members(self.path, commits), strict=True))

    def processes(self) -> list[int]:
        """Processes of this host that build members of this fleet."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                where = str((folder / "cwd").readlink())
            except OSError:
                continue  # it has ended
            own = str(self.home)
            if own.encode() in command or where.startswith(own):
                found.append(int(folder.name))
        return found

    def leftovers(self) -> list[Path]:
        """Artifacts and checkpoints that members left in this host's clones."""
        clones = list((self.home / "scratch").glob("*/*/clone"))
        assert clones
        return [
            path
            for clone in clones
            for folder in ("artifacts/release", "artifacts/checkpoint", FLEET_FOLDER)
            if (path := clone / folder).exists()
        ]


def wait_until(holds: Callable[[], Any], what: str, seconds: float = 180.0) -> None:
    """Wait for something, and fail with its name where it doesn't come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.05)


def save_step(folder: Path, step: int, **changes: Any) -> Path:
    """A checkpoint of a training, as torch.save writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step}.pth"
    checkpoint = {
        "model_state_dict": random_model(MOTION_ONLY, step).state_dict(),
        "epoch": step,
        "global_step": 100 * step,
        "val_loss": 1 / step,
        **changes,
    }
    torch.save(checkpoint, path)
    return path


def save_bad_steps(folder: Path) -> dict[str, str]:
    """Checkpoints that no machine can release: member → what is reported of it."""
    weights = random_model(MOTION_ONLY).state_dict()
    first = next(name for name, tensor in weights.items() if tensor.ndim == 2)
    weights[first][0, 0] = float("nan")
    save_step(folder, 91, model_state_dict=weights)
    hostile = pickled({"model_state_dict": Call("os.system", "touch canary")})
    (folder / "step-92.pth").write_bytes(zipped(hostile))
    save_step(folder, 93, model_state_dict={"other.weight": torch.ones(2, 3)})
    return {
        "step-91": first,
        "step-92": "os.system",
        "step-93": "aren't those of a StickFigureTransformer",
    }


WEIGHTS_ONLY = {"formats": {"torchscript": False, "onnx": False}}
"""Parameters with which a member takes the least time."""


def fleet_checkout(path: Path, steps: int, **spec: Any) -> Fleet:
    """A checkout with checkpoints of a few steps, committed; fleet.yaml is SPEC with
    other values.
    """
    project = Project.checkout(path / "project")
    for step in range(1, steps + 1):
        save_step(project.path / FOLDER, step)
    fleet = Fleet(project, path / "home")
    fleet.spec(**spec)
    project.commit("A fleet")
    return fleet


def small_project(path: Path, steps: int = 2) -> Fleet:
    """What planning needs of a project, and files that stand for checkpoints."""
    (path / FOLDER).mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", "constraints.txt"):
        shutil.copy(ROOT / name, path / name)
    (path / ".dvc").mkdir()
    for name in ("config", "pull-request.yaml"):
        shutil.copy(ROOT / ".dvc" / name, path / ".dvc" / name)
    (path / ".dvc/.gitignore").write_text("/tmp\n/config.local\n")
    code = path / "checkpoint_release/core/params.py"
    code.parent.mkdir(parents=True)
    code.write_text("VERSION = 1\n")
    for step in range(1, steps + 1):
        (path / FOLDER / f"step-{step}.pth").write_bytes(b"weights %d" % step)
    project = Project(path)
    fleet = Fleet(project, path.parent / "home")
    fleet.spec()
    project.git("init", "-q", "-b", "main")
    project.commit("A project")
    return fleet


def imagined(plan: FleetPlan, member: Member, **training: Any) -> Built:
    """What could have been built of a member, for tests of what comes after."""
    step = int(member.checkpoint.values.get("step", "1"))
    points = [
        PointBuilt(
            name=point.name,
            overrides=point.overrides,
            params="card: {title: null}\n",
            lock="schema: '2.0'\nstages: {}\n",
            parity='{"passed": true, "cases": 1, "share_of_limit": {"onnx": 0.5}}\n',
            statement="",
            release=f"{step:064x}",
            built=f"{step + 1:064x}",
            files={
                "model.safetensors": FileEntry(1000 * step, "0" * 64),
                "onnx/model.onnx": FileEntry(2000, "1" * 64),
            },
            formats=["safetensors", "onnx"],
            limits={"safetensors": 0.0, "onnx": 0.25 * step},
            training={"global_step": 100 * step, "val_loss": 1 / step, **training},
            values=3,
            ran=["load"],
            seconds=1.5,
            benchmark="{}",
        )
        for point in plan.points
    ]
    checkpoint: Checkpoint = member.checkpoint
    return Built(
        name=member.name,
        key=member.key,
        commit=plan.project.commit,
        checkpoint=checkpoint,
        points=points,
        host="here",
        seconds=2.0,
    )
