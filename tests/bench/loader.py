"""Load time and resident memory of each format, beside a default torch.load of the same
weights.

Run with `python -m tests.bench.loader [--size large] [--rounds 5]`. Each figure comes
from a process of its own, in which the library is imported and the file in the page
cache before the clock starts; the ways take turns, so that a busy minute hits all of
them. Resident memory is what the process holds after the load above what it held
before, and again after one run, which is when mapped weights are read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.signature import sample_inputs
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.models.stick_figure import signature
from tests.bench.pipeline import SIZES
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.project import ROOT
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import dynamic_axes, sizes_of

MEASURE = """
import gc, json, sys, time, warnings, os
warnings.simplefilter("ignore")
way, folder, kwargs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
import numpy
if way != "load onnx":
    import torch
    from safetensors.torch import load_file
    from checkpoint_release.runtimes.eager import load_model
    from checkpoint_release.models.stick_figure.model import StickFigureTransformer
else:
    import onnxruntime
from checkpoint_release.runtimes.loader import load
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.files import read_json
from checkpoint_release.core.signature import sample_inputs
from tests.support.tiny_release import sizes_of
import checkpoint_release.pth, checkpoint_release.state_dict.find, checkpoint_release.tensors.safetensors

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def into_model(weights):
    model = StickFigureTransformer(**kwargs)
    model.load_state_dict(weights)
    return model.eval()

ways = {
    "torch.load": lambda: torch.load(f"{folder}/weights.pth"),
    "torch.load(weights_only=False)": lambda: torch.load(f"{folder}/weights.pth", weights_only=False),
    "torch.load(mmap=True)": lambda: torch.load(f"{folder}/weights.pth", mmap=True),
    "safetensors load_file": lambda: load_file(f"{folder}/model.safetensors"),
    "torch.load into a model": lambda: into_model(torch.load(f"{folder}/weights.pth")),
    "load_file into a model": lambda: into_model(load_file(f"{folder}/model.safetensors")),
    "load safetensors": lambda: load(f"{folder}/model.safetensors"),
    "load onnx": lambda: load(f"{folder}/onnx"),
    "load torchscript": lambda: load(f"{folder}/torchscript"),
    "load pth": lambda: load(f"{folder}/weights.pth"),
}
gc.collect()
before = resident()
start = time.perf_counter()
loaded = ways[way]()
seconds = time.perf_counter() - start
held = resident() - before
after_run = None
if way.startswith("load ") :
    signature = loaded.signature
    loaded(**sample_inputs(signature, sizes_of(signature), 0))
    after_run = resident() - before
print(json.dumps([seconds, held, after_run]))
"""
WAYS = (
    "torch.load",
    "torch.load(weights_only=False)",
    "torch.load(mmap=True)",
    "safetensors load_file",
    "torch.load into a model",
    "load_file into a model",
    "load safetensors",
    "load onnx",
    "load torchscript",
    "load pth",
)


def write_release(folder: Path, size: dict[str, int]) -> Mapping[str, object]:
    """The same weights in each format; returns the constructor's arguments."""
    import torch

    from checkpoint_release.runtimes.eager import ExportModule, build_eager

    kwargs = {
        "input_dim": 48,
        "output_dim": 48,
        "embedding_dim": 1024,
        "num_actions": 64,
        "dropout": 0.1,
        **size,
    }
    architecture = stick_figure(kwargs)
    checkpoint = write_checkpoint(
        folder / "checkpoint", architecture, state_dict(architecture)
    )
    (checkpoint / "weights.safetensors").rename(folder / "model.safetensors")
    (checkpoint / "weights.safetensors").symlink_to(folder / "model.safetensors")
    model, _ = build_eager(checkpoint)
    torch.save(model.state_dict(), folder / "weights.pth")
    config = model_config(CheckpointFolder.open(checkpoint).facts)
    for name in (".", "onnx", "torchscript"):
        config.write(folder / name)
    takes = signature(kwargs, None)
    module = ExportModule(model, takes).eval()
    inputs = tuple(
        map(torch.from_numpy, sample_inputs(takes, sizes_of(takes), 0).values())
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(
            torch.jit.trace(module, inputs, check_trace=False),
            folder / "torchscript/model.pt",
        )
        torch.onnx.export(
            module,
            inputs,
            folder / "onnx/model.onnx",
            input_names=[spec.name for spec in takes.inputs],
            output_names=[spec.name for spec in takes.outputs],
            dynamic_axes=dynamic_axes(takes),
            opset_version=17,
            dynamo=False,
        )
    return kwargs


def measure(
    way: str, folder: Path, kwargs: Mapping[str, object]
) -> tuple[float, int, int | None]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, way, str(folder), json.dumps(kwargs)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, held, after_run = json.loads(done.stdout)
    return seconds, held, after_run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kwargs = write_release(folder, SIZES[asked.size])
        rounds = [
            {way: measure(way, folder, kwargs) for way in WAYS}
            for _ in range(asked.rounds)
        ]
        megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    print(
        f"{asked.size}: {megabytes:.0f} MB of weights, medians of {asked.rounds}"
        " processes each"
    )
    print(f"{'':32} {'milliseconds':>12} {'MB after':>9} {'MB after a run':>15}")
    median = {way: statistics.median(each[way][0] for each in rounds) for way in WAYS}
    for way in WAYS:
        held = statistics.median(each[way][1] for each in rounds) / 1e6
        ran = [each[way][2] for each in rounds]
        after_run = (
            f"{statistics.median(x for x in ran if x is not None) / 1e6:15.0f}"
            if None not in ran
            else ""
        )
        print(f"{way:32} {1000 * median[way]:12.1f} {held:9.0f} {after_run}")
    for way in ("torch.load", "torch.load into a model"):
        for ours in ("safetensors load_file", "load safetensors"):
            print(
                f"{ours} takes 1/{median[way] / median[ours]:.1f} of the time of {way}"
            )


if __name__ == "__main__":
    main()
