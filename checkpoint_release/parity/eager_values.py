"""Every value that the eager model computes, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from checkpoint_release.core.signature import Array
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.runtimes.eager import ExportModule, build_eager
from checkpoint_release.runtimes.precision import double_precision, widen


def record_eager(
    checkpoint: Path, inputs: Mapping[str, Array]
) -> tuple[list[tuple[str, Array]], list[Array]]:
    """Run the checkpoint's model and keep every float that an operation gives.

    Args:
        checkpoint: the folder of the checkpoint.
        inputs: by name, as the signature has them.

    Returns:
        The module that each value belongs to, such as "layers.0.norm (LayerNorm)", and
        the value, in the order of computation; and the outputs, in the signature's.
    """
    model, signature = build_eager(checkpoint, OWN_ARTIFACTS, mapped=True)
    widen(model)
    tensors = []
    for spec in signature.inputs:
        tensor = torch.tensor(inputs[spec.name])
        if tensor.is_floating_point():
            tensor = tensor.double()
        tensors.append(tensor)
    recorder = Recorder()
    recorder.follow(model)
    with torch.no_grad(), double_precision(), recorder:
        outputs = ExportModule(model, signature)(*tensors)
    return recorder.values, [tensor.numpy() for tensor in outputs]


class Recorder(TorchDispatchMode):
    """Notes the results of operations, and the module that is running.

    Operations are those that reach torch's dispatcher, below modules and functions: a
    layer norm that a graph writes as five nodes may be a single one here.

    Attributes:
        values: of each result, the label of the innermost module that was running and
            a copy of the numbers, in the order of computation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[tuple[str, Array]] = []
        self._running = ["the model"]

    def follow(self, model: nn.Module) -> None:
        """Note from now on when one of the model's modules starts and ends.

        Args:
            model: whose modules; each is called by its name and type.
        """
        for name, module in model.named_modules():
            label = f"{name or 'the model'} ({type(module).__name__})"
            module.register_forward_pre_hook(self._enter(label))
            module.register_forward_hook(self._leave)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note the floats among its results.

        Results are copied, since a later operation may work in place.
        """
        result = function(*args, **(kwargs or {}))
        values = result if isinstance(result, tuple | list) else [result]
        self.note(function, args, values)
        return result

    def note(self, function: Any, args: Any, results: Sequence[Any]) -> None:
        """Keep what an operation gave.

        Args:
            function: the overload that was dispatched.
            args: what it was given.
            results: what it gave.
        """
        for value in results:
            if isinstance(value, Tensor) and value.is_floating_point():
                array = value.detach().clone().numpy()
                self.values.append((self.running, array))

    @property
    def running(self) -> str:
        """The label of the innermost module that is running."""
        return self._running[-1]

    def _enter(self, label: str) -> Callable[..., None]:
        """A hook that notes the start of a module.

        Args:
            label: what to call the module.
        """

        def hook(*_: Any) -> None:
            self._running.append(label)

        return hook

    def _leave(self, *_: Any) -> None:
        """The hook that notes the end of the module that started last."""
        self._running.pop()
