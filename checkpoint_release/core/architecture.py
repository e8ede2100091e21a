"""A model is what its factory, `package.module:callable`, makes of keyword arguments.

The factory's module may describe the model: then no signature needs to be stated. It
does so through hooks, which need no torch, so the module should import torch only
inside its factory. The first two make a module describe itself; the others are
optional.

    read_architecture(tensors, overrides) -> dict
        The factory's keyword arguments, read from the weights. `tensors` is name →
        (safetensors dtype, shape); `overrides` is the option model.kwargs, and
        image_size where model.image_size is set.
    signature(kwargs, inputs) -> Signature
        What the model takes and gives; `inputs` is the option model.inputs.
    own_names(kwargs, names) -> dict
        The model's own name of each weight → the name among `names`, the checkpoint's,
        of the tensor that it is.
    check_weights(kwargs, weights)
        Raises ArchitectureError for values that no such model has, such as a buffer
        that a conversion lost.
    computed_buffers(kwargs) -> dict
        Name → float64 values of the buffers that the architecture determines; see
        checkpoint_release.state_dict.buffers.
    onnx_graph(kwargs, weights, signature, opset)
        An ONNX graph, built without tracing; see checkpoint_release.onnx.routes.
    ONNX_OPSETS
        The range of opsets that onnx_graph can write.
    config(kwargs) -> dict
        Further keys of config.json: architectures, model_type, auto_map, frame rates;
        None in the place of one that config.json is not to have.
    generation_config(kwargs) -> dict
        The content of generation_config.json.
    huggingface_files(kwargs, config) -> dict
        Files that let transformers load the release: name → content.
    companion_files(sources) -> dict
        Files that belong to the model, such as a tokenizer's: name in the release →
        path; `sources` are the paths of the option model.source.
    WEIGHTS_INDEX
        Name of a further index of the release's weights, where its library looks for
        that.
    KEEP_FLOAT32
        Last parts of the names of tensors that are never cast.
    describe(kwargs) -> dict
        What the model card says about the architecture; see
        checkpoint_release.card.description.
    example(kwargs, signature) -> dict
        Inputs that mean something, by name: one more case of the parity check. None:
        there are none for this model.
    picture(kwargs, inputs, outputs) -> dict
        The example as the model card shows it: "svg", which may move, and "alt", which
        says what it shows.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import msgspec

from checkpoint_release.core.errors import (
    ArtifactError,
    CheckpointReleaseError,
    ModelError,
    ParamsError,
    first_few,
    one_line,
)
from checkpoint_release.core.files import REMAKE
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.stated_signature import (
    read_signature,
    states_bounds_alone,
    with_bounds,
)
from checkpoint_release.core.trust import NO_TRUST, OWN_ARTIFACTS, Trust

if TYPE_CHECKING:
    from checkpoint_release.core.params import ModelParams

TensorShapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name → (safetensors dtype such as "F32", shape)."""


class _StatedArchitecture(msgspec.Struct):
    """An architecture as a JSON file has it, beside whatever else is there."""

    factory: str
    kwargs: dict[str, Any]
    signature: Any
    described: bool = False


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the model and to call it.

    Attributes:
        factory: `package.module:callable`.
        kwargs: the factory's keyword arguments.
        signature: what the model takes and gives.
        described: whether the factory's module described the model; the modules of
            other models may need torch.
        trust: the code that may run; nothing from elsewhere, unless somebody grants it
            (see trusting).
    """

    factory: str
    kwargs: dict[str, Any]
    signature: Signature
    described: bool = False
    trust: Trust = field(default=NO_TRUST, compare=False, repr=False)

    def trusting(self, trust: Trust) -> Architecture:
        """The same architecture, its code allowed to run as far as `trust` goes."""
        return replace(self, trust=trust)

    def to_json(self) -> dict[str, Any]:
        """The architecture as checkpoint.json holds it under "model"."""
        return {
            "factory": self.factory,
            "described": self.described,
            "kwargs": self.kwargs,
            "signature": self.signature.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Architecture:
        """Read what to_json wrote; whoever wrote it, its code isn't trusted.

        Raises:
            ArtifactError: a key is missing or of another type.
        """
        try:
            stated = msgspec.convert(value, _StatedArchitecture)
            signature = read_signature(stated.signature)
        except msgspec.ValidationError as error:
            raise ArtifactError(f"doesn't describe a model: {error}", REMAKE) from None
        except ParamsError as error:
            own = error.renamed(lambda option: option.removeprefix("model."))
            raise ArtifactError(f"is broken: {own.problem}", REMAKE) from None
        return cls(stated.factory, stated.kwargs, signature, stated.described)

    def hook(self, name: str, default: Any = None) -> Any:
        """What the factory's module calls by that name, if it described the model.

        The module of any other model isn't imported, and gives the default.

        Raises:
            UntrustedCodeError: the module comes from elsewhere, and nobody trusts it.
            ModelError: the module can't be imported any more. A hook that is a function
                raises it too, if it fails.
        """
        if not self.described:
            return default
        return _hook(family_module(self.factory, self.trust), name, default)

    def find_factory(self) -> Callable[..., Any]:
        """The callable that builds the model.

        Raises:
            UntrustedCodeError: it comes from elsewhere, and nobody trusts it.
            ModelError: it isn't there.
        """
        family = family_module(self.factory, self.trust)
        name = self.factory.partition(":")[2]
        factory = getattr(family, name, None)
        if not callable(factory):
            own = first_few(_own_callables(family), 10) or "none of its own"
            raise ModelError(
                f"{{model.factory}} is {self.factory!r}, and {family.__name__} has no"
                f" callable {name!r}",
                f"name one of those that it has: {own}",
                options=["model.factory"],
            )
        return cast("Callable[..., Any]", factory)


def read_architecture(model: ModelParams, tensors: TensorShapes) -> Architecture:
    """The architecture that the options state, or that is read from the weights.

    Its code is trusted, because the options name it.

    Args:
        model: the options.
        tensors: of the checkpoint.

    Raises:
        ArchitectureError: the weights aren't those of such a model.
        ModelError: the factory's module can't be imported, fails, or has no hooks and
            no signature is stated.
        ParamsError: model.signature, model.inputs or model.kwargs don't fit.
    """
    stated = model.signature
    bounds = stated if stated and states_bounds_alone(stated) else None
    if stated is not None and bounds is None:
        signature = read_signature(stated)
        selected = _select_inputs(signature, model.inputs)
        return Architecture(model.factory, model.kwargs, selected, trust=OWN_ARTIFACTS)
    family = family_module(model.factory, OWN_ARTIFACTS)
    read, sign = _hook(family, "read_architecture"), _hook(family, "signature")
    if read is None or sign is None:
        states = "is null" if stated is None else "states bounds alone"
        raise ModelError(
            f"{{model.signature}} {states}, and {family.__name__} has no"
            " read_architecture and signature functions",
            "state {model.signature} and {model.kwargs}; `checkpoint-release signature"
            f" {model.factory}` drafts the first",
            options=["model.signature", "model.kwargs"],
        )
    overrides = dict(model.kwargs)
    if model.image_size:
        overrides["image_size"] = model.image_size
    kwargs = read(tensors, overrides)
    signature = sign(kwargs, model.inputs)
    if not isinstance(kwargs, dict) or not isinstance(signature, Signature):
        raise ModelError(
            f"{family.__name__}.read_architecture returned a {type(kwargs).__name__},"
            f" and its signature a {type(signature).__name__}",
            "return a dict and a checkpoint_release.core.signature.Signature",
        )
    if bounds is not None:
        signature = with_bounds(signature, bounds)
    return Architecture(
        model.factory, kwargs, signature, described=True, trust=OWN_ARTIFACTS
    )


def family_module(factory: str, trust: Trust) -> ModuleType:
    """The module that holds the factory: the one door to a model's code.

    Args:
        factory: `package.module:callable`.
        trust: the code that may run; importing a module runs it.

    Raises:
        UntrustedCodeError: it comes from elsewhere, and nobody trusts it.
        ModelError: it isn't there, or fails while it is imported.
    """
    trust.require(
        factory, f"{factory!r} is named as its model code, which is not known here"
    )
    name = factory.partition(":")[0]
    action = f"{{model.factory}} is {factory!r}, and importing {name}"
    remedy = f"correct that module; `python -c 'import {name}'` shows the whole error"
    with _model_code_errors(name, action, remedy):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # something that the module imports is missing
            raise ModelError(
                f"{action} failed: {error}",
                "name it as package.module:callable, and its code's path in"
                " {model.source}, unless it lies in this folder or is installed",
                options=["model.factory", "model.source"],
            ) from None


def _own_callables(module: ModuleType) -> list[str]:
    """The names of the functions and classes that a module itself defines."""
    names = []
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == module.__name__
        if is_own and callable(value) and not name.startswith("_"):
            names.append(name)
    return names


def _hook(family: ModuleType, name: str, default: Any = None) -> Any:
    """What the module calls by that name.

    Args:
        family: the factory's module.
        name: of the hook.
        default: what stands for a hook that isn't there.

    Returns:
        The hook; a function is wrapped so that its errors name it.
    """
    found = getattr(family, name, default)
    if not callable(found):
        return found
    hook: Callable[..., Any] = found
    action = f"{family.__name__}.{name}"

    @wraps(hook)
    def reporting_hook(*args: Any, **kwargs: Any) -> Any:
        with _model_code_errors(family.__name__, action, "correct that function"):
            return hook(*args, **kwargs)

    return reporting_hook


@contextmanager
def _model_code_errors(module: str, action: str, remedy: str) -> Iterator[None]:
    """Turn whatever a model's own code raises, sys.exit included, into one error.

    This project's own errors pass.

    Args:
        module: the model's module.
        action: what is being done, for the message; may name {model.factory}.
        remedy: what to do when it fails.

    Raises:
        ModelError: the code raised something.
    """
    try:
        yield
    except CheckpointReleaseError:
        raise
    except (Exception, SystemExit) as error:
        problem = f"{action} failed: {type(error).__name__}"
        message = one_line(error, 400)
        if message:
            problem += f": {message}"
        if not isinstance(error, SyntaxError):  # whose message has the line
            problem += last_own_frame(error, module)
        raise ModelError(problem, remedy, options=["model.factory"]) from error


def last_own_frame(error: BaseException, name: str) -> str:
    """Where the error left the model's package, rather than a library that it calls.

    Args:
        error: what was raised.
        name: the model's module.

    Returns:
        The module and the line in parentheses; empty if it never was in the package.
    """
    package = name.partition(".")[0]
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == package and module != __name__:
            place = f" ({module}, line {line})"
    return place


def _select_inputs(signature: Signature, names: list[str] | None) -> Signature:
    """The signature with the named inputs alone, in its own order.

    Args:
        signature: of the model.
        names: the option model.inputs; None: all inputs.

    Raises:
        ParamsError: there is no such input.
    """
    if names is None:
        return signature
    known = [spec.name for spec in signature.inputs]
    unknown = sorted(set(names).difference(known))
    if unknown:
        raise ParamsError(
            f"{{model.inputs}} names {unknown}, and the model's inputs are {known}",
            "choose among those, or set it to null to take them all",
            options=["model.inputs"],
        )
    return signature.taking(names)
