"""One way to run a model, whatever format it comes in.

    from checkpoint_release.runtimes.loader import load

    model = load("artifacts/release") outputs = model(motion=motion,
    text_embedding=text_embedding, action_sequence=actions) outputs["pose"]

Takes .safetensors, .onnx, .pt (TorchScript), .pt2 (torch.export), .pth (deprecated), a
folder of artifacts or a release, or a repository on a Hub. Named numpy arrays go in and
come out. ONNX is run without torch, the others
without onnxruntime. On the command line:

    python -m checkpoint_release.runtimes.loader artifacts/release --describe python -m
    checkpoint_release.runtimes.loader artifacts/onnx --inputs case.safetensors
    --outputs out.safetensors python -m checkpoint_release.runtimes.loader mine.pth
    --state-dict ema --lora-alpha 16 --describe
"""

from __future__ import annotations

import inspect
import math
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checkpoint_release.core.architecture import Architecture, family_module, is_trusted
from checkpoint_release.core.errors import (
    ArchitectureError,
    CheckpointError,
    InferenceError,
    one_line,
)
from checkpoint_release.core.files import read_json
from checkpoint_release.core.signature import Arrays, Signature, TensorSpec
from checkpoint_release.runtimes.detect import FORMATS, SUPPORTED, detect
from checkpoint_release.runtimes.open import open_runtime, run_module
from checkpoint_release.tensors.tensor import TensorLike

if TYPE_CHECKING:
    from checkpoint_release.state_dict.candidates import StateDict

Run = Callable[[Arrays], Arrays]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# What reads a checkpoint names the parameters of the stage; two of them are options of
# `load` as well.
_OWN_OPTION = re.compile(
    r"\bcheckpoint\.(state_dict|lora_alpha)\b(?: of params\.yaml)?"
)
_PARAMETER = re.compile(r"\bcheckpoint\.(path|adapter|salvage)\b")
_SUFFIXES = (".safetensors", ".onnx", ".pt", ".pt2", ".pth", ".bin", ".ckpt")


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
                or it is no array.
        """
        return self._run({name: _array(name, value) for name, value in inputs.items()})

    def __repr__(self) -> str:
        takes = ", ".join(spec.name for spec in self.signature.inputs)
        return f"<{self.format} model {self.path} of {takes}>"

    def describe(self) -> str:
        """What it takes and gives, as a table for people."""
        dimensions = [
            [
                name,
                f"{bounds.minimum} to {bounds.maximum or 'any number'}",
                f"for example {bounds.example}",
            ]
            for name, bounds in self.signature.dimensions.items()
        ]
        return "\n".join(
            [
                f"{self.path}: {self.format}",
                *_table("inputs", [_row(spec) for spec in self.signature.inputs]),
                *_table("outputs", [_row(spec) for spec in self.signature.outputs]),
                *_table("dimensions", dimensions),
            ]
        )


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
) -> Model:
    """Load a model, told by what its file holds rather than by its name.

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
        trust: model code ("package.module:callable") that config.json may name, beside
            this project's own and that of params.yaml. ONNX, TorchScript and
            torch.export need none.
        lora_alpha: alpha of the LoRA layers in a .pth that doesn't say it.
        state_dict: key of the weights in a .pth that holds several, dotted where nested
            (such as "ema"); None: the only ones there are.

    Raises:
        InferenceError: it isn't there, isn't a model that this can run, names model
            code that isn't trusted, or an option isn't one that it has.
        ArtifactError: it is damaged, or its config.json is missing.
        CheckpointError: a .pth can't be read, or holds no weights, several or some that
            can't be used.
    """
    given = str(path)
    if format not in (None, *FORMATS):
        raise InferenceError(
            f"there is no format {format!r}", f"choose one of {', '.join(FORMATS)}"
        )
    if providers is not None and format is None and not Path(path).is_file():
        format = "onnx"
    local = _local(given, format, revision)
    found, target = detect(local, format)
    of_pth = {"lora_alpha": lora_alpha, "state_dict": state_dict}
    if found != "pth" and (
        given_too := [name for name, value in of_pth.items() if value is not None]
    ):
        raise InferenceError(
            f"{' and '.join(given_too)} can be given for a .pth, and {given} is"
            f" {found}",
            "drop them",
        )
    if found in ("safetensors", "pth"):
        _refuse_unknown_code(target if target.is_dir() else target.parent, trust)
    options: dict[str, Any] = {
        "device": device,
        "threads": threads,
        "providers": providers,
    }
    if found == "pth":
        warnings.warn(
            f"loading {given}: .pth is deprecated, for it is a pickle with no"
            " description of the model. Convert it once: set checkpoint.path to"
            f" {given} in params.yaml, run `dvc repro`, and load artifacts/release",
            DeprecationWarning,
            stacklevel=2,
        )
        weights = _weights_of_pth(target, state_dict, lora_alpha)
        return Model(given, found, *_open_pth(target, weights, options))
    runtime = open_runtime(found, target, aligned=False, **options)
    return Model(given, found, runtime.signature, runtime.run)


def _refuse_unknown_code(folder: Path, trust: Sequence[str]) -> None:
    config = folder / "config.json"
    factory = read_json(config).get("factory") if config.is_file() else None
    if factory is not None and not is_trusted(factory, trust):
        raise InferenceError(
            f"{config} names {factory!r} as its model code, which is not known here",
            f"if you know and trust it, give trust=[{factory!r}] (--trust {factory});"
            " or load the ONNX file, which needs no model code",
        )


def _local(given: str, format: str | None, revision: str | None) -> Path:
    """The file or folder on this machine; a repository on the Hub is fetched as far as
    it is needed.
    """
    path = Path(given)
    if path.exists():
        if revision is not None:
            raise InferenceError(
                f"revision is {revision!r}, and {given} is on this machine",
                "drop revision",
            )
        return path
    if not _HUB_ID.fullmatch(given) or path.suffix in _SUFFIXES or path.parent.is_dir():
        raise InferenceError(f"{given} is missing", SUPPORTED)
    return _fetch(given, format, revision)


def _fetch(repo_id: str, format: str | None, revision: str | None) -> Path:
    """A snapshot that holds the one format to load, and config.json."""
    from huggingface_hub import snapshot_download

    wanted = {
        "safetensors": [
            "config.json",
            "model*.safetensors",
            "model.safetensors.index.json",
        ],
        **{name: [f"{name}/*"] for name in ("onnx", "torchscript", "torch_export")},
    }
    for name in [format] if format else wanted:
        if name not in wanted:
            raise InferenceError(
                f"a release on the Hub holds no {name}",
                f"choose one of {', '.join(wanted)}",
            )
        try:
            folder = Path(
                snapshot_download(
                    repo_id, revision=revision, allow_patterns=wanted[name]
                )
            )
        except (OSError, ValueError) as error:  # the library's own errors are of these
            at = f" at {revision}" if revision else ""
            raise InferenceError(
                f"there is no {repo_id}{at} on this machine, and fetching it from the"
                f" Hub failed: {one_line(error, 300)}",
                "check the name, the revision, the network, and HF_TOKEN for a private"
                " repository",
            ) from None
        if any(folder.rglob("model*")):
            return folder
    raise InferenceError(
        f"{repo_id} on the Hub holds no model that this can run", SUPPORTED
    )


def _weights_of_pth(path: Path, key: str | None, alpha: float | None) -> StateDict:
    """Read a checkpoint's weights without running anything in it, LoRA merged.

    Raises:
        CheckpointError: it can't be read, or which weights are meant, or how they are
            merged, isn't known.
    """
    from checkpoint_release.pth import read_checkpoint, refuse_dangerous
    from checkpoint_release.state_dict.model_weights import read_model_weights

    if alpha is not None and not (math.isfinite(alpha) and alpha > 0):
        raise InferenceError(
            f"lora_alpha is {alpha}",
            "give the number above 0 that the adapter was trained with",
        )
    try:
        checkpoint = read_checkpoint(path)
        refuse_dangerous(checkpoint)
        weights = read_model_weights(checkpoint, state_dict=key, alpha=alpha)
    except CheckpointError as error:
        problem, remedy = (
            _OWN_OPTION.sub(_as_option, text) for text in (error.problem, error.remedy)
        )
        if _PARAMETER.search(remedy):
            remedy = remedy.removesuffix(" in params.yaml")
            remedy += " in params.yaml, run `dvc repro`, and load artifacts/release"
        raise type(error)(problem, remedy) from None
    return weights.tensors


def _as_option(parameter: re.Match[str]) -> str:
    return f"{parameter[1]} (--{parameter[1].replace('_', '-')})"


def _open_pth(
    path: Path, weights: StateDict, options: Mapping[str, Any]
) -> tuple[Signature, Run]:
    """Build the model around a checkpoint's weights.

    The model is what the config.json beside the file says, or else one of the
    stick-figure family. No export has settled which inputs it takes, so each call takes
    those that it is given.

    Raises:
        InferenceError: it is neither, or the options are none that torch has.
    """
    from safetensors.torch import load_file

    from checkpoint_release.runtimes.eager import load_model
    from checkpoint_release.tensors.safetensors import write_safetensors

    architecture = _architecture_of_pth(path, weights)
    with tempfile.TemporaryDirectory() as folder:
        write_safetensors(Path(folder) / "weights.safetensors", weights)
        module = load_model(
            architecture, load_file(Path(folder) / "weights.safetensors")
        )
    everything = architecture.signature
    parameters = inspect.signature(module.forward).parameters.values()
    optional = {
        parameter.name
        for parameter in parameters
        if parameter.default is not parameter.empty
    }
    all_names = tuple(spec.name for spec in everything.inputs)
    # The first is made now, so that wrong options are told on loading and not by a
    # call.
    runtimes = {all_names: run_module(path, module, everything, **options)}

    def run(inputs: Arrays) -> Arrays:
        names = tuple(
            spec.name
            for spec in everything.inputs
            if spec.name in inputs or spec.name not in optional
        )
        if names not in runtimes:
            runtimes[names] = run_module(
                path, module, everything.taking(names), **options
            )
        return runtimes[names].run(inputs)

    return everything, run


def _architecture_of_pth(path: Path, weights: Mapping[str, TensorLike]) -> Architecture:
    beside = path.parent / "config.json"
    if beside.is_file() and "factory" in (config := read_json(beside)):
        return Architecture.from_json(config)
    factory = "checkpoint_release.models.stick_figure:build"
    family = family_module(factory)
    try:
        kwargs = family.read_architecture(
            {name: (each.dtype, each.shape) for name, each in weights.items()}, {}
        )
    except ArchitectureError as error:
        raise InferenceError(
            f"{path} doesn't say which model its weights are of, and it isn't a"
            f" StickFigureTransformer: {error.problem}",
            "state model.factory and model.signature in params.yaml, run `dvc repro`,"
            " and load artifacts/release",
        ) from None
    return Architecture(factory, kwargs, family.module_signature(kwargs))


def _array(name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        # ragged lists; tensors elsewhere or with a gradient
        remedy = "give a numpy array, or nested lists of equal lengths"
        raise InferenceError(f"input {name!r} is no array: {error}", remedy) from None


def _row(spec: TensorSpec) -> list[str]:
    shape = f"[{', '.join(map(str, spec.shape))}]" if spec.shape is not None else ""
    span = f"{spec.low} to {spec.high - 1}" if spec.high is not None else ""
    return [spec.name, spec.dtype, shape, span, spec.description]


def _table(title: str, rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return [title, *(f"  {line}".rstrip() for line in lines)]
