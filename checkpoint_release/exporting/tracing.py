"""What all of torch's exporters need: the eager module with example inputs, dynamic
sizes, and quiet.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.signature import Array, Signature, sample_inputs
from checkpoint_release.exporting.shape_check import example_sizes
from checkpoint_release.runtimes.eager import ExportModule, load_model


@dataclass(frozen=True)
class Traceable:
    """An eager model on its way through an exporter.

    Attributes:
        model: the model itself, in evaluation mode and without gradients.
        module: the same, taking the signature's inputs by position and giving a flat
            tuple.
        signature: what it takes and gives.
        arguments: example inputs.
    """

    model: nn.Module
    module: ExportModule
    signature: Signature
    arguments: tuple[Tensor, ...]

    @classmethod
    def open(cls, checkpoint: Path) -> Traceable:
        """Build the checkpoint's model; its weights stay in the mapped file.

        Args:
            checkpoint: the folder that `load` wrote.

        Raises:
            ModelError: the model can't be built, or the weights don't fit.
        """
        folder = CheckpointFolder.open(checkpoint)
        signature = folder.architecture.signature
        weights = load_file(folder.weights)
        model = load_model(folder.architecture, weights).requires_grad_(False)
        inputs = sample_inputs(signature, example_sizes(signature), seed=0)
        arguments = tuple(torch.from_numpy(array) for array in inputs.values())
        return cls(model, ExportModule(model, signature).eval(), signature, arguments)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Compute the outputs eagerly."""
        return run(self.module, inputs)

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """For each input, axis → torch.export's dimension with the signature's bounds."""
        dims = {
            name: torch.export.Dim(name, min=dimension.minimum, max=dimension.maximum)
            for name, dimension in self.signature.dimensions.items()
            if dimension.minimum != dimension.maximum
        }
        return tuple(
            {
                axis: dims[size]
                for axis, size in enumerate(spec.shape or ())
                if isinstance(size, str) and size in dims
            }
            for spec in self.signature.inputs
        )


def run(module: Any, inputs: Sequence[Array]) -> list[Array]:
    """Call any torch module on numpy arrays, by position; it gives a tuple of tensors."""
    with torch.inference_mode():
        return [
            tensor.numpy()
            for tensor in module(*(torch.from_numpy(array) for array in inputs))
        ]


@contextmanager
def silence_known_warnings() -> Iterator[None]:
    """Silence what torch's exporters say about things that are dealt with here, and
    nothing else.
    """
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # says that torchvision isn't installed
    with warnings.catch_warnings():
        for message in (
            # chosen by opset, see onnx_routes
            "You are using the legacy TorchScript-based ONNX export",
            # TorchScript is what was asked for; README says more
            r"`torch\.jit\.\w+` is (deprecated|not supported)",
            # inputs share dimensions on purpose
            r"# The axis name: .* will not be used",
            # torch's use of its own classes
            r"`isinstance\(treespec, LeafSpec\)` is deprecated",
            # torch.onnx, of its own helpers
            "The feature will be removed. Please remove usage of this function",
            # of LSTMs; the probe runs other sizes
            "Exporting a model to ONNX with a batch_size other than 1",
        ):
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("always", category=TracerWarning)
        warnings.showwarning = _noting_the_tracer_s(warnings.showwarning)
        try:
            yield
        finally:
            logger.setLevel(level)


def _noting_the_tracer_s(show: Callable[..., None]) -> Callable[..., None]:
    """What the tracer says it can't follow is told in a line; whether it matters, the
    probe and parity-check find.
    """

    def note(
        message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any
    ) -> None:
        if issubclass(category, TracerWarning):
            said = str(message).partition(". ")[0]
            print(f"note: {Path(filename).name}:{lineno}: {said}", file=sys.stderr)
        else:
            show(message, category, filename, lineno, *rest)

    return note
