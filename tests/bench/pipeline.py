"""Speed of the whole: a cold `dvc repro` against a plain script that does the same
work, side by side.

What DVC itself takes to find that nothing changed is measured beside it, on seven
stages of `echo`.

Run with `python -m tests.bench.pipeline [--sizes medium large] [--rounds 3]`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests.support.project import Project

SIZES = {
    "small": {"d_model": 256, "num_layers": 6, "nhead": 8},
    "medium": {"d_model": 384, "num_layers": 8, "nhead": 12},
    "large": {"d_model": 512, "num_layers": 10, "nhead": 16},
}

# What people write by hand: one process, unsafe load, three formats, one comparison.
PLAIN_SCRIPT = """
import sys, warnings
import numpy, onnxruntime, torch
from safetensors.torch import save_file
from checkpoint_release.models.stick_figure import build

warnings.simplefilter("ignore")
path, out, kwargs = sys.argv[1], sys.argv[2], __import__("json").loads(sys.argv[3])
weights = torch.load(path, weights_only=False)["model_state_dict"]
model = build(**kwargs)
model.load_state_dict(weights)
model.eval()
save_file(weights, f"{out}/model.safetensors")

class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model
    def forward(self, motion, text_embedding, action_sequence):
        return tuple(self.model(motion, text_embedding, action_sequence))

inputs = (torch.randn(250, 2, 48), torch.randn(2, 1024), torch.randint(0, 64, (250, 2)))
names = ["motion", "text_embedding", "action_sequence"]
outputs = ["pose", "position", "velocity", "action_logits", "physics", "environment"]
frames = {0: "sequence", 1: "batch"}
axes = {"motion": frames, "text_embedding": {0: "batch"}, "action_sequence": frames}
plain = Plain().eval()
torch.onnx.export(plain, inputs, f"{out}/model.onnx", input_names=names, output_names=outputs, dynamic_axes=axes,
                  opset_version=17, dynamo=False)
torch.jit.trace(plain, inputs).save(f"{out}/model.pt")
with torch.no_grad():
    expected = plain(*inputs)
session = onnxruntime.InferenceSession(f"{out}/model.onnx", providers=["CPUExecutionProvider"])
got = session.run(None, dict(zip(names, (x.numpy() for x in inputs))))
scripted = torch.jit.load(f"{out}/model.pt")(*inputs)
for a, b, c in zip(expected, got, scripted):
    assert numpy.abs(a.numpy() - b).max() < 1e-2 and (a - c).abs().max() < 1e-2
"""


def write_checkpoint(path: Path, **size: int) -> Mapping[str, object]:
    """A training checkpoint with random weights; returns the constructor arguments."""
    import torch

    from checkpoint_release.models.stick_figure import build

    kwargs = {
        "input_dim": 48,
        "output_dim": 48,
        "embedding_dim": 1024,
        "num_actions": 64,
        "dropout": 0.1,
        **size,
    }
    torch.manual_seed(0)
    torch.save(
        {
            "epoch": 1,
            "model_state_dict": build(**kwargs).state_dict(),
            "train_loss": 0.5,
        },
        path,
    )
    return kwargs


def seven_echoes(path: Path) -> Project:
    """A pipeline as long as ours in which nothing happens."""
    path.mkdir()
    stages = {
        f"stage-{n}": {"cmd": f"echo > {n + 1}", "deps": [str(n)], "outs": [str(n + 1)]}
        for n in range(7)
    }
    (path / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (path / "0").touch()
    project = Project(path)
    project.git("init", "-q")
    project.dvc("init", "-q")
    project.dvc("repro")
    return project


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios: a machine that slows down for a while slows
    both.
    """
    return statistics.median(
        one / other for one, other in zip(ours, theirs, strict=True)
    )


def bench(size: str, rounds: int, folder: Path) -> None:
    project = Project.checkout(folder / size)
    kwargs = write_checkpoint(project.path / "checkpoints/bench.pth", **SIZES[size])
    megabytes = (project.path / "checkpoints/bench.pth").stat().st_size / 1e6
    project.set(checkpoint__path="checkpoints/bench.pth")
    idle = seven_echoes(folder / f"{size}-idle")
    (out := folder / f"{size}-plain").mkdir()
    (folder / "plain.py").write_text(PLAIN_SCRIPT)
    environment = {"PYTHONPATH": str(project.path), "OMP_NUM_THREADS": "2"}
    command = (
        sys.executable,
        str(folder / "plain.py"),
        "checkpoints/bench.pth",
        str(out),
        json.dumps(kwargs),
    )

    taken: dict[str, list[float]] = defaultdict(list)

    def take(
        name: str,
        where: Project,
        *command: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        start = time.perf_counter()
        where.run(*command, environment=environment)
        taken[name].append(time.perf_counter() - start)

    for _ in range(rounds):
        take("plain script", project, *command, environment=environment)
        subprocess.run(
            ["rm", "-rf", ".dvc/cache", ".dvc/tmp", "dvc.lock", "artifacts"],
            cwd=project.path,
            check=True,
        )
        take("cold dvc repro", project, "dvc", "repro", environment=environment)
        take("no-op dvc repro", project, "dvc", "repro")
        take("dvc status", project, "dvc", "status")
        take("no-op of seven echoes", idle, "dvc", "repro")
        take("their dvc status", idle, "dvc", "status")
        project.set(formats__onnx=False)
        take(
            "one format switched off", project, "dvc", "repro", environment=environment
        )
        project.set(formats__onnx=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"\n{size}: {megabytes:.0f} MB, medians of {rounds}")
    for name, figures in taken.items():
        print(f"  {name:<26}{statistics.median(figures):7.2f} s")
    for name, ours, theirs, wanted in (
        (
            "cold / plain script",
            "cold dvc repro",
            "plain script",
            "   (wanted: at most 1.5)",
        ),
        ("no-op / status", "no-op dvc repro", "dvc status", "   (at most 1.2)"),
        ("the same of seven echoes", "no-op of seven echoes", "their dvc status", ""),
    ):
        print(f"  {name:<26}{ratio(taken[ours], taken[theirs]):7.2f}{wanted}")
    print(f"  peak memory of any child  {peak:7.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", nargs="+", default=["medium", "large"], choices=SIZES
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            bench(size, arguments.rounds, Path(folder))


if __name__ == "__main__":
    main()
