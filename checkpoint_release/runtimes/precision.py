"""What torch computes in: the dtypes that a model has, or double precision.

A model's own dtypes are part of it: complex weights, a float64 buffer, half precision
that forward widens where it matters. So a model runs as it is. Its reference runs in
double precision throughout: every float is float64 and every complex number complex128,
also where forward names a narrower dtype, makes a tensor without naming one, or uses a
tensor that is neither parameter nor buffer.

The weights of a large model stay as they are: each module's are widened while the
module runs. An eager model is widened where Python calls torch. The calls of a graph,
of TorchScript or an exported program, are widened one layer below, where torch
dispatches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from checkpoint_release.core.large import is_large

DOUBLE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
"""Dtype → the one of the same kind in double precision, which holds all its values."""

_CASTS = {
    "half": "double",
    "bfloat16": "double",
    "float": "double",
    "chalf": "cdouble",
    "cfloat": "cdouble",
}
"""Method of a tensor that casts it → the one that casts to double precision."""
_REINTERPRETING = (Tensor.view,)  # whose dtype says how to read bits

M = TypeVar("M", bound=nn.Module)


def widen(module: M) -> M:
    """Bring parameters and buffers to double precision, in place; integers stay.

    A large model's parameters are widened while their module runs. Where something else
    reads them, `double_precision` widens them for it.
    """
    parameters = list(module.parameters())
    if not is_large(sum(parameter.nbytes for parameter in parameters)):
        module._apply(_widened)  # type: ignore[no-untyped-call]
        return module
    for each in module.modules():
        for name, buffer in each.named_buffers(recurse=False):
            each._buffers[name] = _widened(buffer)
        has_own = next(each.parameters(recurse=False), None) is not None
        if has_own and not _is_table(each):
            lent = _WidenedWhileRunning(each)
            each.register_forward_pre_hook(lent.widen)
            each.register_forward_hook(lent.restore, always_call=True)
    return module


def _is_table(module: nn.Module) -> bool:
    """Whether a module only looks up rows, of what may be the largest weight of all."""
    return type(module) is nn.Embedding and module.max_norm is None


class _WidenedWhileRunning:
    """The parameters of one module, without those of its submodules.

    A module that runs within itself is widened once, by its outermost call. What
    forward changes stays in double precision.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._narrow: list[tuple[nn.Parameter, Tensor, int]] = []
        self._depth = 0

    def widen(self, *_: Any) -> None:
        """Before the module runs."""
        self._depth += 1
        if self._depth > 1:
            return
        # neither widened once more, nor made tensors of inference mode
        with torch._C.DisableTorchFunction(), torch.inference_mode(False):
            for parameter in self._module.parameters(recurse=False):
                narrow = parameter.data
                parameter.data = _widened(narrow)
                self._narrow.append((parameter, narrow, parameter._version))

    def restore(self, *_: Any) -> None:
        """After it ran, or failed."""
        self._depth -= 1
        if self._depth:
            return
        with torch._C.DisableTorchFunction(), torch.inference_mode(False):
            for parameter, narrow, version in self._narrow:
                if parameter._version == version:
                    parameter.data = narrow
        self._narrow.clear()


@contextmanager
def double_precision() -> Iterator[None]:
    """Let everything that torch computes meanwhile be in double precision."""
    with _double_by_default(), _Double():
        yield


class _Double(TorchFunctionMode):
    """Widens what torch's functions are given, and the dtypes that they are asked for.

    What a function writes to stays itself: a copy of it would be lost.
    """

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a torch function in double precision.

        Args:
            function: any function of torch that is called in the mode's context.
            types: not used.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            What the function returns.
        """
        kwargs = kwargs or {}
        if function in _REINTERPRETING:
            return function(*args, **kwargs)
        if function is torch.nn.functional.embedding and _only_looks_up(args, kwargs):
            # the rows alone are widened
            return _wide(function(*args, **kwargs))
        name = getattr(function, "__name__", "")
        if name in _CASTS and function is getattr(Tensor, name):
            function = getattr(Tensor, _CASTS[name])
        written = args[:1] if _writes(function) else ()
        read = args[len(written) :]
        wide = {name: _wide(value) for name, value in kwargs.items() if name != "out"}
        if "out" in kwargs:
            wide["out"] = kwargs["out"]
        return function(*written, *_wide(read), **wide)


@contextmanager
def double_operations() -> Iterator[None]:
    """Let the operations of a graph that runs meanwhile be in double precision.

    A graph's constants are those of the file: a number that Python computed in double
    precision stays so, and a tensor in float32 keeps its values. It is entered in
    torch's inference mode: where gradients may be wanted, torch takes some operations
    apart before they are dispatched.
    """
    with _double_by_default(), _DoubleOperations():  # type: ignore[no-untyped-call]
        yield


@contextmanager
def _double_by_default() -> Iterator[None]:
    """Let floats that have no dtype of their own be in double precision."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


class _DoubleOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Widens what torch's operators are given, and the dtypes that they are asked for.

    What an operator writes to stays itself: a copy of it would be lost.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and the guard against it imports the compiler."""
        return False

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call an operator in double precision.

        Args:
            function: the overload that was dispatched.
            types: not used.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            What the operator returns.
        """
        written = set()
        for argument in function._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                written.add(argument.name)
        widened = []
        for argument, value in zip(function._schema.arguments, args, strict=False):
            widened.append(value if argument.name in written else _wide(value))
        named = {}
        for name, value in (kwargs or {}).items():
            named[name] = value if name in written else _wide(value)
        return function(*widened, **named)


def _only_looks_up(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of torch's embedding leaves the table as it is."""
    return (len(args) < 4 and kwargs.get("max_norm") is None) or args[3:4] == (None,)


def _writes(function: Any) -> bool:
    """Whether a function changes its first argument, or reads an attribute of it."""
    name: str = getattr(function, "__name__", "")
    if name in ("__setitem__", "__get__", "__set__", "__delete__"):
        return True
    return name.endswith("_") and not name.endswith("__")


def _wide(value: Any) -> Any:
    """A function's argument in double precision: tensors, dtypes, and lists of them."""
    if isinstance(value, Tensor):
        return _widened(value)
    if isinstance(value, torch.dtype):
        return DOUBLE.get(value, value)
    if type(value) in (list, tuple):
        return type(value)(map(_wide, value))
    return value


def _widened(tensor: Tensor) -> Tensor:
    """The tensor in double precision; itself, where it holds neither floats nor complex
    numbers, or is double already.
    """
    wide = DOUBLE.get(tensor.dtype)
    return tensor if wide is None else tensor.to(wide)
