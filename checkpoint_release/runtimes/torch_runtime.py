"""Running a torch module of any kind: eager, TorchScript or exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from checkpoint_release.core.errors import InferenceError, one_line
from checkpoint_release.core.signature import Array, Signature
from checkpoint_release.runtimes.eager import flatten
from checkpoint_release.runtimes.runtime import Options, Runtime

_HALVES = (torch.float16, torch.bfloat16)


def prepare_torch(options: Options) -> None:
    """Set the process's number of threads, and check that torch can use the device.

    Raises:
        InferenceError: it can't, or execution providers were given, which are ONNX
            Runtime's.
    """
    if options.providers is not None:
        raise InferenceError(
            f"{{providers}} {list(options.providers)} are ONNX Runtime's, and this"
            " isn't ONNX",
            "leave out {providers}",
            options=["providers"],
        )
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise InferenceError(
            f"torch can't use the {{device}} {options.device!r}: {one_line(error)}",
            "choose cpu, or a device that this machine and this torch have",
            options=["device"],
        ) from None
    if options.threads is not None:
        torch.set_num_threads(options.threads)


def torch_runtime(
    format: str,
    path: Path,
    module: Any,
    signature: Signature,
    options: Options,
    precision: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Runtime:
    """A runtime that calls a module.

    Args:
        format, path, signature: the runtime's.
        module: takes the signature's inputs by position.
        options: device and dtype of the inputs.
        precision: enters what changes the dtypes that its operations compute in.
    """

    def compute(arrays: Sequence[Array]) -> Sequence[Array]:
        with torch.inference_mode(), precision():
            tensors = [_input(array, options) for array in arrays]
            return [tensor.cpu().numpy() for tensor in flatten(module(*tensors))]

    def weights() -> Mapping[str, Array]:
        return _Arrays(module.state_dict())

    return Runtime(format, path, signature, compute, weights)


class _Arrays(Mapping[str, Array]):
    """Name → array of a state dict, made when it is asked for."""

    def __init__(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        self._tensors = state_dict

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name].detach()
        wide = tensor.float() if tensor.dtype in _HALVES else tensor
        array: Array = wide.cpu().numpy()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _input(array: Array, options: Options) -> torch.Tensor:
    """An input on the device, floats in float64 where that is computed in."""
    tensor = torch.tensor(array, device=options.device)
    if options.dtype == "float64" and tensor.is_floating_point():
        return tensor.double()
    return tensor
