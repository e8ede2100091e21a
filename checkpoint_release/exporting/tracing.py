"""What all of torch's exporters need: the eager module with example inputs, dynamic
sizes, one error for whatever they raise, and silence about what is known.
"""

from __future__ import annotations

import inspect
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
from checkpoint_release.core.errors import CheckpointReleaseError, ExportError, one_line
from checkpoint_release.core.signature import Array, Signature, sample_inputs
from checkpoint_release.exporting.shape_check import example_sizes
from checkpoint_release.runtimes.eager import ExportModule, load_model

_KNOWN_WARNINGS = (
    # chosen by opset, see checkpoint_release.onnx.routes
    "You are using the legacy TorchScript-based ONNX export",
    # TorchScript is what was asked for
    r"`torch\.jit\.\w+` is (deprecated|not supported)",
    # inputs share dimensions on purpose
    r"# The axis name: .* will not be used",
    # torch's use of its own classes
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # torch.onnx, of its own helpers
    "The feature will be removed. Please remove usage of this function",
    # of LSTMs; the shape check runs other sizes
    "Exporting a model to ONNX with a batch_size other than 1",
)


def torch_version() -> str:
    """The version of torch, without the part that says what hardware it is for."""
    return torch.__version__.partition("+")[0]


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
    def open(cls, checkpoint: CheckpointFolder) -> Traceable:
        """Build the checkpoint's model; its weights stay in the mapped file.

        Raises:
            ModelError: the model can't be built, or the weights don't fit.
        """
        signature = checkpoint.architecture.signature
        weights = load_file(checkpoint.weights)
        model = load_model(checkpoint.architecture, weights).requires_grad_(False)
        inputs = sample_inputs(signature, example_sizes(signature), seed=0)
        arguments = tuple(torch.from_numpy(array) for array in inputs.values())
        return cls(model, ExportModule(model, signature).eval(), signature, arguments)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Compute the outputs eagerly."""
        return run(self.module, inputs)

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """For each input, axis → torch.export's dimension with its bounds.

        A dimension that can have only one size is left out: torch.export refuses it.
        """
        dims: dict[str, Any] = {}
        for name, dimension in self.signature.dimensions.items():
            low, high = dimension.minimum, dimension.maximum
            if low != high:
                dims[name] = torch.export.Dim(name, min=low, max=high)
        shapes: list[dict[int, Any]] = []
        for spec in self.signature.inputs:
            shapes.append({})
            for axis, name in spec.dynamic_axes.items():
                if name in dims:
                    shapes[-1][axis] = dims[name]
        return tuple(shapes)


def run(module: Any, inputs: Sequence[Array]) -> list[Array]:
    """Call a torch module on arrays.

    Args:
        module: takes tensors by position and gives a tuple of tensors.
        inputs: in the module's order.

    Returns:
        the outputs, in the module's order.
    """
    tensors = [torch.from_numpy(array) for array in inputs]
    with torch.inference_mode():
        outputs = module(*tensors)
    return [tensor.numpy() for tensor in outputs]


def with_argument_names(
    forward: Callable[..., Any], signature: Signature
) -> Callable[..., Any]:
    """A method declared as taking the signature's inputs by name.

    torch's exporters ask `inspect` for the names.

    Args:
        forward: takes `self` and `*inputs`; it is changed and returned.
        signature: names the inputs.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["self", *signature.input_names]
    parameters = [inspect.Parameter(name, kind) for name in names]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward


@contextmanager
def model_export(format: str, model: nn.Module) -> Iterator[None]:
    """One error for whatever an exporter raises, because it runs the model's own code;
    this project's errors pass.

    Args:
        format: the key of the format under `formats`.
        model: what is exported.

    Raises:
        ExportError: the exporter, or the model's code, raised something else.
    """
    try:
        yield
    except CheckpointReleaseError:
        raise
    except (Exception, SystemExit) as error:
        option = f"formats.{format}"
        raise ExportError(
            f"{format}: exporting {type(model).__name__} failed:"
            f" {type(error).__name__}: {one_line(error, 400)}",
            f"change what forward does there, or set {{{option}}} to false",
            options=[option],
        ) from error


@contextmanager
def silence_known_warnings() -> Iterator[None]:
    """Silence torch's warnings about what is dealt with here, and no others."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # reports that torchvision isn't installed
    with warnings.catch_warnings():
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("always", category=TracerWarning)
        warnings.showwarning = _print_tracer_warnings(warnings.showwarning)
        try:
            yield
        finally:
            logger.setLevel(level)


def _print_tracer_warnings(show: Callable[..., None]) -> Callable[..., None]:
    """Print what the tracer can't follow in one line each; whether it matters, the
    shape check and the measurement of parity find.
    """

    def note(
        message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any
    ) -> None:
        if issubclass(category, TracerWarning):
            summary = str(message).partition(". ")[0]
            print(f"note: {Path(filename).name}:{lineno}: {summary}", file=sys.stderr)
        else:
            show(message, category, filename, lineno, *rest)

    return note
