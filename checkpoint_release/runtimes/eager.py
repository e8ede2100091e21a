"""The model's own code, built around weights; every format is compared with it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from checkpoint_release.core.architecture import (
    Architecture,
    family_module,
    last_own_frame,
)
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.errors import (
    ArchitectureError,
    ModelError,
    ParamsError,
    first_few,
    one_line,
)
from checkpoint_release.core.large import is_large
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.text import printable
from checkpoint_release.core.trust import Trust, is_own_factory
from checkpoint_release.runtimes.mapped_weights import MappedWeights
from checkpoint_release.runtimes.weights_loading import load_weights

_MAX_LEAVES = 8  # outputs in a message


def build_eager(
    checkpoint: Path, trust: Trust, *, mapped: bool = False
) -> tuple[nn.Module, Signature]:
    """The checkpoint's model in its own dtypes and evaluation mode, and its signature.

    Args:
        checkpoint: the folder of a checkpoint that was read.
        trust: the model code that may run.
        mapped: leave the weights of a large checkpoint in their file; kernels round
            otherwise there.

    Returns:
        The model, with copies of the weights, and what it takes and gives.

    Raises:
        ArtifactError: it isn't such a folder.
        UntrustedCodeError: its model's code comes from elsewhere, and nobody trusts it.
        ModelError: the factory fails, or its model and the weights don't fit.
    """
    folder = CheckpointFolder.open(checkpoint, trust)
    architecture = folder.architecture
    architecture.find_factory()  # asks for trust before anything else is looked at
    if mapped and is_large(folder.weights.stat().st_size):
        model = load_model(architecture, load_file(folder.weights))
        return model, architecture.signature
    weights = MappedWeights(folder.weights)
    _require_sizes_of(architecture, weights.tensors)
    with _NoRandomParameters():
        model = build_model(architecture)
    load_weights(model, weights.tensors, forget=weights.forget)
    return model, architecture.signature


def build_model(architecture: Architecture) -> nn.Module:
    """Call the factory, without weights.

    Args:
        architecture: names the factory and its arguments; forward is held against its
            signature.

    Returns:
        The model as its constructor initialised it, in evaluation mode.

    Raises:
        UntrustedCodeError: it comes from elsewhere, and nobody trusts it.
        ModelError: it isn't there, fails, doesn't return an nn.Module, or forward lacks
            one of the inputs.
    """
    factory = architecture.find_factory()
    try:
        model = factory(**architecture.kwargs)
    except (Exception, SystemExit) as error:  # a factory is anybody's code
        place = last_own_frame(error, architecture.factory.partition(":")[0])
        raise ModelError(
            f"{architecture.factory} with {architecture.kwargs} failed:"
            f" {type(error).__name__}: {one_line(error)}{place}",
            f"state its arguments{_arguments(factory)} in {{model.kwargs}}, as the"
            " checkpoint was trained with; where YAML can't hold one, such as an object"
            " of a configuration, let {model.factory} name a function that makes it",
            options=["model.kwargs", "model.factory"],
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{architecture.factory} returned a {type(model).__name__}",
            "return a torch.nn.Module",
        )
    _check_forward(model, architecture.signature)
    return model.eval()


def _arguments(factory: Callable[..., Any]) -> str:
    """What a factory takes, such as " (hidden, layers=2)"; empty where nobody knows."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # such as a class made in C
        return ""
    bare = [each.replace(annotation=each.empty) for each in parameters]
    return f" {printable(str(inspect.Signature(bare)), 200)}"


def _check_forward(model: nn.Module, signature: Signature) -> None:
    """Make sure that forward takes every input of the signature.

    Args:
        model: what the factory returned.
        signature: names the inputs that forward is called with.

    Raises:
        ModelError: it doesn't.
    """
    parameters = inspect.signature(model.forward).parameters
    for parameter in parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            return
    unknown = [name for name in signature.input_names if name not in parameters]
    if unknown:
        raise ModelError(
            f"forward of {type(model).__name__} takes {list(parameters)}, and the"
            f" signature names {unknown}",
            "name the inputs as forward names them",
        )


def load_model(architecture: Architecture, weights: Mapping[str, Tensor]) -> nn.Module:
    """Build the model around the weights, in evaluation mode.

    They aren't copied where they have the model's dtype: what is mapped from a file
    stays so.

    Args:
        architecture: of the model.
        weights: the state dict.

    Raises:
        UntrustedCodeError, ModelError: as build_model and load_weights.
    """
    architecture.find_factory()  # asks for trust before anything else is looked at
    _require_sizes_of(architecture, weights)
    with _NoRandomParameters():
        model = build_model(architecture)
    load_weights(model, weights, assign=True)
    return model


def _require_sizes_of(
    architecture: Architecture, weights: Mapping[str, Tensor]
) -> None:
    """Hold a library's own model's arguments against the weights before it is built.

    They come from a file, which may ask for more layers than memory has room for.

    Args:
        architecture: whose code may run; of another model, nothing is known.
        weights: the state dict.

    Raises:
        ModelError: the arguments aren't those of a model with these weights.
    """
    if not is_own_factory(architecture.factory):
        return
    family = family_module(architecture.factory, architecture.trust)
    shapes = {}
    for name, tensor in weights.items():
        # which precision it is doesn't matter here, and loading the weights checks it
        dtype = "F32" if tensor.is_floating_point() else "I64"
        shapes[name] = (dtype, tuple(tensor.shape))
    try:
        family.read_architecture(shapes, architecture.kwargs)
    except (ArchitectureError, ParamsError) as error:
        raise ModelError(
            f"the arguments of {architecture.factory} and the weights don't belong"
            f" together: {error.problem}",
            "get both files again, from one release",
        ) from None


class _NoRandomParameters(TorchFunctionMode):
    """Draws no random numbers for parameters, each of which a strict load replaces.

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
        """Call a torch function, unless it would fill a parameter with random numbers.

        Args:
            function: any function of torch that is called in the mode's context.
            types: not used.
            args: its positional arguments; an initialiser's first is the tensor.
            kwargs: its keyword arguments.

        Returns:
            What the function returns; of an initialiser, the parameter as it is.
        """
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, nn.Parameter) and _is_initialiser(function):
            return target
        return function(*args, **kwargs)


def _is_initialiser(function: Any) -> bool:
    """Whether it is one of the functions that draw a parameter's first values.

    Those are all of torch.nn.init, and the two methods of a tensor that constructors
    call on parameters themselves.
    """
    if function in (Tensor.uniform_, Tensor.normal_):
        return True
    return getattr(function, "__module__", None) == "torch.nn.init"


class ExportModule(nn.Module):
    """The model as the exporters take it.

    Inputs come by position in the signature's order, outputs are a flat tuple.
    """

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        """Wrap the model.

        Args:
            model: in evaluation mode; its forward takes the inputs by name.
            signature: the order of the inputs, and the names of the outputs.
        """
        super().__init__()
        self.model = model
        self.names = signature.input_names
        self.outputs = signature.output_names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Call the model by keyword and flatten what it returns.

        Args:
            inputs: one for each of the signature's inputs, in its order.

        Returns:
            One tensor for each of the signature's outputs, in its order.

        Raises:
            ModelError: it doesn't return as many tensors as the signature names.
        """
        named = dict(zip(self.names, inputs, strict=True))
        returned = self.model(**named)
        leaves = tuple(flatten(returned))
        if len(leaves) != len(self.outputs):
            raise _wrong_count(returned, self.outputs)
        return leaves


def _wrong_count(returned: Any, outputs: Sequence[str]) -> ModelError:
    """An error about a model that returns more or fewer tensors than are named.

    Args:
        returned: what forward returned.
        outputs: the names in the signature.
    """
    tensors: list[str] = []
    absent: list[str] = []
    for place, value in _leaves(returned, ""):
        (absent if value is None else tensors).append(place or "the result")
    found = f"{len(tensors)} tensor{'' if len(tensors) == 1 else 's'}"
    details = []
    if len(tensors) > 1:
        details.append(f"they are {first_few(tensors, _MAX_LEAVES)}")
    details += [f"{place} was None" for place in absent]
    seen = f" ({'; '.join(details)})" if details else ""
    return ModelError(
        f"the model returned {found}, and the signature names {outputs}{seen}",
        "name every tensor in {model.signature}.outputs, in the order of the returned"
        " tuple or dict, nested ones in place, and none that is None",
        options=["model.signature"],
    )


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Tensor | None]]:
    """Where the tensors and Nones stand in what a model returned, in order.

    Args:
        value: a nest of containers.
        place: where it stands itself; "" at the top.
    """
    if value is None or isinstance(value, Tensor):
        yield place, value
        return
    members = list(_members(value))
    names = [f"{place}[{i}]" for i in range(len(members))]
    fields = _field_names(value)
    if fields:
        names = [f"{place}.{name}".removeprefix(".") for name in fields]
    for name, member in zip(names, members, strict=True):
        yield from _leaves(member, name)


def _field_names(value: Any) -> list[str]:
    """The names of a container's members, where they have names."""
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return list(getattr(value, "_fields", ()))


def named_leaves(value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in what a model returned, in order: where each stands, and it.

    Args:
        value: a nest of tuples, lists, mappings and dataclasses; None is passed over.

    Raises:
        ModelError: something else is among them.
    """
    for place, leaf in _leaves(value, ""):
        if leaf is not None:
            yield place, leaf


def flatten(value: Any) -> Iterator[Tensor]:
    """The tensors in a nest of tuples, lists, mappings and dataclasses, in order.

    None is passed over.

    Raises:
        ModelError: something else is among them.
    """
    if value is None:
        return
    if isinstance(value, Tensor):
        yield value
        return
    for member in _members(value):
        yield from flatten(member)


def _members(value: Any) -> Iterable[Any]:
    """What a container among a model's outputs holds, in order.

    Raises:
        ModelError: it isn't a container that outputs can come in.
    """
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return [getattr(value, name) for name in names]
    raise ModelError(
        f"the model returned a {type(value).__name__} among its outputs",
        "return tensors only",
    )
