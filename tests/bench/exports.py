"""What the exports cost, side by side.

    python -m tests.bench.exports [--model medium] [--repeats 5]

Each route runs in a process of its own, and reported are medians. A process's time has
two parts: until its imports are done, and the export itself with all its checks.
`torch` is torch.onnx.export(dynamo=False) alone, of the same model at the same opset,
unchecked.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import onnx

from tests.bench.export_route import ROUTES
from tests.bench.measuring import MODEL, SIZES, Figures, in_own_process, take_turns
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.stick_figure import stick_figure

INPUTS = ["motion", "text_embedding", "action_sequence"]


def measure(route: str, checkpoint: Path, out: Path) -> Figures:
    """Take a route, and add the size of what it wrote and the graph's nodes."""
    out.mkdir()
    figures = in_own_process("export_route", route, checkpoint, out)
    figures["bytes"] = sum(path.stat().st_size for path in out.glob("model.*"))
    figures["nodes"] = 0
    figures["weights"] = (checkpoint / "weights.safetensors").stat().st_size
    if (out / "model.onnx").exists():
        graph = onnx.load(out / "model.onnx").graph
        figures["nodes"] = len(graph.node)
        figures["weights"] = sum(len(tensor.raw_data) for tensor in graph.initializer)
    return figures


def main() -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SIZES, default="medium")
    parser.add_argument("--repeats", type=int, default=3)
    routes = [route for route in ROUTES if route != "dynamo"]
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=routes)
    options = parser.parse_args()
    architecture = stick_figure({**MODEL, **SIZES[options.model]}, INPUTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = write_checkpoint(
            folder / "checkpoint", architecture, state_dict(architecture)
        )
        raw = (checkpoint / "weights.safetensors").stat().st_size
        medians = take_turns(
            options.routes,
            options.repeats,
            lambda route, number: measure(
                route, checkpoint, folder / f"{route}{number}"
            ),
        )
    print(
        f"{options.model}: {raw / 1e6:.1f} MB of weights, medians of {options.repeats},"
        " seconds"
    )
    print(
        f"{'route':<12}{'import':>8}{'export':>8}{'peak MB':>9}{'file MB':>9}"
        f"{'/weights':>9}{'nodes':>7}"
    )
    for route, figures in medians.items():
        print(
            f"{route:<12}{figures['import']:>8.2f}{figures['export']:>8.2f}"
            f"{figures['peak'] / 1e6:>9.0f}{figures['bytes'] / 1e6:>9.1f}"
            f"{figures['bytes'] / figures['weights']:>9.4f}{figures['nodes']:>7.0f}"
        )


if __name__ == "__main__":
    main()
