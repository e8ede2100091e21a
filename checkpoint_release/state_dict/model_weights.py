"""From a checkpoint that was read to the weights that its model computes with."""

from __future__ import annotations

from dataclasses import dataclass

from checkpoint_release.core.artifacts.checkpoint import MergedLora
from checkpoint_release.core.dtypes import HALF
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Checkpoint
from checkpoint_release.pth.tensor_builders import CLAIM_ALLOWANCE, MAX_CLAIM
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.find import find_state_dict
from checkpoint_release.state_dict.half_precision import cast_half
from checkpoint_release.state_dict.lora import (
    find_adapter,
    lora_alpha,
    merge_lora,
    refuse_adapter_beside,
)
from checkpoint_release.state_dict.selection import Selection, select
from checkpoint_release.tensors.safetensors import nbytes
from checkpoint_release.tensors.tensor import Tensor

_ALL = Selection()


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
    """

    tensors: StateDict
    key: str
    prefix: str
    lora: MergedLora | None
    left_out: tuple[str, ...] = ()

    @property
    def top_keys(self) -> frozenset[str]:
        """The keys at the top of the checkpoint that hold the weights."""
        if self.key:
            return frozenset({self.key.partition(".")[0]})
        names = [self.prefix + name for name in self.tensors]
        return frozenset((*names, *self.left_out))

    @property
    def rounds_lora(self) -> bool:
        """Whether an adapter's update was rounded to half precision."""
        if self.lora is None:
            return False
        adapted = [self.tensors[f"{layer}.weight"] for layer in self.lora.layers]
        return any(tensor.dtype in HALF for tensor in adapted)


def read_model_weights(
    checkpoint: Checkpoint,
    adapter: Checkpoint | None = None,
    *,
    state_dict: str | None = None,
    alpha: float | None = None,
    half_precision: str = "keep",
    selection: Selection = _ALL,
) -> ModelWeights:
    """Find a checkpoint's weights, give them their own names, and merge LoRA.

    Args:
        checkpoint: holds the weights, perhaps with LoRA factors among them.
        adapter: LoRA factors in a file of their own.
        state_dict: key of the weights, dotted where nested; None: the only ones.
        alpha: LoRA's alpha, where the file with the factors doesn't say it.
        half_precision: what becomes of float16 and bfloat16: keep, cast (to float32)
            or refuse.
        selection: which tensors are the model's, and what their names begin with.

    Raises:
        CheckpointError: the checkpoint holds no weights, several or some that can't be
            released; which adapter is meant or how it is merged isn't known; it
            doesn't fit.
    """
    found = find_state_dict(checkpoint.value, state_dict)
    _check_size(found.weights)
    selected = select(found.weights, selection)
    # Before adapters are merged: an update is finer than half precision's rounding of
    # the sum.
    tensors = cast_half(selected.tensors, half_precision)
    if adapter is None:
        refuse_adapter_beside(found.adapter_beside, str(checkpoint.path))
        alpha = lora_alpha(checkpoint.value, alpha, tensors)
        merged, lora = merge_lora(tensors, None, alpha)
    else:
        factors = find_adapter(adapter.value)
        _check_size(factors)
        alpha = lora_alpha(adapter.value, alpha, factors)
        merged, lora = merge_lora(tensors, factors, alpha)
    return ModelWeights(merged, found.key, selected.prefix, lora, selected.left_out)


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
        if isinstance(tensor, Tensor):
            stored[id(tensor.storage)] = tensor.storage.nbytes
    allowed = CLAIM_ALLOWANCE + MAX_CLAIM * sum(stored.values())
    if written > allowed:
        raise CheckpointError(
            f"the budget of written bytes is exceeded: the weights would take"
            f" {written:,} bytes, and the file stores {sum(stored.values()):,} for them"
            f" ({CLAIM_ALLOWANCE >> 20} MiB and {MAX_CLAIM} times as many are allowed)",
            "save each tensor once, without views that repeat elements",
        )
