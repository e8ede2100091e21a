"""Kills `dvc repro` at random moments, and runs it again.

    python -m tests.support.kills COUNT SEED FOLDER

Each time the whole group of processes, or a stage alone, gets a signal while the
pipeline goes from one opset to another. The next run has to end with the bytes of an
undisturbed one. Prints what was hit; ends with the first difference.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.project import Project, tree

OPSETS = (17, 20)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LIMIT = 120  # seconds that a run may still take after the signal
REPRO = ("dvc", "repro", "--no-run-cache")


@dataclass(frozen=True)
class Undisturbed:
    """What runs without a kill gave.

    Attributes:
        artifacts: opset → the files below artifacts/.
        seconds: how long the slower run took.
    """

    artifacts: dict[int, dict[str, bytes]]
    seconds: float

    @classmethod
    def of(cls, project: Project) -> Undisturbed:
        """Run the pipeline once for each opset.

        Args:
            project: a checkout, already built; left at the last opset.
        """
        artifacts, slowest = {}, 0.0
        for opset in OPSETS:
            project.set(onnx__opset=opset)
            start = time.monotonic()
            project.run(*REPRO, "--force")
            slowest = max(slowest, time.monotonic() - start)
            artifacts[opset] = tree(project.path / "artifacts")
        return cls(artifacts, slowest)


@dataclass(frozen=True)
class Kill:
    """One signal.

    Attributes:
        number: which.
        after: seconds from the start of the run.
        stage_alone: whether only the stage's own process gets it.
        hit: the command of the process that got it; "" if the run had ended.
    """

    number: signal.Signals
    after: float
    stage_alone: bool
    hit: str


def kill_once(project: Project, number: signal.Signals, after: float) -> Kill:
    """Start a run of everything, and send a signal to its group of processes."""
    return _kill(project, number, after, stage_alone=False)


def kill_stage(project: Project, number: signal.Signals, after: float) -> Kill:
    """Start a run of everything, and send a signal to the stage that is running."""
    return _kill(project, number, after, stage_alone=True)


def _kill(
    project: Project, number: signal.Signals, after: float, stage_alone: bool
) -> Kill:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.Popen(
        [*REPRO, "--force"],
        cwd=project.path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after)
    hit = ""
    if run.poll() is None:
        stages = list(_stages(run.pid))
        if not stage_alone:
            hit = stages[0][1] if stages else "dvc"
            os.killpg(run.pid, number)
        elif stages:
            process, hit = stages[0]
            os.kill(process, number)
    run.wait(timeout=LIMIT)
    return Kill(number, after, stage_alone, hit)


def _stages(session: int) -> Iterator[tuple[int, str]]:
    """The processes of stages in a session, parents first, and their commands."""
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session and b"-m" in command:
            yield int(folder.name), b" ".join(command).decode().strip()


def differences(project: Project, opset: int, undisturbed: Undisturbed) -> list[str]:
    """Run once more, and list what isn't as an undisturbed run leaves it.

    Args:
        project: after a kill.
        opset: which it was to be built with.
        undisturbed: what is expected.
    """
    project.run(sys.executable, "-m", "checkpoint_release.core.dvc_files")
    project.run(*REPRO)
    if _temporaries(project):
        # Where DVC had everything in its cache no stage ran: the next one sweeps.
        project.run(*REPRO, "--force", "--single-item", "load")
    expected = undisturbed.artifacts[opset]
    found = tree(project.path / "artifacts")
    names = sorted(expected.keys() | found.keys())
    return [name for name in names if expected.get(name) != found.get(name)]


def _temporaries(project: Project) -> list[Path]:
    """What a run that was killed left beside the artifacts."""
    return list((project.path / "artifacts").glob(".*.*"))


def main(count: int, seed: int, folder: Path) -> int:
    """Kill so many runs.

    Returns:
        The exit code: 1 when a run after a kill ended with other bytes.
    """
    project = Project.checkout(folder / "project")
    project.run(*REPRO)
    project.commit("Built")
    undisturbed = Undisturbed.of(project)
    rng = random.Random(seed)
    for turn in range(count):
        opset = OPSETS[turn % len(OPSETS)]
        project.set(onnx__opset=opset)
        number = rng.choice(SIGNALS)
        after = rng.uniform(0, undisturbed.seconds)
        kind = rng.choice((kill_once, kill_stage))
        kill = kind(project, number, after)
        changed = differences(project, opset, undisturbed)
        who = "stage" if kill.stage_alone else "group"
        print(f"{turn} {number.name} {who} {after:.2f} s {kill.hit or '-'}", flush=True)
        if changed:
            print(f"differs: {', '.join(changed)}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
