"""From a checkpoint that was read to the weights that its model computes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from checkpoint_release.core.artifacts.checkpoint import MergedLora
from checkpoint_release.core.dtypes import HALF
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.selection import Selection
from checkpoint_release.pth import Checkpoint, escape_surrogates
from checkpoint_release.pth.tensor_builders import CLAIM_ALLOWANCE, MAX_CLAIM
from checkpoint_release.state_dict.adapter_config import ADAPTER_CONFIG, lora_config
from checkpoint_release.state_dict.adapter_names import has_factors
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.dequantise import dequantised, quantisation_config
from checkpoint_release.state_dict.find import find_state_dict
from checkpoint_release.state_dict.framework_layouts import (
    refuse_flat_parameters,
    refuse_megatron,
)
from checkpoint_release.state_dict.half_precision import cast_half
from checkpoint_release.state_dict.lora import (
    LoraAdapter,
    find_adapter,
    merge_lora,
    refuse_adapter_beside,
)
from checkpoint_release.state_dict.quantised_records import with_floats
from checkpoint_release.state_dict.selection import select
from checkpoint_release.tensors.joined import stored_tensors
from checkpoint_release.tensors.safetensors import nbytes

_ALL = Selection()


@dataclass(frozen=True)
class AdapterFile:
    """An adapter in a file or folder of its own.

    Attributes:
        checkpoint: what was read.
        weight: what its update is multiplied by.
    """

    checkpoint: Checkpoint
    weight: float = 1.0


@dataclass(frozen=True)
class ModelWeights:
    """The weights, under the model's own names.

    Attributes:
        tensors: name → tensor.
        key: where in the file they were, dotted; "" for a bare state dict.
        prefix: what was stripped from every name.
        lora: the adapter that was merged; None: there was none.
        left_out: the names of the tensors that aren't the model's, as the file has
            them.
        quantised: how they were laid out before they were turned into floats; "" where
            they always were.
        used_up: the names of the tensors that only described quantised ones.
    """

    tensors: StateDict
    key: str
    prefix: str
    lora: MergedLora | None
    left_out: tuple[str, ...] = ()
    quantised: str = ""
    used_up: tuple[str, ...] = ()

    @property
    def top_keys(self) -> frozenset[str]:
        """The keys at the top of the checkpoint that hold the weights."""
        if self.key:
            return frozenset({self.key.partition(".")[0]})
        names = [self.prefix + name for name in self.tensors]
        return frozenset((*names, *self.left_out, *self.used_up))

    @property
    def rounds_lora(self) -> bool:
        """Whether an adapter's update was rounded to half precision."""
        if self.lora is None:
            return False
        adapted = [self.tensors[f"{layer}.weight"] for layer in self.lora.layers]
        return any(tensor.dtype in HALF for tensor in adapted)


def read_model_weights(
    checkpoint: Checkpoint,
    adapters: Sequence[AdapterFile] = (),
    *,
    state_dict: str | None = None,
    alpha: float | None = None,
    dequantise: bool = False,
    half_precision: str = "keep",
    selection: Selection = _ALL,
) -> ModelWeights:
    """Find a checkpoint's weights, give them their own names, and merge LoRA.

    Args:
        checkpoint: holds the weights, perhaps with LoRA factors among them.
        adapters: LoRA factors in files of their own.
        state_dict: key of the weights, dotted where nested; None: the only ones.
        alpha: LoRA's alpha, where the file with the factors doesn't say it.
        dequantise: turn quantised weights into the floats that they stand for, where
            their layout says all that it takes.
        half_precision: what becomes of float16 and bfloat16: keep, cast (to float32)
            or refuse.
        selection: which tensors are the model's, and what their names begin with.

    Raises:
        CheckpointError: the checkpoint holds no weights, several or some that can't be
            released; which adapter is meant or how it is merged isn't known; it
            doesn't fit.
    """
    _refuse_adapter_alone(checkpoint)
    if state_dict is None:
        refuse_megatron(checkpoint)
    value, quantised = checkpoint.value, ""
    if dequantise:
        value, quantised = with_floats(value)
    found = find_state_dict(value, state_dict)
    refuse_flat_parameters(found.weights)
    _check_size(found.weights)
    floats = found.weights
    if dequantise and not quantised:
        floats, quantised = dequantised(found.weights, quantisation_config(checkpoint))
    used_up = tuple(name for name in found.weights if name not in floats)
    selected = select(floats, selection)
    # Before adapters are merged: an update is finer than half precision's rounding of
    # the sum.
    tensors = cast_half(selected.tensors, half_precision)
    if adapters:
        opened = [
            _open_adapter(each, alpha, number) for number, each in enumerate(adapters)
        ]
        merged, lora = merge_lora(tensors, opened)
    else:
        refuse_adapter_beside(found.adapter_beside, str(checkpoint.path))
        own = lora_config(checkpoint, alpha) if has_factors(tensors) else None
        merged, lora = merge_lora(tensors, own=own)
    return ModelWeights(
        merged,
        found.key,
        selected.prefix,
        lora,
        selected.left_out,
        quantised,
        used_up,
    )


def _refuse_adapter_alone(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError where a folder of PEFT stands in the place of a model."""
    if ADAPTER_CONFIG in checkpoint.facts:
        raise CheckpointError(
            f"{checkpoint.path} is an adapter of PEFT and holds no base weights",
            "give the base checkpoint in {checkpoint.path}, and this folder in"
            " {checkpoint.adapter}",
            options=["checkpoint.path", "checkpoint.adapter"],
        )


def _open_adapter(file: AdapterFile, alpha: float | None, number: int) -> LoraAdapter:
    """The adapter in a file, and how it is scaled.

    Args:
        file: holds it.
        alpha: LoRA's alpha, where the file doesn't say it.
        number: of adapters before this one; tells those of the same name apart.

    Raises:
        CheckpointError: there is none, or it isn't one that can be merged.
    """
    checkpoint = file.checkpoint
    config = lora_config(checkpoint, alpha)
    tensors = find_adapter(checkpoint.value, replaces=config.replaces)
    _check_size(tensors)
    name = escape_surrogates(checkpoint.path.name)
    return LoraAdapter(tensors, config, file.weight, f"{number + 1} {name}")


def _check_size(weights: StateDict) -> None:
    """Require that the weights aren't many times what the file stores of them.

    A tensor that goes by a million names is a few bytes for each of them in a
    checkpoint, and is written out for each of them.

    Args:
        weights: name → tensor, as they lie in the file.

    Raises:
        CheckpointError: they would be written much larger.
    """
    written = 0
    stored: dict[int, int] = {}
    for tensor in weights.values():
        written += nbytes(tensor)
        for each in stored_tensors(tensor):
            stored[id(each.storage)] = each.storage.nbytes
    allowed = CLAIM_ALLOWANCE + MAX_CLAIM * sum(stored.values())
    if written > allowed:
        raise CheckpointError(
            f"the budget of written bytes is exceeded: the weights would take"
            f" {written:,} bytes, and the file stores {sum(stored.values()):,} for them"
            f" ({CLAIM_ALLOWANCE >> 20} MiB and {MAX_CLAIM} times as many are allowed)",
            "save each tensor once, without views that repeat elements",
        )
