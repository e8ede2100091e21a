"""Running a model's own code eagerly, around weights in safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.artifacts.formats import SAFETENSORS
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.signature import Signature
from checkpoint_release.runtimes.eager import ExportModule, build_eager, load_model
from checkpoint_release.runtimes.model_config import require_config
from checkpoint_release.runtimes.precision import double_precision, widen
from checkpoint_release.runtimes.runtime import Options, Runtime
from checkpoint_release.runtimes.torch_runtime import prepare_torch, torch_runtime
from checkpoint_release.tensors.safetensors import find_weight_files

_ALIGNMENT = 64  # bytes, of torch's CPU allocator


def open_checkpoint(path: Path, options: Options) -> Runtime:
    """Open the folder of a checkpoint that was read.

    Raises:
        ArtifactError: it isn't such a folder.
        InferenceError: torch can't use the device.
        ModelError: the model can't be built.
    """
    prepare_torch(options)
    is_wide = options.dtype == "float64"
    module, signature = build_eager(path, options.trust, mapped=is_wide)
    return _eager_runtime(CHECKPOINT, path, module, signature, options)


def open_safetensors_model(path: Path, options: Options) -> Runtime:
    """Open weights with the config.json beside them.

    Args:
        path: a folder, one file, or one of a set of shards, which stands for all.
        options: how to run it.

    Raises:
        ArtifactError: config.json or a file of weights is missing or damaged.
        InferenceError: torch can't use the device.
        ModelError: the model can't be built, or the weights don't fit.
    """
    prepare_torch(options)
    architecture = require_config(path).architecture.trusting(options.trust)
    architecture.find_factory()  # asks for trust before any weights are read
    module = load_model(architecture, _read_weights(path))
    return _eager_runtime(
        SAFETENSORS.name, path, module, architecture.signature, options
    )


def run_module(
    path: Path, module: nn.Module, signature: Signature, options: Options
) -> Runtime:
    """Run a module that was built already.

    Args:
        path: where it is from, for messages.
        module: with its weights, in evaluation mode.
        signature: which of forward's inputs to take, and the outputs.
        options: how to run it.

    Raises:
        InferenceError: torch can't use the device.
    """
    prepare_torch(options)
    return _eager_runtime(CHECKPOINT, path, module, signature, options)


def _eager_runtime(
    format: str, path: Path, module: nn.Module, signature: Signature, options: Options
) -> Runtime:
    """A runtime of a module that takes its inputs by keyword.

    Args:
        format, path: the runtime's.
        module: is moved to the options' device, and widened where they ask for float64;
            otherwise it computes in the dtypes that it has.
        signature: which of forward's inputs to take, and the outputs.
        options: how to run it.
    """
    module = module.to(options.device).eval()
    exported = ExportModule(module, signature)
    if options.dtype == "float64":
        exported = _DoubleModule(widen(module), signature)
    if options.aligned and options.dtype == "own":
        _align(exported)
    return torch_runtime(format, path, exported, signature, options)


class _DoubleModule(ExportModule):
    """The model in double precision throughout."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As ExportModule's, whatever dtypes the model's forward names."""
        with double_precision():
            return super().forward(*inputs)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors, which stay mapped.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    weights: dict[str, Tensor] = {}
    for file in _files(path):
        try:
            weights.update(load_file(file))
        except SafetensorError as error:
            raise ArtifactError(
                f"{file} can't be read: {error}",
                "it is damaged: export or download it again",
            ) from None
    return weights


def _files(path: Path) -> list[Path]:
    """The files of a folder, of the whole set that a shard belongs to, or the file."""
    if path.is_dir():
        return find_weight_files(path).paths
    if (path.parent / f"{SAFETENSORS.file}.index.json").is_file():
        shards = find_weight_files(path.parent).paths
        if path in shards:
            return shards
    return [path]


def _align(module: nn.Module) -> None:
    """Give weights that are mapped from a file the alignment of torch's own memory.

    Kernels round differently at other alignments, and where a tensor lies in a file
    follows from the length of its header: the same weights out of two files would not
    compute the same bits.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()
