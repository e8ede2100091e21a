"""One way to run a model, whatever format it comes in.

    from checkpoint_release import load

    model = load("artifacts/release")
    outputs = model(motion=motion, text_embedding=text, action_sequence=actions)
    outputs["pose"]

Takes .safetensors, .onnx, .pt (TorchScript), .pt2 (torch.export), .pth (deprecated), a
folder of artifacts or a release, or a repository on a Hub. Named numpy arrays go in and
come out. ONNX is run without torch, the others without onnxruntime.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.errors import (
    CheckpointReleaseError,
    InferenceError,
    UntrustedCodeError,
)
from checkpoint_release.core.extras import extras_named
from checkpoint_release.core.signature import Array, Arrays, Signature
from checkpoint_release.core.text import printable
from checkpoint_release.core.trust import Trust
from checkpoint_release.runtimes.description import describe
from checkpoint_release.runtimes.detect import (
    LOADABLE,
    PTH,
    SUPPORTED,
    Detected,
    detect,
)
from checkpoint_release.runtimes.hub_snapshot import fetch_snapshot
from checkpoint_release.runtimes.open import open_with
from checkpoint_release.runtimes.runtime import Merging, Options

Run = Callable[[Arrays], Arrays]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SUFFIXES = (".safetensors", ".onnx", ".pt", ".pt2", ".pth", ".bin", ".ckpt")
_ARGUMENTS = {
    "checkpoint.state_dict": "state_dict",
    "checkpoint.lora_alpha": "lora_alpha",
    "checkpoint.adapter": "adapter",
}
"""The library's options that `load` has too → its arguments."""


class Model:
    """A model that was loaded: call it with the inputs that its signature names.

    Attributes:
        path: what was loaded, as it was given.
        format: safetensors, checkpoint, onnx, torchscript, torch_export or pth.
        signature: inputs and outputs by name, with dtypes, shapes and ranges.
    """

    def __init__(self, path: str, format: str, signature: Signature, run: Run) -> None:
        self.path = path
        self.format = format
        self.signature = signature
        self._run = run

    def __call__(self, **inputs: npt.ArrayLike) -> Arrays:
        """Compute the outputs.

        Args:
            inputs: exactly the signature's inputs, as arrays in its dtypes and shapes.
                Only of a .pth may those be left out that the model's forward can do
                without.

        Returns:
            Output name → array, in the signature's order.

        Raises:
            InferenceError: a name, dtype, shape or range isn't what the signature says,
                or it isn't an array.
        """
        return self._run({name: _array(name, value) for name, value in inputs.items()})

    def __repr__(self) -> str:
        inputs = ", ".join(map(printable, self.signature.input_names))
        return f"<{self.format} model {printable(self.path)} of {inputs}>"

    def describe(self) -> str:
        """Its inputs, outputs and dynamic dimensions, as a text for people."""
        return f"{printable(self.path)}: {self.format}\n{describe(self.signature)}"


def load(
    path: str | Path,
    *,
    format: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    revision: str | None = None,
    trust: Sequence[str] = (),
    lora_alpha: float | None = None,
    state_dict: str | None = None,
    adapter: str | Path | Mapping[str, float] | None = None,
) -> Model:
    """Load a model, recognised by what its file holds rather than by its name.

    Args:
        path: a file, a folder, or the name of a repository on the Hub
            (`organisation/name`).
        format: which of a folder's or repository's formats to take; None: the first of
            safetensors, onnx, torchscript, torch_export that is there (with providers:
            onnx).
        device: a torch device, or for ONNX cpu or cuda.
        threads: threads that one run uses, 1 or more; None leaves the library's
            default.
        providers: ONNX Runtime's execution providers, in order.
        revision: branch, tag or commit of the repository.
        trust: what may run of the code that comes with the model, beside this
            library's own: model code that config.json names
            ("package.module:callable"), and "torchscript" or "torch_export" for a file
            of that format that does more than compute. ONNX needs none.
        lora_alpha: alpha of the LoRA layers in a .pth that doesn't state it.
        state_dict: key of the weights in a .pth that holds several, dotted where nested
            (such as "ema"); None: the only ones there are.
        adapter: a LoRA adapter to merge into a .pth: a file, or a folder of PEFT. Of
            several, path → what each one's update is multiplied by.

    Raises:
        InferenceError: it isn't there, isn't a model that this can run, or an option
            isn't one that it has.
        UntrustedCodeError: it comes with code that isn't trusted.
        ArtifactError: it is damaged, or its config.json is missing.
        CheckpointError: a .pth can't be read, or holds no weights, several or some that
            can't be used.
        ModelError: the model's own code can't be built around the weights.
    """
    given = str(path)
    with _naming_arguments():
        options = Options(
            threads, device, providers, aligned=False, trust=Trust.of(trust)
        )
        found = find_model(given, _format(path, format, providers), revision)
        if found.format == PTH:
            warnings.warn(
                f"loading {given}: .pth is deprecated because a pickle doesn't describe"
                " its model. Convert it once: make a release of it, with"
                f" checkpoint.path set to {given}, and load the release",
                DeprecationWarning,
                stacklevel=2,
            )
        merging = Merging(state_dict, lora_alpha, _adapter_weights(adapter))
        return open_model(given, found, options, merging)


def open_model(
    given: str,
    found: Detected,
    options: Options,
    merging: Merging,
    architecture: Architecture | None = None,
) -> Model:
    """Open a model that was found.

    Args:
        given: what the user named.
        found: the model.
        options: how to run it.
        merging: of a .pth.
        architecture: of a .pth; None: what lies beside it, or its weights, say it.

    Raises:
        CheckpointReleaseError: as `load`.
    """
    if found.format != PTH:
        _refuse_pth_options(given, found, merging)
        with _naming(found.path):
            runtime = open_with(found.format, found.path, options)
        return Model(given, found.format, runtime.signature, runtime.run)
    with extras_named():
        from checkpoint_release.runtimes.pth_model import open_pth

    with _naming(found.path):
        model = open_pth(found.path, merging, options, architecture)
    return Model(given, PTH, model.signature, model.run)


def _adapter_weights(
    adapter: str | Path | Mapping[str, float] | None,
) -> dict[Path, float]:
    """Path of each adapter → its weight."""
    if adapter is None:
        return {}
    if isinstance(adapter, Mapping):
        return {Path(path): weight for path, weight in adapter.items()}
    return {Path(adapter): 1.0}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lead an error about code that isn't trusted by where it is."""
    try:
        yield
    except UntrustedCodeError as error:
        raise error.within(str(path)) from None


@contextmanager
def _naming_arguments() -> Iterator[None]:
    """Name options in errors as the arguments of `load`."""
    try:
        yield
    except CheckpointReleaseError as error:
        if not error.options:
            raise
        raise error.renamed(_argument) from error.__cause__


def _argument(option: str) -> str:
    """The name of an option for a caller of `load`.

    Args:
        option: one of `load`'s own arguments, or a dotted option of the library, which
            may be one that only a release pipeline has.
    """
    if "." not in option:
        return option
    return _ARGUMENTS.get(option, f"the release pipeline's {option}")


def _format(
    path: str | Path, format: str | None, providers: Sequence[str] | None
) -> str | None:
    """The format to look for: providers are meant for ONNX.

    Raises:
        InferenceError: there is no such format.
    """
    if format not in (None, *LOADABLE):
        raise InferenceError(
            f"there is no format {format!r}", f"choose one of {', '.join(LOADABLE)}"
        )
    if format is None and providers is not None and not Path(path).is_file():
        return ONNX.name
    return format


def find_model(given: str, format: str | None, revision: str | None) -> Detected:
    """The model on this machine; a repository on the Hub is fetched as far as needed.

    Args:
        given: what the user named.
        format, revision: as of `load`.

    Raises:
        InferenceError: it isn't there, or isn't a model that is supported.
    """
    path = Path(given)
    if path.exists():
        if revision is not None:
            raise InferenceError(
                f"{{revision}} is {revision!r}, and {given} is on this machine",
                "leave out {revision}",
                options=["revision"],
            )
        return detect(path, format)
    if not _HUB_ID.fullmatch(given) or path.suffix in _SUFFIXES or path.parent.is_dir():
        raise InferenceError(f"{given} is missing", SUPPORTED)
    return detect(fetch_snapshot(given, format, revision), format)


def _refuse_pth_options(given: str, found: Detected, merging: Merging) -> None:
    """Refuse options that mean nothing for the format.

    Args:
        given: what `load` was given, for the message.
        found: a model that isn't a .pth.
        merging: what was asked of a .pth.

    Raises:
        InferenceError: one was given.
    """
    values = {
        "lora_alpha": merging.lora_alpha,
        "state_dict": merging.state_dict,
        "adapter": merging.adapters or None,
    }
    stated = [name for name, value in values.items() if value is not None]
    if stated:
        names = " and ".join(f"{{{name}}}" for name in stated)
        raise InferenceError(
            f"{names} can be given for a .pth, and {given} is {found.format}",
            f"leave out {names}",
            options=stated,
        )


def _array(name: str, value: npt.ArrayLike) -> Array:
    """An input as an array.

    Raises:
        InferenceError: it can't be one.
    """
    try:
        return np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        # ragged lists; tensors elsewhere or with a gradient
        raise InferenceError(
            f"input {name!r} is not an array: {error}",
            "give a numpy array, or nested lists of equal lengths",
        ) from None
