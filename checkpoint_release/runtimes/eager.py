"""The eager model: an nn.Module built from artifacts/checkpoint, which every format is
held against.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from checkpoint_release.core.architecture import Architecture, family_module
from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.files import read_json
from checkpoint_release.core.signature import Signature


def build_eager(checkpoint: Path) -> tuple[nn.Module, Signature]:
    """The checkpoint's model with its weights, in float32 and evaluation mode, and what
    it takes and gives.

    Args:
        checkpoint: the folder that `load` wrote.

    Raises:
        ModelError: the factory fails, or its model and the weights don't fit.
    """
    architecture = Architecture.from_json(
        read_json(checkpoint / "checkpoint.json")["model"]
    )
    with _NoRandomParameters():
        model = build_model(architecture)
    load_weights(model, load_file(checkpoint / "weights.safetensors"))
    return model, architecture.signature


def build_model(architecture: Architecture) -> nn.Module:
    """Call the factory, without weights.

    Raises:
        ModelError: it isn't there, fails, doesn't give an nn.Module, or forward lacks
            one of the inputs.
    """
    name = architecture.factory.partition(":")[2]
    factory = getattr(family_module(architecture.factory), name, None)
    if not callable(factory):
        raise ModelError(
            f"model.factory is {architecture.factory!r}, and there is no such callable",
            "check its name",
        )
    try:
        model = factory(**architecture.kwargs)
    except (Exception, SystemExit) as error:  # a factory is anybody's code
        raise ModelError(
            f"{architecture.factory} with {architecture.kwargs} failed:"
            f" {type(error).__name__}: {error}",
            "give the constructor arguments that the checkpoint was trained with in"
            " model.kwargs",
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{architecture.factory} made a {type(model).__name__}",
            "return a torch.nn.Module",
        )
    parameters = inspect.signature(model.forward).parameters
    open_ended = any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )
    asked = [spec.name for spec in architecture.signature.inputs]
    if not open_ended and (
        unknown := [name for name in asked if name not in parameters]
    ):
        raise ModelError(
            f"forward of {type(model).__name__} takes {list(parameters)}, and the"
            f" signature names {unknown}",
            "name the inputs as forward names them",
        )
    return model.eval()


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, assign: bool = False
) -> None:
    """Copy the weights in; half precision is widened, which is exact.

    Args:
        model: what build_model made.
        weights: the state dict.
        assign: take the tensors themselves where they have the model's dtype.

    Raises:
        ModelError: names or shapes don't fit, or a float64 weight would be rounded.
    """
    wide = [name for name, tensor in weights.items() if tensor.dtype == torch.float64]
    own = model.state_dict()
    if rounded := [
        name for name in wide if name in own and own[name].dtype != torch.float64
    ]:
        raise ModelError(
            f"{len(rounded)} weights are float64, {rounded[0]} the first, and the model"
            " computes in float32",
            "save the checkpoint in float32: rounding is the author's decision",
        )
    missing = [name for name in own if name not in weights]
    left_over = [name for name in weights if name not in own]
    reshaped = [
        f"{name} {list(weights[name].shape)} for {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if missing or left_over or reshaped:
        raise ModelError(
            f"the checkpoint doesn't fit {type(model).__name__}:"
            f" {_few('missing', missing)}; {_few('left over', left_over)};"
            f" {_few('of another shape', reshaped)}",
            "set model.factory and model.kwargs to the model that was trained",
        )
    if assign:
        weights = {name: tensor.to(own[name].dtype) for name, tensor in weights.items()}
    shared: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shared.setdefault(parameter, []).append(name)
    model.load_state_dict(weights, strict=True, assign=assign)
    if assign:  # which gave every name a tensor of its own
        for *others, last in shared.values():
            for name in others:
                module, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(module), leaf, model.get_parameter(last))


def load_model(architecture: Architecture, weights: Mapping[str, Tensor]) -> nn.Module:
    """Build the model around the weights, in evaluation mode: they aren't copied, and
    stay mapped if they are.

    Raises:
        ModelError: as build_model and load_weights.
    """
    with _NoRandomParameters():
        model = build_model(architecture)
    load_weights(model, weights, assign=True)
    return model


class _NoRandomParameters(TorchFunctionMode):
    """Random numbers for a parameter are not drawn: the strict load that follows
    replaces each of them.

    Building on the meta device would be as fast, and lose every value that a
    constructor computes and no state dict holds.
    """

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, nn.Parameter) and (
            getattr(function, "__module__", None) == "torch.nn.init"
            or function in (Tensor.uniform_, Tensor.normal_)
        ):
            return target
        return function(*args, **kwargs)


class ExportModule(nn.Module):
    """The model as the exporters take it: inputs by position in the signature's order,
    outputs a flat tuple.
    """

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model = model
        self.names = [spec.name for spec in signature.inputs]
        self.outputs = [spec.name for spec in signature.outputs]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Call the model by keyword and flatten what it returns.

        Raises:
            ModelError: it doesn't return as many tensors as the signature names.
        """
        leaves = tuple(
            flatten(self.model(**dict(zip(self.names, inputs, strict=True))))
        )
        if len(leaves) != len(self.outputs):
            raise ModelError(
                f"the model returned {len(leaves)} tensors, and the signature names"
                f" {self.outputs}",
                "name every output, in the order of the returned tuple or dict, nested"
                " ones in place",
            )
        return leaves


def flatten(value: Any) -> Iterator[Tensor]:
    """The tensors in a nest of tuples, lists, mappings and dataclasses, in order; None
    is passed over.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from flatten(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from flatten(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from flatten(getattr(value, field.name))
    elif value is not None:
        raise ModelError(
            f"the model returned a {type(value).__name__} among its outputs",
            "return tensors only",
        )


def _few(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {what}{f' ({shown})' if names else ''}"
