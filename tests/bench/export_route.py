"""One export in this process.

    python -m tests.bench.export_route ROUTE CHECKPOINT OUT

Prints the seconds until the imports are done, those of the export itself with all its
checks, and the process's peak memory in bytes.
"""

from __future__ import annotations

import time

BEGUN = time.perf_counter()

import json  # noqa: E402  after the clock
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

from checkpoint_release.core.artifacts.checkpoint import (  # noqa: E402
    CheckpointFolder,
)
from checkpoint_release.core.trust import OWN_ARTIFACTS  # noqa: E402

Export = Callable[[CheckpointFolder, Path], object]
OPSET, DYNAMO_OPSET = 17, 18


def direct() -> Export:
    import onnxruntime  # noqa: F401

    from checkpoint_release.onnx.export import export_onnx

    return lambda checkpoint, out: export_onnx(
        checkpoint, out, opset=OPSET, exporter="direct"
    )


def torchscript() -> Export:
    import onnxruntime  # noqa: F401
    import torch  # noqa: F401

    from checkpoint_release.onnx.export import export_onnx

    return lambda checkpoint, out: export_onnx(
        checkpoint, out, opset=OPSET, exporter="torchscript"
    )


def dynamo() -> Export:
    import onnxruntime  # noqa: F401
    import torch  # noqa: F401

    from checkpoint_release.onnx.export import export_onnx

    return lambda checkpoint, out: export_onnx(
        checkpoint, out, opset=DYNAMO_OPSET, exporter="dynamo"
    )


def unchecked() -> Export:
    """A bare torch.onnx.export of the same model at the same opset."""
    import torch

    from checkpoint_release.exporting.tracing import Traceable, silence_known_warnings

    def export(checkpoint: CheckpointFolder, out: Path) -> None:
        traceable = Traceable.open(checkpoint)
        inputs = traceable.signature.inputs
        with silence_known_warnings(), torch.no_grad():
            torch.onnx.export(
                traceable.module,
                traceable.arguments,
                out / "model.onnx",
                dynamo=False,
                opset_version=OPSET,
                input_names=traceable.signature.input_names,
                output_names=traceable.signature.output_names,
                dynamic_axes={spec.name: spec.dynamic_axes for spec in inputs},
            )

    return export


def jit() -> Export:
    from checkpoint_release.exporting.torchscript import write_torchscript
    from checkpoint_release.exporting.tracing import Traceable

    return lambda checkpoint, out: write_torchscript(
        Traceable.open(checkpoint), out / "model.pt", "{}"
    )


def pt2() -> Export:
    from checkpoint_release.exporting.torch_export import write_torch_export
    from checkpoint_release.exporting.tracing import Traceable

    return lambda checkpoint, out: write_torch_export(
        Traceable.open(checkpoint), out / "model.pt2", "{}"
    )


ROUTES: dict[str, Callable[[], Export]] = {
    "direct": direct,
    "torch": unchecked,
    "torchscript": torchscript,
    "dynamo": dynamo,
    "jit": jit,
    "pt2": pt2,
}


def main(route: str, checkpoint: str, out: str) -> None:
    export = ROUTES[route]()
    started = time.perf_counter()
    export(CheckpointFolder.open(Path(checkpoint), OWN_ARTIFACTS), Path(out))
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {"import": started - BEGUN, "export": ended - started, "peak": peak}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
