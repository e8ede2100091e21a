"""A model is what `model.factory` makes of `model.kwargs`.

`model.factory` is `package.module:callable`. Its module may describe the model by
itself, which is what happens when `model.signature` is null, through functions that
need no torch (so that the module should
import torch only inside its factory):

    read_architecture(tensors, overrides) -> dict    required; the factory's keyword arguments, read off the
                                                     weights: tensors is {name: (dtype, shape)}; overrides is
                                                     model.kwargs, with image_size where that is set
    signature(kwargs, inputs) -> Signature           required; inputs is model.inputs
    describe(kwargs) -> dict                         what the model card says of the architecture
    check_weights(kwargs, weights)                   raises ArchitectureError for values that no such model has,
                                                     such as a buffer that a conversion
                                                     lost
    onnx_graph(kwargs, weights, signature, opset)    a direct ONNX route; see pipeline.export_onnx
    config(kwargs) -> dict                           what config.json says beside them: architectures, model_type,
                                                     auto_map, frame rates
    generation_config(kwargs) -> dict                what generation_config.json says
    huggingface_files(kwargs, config) -> dict        files that let transformers load the release, by name
    KEEP_FLOAT32                                     last parts of the names of tensors that no cast may touch
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.errors import (
    CheckpointReleaseError,
    ModelError,
    ParamsError,
    one_line,
)
from checkpoint_release.core.signature import Signature

if TYPE_CHECKING:
    from checkpoint_release.core.params import ModelParams

TensorShapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name → (safetensors dtype such as "F32", shape)."""


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the model and to call it.

    Attributes:
        factory: `package.module:callable`.
        kwargs: the factory's keyword arguments.
        signature: what the model takes and gives.
        described: whether the factory's module described the model; any other may need
            torch to be imported.
    """

    factory: str
    kwargs: dict[str, Any]
    signature: Signature
    described: bool = False

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
        """Read what to_json wrote."""
        signature = Signature.from_json(value["signature"])
        return cls(
            value["factory"],
            dict(value["kwargs"]),
            signature,
            value.get("described", False),
        )

    def hook(self, name: str, default: Any = None) -> Any:
        """What the factory's module has under that name, if it described the model.

        Any other model's module isn't imported, and gives the default.

        Raises:
            ModelError: the module can't be imported any more; what is returned raises
                it too, if it is a function that fails.
        """
        return (
            _hook(family_module(self.factory), name, default)
            if self.described
            else default
        )


def read_architecture(model: ModelParams, tensors: TensorShapes) -> Architecture:
    """The architecture that params.yaml states, or that the factory's module reads off
    the weights.

    Raises:
        ArchitectureError: the weights aren't those of such a model.
        ModelError: the factory's module can't be imported, fails, or doesn't describe
            itself and must be described.
        ParamsError: model.signature, model.inputs or model.kwargs don't fit.
    """
    if model.signature is not None:
        signature = Signature.from_json(model.signature)
        return Architecture(
            model.factory, model.kwargs, _select_inputs(signature, model.inputs)
        )
    family = family_module(model.factory)
    read, sign = _hook(family, "read_architecture"), _hook(family, "signature")
    if read is None or sign is None:
        raise ModelError(
            f"model.signature is null, and {family.__name__} has no read_architecture"
            " and signature functions",
            "state model.signature (and model.kwargs) in params.yaml; see README,"
            " 'Another architecture'",
        )
    overrides = {
        **model.kwargs,
        **({"image_size": model.image_size} if model.image_size else {}),
    }
    kwargs = read(tensors, overrides)
    signature = sign(kwargs, model.inputs)
    if not isinstance(kwargs, dict) or not isinstance(signature, Signature):
        raise ModelError(
            f"{family.__name__}.read_architecture returned a {type(kwargs).__name__},"
            f" and its signature a {type(signature).__name__}",
            "return a dict and a checkpoint_release.core.signature.Signature",
        )
    return Architecture(model.factory, kwargs, signature, described=True)


def family_module(factory: str) -> ModuleType:
    """The module that holds the factory.

    Raises:
        ModelError: it isn't there, or fails while it is imported.
    """
    name = factory.partition(":")[0]
    doing = f"model.factory is {factory!r}, and importing {name}"
    with _model_code_errors(
        name,
        doing,
        f"correct that module; `python -c 'import {name}'` shows all of the error",
    ):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # what the module imports isn't there
            raise ModelError(
                f"{doing} failed: {error}",
                "name a module in this folder or an installed package, as"
                " package.module:callable",
            ) from None


def _hook(family: ModuleType, name: str, default: Any = None) -> Any:
    """What the module has under that name; a function tells which it was when it fails."""
    found = getattr(family, name, default)
    if not callable(found):
        return found
    hook: Callable[..., Any] = found

    @wraps(hook)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _model_code_errors(
            family.__name__, f"{family.__name__}.{name}", "correct that function"
        ):
            return hook(*args, **kwargs)

    return wrapped


@contextmanager
def _model_code_errors(module: str, doing: str, remedy: str) -> Iterator[None]:
    """One error for whatever a model's own code raises, sys.exit included; this
    project's errors pass.

    Raises:
        ModelError: it raised something.
    """
    try:
        yield
    except CheckpointReleaseError:
        raise
    except (Exception, SystemExit) as error:
        said = one_line(error, 400)
        problem = f"{doing} failed: {type(error).__name__}{f': {said}' if said else ''}"
        if not isinstance(error, SyntaxError):  # which says its line itself
            problem += _last_own_frame(error, module)
        raise ModelError(problem, remedy) from error


def _last_own_frame(error: BaseException, name: str) -> str:
    """The last line of the model's package that led to the error, rather than a line of
    a library it calls.
    """
    lines = [
        (frame.f_globals.get("__name__", ""), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    package = name.partition(".")[0]
    own = [
        (module, line)
        for module, line in lines
        if module.partition(".")[0] == package and module != __name__
    ]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""


def is_trusted(factory: str, named: Iterable[str] = ()) -> bool:
    """Whether a factory may be called for a model that comes from elsewhere.

    A config.json can name any callable (subprocess:run is one too), so only this
    project's own models, that of the params.yaml at hand, and those that the user names
    are called.
    """
    if factory in named or factory.startswith("checkpoint_release.models."):
        return True
    from checkpoint_release.core.params import (
        load_params,  # and msgspec, which a release that is used alone does without
    )

    try:
        return factory == load_params().model.factory
    except ParamsError:  # no params.yaml here, or another project's
        return False


def _select_inputs(signature: Signature, names: list[str] | None) -> Signature:
    """The signature with only the named inputs, in the signature's own order; None
    takes them all.
    """
    if names is None:
        return signature
    known = [spec.name for spec in signature.inputs]
    if unknown := [name for name in names if name not in known]:
        raise ParamsError(
            f"model.inputs names {unknown}, and the model's inputs are {known}",
            "choose among those",
        )
    return signature.taking(names)
