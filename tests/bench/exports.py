"""What the exports cost, side by side: `python -m tests.bench.exports [--model medium]
[--repeats 5]`.

Each route runs in a process of its own, the routes by turns, so that a busy machine
slows all of them alike; reported are medians. A process's time has two parts: until its
imports are done, and the export itself with all its checks. `torch` is
`torch.onnx.export(dynamo=False)` alone of the same model at the same opset, unchecked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.project import ROOT
from tests.support.stick_figure import stick_figure

SIZES = {
    "tiny": {"d_model": 32, "nhead": 4, "num_layers": 2},
    "small": {"d_model": 256, "nhead": 8, "num_layers": 6},
    "medium": {"d_model": 384, "nhead": 12, "num_layers": 8},
    "large": {"d_model": 512, "nhead": 16, "num_layers": 10},
}
INPUTS = ["motion", "text_embedding", "action_sequence"]

ONNX = """
from checkpoint_release.onnx.export import export_onnx
{warm}
started = time.perf_counter()
out.mkdir()
folder = CheckpointFolder.open(checkpoint)
export_onnx(folder, out, opset={opset}, exporter="{exporter}")
"""
TORCH = """
import torch
from checkpoint_release.exporting.tracing import Traceable, silence_known_warnings
started = time.perf_counter()
t = Traceable.open(CheckpointFolder.open(checkpoint))
out.mkdir()
with silence_known_warnings(), torch.no_grad():
    torch.onnx.export(
        t.module, t.arguments, str(out / "model.onnx"),
        dynamo=False, opset_version={opset},
        input_names=t.signature.input_names, output_names=t.signature.output_names,
        dynamic_axes={{spec.name: spec.dynamic_axes for spec in t.signature.inputs}},
    )
"""
TORCHSCRIPT = """
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.exporting.tracing import Traceable
from checkpoint_release.exporting.{format} import write_{format}
started = time.perf_counter()
folder = CheckpointFolder.open(checkpoint)
out.mkdir()
config = model_config(folder.facts).text()
write_{format}(Traceable.open(folder), out / "{file}", config)
"""
HEAD = """
import time; begun = time.perf_counter()
import json, resource, sys
from pathlib import Path
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
checkpoint, out = Path(sys.argv[1]), Path(sys.argv[2])
"""
TAIL = """
ended = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"import": started - begun, "export": ended - started, "peak": peak}))
"""
ROUTES = {
    "direct": ONNX.format(exporter="direct", opset=17, warm="import onnx, onnxruntime"),
    "torch": TORCH.format(opset=17),
    "torchscript": ONNX.format(
        exporter="torchscript", opset=17, warm="import onnx, onnxruntime, torch"
    ),
    "dynamo": ONNX.format(
        exporter="dynamo", opset=18, warm="import onnx, onnxruntime, torch"
    ),
    "jit": TORCHSCRIPT.format(format="torchscript", file="model.pt"),
    "pt2": TORCHSCRIPT.format(format="torch_export", file="model.pt2"),
}


def measure(route: str, checkpoint: Path, out: Path) -> dict[str, float]:
    """Run one route in a process of its own and add the size and the nodes of what it
    wrote.
    """
    code = HEAD + ROUTES[route] + TAIL
    done = subprocess.run(
        [sys.executable, "-c", code, checkpoint, out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    found["bytes"] = sum(path.stat().st_size for path in out.glob("model.*"))
    if (out / "model.onnx").exists():
        import onnx

        graph = onnx.load(out / "model.onnx").graph
        found["nodes"] = len(graph.node)
        found["weights"] = sum(len(tensor.raw_data) for tensor in graph.initializer)
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SIZES, default="medium")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--routes",
        nargs="+",
        choices=ROUTES,
        default=[name for name in ROUTES if name != "dynamo"],
    )
    options = parser.parse_args()
    kwargs = {
        "input_dim": 48,
        "output_dim": 48,
        "embedding_dim": 1024,
        "num_actions": 64,
        "dropout": 0.1,
    }
    architecture = stick_figure({**kwargs, **SIZES[options.model]}, INPUTS)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(
            Path(folder) / "checkpoint", architecture, state_dict(architecture)
        )
        raw = (checkpoint / "weights.safetensors").stat().st_size
        runs: dict[str, list[dict[str, float]]] = {
            route: [] for route in options.routes
        }
        for repeat in range(options.repeats):
            for route, results in runs.items():
                results.append(
                    measure(route, checkpoint, Path(folder) / f"{route}{repeat}")
                )
    print(
        f"{options.model}: {raw / 1e6:.1f} MB of weights, medians of {options.repeats},"
        " seconds"
    )
    print(
        f"{'route':<12}{'import':>8}{'export':>8}{'peak MB':>9}{'file MB':>9}"
        f"{'/weights':>9}{'nodes':>7}"
    )
    for route, results in runs.items():
        median = {
            key: statistics.median(result[key] for result in results)
            for key in results[0]
        }
        share = median["bytes"] / median.get("weights", raw)
        print(
            f"{route:<12}{median['import']:>8.2f}{median['export']:>8.2f}"
            f"{median['peak'] / 1e6:>9.0f}{median['bytes'] / 1e6:>9.1f}{share:>9.4f}"
            f"{median.get('nodes', 0):>7.0f}"
        )


if __name__ == "__main__":
    main()
