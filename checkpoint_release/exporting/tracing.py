"""What all of torch's exporters need: the eager module with example inputs, dynamic
sizes, one error for whatever they raise, and silence about what is known.
"""

from __future__ import annotations

import inspect
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.jit._trace import TracerWarning

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.errors import CheckpointReleaseError, ExportError, one_line
from checkpoint_release.core.files import require_room
from checkpoint_release.core.signature import Array, Signature, sample_inputs
from checkpoint_release.exporting.export_dimensions import ExportDimensions
from checkpoint_release.exporting.export_failure import explanation
from checkpoint_release.exporting.shape_check import example_sizes
from checkpoint_release.runtimes.eager import ExportModule, load_model
from checkpoint_release.runtimes.model_check import Behaviour, check_model

# Bytes of weights from which on an export doesn't widen them all to try the model in
# float64. parity-check does, whatever the size.
_GRAPH = 16 << 20  # bytes of a graph beside its weights, at most for the most part
_LARGE = 1 << 30
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
    # of GRUs and LSTMs, which gather their own weights anew in each call
    r"The tensor attributes? self\.[\w.]*\._flat_weights\[0\]",
    # a constant that is computed in the graph instead
    "Constant folding - ",
)
_KNOWN_LOGGERS = (
    # that torchvision isn't installed
    "torch.onnx._internal.exporter._registration",
    # of an error that follows
    "torch.fx.experimental.symbolic_shapes",
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
        behaviour: what was seen of it before it is exported.
    """

    model: nn.Module
    module: ExportModule
    signature: Signature
    arguments: tuple[Tensor, ...]
    behaviour: Behaviour

    @classmethod
    def open(cls, checkpoint: CheckpointFolder) -> Traceable:
        """Build the checkpoint's model, and run it alone before it is exported; its
        weights stay in the mapped file.

        Raises:
            ModelError: the model can't be built, the weights don't fit, or it doesn't
                do what its signature says.
        """
        architecture = checkpoint.architecture
        signature = architecture.signature
        # A model of its own: what a call leaves behind, such as a cache, would be
        # traced.
        behaviour = check_model(
            _build(checkpoint),
            architecture,
            double=checkpoint.facts.tensors.bytes < _LARGE,
        )
        for note in behaviour.notes:
            print(f"note: {note}", file=sys.stderr)
        model = _build(checkpoint)
        inputs = sample_inputs(signature, example_sizes(signature), seed=0)
        arguments = tuple(torch.from_numpy(array) for array in inputs.values())
        module = ExportModule(model, signature).eval()
        return cls(model, module, signature, arguments, behaviour)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Compute the outputs eagerly."""
        return run(self.module, inputs)

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """For each input, axis → torch.export's dimension with its bounds.

        A dimension that can have only one size is left out: torch.export refuses it.
        """
        dimensions = ExportDimensions(self.signature.dimensions)
        shapes: list[dict[int, Any]] = []
        for spec in self.signature.inputs:
            shapes.append({})
            for axis, size in spec.dynamic_axes.items():
                dimension = dimensions.of(size)
                if dimension is not None:
                    shapes[-1][axis] = dimension
        return tuple(shapes)


def _build(checkpoint: CheckpointFolder) -> nn.Module:
    """The checkpoint's model, without gradients, over a mapping of its own."""
    weights = load_file(checkpoint.weights)
    return load_model(checkpoint.architecture, weights).requires_grad_(False)


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


def export_program(
    module: nn.Module, arguments: tuple[Tensor, ...], dynamic_shapes: Any
) -> ExportedProgram:
    """torch.export.export, which prints no graph where it fails.

    Args:
        module: takes tensors by position.
        arguments: example inputs.
        dynamic_shapes: as torch.export takes them.
    """
    printed = io.StringIO()
    graph = ""
    try:
        with redirect_stderr(printed):
            return torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes)
    except Exception as error:
        graph = str(getattr(error, "partial_fx_graph", ""))
        raise
    finally:
        rest = printed.getvalue()
        sys.stderr.write(rest.replace(graph, "").lstrip() if graph else rest)


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
def model_export(format: str, traceable: Traceable) -> Iterator[None]:
    """One error for whatever an exporter raises, because it runs the model's own code;
    this project's errors pass.

    Args:
        format: the key of the format under `formats`.
        traceable: what is exported.

    Raises:
        ExportError: the exporter, or the model's code, raised something else.
    """
    try:
        yield
    except CheckpointReleaseError:
        raise
    except (Exception, SystemExit) as error:
        option = f"formats.{format}"
        why, remedy = explanation(error, traceable.behaviour)
        # the rest of a long message hides the explanation
        cause = one_line(error, 200 if why else 400)
        raise ExportError(
            f"{format}: exporting {type(traceable.model).__name__} failed:"
            f" {type(error).__name__}: {cause}{why}",
            f"{remedy}, or set {{{option}}} to false",
            options=[option],
        ) from error


@contextmanager
def silence_known_warnings() -> Iterator[None]:
    """Silence torch's warnings about what is dealt with here, and no others."""
    loggers = [logging.getLogger(name) for name in _KNOWN_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), _no_graphs_on_failure():
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("always", category=TracerWarning)
        warnings.showwarning = _print_tracer_warnings(warnings.showwarning)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _no_graphs_on_failure() -> Iterator[None]:
    """Keep the tracing exporter from printing the whole graph where it fails.

    It prints where logging was enabled before, and takes the function that tells so,
    which is always true, for its result.
    """
    name = "_jit_is_onnx_log_enabled"
    asked = getattr(torch._C, name, None)
    setattr(torch._C, name, None)
    torch._C._jit_set_onnx_log_enabled(False)
    try:
        yield
    finally:
        setattr(torch._C, name, asked)


def _print_tracer_warnings(show: Callable[..., None]) -> Callable[..., None]:
    """Print what the tracer can't follow in one line each, and each once; whether it
    matters, the shape check and the measurement of parity find.
    """
    printed: set[str] = set()

    def note(
        message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any
    ) -> None:
        if issubclass(category, TracerWarning):
            summary = str(message).partition(". ")[0]
            if _is_torchs(filename):
                # its layers say the same on many lines
                line = f"note: {Path(filename).name}: {summary}"
            else:
                line = f"note: {Path(filename).name}:{lineno}: {summary}"
            if line not in printed:
                print(line, file=sys.stderr)
            printed.add(line)
        else:
            show(message, category, filename, lineno, *rest)

    return note


def _is_torchs(filename: str) -> bool:
    """Whether a warning comes from a layer of torch's own."""
    return Path(filename).is_relative_to(Path(torch.__file__).parent)


def require_room_for(file: Path, model: nn.Module) -> None:
    """Require room for a file with the model's weights and its canonical copy.

    torch ends the whole process on a disk that is full.

    Raises:
        ArtifactError: there isn't enough.
    """
    weights = 0
    for tensor in (*model.parameters(), *model.buffers()):
        weights += tensor.numel() * tensor.element_size()
    require_room(file.parent, 2 * weights + _GRAPH, f"writing {file.name}")
