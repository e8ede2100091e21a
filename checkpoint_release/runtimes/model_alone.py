"""The eager model by itself: called on samples of its signature, before any export."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import (
    CheckpointReleaseError,
    ModelError,
    one_line,
)
from checkpoint_release.core.signature import (
    Arrays,
    Signature,
    TensorSpec,
    sample_inputs,
)
from checkpoint_release.runtimes.eager import ExportModule

OPTION = "model.signature"
Sizes = dict[str, int]
"""Name of a dynamic dimension → its size."""
Outputs = tuple[Tensor, ...]
_TORCH = str(Path(torch.__file__).parent)
_ROOM = str(Path(__file__).parent)  # what calls the model
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class ForwardError(Exception):
    """Whatever forward raised, which is this error's cause.

    Attributes:
        cause: its class, its message and the line of the model's code, for a message.
        out_of_memory: whether there was no room for what it computes.
    """

    def __init__(self, error: BaseException) -> None:
        self.cause = f"{type(error).__name__}: {one_line(error, 300)}{_line(error)}"
        text = str(error)
        short = any(sign in text for sign in _OUT_OF_MEMORY)
        self.out_of_memory = isinstance(error, MemoryError) or short
        super().__init__(self.cause)


@dataclass(frozen=True)
class ModelAlone:
    """A model and what its signature states of it.

    Attributes:
        model: in evaluation mode.
        architecture: of the model.
    """

    model: nn.Module
    architecture: Architecture

    @property
    def signature(self) -> Signature:
        """What it is stated to take and give."""
        return self.architecture.signature

    def run(self, inputs: Arrays, signature: Signature | None = None) -> Outputs:
        """Call the model.

        Args:
            inputs: by name.
            signature: another one to call it by; None: its own.

        Returns:
            One tensor for each of the signature's outputs, in its order.

        Raises:
            ForwardError: forward failed.
            ModelError: it doesn't return the outputs that the signature names.
        """
        module = ExportModule(self.model, signature or self.signature).eval()
        tensors = [torch.tensor(array) for array in inputs.values()]
        try:
            # not in inference mode, in which tensors don't count their changes
            with torch.no_grad():
                outputs: Outputs = module(*tensors)
                return outputs
        except CheckpointReleaseError:
            raise
        except (Exception, SystemExit) as error:  # the model is anybody's code
            raise ForwardError(error) from error

    def sample(self, sizes: Sizes, signature: Signature | None = None) -> Arrays:
        """Sample inputs of these sizes, always the same."""
        return sample_inputs(signature or self.signature, sizes, seed=0)

    def runs(self, sizes: Sizes, signature: Signature | None = None) -> bool:
        """Whether the model runs at these sizes.

        Args:
            sizes: of all dimensions.
            signature: another one to call it by; None: its own.
        """
        try:
            self.run(self.sample(sizes, signature), signature)
        except (ForwardError, ValueError, OverflowError):
            return False
        return True

    def key(self, name: str) -> str:
        """Where something of the signature stands, for a message.

        Args:
            name: dotted, within the signature.
        """
        if self.architecture.described:
            module = self.architecture.factory.partition(":")[0]
            return f"{name} in what {module}.signature returns"
        return f"{{{OPTION}}}.{name}"

    def error(self, problem: str, remedy: str) -> ModelError:
        """An error about the model or its signature."""
        return ModelError(problem, remedy, options=[OPTION])


def example_sizes(signature: Signature) -> Sizes:
    """The sizes of examples."""
    return {name: each.example for name, each in signature.dimensions.items()}


def smallest_sizes(signature: Signature) -> Sizes:
    """The smallest size of every dimension."""
    return {name: each.minimum for name, each in signature.dimensions.items()}


def odd_sizes(signature: Signature) -> Sizes:
    """Odd sizes beyond the examples, each dimension's another one, within the bounds.

    Dimensions of one size would hide that two inputs need the same one.
    """
    sizes: Sizes = {}
    for name, dimension in signature.dimensions.items():
        step = max(2, dimension.multiple)
        wanted = (dimension.example + max(dimension.example // 4, 2)) | 1
        size = dimension.nearest(wanted)
        while size in sizes.values() and dimension.allows(size + step):
            size += step
        sizes[name] = size
    return sizes


def with_input(signature: Signature, changed: TensorSpec) -> Signature:
    """The signature with another spec of the input of that name."""
    inputs = [
        changed if spec.name == changed.name else spec for spec in signature.inputs
    ]
    return replace(signature, inputs=tuple(inputs))


def parameter_sizes(model: nn.Module, most: int = 40) -> list[int]:
    """The sizes that the axes of a model's parameters have, the smallest first.

    Args:
        model: whose.
        most: how many of them are given.
    """
    found: set[int] = set()
    for parameter in model.parameters():
        found.update(parameter.shape)
    return sorted(found)[:most]


def sizes_text(sizes: Sizes) -> str:
    """Sizes for a message."""
    if not sizes:
        return "its fixed sizes"
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _line(error: BaseException) -> str:
    """The line of the model's code that an error left by, in parentheses, or empty."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _ROOM)):
            return f" ({Path(file).name}:{line})"
    return ""
