"""Run any artifact through one interface: named numpy arrays in, named numpy arrays out.

    runtime = open_runtime("onnx", Path("artifacts/onnx"))
    outputs = runtime.run({"motion": motion, "text_embedding": text})

An artifact is opened from its files alone, as a user of the release would: the signature comes from the
config.json beside it. torch is imported for the formats that need it and onnxruntime for ONNX, on opening.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import ArtifactError, InferenceError
from pipeline.files import read_json
from pipeline.models import Architecture
from pipeline.signature import Array, Arrays, Signature, check_inputs

FORMATS = ("checkpoint", "safetensors", "onnx", "torchscript", "torch_export")
FILES = {"onnx": "model.onnx", "torchscript": "model.pt", "torch_export": "model.pt2"}

Compute = Callable[[Sequence[Array]], Sequence[Array]]
"""Arrays in the signature's order → arrays in the artifact's order of outputs."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run; threads None leaves the library's default, dtype counts for the eager formats."""

    threads: int | None = None
    device: str = "cpu"
    providers: tuple[str, ...] | None = None
    dtype: Literal["float32", "float64"] = "float32"


@dataclasses.dataclass(frozen=True)
class Runtime:
    """An opened artifact.

    Attributes:
        format: one of FORMATS.
        path: the file or folder that was opened.
        signature: what it takes and gives.
    """

    format: str
    path: Path
    signature: Signature
    _compute: Compute

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Compute the outputs, by name, in the signature's order.

        Args:
            inputs: exactly the signature's inputs, in its dtypes and shapes.

        Raises:
            InferenceError: an input doesn't fit the signature, or the library fails on these inputs.
        """
        check_inputs(self.signature, inputs)
        try:
            outputs = self._compute([np.asarray(inputs[spec.name]) for spec in self.signature.inputs])
        except Exception as error:  # a graph can fail in any way that its library knows
            shapes = ", ".join(f"{name} {list(np.shape(array))}" for name, array in inputs.items())
            raise InferenceError(
                f"{self.path} failed on {shapes}: {type(error).__name__}: {_first_lines(error)}",
                "the artifact doesn't take what its signature says; export it again",
            ) from error
        names = [spec.name for spec in self.signature.outputs]
        if len(outputs) != len(names):
            raise InferenceError(
                f"{self.path} gave {len(outputs)} outputs, and its signature names {names}",
                "the artifact and its config.json don't belong together; export it again",
            )
        return dict(zip(names, outputs, strict=True))


def open_runtime(
    format: str,
    path: Path | str,
    *,
    threads: int | None = None,
    device: str = "cpu",
    providers: Sequence[str] | None = None,
    dtype: Literal["float32", "float64"] = "float32",
) -> Runtime:
    """Open an artifact.

    Args:
        format: one of FORMATS. "checkpoint" is the folder that `load` wrote, run eagerly.
        path: the artifact's folder, or one file of it (such as onnx/model_fp16.onnx) with config.json beside.
        threads: threads that one run uses. For the torch formats this sets the process's number.
        device: a torch device; for ONNX "cuda" puts that provider first.
        providers: ONNX Runtime's execution providers, in order; overrides device.
        dtype: what the eager formats (checkpoint and safetensors) compute in.

    Raises:
        ArtifactError: a file is missing, can't be read, or doesn't fit the signature.
        InferenceError: no such format.
        ModelError: the eager model can't be built.
    """
    if format not in FORMATS:
        raise InferenceError(f"there is no format {format!r}", f"choose one of {', '.join(FORMATS)}")
    path = Path(path)
    if not path.exists():
        raise ArtifactError(f"{path} is missing", "run `dvc repro`, or name the folder of an artifact")
    options = Options(threads, device, tuple(providers) if providers is not None else None, dtype)
    file = path / FILES[format] if format in FILES and path.is_dir() else path
    folder = path if path.is_dir() else path.parent
    if format in FILES and not file.is_file():
        raise ArtifactError(f"{file} is missing", "run `dvc repro`, or name the artifact's file")
    match format:
        case "checkpoint":
            signature, compute = _open_checkpoint(folder, options)
        case "safetensors":
            signature, compute = _open_safetensors(folder, options)
        case _:
            signature = Signature.from_json(_config(folder)["signature"])
            openers = {
                "onnx": _open_onnx,
                "torchscript": _open_torchscript,
                "torch_export": _open_torch_export,
            }
            compute = openers[format](file, signature, options)
    return Runtime(format, path, signature, compute)


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or "signature" not in config:
        raise ArtifactError(
            f"{folder / 'config.json'} has no signature",
            "use the config.json that this pipeline wrote beside the file",
        )
    return config


# ---------------------------------------------------------------------------------------------------------
# Eager torch modules


def _open_checkpoint(folder: Path, options: Options) -> tuple[Signature, Compute]:
    from pipeline.eager import build_eager

    _torch_threads(options)
    model, signature = build_eager(folder)
    return signature, _eager(model, signature, options)


def _open_safetensors(folder: Path, options: Options) -> tuple[Signature, Compute]:
    from pipeline.eager import build_model, load_weights

    _torch_threads(options)
    config = _config(folder)
    try:
        architecture = Architecture.from_json(config)
    except KeyError as error:
        raise ArtifactError(
            f"{folder / 'config.json'} has no {error.args[0]!r}",
            "use the config.json that this pipeline wrote",
        ) from None
    model = build_model(architecture)
    load_weights(model, _read_safetensors(folder))
    return architecture.signature, _eager(model, architecture.signature, options)


def weight_files(folder: Path) -> list[Path]:
    """The folder's weight files: model.safetensors, or the shards that model.safetensors.index.json names.

    Raises:
        ArtifactError: there is neither, or a shard is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = read_json(index).get("weight_map", {}).values()
        files = [folder / name for name in dict.fromkeys(names)]
    else:
        files = [folder / "model.safetensors"]
    if missing := [file for file in files if not file.is_file()]:
        raise ArtifactError(f"{missing[0]} is missing", "run `dvc repro`, or download the whole folder")
    return files


def _read_safetensors(folder: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Any] = {}
    for file in weight_files(folder):
        try:
            weights.update(load_file(file))
        except SafetensorError as error:
            raise ArtifactError(
                f"{file} can't be read: {error}", "it is damaged: export or download it again"
            ) from None
    return weights


def _eager(model: Any, signature: Signature, options: Options) -> Compute:
    import torch

    from pipeline.eager import ExportModule

    module = ExportModule(model.to(options.device, getattr(torch, options.dtype)).eval(), signature)
    return _call_torch(module, options)


# ---------------------------------------------------------------------------------------------------------
# Files that hold a graph


def _open_torchscript(file: Path, signature: Signature, options: Options) -> Compute:
    import torch

    _torch_threads(options)
    with _unreadable(file), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself is what was asked for
        module = torch.jit.load(str(file), map_location=options.device).eval()  # type: ignore[no-untyped-call]
    return _call_torch(module, options)


def _open_torch_export(file: Path, signature: Signature, options: Options) -> Compute:
    import torch

    _torch_threads(options)
    with _unreadable(file):
        module = torch.export.load(str(file)).module().to(options.device)
    return _call_torch(module, options)


def _open_onnx(file: Path, signature: Signature, options: Options) -> Compute:
    import onnxruntime

    providers = options.providers
    if providers is None:
        on_gpu = options.device.partition(":")[0] == "cuda"
        providers = ("CUDAExecutionProvider", "CPUExecutionProvider") if on_gpu else ("CPUExecutionProvider",)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # what goes wrong is raised; warnings about kernels are not the user's
    if options.threads is not None:
        settings.intra_op_num_threads = settings.inter_op_num_threads = options.threads
    with _unreadable(file):
        session = onnxruntime.InferenceSession(str(file), settings, providers=list(providers))
    for what, found, specs in (
        ("takes", session.get_inputs(), signature.inputs),
        ("gives", session.get_outputs(), signature.outputs),
    ):
        names, expected = [value.name for value in found], [spec.name for spec in specs]
        if names != expected:
            raise ArtifactError(
                f"{file} {what} {names}, and the signature beside it names {expected}",
                "the file and its config.json don't belong together; export it again",
            )
    names = [spec.name for spec in signature.inputs]

    def compute(arrays: Sequence[Array]) -> Sequence[Array]:
        return session.run(None, dict(zip(names, arrays, strict=True)))  # type: ignore[no-any-return]

    return compute


# ---------------------------------------------------------------------------------------------------------


def _torch_threads(options: Options) -> None:
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)


def _call_torch(module: Callable[..., Any], options: Options) -> Compute:
    import torch

    from pipeline.eager import flatten

    floating = getattr(torch, options.dtype)

    def compute(arrays: Sequence[Array]) -> Sequence[Array]:
        with torch.inference_mode():
            tensors = [torch.tensor(array, device=options.device) for array in arrays]
            if options.dtype == "float64":
                tensors = [tensor.to(floating) if tensor.is_floating_point() else tensor for tensor in tensors]
            return [tensor.cpu().numpy() for tensor in flatten(module(*tensors))]

    return compute


@contextmanager
def _unreadable(file: Path) -> Iterator[None]:
    """Turn whatever a library raises on a file that isn't its format into one error."""
    try:
        yield
    except Exception as error:
        raise ArtifactError(
            f"{file} can't be opened: {type(error).__name__}: {_first_lines(error)}",
            "it is damaged or of another format: export or download it again",
        ) from error


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
