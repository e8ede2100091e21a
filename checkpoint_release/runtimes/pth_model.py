"""Running a .pth, which is deprecated.

Its weights are read without running anything in it, LoRA is merged, and the model's own
code is built around them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from safetensors.torch import load_file
from torch import nn

from checkpoint_release.core.architecture import Architecture, family_module
from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.core.artifacts.config import read_config
from checkpoint_release.core.errors import ArchitectureError, InferenceError
from checkpoint_release.core.signature import Arrays, Signature
from checkpoint_release.core.trust import NO_TRUST
from checkpoint_release.pth import read_checkpoint, refuse_dangerous
from checkpoint_release.runtimes.eager import load_model
from checkpoint_release.runtimes.eager_runtime import run_module
from checkpoint_release.runtimes.runtime import Merging, Options, Runtime
from checkpoint_release.state_dict.model_weights import AdapterFile, read_model_weights
from checkpoint_release.state_dict.sources import read_source
from checkpoint_release.tensors.safetensors import write_safetensors

if TYPE_CHECKING:
    from checkpoint_release.state_dict.candidates import StateDict
    from checkpoint_release.tensors.tensor import TensorLike

_FAMILY = "checkpoint_release.models.stick_figure:build"


class PthModel:
    """A model out of a .pth.

    No export has settled which inputs it takes, so each call takes those that it is
    given, as far as forward can do without the others.

    Attributes:
        signature: every input that forward can take, and the outputs.
    """

    def __init__(
        self, path: Path, module: nn.Module, signature: Signature, options: Options
    ) -> None:
        """Run the module once it has been built.

        Args:
            path: the file, for messages.
            module: with its weights, in evaluation mode.
            signature: every input that forward can take, and the outputs.
            options: how to run it.

        Raises:
            InferenceError: torch can't use the device.
        """
        self.signature = signature
        self._path = path
        self._module = module
        self._options = options
        self._optional = _optional_inputs(module)
        self._runtimes: dict[tuple[str, ...], Runtime] = {}
        # built now, so that wrong options fail on loading and not on a call
        self._runtime(tuple(signature.input_names))

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the outputs, by name.

        Raises:
            InferenceError: as Runtime.run.
        """
        names = []
        for name in self.signature.input_names:
            if name in inputs or name not in self._optional:
                names.append(name)
        return self._runtime(tuple(names)).run(inputs)

    def _runtime(self, names: tuple[str, ...]) -> Runtime:
        """What runs the module on these inputs; it is kept for the next call."""
        if names not in self._runtimes:
            signature = self.signature.taking(names)
            self._runtimes[names] = run_module(
                self._path, self._module, signature, self._options
            )
        return self._runtimes[names]


def open_pth(
    path: Path,
    merging: Merging,
    options: Options,
    architecture: Architecture | None = None,
) -> PthModel:
    """Read a checkpoint and build its model.

    The model is the given one, or what the config.json beside the file says, or else
    one of the stick-figure family.

    Raises:
        CheckpointError: it can't be read, or which weights are meant, or how they are
            merged, isn't known.
        UntrustedCodeError: its model's code comes from elsewhere, and nobody trusts it.
        InferenceError: its model isn't known, or torch doesn't have the options.
        ModelError: the model can't be built.
    """
    lora_alpha = merging.lora_alpha
    if lora_alpha is not None and not (math.isfinite(lora_alpha) and lora_alpha > 0):
        raise InferenceError(
            f"{{lora_alpha}} is {lora_alpha}",
            "give the number above 0 that the adapter was trained with",
            options=["lora_alpha"],
        )
    checkpoint = read_checkpoint(path)
    refuse_dangerous(checkpoint)
    weights = read_model_weights(
        checkpoint,
        _read_adapters(merging.adapters),
        state_dict=merging.state_dict,
        alpha=lora_alpha,
    )
    stated = architecture or _architecture(path, weights.tensors)
    architecture = stated.trusting(options.trust)
    architecture.find_factory()  # asks for trust before any weights are written
    module = _build(architecture, weights.tensors)
    return PthModel(path, module, architecture.signature, options)


def _read_adapters(adapters: Mapping[Path, float]) -> list[AdapterFile]:
    """Read the adapters.

    Raises:
        CheckpointError, ArtifactError: one can't be read.
        InferenceError: a weight isn't a finite number.
    """
    read = []
    for path, weight in adapters.items():
        if not math.isfinite(weight):
            raise InferenceError(
                f"{{adapter}} gives {path} the weight {weight}",
                "give a finite number",
                options=["adapter"],
            )
        checkpoint = read_source(path)
        refuse_dangerous(checkpoint)
        read.append(AdapterFile(checkpoint, weight))
    return read


def _build(architecture: Architecture, weights: StateDict) -> nn.Module:
    """The model around the weights, which a file hands over without a copy."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / WEIGHTS_FILE
        write_safetensors(file, weights)
        return load_model(architecture, load_file(file))


def _architecture(path: Path, weights: Mapping[str, TensorLike]) -> Architecture:
    """The architecture in the config.json beside the file, or the stick figure's.

    Args:
        path: the file.
        weights: what the stick figure's architecture is read off.

    Raises:
        InferenceError: there is no config.json, and it isn't a stick figure.
    """
    config = read_config(path.parent)
    if config is not None:
        return config.architecture
    family = family_module(_FAMILY, NO_TRUST)
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in weights.items()}
    try:
        kwargs = family.read_architecture(shapes, {})
    except ArchitectureError as error:
        raise InferenceError(
            f"{path} doesn't say which model its weights are of, and it isn't a"
            f" StickFigureTransformer: {error.problem}",
            "release it with {model.factory} and {model.signature} set, and load the"
            " release",
            options=["model.factory", "model.signature"],
        ) from None
    return Architecture(_FAMILY, kwargs, family.module_signature(kwargs))


def _optional_inputs(module: nn.Module) -> set[str]:
    """The inputs that forward has defaults for."""
    optional = set()
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.default is not parameter.empty:
            optional.add(parameter.name)
    return optional
