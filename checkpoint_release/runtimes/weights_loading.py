"""Weights into a model: every one that it has, in dtypes that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from checkpoint_release.core.errors import ModelError, first_few
from checkpoint_release.core.selection import (
    SELECTION_OPTIONS,
    remedy,
    selection_for,
)

_MAX_LISTED = 3  # names in a message
_PART = 128 << 20  # bytes of weights that are copied before memory is given back


def load_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    assign: bool = False,
    forget: Callable[[Iterable[str]], None] = lambda names: None,
) -> None:
    """Copy the weights in, each in the dtype that the model has for it.

    Args:
        model: what build_model returned.
        weights: the state dict.
        assign: take the tensors themselves where they have the model's dtype.
        forget: called with the names of those that were copied, some at a time.

    Raises:
        ModelError: names or shapes don't fit, or a weight isn't one that the model's
            dtype holds: it would be rounded, or lose its imaginary part.
    """
    own = model.state_dict()
    _require_exact(weights, own)
    _require_fit(type(model).__name__, weights, own)
    if not assign:
        for part in _parts(weights):
            model.load_state_dict(part, strict=part is weights)
            forget(part)
        return
    tied = _tied_parameters(model)
    tensors = {name: tensor.to(own[name].dtype) for name, tensor in weights.items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    _tie(model, tied)


def _parts(weights: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The weights in parts of about _PART bytes; themselves, where one is enough."""
    if sum(tensor.nbytes for tensor in weights.values()) <= _PART:
        yield weights
        return
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in weights.items():
        part[name] = tensor
        size += tensor.nbytes
        if size >= _PART:
            yield part
            part, size = {}, 0
    yield part


def _require_exact(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights that the model's own dtypes don't hold.

    Args:
        weights: the checkpoint's.
        own: the model's own, by the same names.

    Raises:
        ModelError: there are some.
    """
    lossy = []
    for name, tensor in weights.items():
        if name in own and not _holds(own[name].dtype, tensor):
            lossy.append(name)
    if not lossy:
        return
    first = lossy[0]
    found, computed = (_dtype_name(each[first]) for each in (weights, own))
    count = f"{len(lossy)} weights are" if len(lossy) > 1 else "a weight is"
    if weights[first].is_complex() and not own[first].is_complex():
        raise ModelError(
            f"{count} complex, {first} the first ({found}), and the model has"
            f" {computed} there: their imaginary parts would be lost",
            "set {model.factory} and {model.kwargs} to the model that was trained",
            options=["model.factory", "model.kwargs"],
        )
    raise ModelError(
        f"{count} {found}, {first} the first, and the model computes in {computed}",
        f"save the checkpoint in {computed}: rounding is the author's decision; or let"
        f" {{model.factory}} build the model in {found}",
        options=["model.factory"],
    )


def _holds(dtype: torch.dtype, tensor: Tensor) -> bool:
    """Whether a dtype has every value of a tensor, or of the tensor's dtype.

    Integers are looked at, since most float dtypes have all of those that occur.
    """
    if torch.promote_types(tensor.dtype, dtype) != dtype:
        return False
    floats = dtype.is_floating_point or dtype.is_complex
    if not floats or tensor.is_floating_point() or tensor.is_complex():
        return True
    return torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def _dtype_name(tensor: Tensor) -> str:
    """torch's name of a tensor's dtype."""
    return str(tensor.dtype).removeprefix("torch.")


def _require_fit(
    model: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> None:
    """Make sure that the weights have the model's names and shapes.

    Args:
        model: its class, for the message.
        weights: the checkpoint's.
        own: the model's own state dict.

    Raises:
        ModelError: they haven't.
    """
    left_over = [name for name in weights if name not in own]
    missing, reshaped = [], []
    for name, tensor in own.items():
        if name not in weights:
            missing.append(name)
        elif weights[name].shape != tensor.shape:
            found, expected = list(weights[name].shape), list(tensor.shape)
            reshaped.append(f"{name} {found} for {expected}")
    if not (missing or left_over or reshaped):
        return
    problem = (
        f"the checkpoint doesn't fit {model}:"
        f" {_few('missing', missing)}; {_few('left over', left_over)};"
        f" {_few('of another shape', reshaped)}"
    )
    if selection := selection_for(_shapes(weights), _shapes(own)):
        raise ModelError(problem, remedy(selection), options=SELECTION_OPTIONS)
    raise ModelError(
        problem,
        "set {model.factory} and {model.kwargs} to the model that was trained",
        options=["model.factory", "model.kwargs"],
    )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _tied_parameters(model: nn.Module) -> list[list[str]]:
    """For each parameter, all names that share it; for most that is one.

    A parameter is compared by identity: equal values in two tensors don't tie them.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return list(names.values())


def _tie(model: nn.Module, tied: Iterable[list[str]]) -> None:
    """Let names share a parameter again, after each was assigned a tensor of its own.

    The last name's tensor is kept: it is also the one whose values remain where
    load_state_dict copies into a shared parameter.

    Args:
        model: it is changed.
        tied: what _tied_parameters found before the weights were assigned.
    """
    for *others, last in tied:
        for name in others:
            module, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(module), leaf, model.get_parameter(last))


def _few(what: str, names: Sequence[str]) -> str:
    """How many names there are, and the first of them, for a message.

    Args:
        what: what is the matter with those that are named.
        names: may be empty.
    """
    count = f"{len(names)} {what}"
    return f"{count} ({first_few(names, _MAX_LISTED)})" if names else count
