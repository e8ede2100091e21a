"""Run any artifact through one interface: named numpy arrays in, named numpy arrays
out.

    runtime = open_runtime("onnx", Path("artifacts/onnx"))
    outputs = runtime.run({"motion": motion, "text_embedding": text})

An artifact is opened from its files alone, as a user of the release would: the
signature comes from the config.json beside it, or from inside the file. On opening,
torch is imported for the formats that need it, and onnxruntime for ONNX.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ArtifactError, InferenceError, one_line
from checkpoint_release.core.files import read_json
from checkpoint_release.core.signature import (
    Array,
    Arrays,
    Dimension,
    Signature,
    TensorSpec,
    check_inputs,
)
from checkpoint_release.runtimes.training_nodes import training_nodes

FORMATS = ("checkpoint", "safetensors", "onnx", "torchscript", "torch_export")
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
_ALIGNMENT = 64  # bytes, of torch's CPU allocator
_INTEGERS = ("int64", "int32", "int8", "uint8")
FILES = {"onnx": "model.onnx", "torchscript": "model.pt", "torch_export": "model.pt2"}

Compute = Callable[[Sequence[Array]], Sequence[Array]]
"""Arrays in the signature's order → arrays in the artifact's order of outputs."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """What a format's library can do with an artifact."""

    compute: Compute
    weights: Callable[[], Arrays]
    faults: Callable[[], list[str]] = list


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run; threads None leaves the library's default, dtype and aligned count
    for the eager formats.
    """

    threads: int | None = None
    device: str = "cpu"
    providers: tuple[str, ...] | None = None
    dtype: Literal["float32", "float64"] = "float32"
    aligned: bool = True

    def __post_init__(self) -> None:
        """Refuse what torch would fail on and ONNX Runtime take for its default."""
        if self.threads is not None and self.threads < 1:
            raise InferenceError(
                f"threads is {self.threads}",
                "give 1 or more, or none for the library's default",
            )


@dataclasses.dataclass(frozen=True)
class Runtime:
    """An opened artifact.

    Attributes:
        format: one of FORMATS.
        path: the file or folder that was opened.
        signature: what it takes and gives.
        weights: reads the tensors that the artifact holds, by its own names; torch's
            half precision comes widened.
        faults: looks for what is wrong in it whatever it computes, and gives a sentence
            for each.
    """

    format: str
    path: Path
    signature: Signature
    weights: Callable[[], Arrays]
    faults: Callable[[], list[str]]
    _compute: Compute

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Compute the outputs, by name, in the signature's order.

        Args:
            inputs: exactly the signature's inputs, in its dtypes and shapes.

        Raises:
            InferenceError: an input doesn't fit the signature, or the library fails on
                these inputs.
        """
        check_inputs(self.signature, inputs)
        try:
            outputs = self._compute(
                [np.asarray(inputs[spec.name]) for spec in self.signature.inputs]
            )
        except Exception as error:  # a graph can fail in any way that its library knows
            shapes = ", ".join(
                f"{name} {list(np.shape(array))}" for name, array in inputs.items()
            )
            raise InferenceError(
                f"{self.path} failed on {shapes}: {type(error).__name__}:"
                f" {one_line(error)}",
                "the artifact doesn't take what its signature says; export it again",
            ) from error
        names = [spec.name for spec in self.signature.outputs]
        if len(outputs) != len(names):
            raise InferenceError(
                f"{self.path} gave {len(outputs)} outputs, and its signature names"
                f" {names}",
                "the artifact and its config.json don't belong together; export it"
                " again",
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
    aligned: bool = True,
) -> Runtime:
    """Open an artifact.

    Args:
        format: one of FORMATS. "checkpoint" is the folder that `load` wrote, run
            eagerly.
        path: the artifact's folder, or one file of it (such as onnx/model_fp16.onnx)
            with config.json beside. An ONNX file can do without, but then its integers
            have no range.
        threads: threads that one run uses. For the torch formats this sets the
            process's number.
        device: a torch device; for ONNX "cuda" puts that provider first.
        providers: ONNX Runtime's execution providers, in order; overrides device.
        dtype: what the eager formats (checkpoint and safetensors) compute in.
        aligned: whether the eager formats' weights are copied to where kernels round
            alike whatever file they are from; otherwise they stay mapped.

    Raises:
        ArtifactError: a file is missing, can't be read, or doesn't fit the signature.
        InferenceError: no such format, device, provider or number of threads.
        ModelError: the eager model can't be built.
    """
    if format not in FORMATS:
        raise InferenceError(
            f"there is no format {format!r}", f"choose one of {', '.join(FORMATS)}"
        )
    path = Path(path)
    if not path.exists():
        raise ArtifactError(
            f"{path} is missing", "run `dvc repro`, or name the folder of an artifact"
        )
    options = Options(
        threads,
        device,
        tuple(providers) if providers is not None else None,
        dtype,
        aligned,
    )
    file = path / FILES[format] if format in FILES and path.is_dir() else path
    if format in FILES and not file.is_file():
        raise ArtifactError(
            f"{file} is missing", "run `dvc repro`, or name the artifact's file"
        )
    openers = {
        "checkpoint": _open_checkpoint,
        "safetensors": _open_safetensors,
        "onnx": _open_onnx,
        "torchscript": _open_torchscript,
        "torch_export": _open_torch_export,
    }
    signature, opened = openers[format](file, options)
    return Runtime(
        format, path, signature, opened.weights, opened.faults, opened.compute
    )


def run_module(
    path: Path,
    module: Any,
    signature: Signature,
    *,
    threads: int | None = None,
    device: str = "cpu",
    providers: Sequence[str] | None = None,
) -> Runtime:
    """Run an nn.Module that somebody built.

    Args:
        path: where it is from, for messages.
        module: with its weights, in evaluation mode.
        signature: which of forward's inputs to take, and what comes back.
        threads, device, providers: as for open_runtime.
    """
    options = Options(
        threads,
        device,
        tuple(providers) if providers is not None else None,
        aligned=False,
    )
    _torch_options(options)
    opened = _eager(module, signature, options)
    return Runtime(
        "checkpoint", path, signature, opened.weights, opened.faults, opened.compute
    )


def _config(file: Path) -> dict[str, Any] | None:
    """The config.json of this project beside a file or inside a folder, or inside an
    archive; None: there is none.
    """
    beside = (file if file.is_dir() else file.parent) / "config.json"
    if beside.is_file():
        config = read_json(beside)
        if isinstance(config, dict) and "signature" in config:
            return config
    if file.is_file() and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith("/extra/config.json"):  # where torch keeps extra files
                    return dict(json.loads(archive.read(name)))
    return None


def _required_config(file: Path) -> dict[str, Any]:
    config = _config(file)
    if config is None:
        beside = (file if file.is_dir() else file.parent) / "config.json"
        found = "has no signature" if beside.is_file() else "is missing"
        raise ArtifactError(
            f"{beside} {found}, and {file} doesn't say itself what it takes and gives",
            "keep the file together with the config.json that this pipeline wrote"
            " beside it",
        )
    return config


# --------------------------------------------------------------------------------------
# Eager torch modules


def _open_checkpoint(folder: Path, options: Options) -> tuple[Signature, Opened]:
    from checkpoint_release.runtimes.eager import build_eager

    _torch_options(options)
    model, signature = build_eager(folder)
    return signature, _eager(model, signature, options)


def _open_safetensors(path: Path, options: Options) -> tuple[Signature, Opened]:
    from checkpoint_release.runtimes.eager import load_model

    _torch_options(options)
    config = _required_config(path)
    try:
        architecture = Architecture.from_json(config)
    except KeyError as error:
        raise ArtifactError(
            f"the config.json beside {path} has no {error.args[0]!r}",
            "use the config.json that this pipeline wrote",
        ) from None
    model = load_model(architecture, _read_safetensors(path))
    return architecture.signature, _eager(model, architecture.signature, options)


def weight_files(folder: Path) -> list[Path]:
    """The folder's weight files: model.safetensors, or the shards that
    model.safetensors.index.json names.

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
        raise ArtifactError(
            f"{missing[0]} is missing", "run `dvc repro`, or download the whole folder"
        )
    return files


def _read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors, mapped: of a folder, of a whole set of shards when one of them is
    named, or of one file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = path if path.is_dir() else path.parent
    sharded = (
        folder / "model.safetensors.index.json"
    ).is_file() and path in weight_files(folder)
    weights: dict[str, Any] = {}
    for file in weight_files(folder) if path.is_dir() or sharded else [path]:
        try:
            weights.update(load_file(file))
        except SafetensorError as error:
            raise ArtifactError(
                f"{file} can't be read: {error}",
                "it is damaged: export or download it again",
            ) from None
    return weights


def _eager(model: Any, signature: Signature, options: Options) -> Opened:
    import torch

    from checkpoint_release.runtimes.eager import ExportModule

    module = ExportModule(
        model.to(options.device, getattr(torch, options.dtype)).eval(), signature
    )
    if options.aligned:
        _align(module)
    return _call_torch(module, options)


def _align(module: Any) -> None:
    """Give weights that are mapped from a file the alignment of torch's own memory.

    Kernels round differently at other alignments, and where a tensor lies in a file
    follows from the length of its header: the same weights out of two files would not
    compute the same bits.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()


# --------------------------------------------------------------------------------------
# Files that hold a graph


def _open_torchscript(file: Path, options: Options) -> tuple[Signature, Opened]:
    import torch

    _torch_options(options)
    signature = Signature.from_json(_required_config(file)["signature"])
    with _unreadable(file), warnings.catch_warnings():
        # TorchScript itself is what was asked for
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(file), map_location=options.device).eval()  # type: ignore[no-untyped-call]
    return signature, _call_torch(module, options)


def _open_torch_export(file: Path, options: Options) -> tuple[Signature, Opened]:
    import torch

    _torch_options(options)
    signature = Signature.from_json(_required_config(file)["signature"])
    with _unreadable(file):
        module = torch.export.load(str(file)).module().to(options.device)
    return signature, _call_torch(module, options)


def _open_onnx(file: Path, options: Options) -> tuple[Signature, Opened]:
    session = _onnx_session(file, options)
    if config := _config(file):
        signature = Signature.from_json(config["signature"])
    elif said := session.get_modelmeta().custom_metadata_map.get("signature"):
        signature = Signature.from_json(json.loads(said))
    else:
        signature = _graph_signature(file, session)
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

    @cache
    def graph() -> Any:
        import onnx

        return onnx.load(file).graph

    def weights() -> Arrays:
        from onnx import numpy_helper

        return {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph().initializer
        }

    return signature, Opened(compute, weights, faults=lambda: training_nodes(graph()))


def _onnx_session(file: Path, options: Options) -> Any:
    import onnxruntime

    providers = options.providers
    if providers is None:
        providers = _PROVIDERS.get(options.device.partition(":")[0])
    if providers is None:
        raise InferenceError(
            f"ONNX Runtime has no device {options.device!r}",
            "choose cpu or cuda, or name execution providers",
        )
    available = onnxruntime.get_available_providers()
    if unknown := [name for name in providers if name not in available]:
        raise InferenceError(
            f"this onnxruntime has no {', '.join(unknown)}; it has"
            f" {', '.join(available)}",
            "choose among those, or install the onnxruntime package for your hardware",
        )
    settings = onnxruntime.SessionOptions()
    # what goes wrong is raised; warnings about kernels are not the user's
    settings.log_severity_level = 3
    if options.threads is not None:
        settings.intra_op_num_threads = settings.inter_op_num_threads = options.threads
    with _unreadable(file):
        return onnxruntime.InferenceSession(
            str(file), settings, providers=list(providers)
        )


def _graph_signature(file: Path, session: Any) -> Signature:
    """What an ONNX graph says of itself; integers have the whole range of their dtype.

    Raises:
        InferenceError: an input or output isn't a tensor of numbers.
    """
    dtypes = {name: name for name in ("float16", "bool", *_INTEGERS)} | {
        "float": "float32",
        "double": "float64",
    }
    dimensions: dict[str, Dimension] = {}

    def spec(value: Any, is_input: bool) -> TensorSpec:
        dtype = dtypes.get(value.type.removeprefix("tensor(").removesuffix(")"))
        if dtype is None:
            raise InferenceError(
                f"{file}: {value.name!r} is a {value.type}",
                "only tensors of numbers can be given",
            )
        shape = tuple(
            (
                size
                if isinstance(size, int) and size >= 0
                else size or f"{value.name}_{axis}"
            )
            for axis, size in enumerate(value.shape)
        )
        if is_input:
            dimensions.update(
                {
                    size: Dimension(size, minimum=0)
                    for size in shape
                    if isinstance(size, str)
                }
            )
        if dtype not in _INTEGERS:
            return TensorSpec(value.name, dtype, shape)
        limits = np.iinfo(dtype)
        return TensorSpec(
            value.name, dtype, shape, int(limits.min), int(limits.max) + 1
        )

    inputs = tuple(spec(value, True) for value in session.get_inputs())
    outputs = tuple(spec(value, False) for value in session.get_outputs())
    return Signature(inputs, outputs, dimensions)


# --------------------------------------------------------------------------------------


def _torch_options(options: Options) -> None:
    """Set the number of threads and see that the device is there.

    Raises:
        InferenceError: it isn't, or execution providers were given, which are ONNX
            Runtime's.
    """
    import torch

    if options.providers is not None:
        raise InferenceError(
            f"providers {list(options.providers)} are ONNX Runtime's, and this isn't"
            " ONNX",
            "drop them",
        )
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise InferenceError(
            f"torch can't use the device {options.device!r}: {one_line(error)}",
            "choose cpu, or a device that this machine and this torch have",
        ) from None
    if options.threads is not None:
        torch.set_num_threads(options.threads)


def _call_torch(module: Any, options: Options) -> Opened:
    import torch

    from checkpoint_release.runtimes.eager import flatten

    floating = getattr(torch, options.dtype)

    def compute(arrays: Sequence[Array]) -> Sequence[Array]:
        with torch.inference_mode():
            tensors = [torch.tensor(array, device=options.device) for array in arrays]
            if options.dtype == "float64":
                tensors = [
                    tensor.to(floating) if tensor.is_floating_point() else tensor
                    for tensor in tensors
                ]
            return [tensor.cpu().numpy() for tensor in flatten(module(*tensors))]

    def weights() -> Arrays:
        tensors = {name: tensor.cpu() for name, tensor in module.state_dict().items()}
        halves = (torch.float16, torch.bfloat16)
        return {
            name: (t.float() if t.dtype in halves else t).numpy()
            for name, t in tensors.items()
        }

    return Opened(compute, weights)


@contextmanager
def _unreadable(file: Path) -> Iterator[None]:
    """Turn whatever a library raises on a file that isn't its format into one error."""
    try:
        yield
    except Exception as error:
        raise ArtifactError(
            f"{file} can't be opened: {type(error).__name__}: {one_line(error)}",
            "it is damaged or of another format: export or download it again",
        ) from error
