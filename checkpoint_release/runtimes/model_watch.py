"""What a model does while it runs: random draws, decisions by values, and state.

A graph has none of these: it draws no random numbers that could be compared, takes the
branch that its example took, and forgets every call.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = {
    "rand",
    "randn",
    "randint",
    "randperm",
    "normal",
    "bernoulli",
    "multinomial",
    "poisson",
    "binomial",
    "rand_like",
    "randn_like",
    "randint_like",
    "dropout",
    "native_dropout",
    "alpha_dropout",
    "feature_dropout",
    "feature_alpha_dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "rrelu",
    "gumbel_softmax",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "scaled_dot_product_attention",
    "multi_head_attention_forward",
    "normal_",
    "uniform_",
    "bernoulli_",
    "random_",
    "exponential_",
    "cauchy_",
    "geometric_",
    "log_normal_",
}
_DECISIONS = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist"}
_RATES = {"scaled_dot_product_attention", "multi_head_attention_forward"}
"""Draw random numbers only where their `dropout_p` is above 0."""
_TORCH = str(Path(torch.__file__).parent)


class Watch(TorchFunctionMode):
    """Notes random draws and decisions by values, with the line of the model's code.

    Attributes:
        draws: such as "randn_like (my_model.py:12)".
        decisions: lines that turn a tensor's values into Python's, such as
            "my_model.py:14", where an `if` may depend on them.
        complex_at: lines that compute complex numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draws: dict[str, None] = {}
        self.decisions: dict[str, None] = {}
        self.complex_at: dict[str, None] = {}

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a torch function, and note what it is.

        Args:
            function: any function of torch that is called in the mode's context.
            types: not used.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            What the function returns.
        """
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in _DRAWS and _is_random(function, name, args, kwargs):
            self.draws.setdefault(f"{name} ({_caller()})")
        elif name in _DECISIONS and not _in_torch():
            self.decisions.setdefault(_caller())
        result = function(*args, **kwargs)
        if isinstance(result, Tensor) and result.is_complex():
            self.complex_at.setdefault(_caller())
        return result


def _is_random(
    function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Whether a call draws random numbers: dropout outside of training doesn't."""
    try:
        given = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # of functions written in C
        rate = kwargs.get("dropout_p", 0.0)
        return name not in _RATES or rate > 0
    given.apply_defaults()
    if not given.arguments.get("training", True):
        return False
    return bool(given.arguments.get("dropout_p", 1.0) > 0)


def _in_torch() -> bool:
    """Whether torch's own code called the function, rather than a model's."""
    return sys._getframe(2).f_code.co_filename.startswith(_TORCH)


def _caller() -> str:
    """The line of the model's code that a function was called from."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


# --------------------------------------------------------------------------------------


def training_modules(model: nn.Module) -> list[str]:
    """The layers that still compute as in training: dropout and batch norms.

    Args:
        model: after eval(), which an override may have kept from them.

    Returns:
        Such as "head.drop (Dropout)", in the model's order.
    """
    found = []
    for name, module in model.named_modules():
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (dropout or norm):
            found.append(f"{name or 'the model'} ({type(module).__name__})")
    return found


State = dict[str, Any]
"""Dotted name of an attribute of a model or its layers → what it is now."""


def state_of(model: nn.Module) -> State:
    """Everything that a call could change and the next call see.

    Args:
        model: whose tensors count in-place changes, as they do outside of inference
            mode.
    """
    state: State = {}
    for prefix, module in model.named_modules():
        tensors = {**module._parameters, **module._buffers}
        for name, value in (*vars(module).items(), *tensors.items()):
            if not name.startswith("_") or isinstance(value, Tensor):
                state[f"{prefix}.{name}".removeprefix(".")] = _fingerprint(value)
    return state


def changed(before: State, after: State) -> list[str]:
    """The attributes that aren't what they were, or are new."""
    return [name for name, value in after.items() if before.get(name) != value]


def _fingerprint(value: Any) -> Any:
    """What tells a changed value from an unchanged one, without a copy of it."""
    if isinstance(value, Tensor):
        return id(value), value.data_ptr(), value._version
    if isinstance(value, list | dict | set):
        return id(value), len(value)
    if isinstance(value, bool | int | float | str | None):
        return value
    return id(value)
