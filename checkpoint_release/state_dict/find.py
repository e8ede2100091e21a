"""From what a checkpoint holds to the weights that its model computes with.

find_state_dict    which of the mappings in the file is the state dict
without_prefix  module. and _orig_mod. go, where every name has them
merge_lora      low-rank adapters are added to the weights that they adapt
cast_half       half-precision weights are kept, widened or refused

Everything stays a record over the file's bytes until it is written. Nothing here
imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import DTYPES, HALF
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Inert, to_json_value
from checkpoint_release.tensors.tensor import Tensor, TensorLike
from checkpoint_release.tensors.wrappers import Computed

StateDict = dict[str, TensorLike]

USUAL_KEYS = (
    *(
        "model_state_dict",
        "state_dict",
        "model_state",
        "model",
        "net",
        "network",
        "module",
        "params",
        "weights",
    ),
    *(
        "ema",
        "model_ema",
        "ema_model",
        "ema_state_dict",
        "state_dict_ema",
        "params_ema",
    ),
)
# What lies beside the weights in a training checkpoint and may hold tensors of its own.
_NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|rng|random_state|^amp$|callbacks|loops", re.IGNORECASE
)
_PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.")
_LORA = re.compile(r"^(?P<layer>.+)\.lora_(?P<factor>A|B)(\.default)?(\.weight)?$")
_PEFT_PREFIX = "base_model.model."
_SAVE_WEIGHTS = (  # instead of an object that holds them
    "save the weights themselves where it was made, by torch.save(model.state_dict(),"
    " …): no class is run here"
)


@dataclass(frozen=True)
class FoundStateDict:
    """The state dict that was chosen.

    Attributes:
        weights: name → tensor.
        key: where in the file it was, such as "model_state_dict" or "model.ema"; "" for
            a bare state dict.
        adapter_beside: key of a LoRA adapter that lies beside weights which don't hold
            it; "" where there is none.
    """

    weights: StateDict
    key: str
    adapter_beside: str = ""


def find_state_dict(value: Any, key: str | None) -> FoundStateDict:
    """The state dict in a checkpoint: under `key` (dotted), or the only one that there
    is.

    Several candidates are an error unless exactly one is under a usual key
    (USUAL_KEYS). A mapping of LoRA factors alone is an adapter, not a candidate.

    Raises:
        CheckpointError: there is none, there are several, or `key` doesn't lead to one.
    """
    if key is not None:
        return FoundStateDict(_at_key(value, key), key)
    candidates = dict(_candidates(value))
    adapters = [name for name, weights in candidates.items() if _is_adapter(weights)]
    full = {
        name: weights for name, weights in candidates.items() if name not in adapters
    }
    if len(full) > 1:
        usual = {
            name: weights
            for name, weights in full.items()
            if name.rpartition(".")[2] in USUAL_KEYS
        }
        full = usual if len(usual) == 1 else full
    if len(full) > 1:
        listed = "\n".join(
            f"    {name}: {_size(weights)}" for name, weights in full.items()
        )
        raise CheckpointError(
            f"the checkpoint holds {len(full)} state dicts:\n{listed}",
            "name the one to release in checkpoint.state_dict of params.yaml",
        )
    if not full and adapters:
        raise CheckpointError(
            f"the checkpoint holds a LoRA adapter ({adapters[0] or 'the whole file'})"
            " and no base weights",
            "give the base checkpoint in checkpoint.path and this file in"
            " checkpoint.adapter",
        )
    if not full:
        raise CheckpointError(
            f"the checkpoint holds no state dict: {_outline(value)}",
            (
                _SAVE_WEIGHTS
                if isinstance(value, Inert)
                else (
                    "name the key of the weights in checkpoint.state_dict, or give a"
                    " file with weights in checkpoint.path"
                )
            ),
        )
    ((name, weights),) = full.items()
    injected = any(_LORA.match(tensor) for tensor in weights)
    return FoundStateDict(
        weights, name, adapters[0] if adapters and not injected else ""
    )


def refuse_adapter_beside(adapter: str, path: str) -> None:
    """Raise where an adapter lies beside weights that don't hold it: that it is meant
    can't be told, nor that it isn't.

    Args:
        adapter: FoundStateDict.adapter_beside.
        path: the checkpoint, for the message.

    Raises:
        CheckpointError: there is one.
    """
    if adapter:
        raise CheckpointError(
            f"{path} holds weights without adapters, and a LoRA adapter beside them"
            f" ({adapter})",
            "to leave it out, name the weights in checkpoint.state_dict; to merge it,"
            f" set both checkpoint.path and checkpoint.adapter to {path}",
        )


def find_adapter(value: Any) -> tuple[StateDict, str]:
    """The LoRA factors in an adapter file, and the key they were under.

    Raises:
        CheckpointError: there are none, or several sets.
    """
    candidates = list(_candidates(value))
    adapters = [(name, weights) for name, weights in candidates if _is_adapter(weights)]
    for name, weights in candidates:
        others = [tensor for tensor in weights if not _LORA.match(tensor)]
        if not adapters and len(others) < len(weights):
            raise CheckpointError(
                f"the adapter file's {name or 'state dict'} holds LoRA factors and"
                f" {len(others)} other tensors:"
                f" {', '.join(others[:3])}{', …' if len(others) > 3 else ''}",
                "only lora_A and lora_B can be merged: save the adapter without the"
                " others; if they are a model's weights with its LoRA injected, give"
                " the file as checkpoint.path and set checkpoint.adapter to null",
            )
    if len(adapters) != 1:
        found = (
            f"{len(adapters)} LoRA adapters ({', '.join(name for name, _ in adapters)})"
            if adapters
            else "no LoRA adapter"
        )
        raise CheckpointError(
            f"the adapter file holds {found}: {_outline(value)}",
            "give a file with one set of …lora_A and …lora_B tensors in"
            " checkpoint.adapter",
        )
    ((name, weights),) = adapters
    return weights, name


def without_prefix(
    weights: Mapping[str, TensorLike], more: tuple[str, ...] = ()
) -> tuple[StateDict, str]:
    """Strip the prefixes that wrappers add, such as module. (DataParallel) and
    _orig_mod. (torch.compile).

    A prefix goes only when every name has it.

    Returns:
        The weights under their own names, and all that was stripped.
    """
    stripped = ""
    while prefix := next(
        (
            each
            for each in (*_PREFIXES, *more)
            if all(n.startswith(each) for n in weights)
        ),
        "",
    ):
        weights = {
            name.removeprefix(prefix): tensor for name, tensor in weights.items()
        }
        stripped += prefix
    return dict(weights), stripped


def merge_lora(
    weights: StateDict, adapter: Mapping[str, TensorLike] | None, alpha: float | None
) -> tuple[StateDict, Any]:
    """Add the adapters to the weights they adapt: W + (alpha / rank) · B·A, in float64,
    rounded once.

    Args:
        weights: state dict; injected adapters (X.base_layer.weight, X.lora_A, X.lora_B)
            are merged as well.
        adapter: lora_A [rank, in] and lora_B [out, rank] from a file of their own, or
            None.
        alpha: the scale's numerator; must be known where there is anything to merge.

    Returns:
        The weights under the names of the model without adapters, and what was done:
        {"alpha", "rank", "layers"}, or None where there was nothing to merge.

    Raises:
        CheckpointError: alpha isn't known, a factor is missing, shapes don't fit, an
            adapter matches nothing.
    """
    injected = {name: tensor for name, tensor in weights.items() if _LORA.match(name)}
    if injected and adapter is not None:
        raise CheckpointError(
            f"the checkpoint holds LoRA factors ({next(iter(injected))}, …), and"
            " checkpoint.adapter adds others",
            "set checkpoint.adapter to null, or give a base checkpoint without"
            " adapters",
        )
    merged: StateDict = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in weights.items()
        if name not in injected
    }
    if adapter is not None:
        adapter, _ = without_prefix(adapter, (_PEFT_PREFIX,))
    pairs = _pairs(injected if adapter is None else adapter)
    if not pairs:
        return merged, None
    if alpha is None:
        raise CheckpointError(
            f"{len(pairs)} layers have LoRA factors ({next(iter(pairs))}, …), and the"
            " file doesn't say their alpha",
            "state the alpha it was trained with in checkpoint.lora_alpha of"
            " params.yaml",
        )
    ranks = {}
    for layer, (a, b) in pairs.items():
        name = f"{layer}.weight"
        if name not in merged:
            raise CheckpointError(
                f"the LoRA adapter adapts {layer}, and the base has no {name}",
                "give the adapter's own base checkpoint",
            )
        base = merged[name]
        shapes = (
            f"lora_A {list(a.shape)}, lora_B {list(b.shape)}, base {list(base.shape)}"
        )
        if not (len(a.shape) == len(b.shape) == len(base.shape) == 2):
            raise CheckpointError(
                f"{layer}: only Linear layers can be merged: {shapes}",
                "merge it where it was trained",
            )
        if (
            b.shape[1] != a.shape[0]
            or base.shape != (b.shape[0], a.shape[1])
            or a.shape[0] == 0
        ):
            raise CheckpointError(
                f"{layer}: the LoRA factors don't fit: {shapes}",
                "give the adapter's own base checkpoint",
            )
        ranks[layer] = a.shape[0]
        merged[name] = _adapted(base, a, b, alpha / a.shape[0])
    distinct = sorted(set(ranks.values()))
    return merged, {
        "alpha": alpha,
        "rank": distinct[0] if len(distinct) == 1 else ranks,
        "layers": sorted(ranks),
    }


def lora_alpha(
    value: Any, stated: float | None, rank_of: Mapping[str, TensorLike]
) -> float | None:
    """LoRA's alpha: what the file's lora_config says, or params.yaml; None where
    neither does.

    Raises:
        CheckpointError: both say something else, or lora_config's rank isn't the
            factors' own.
    """
    # a mapping or an object
    config = (
        to_json_value(value.get("lora_config")) if isinstance(value, Mapping) else None
    )
    config = config if isinstance(config, Mapping) else {}
    said, rank = (
        _number(config, "alpha", "lora_alpha"),
        _number(config, "rank", "r", "lora_rank"),
    )
    for name, tensor in rank_of.items():
        match = _LORA.match(name)
        if (
            rank is not None
            and match
            and match["factor"] == "A"
            and tensor.shape[:1] != (rank,)
        ):
            raise CheckpointError(
                f"lora_config says rank {rank:g}, and {name} has shape"
                f" {list(tensor.shape)}",
                "the file contradicts itself: export it again where it was trained",
            )
    if said is not None and stated is not None and said != stated:
        raise CheckpointError(
            f"lora_config in the file says alpha {said:g}, and checkpoint.lora_alpha"
            f" says {stated:g}",
            "set checkpoint.lora_alpha to null to take the file's own",
        )
    return said if said is not None else stated


def _number(config: Mapping[str, Any], *keys: str) -> float | None:
    """What the first of the keys with a number holds; True and False are none."""
    values = (config.get(key) for key in keys)
    return next(
        (
            float(it)
            for it in values
            if isinstance(it, int | float) and not isinstance(it, bool)
        ),
        None,
    )


def cast_half(weights: StateDict, policy: str) -> StateDict:
    """Apply checkpoint.half_precision to float16 and bfloat16 weights: keep, cast
    (exactly, to float32) or refuse.

    Raises:
        CheckpointError: the policy is to refuse, and there are some.
    """
    half = [name for name, tensor in weights.items() if tensor.dtype in HALF]
    if policy == "refuse" and half:
        raise CheckpointError(
            f"{len(half)} of {len(weights)} tensors are in half precision ({half[0]}:"
            f" {weights[half[0]].dtype})",
            "set checkpoint.half_precision to keep, or to cast for float32",
        )
    if policy == "cast":
        return {
            name: _widened(tensor) if name in half else tensor
            for name, tensor in weights.items()
        }
    return weights


def _adapted(base: TensorLike, a: TensorLike, b: TensorLike, scale: float) -> Computed:
    def compute() -> np.ndarray[Any, Any]:
        left, right = b.numpy().astype(np.float64), a.numpy().astype(np.float64)
        # One rank after another: a BLAS product may add in an order that depends on the
        # machine and its threads.
        update = np.zeros(base.shape)
        for rank in range(left.shape[1]):
            update += np.multiply.outer(left[:, rank], right[rank])
        weight = base.numpy()
        merged: np.ndarray[Any, Any] = (
            weight.astype(np.float64) + scale * update
        ).astype(weight.dtype)
        return merged

    return Computed(base.dtype, base.shape, compute)


def _widened(tensor: TensorLike) -> Computed:
    return Computed("F32", tensor.shape, lambda: tensor.numpy().astype(np.float32))


def _pairs(
    factors: Mapping[str, TensorLike],
) -> dict[str, tuple[TensorLike, TensorLike]]:
    by_layer: dict[str, dict[str, TensorLike]] = {}
    for name, tensor in factors.items():
        match = _LORA.match(name)
        if not match:
            raise CheckpointError(
                f"the LoRA adapter holds {name}, which is no LoRA factor",
                "give lora_A and lora_B only",
            )
        by_layer.setdefault(match["layer"], {})[match["factor"]] = tensor
    for layer, pair in by_layer.items():
        if len(pair) != 2:
            raise CheckpointError(
                f"{layer} has lora_{next(iter(pair))} and not the other factor",
                "give a complete adapter",
            )
    return {layer: (pair["A"], pair["B"]) for layer, pair in by_layer.items()}


def _candidates(
    value: Any, key: str = "", depth: int = 3
) -> Iterator[tuple[str, StateDict]]:
    """Every state dict in a nest of mappings, with its dotted key, the optimizer's and
    the like left out.
    """
    if not isinstance(value, Mapping):
        return
    if tensors := _tensors(value):
        yield key, tensors
    if depth:
        for name, item in value.items():
            if isinstance(name, str) and not _NOT_WEIGHTS.search(name):
                yield from _candidates(
                    item, f"{key}.{name}" if key else name, depth - 1
                )


def _tensors(value: Mapping[Any, Any]) -> StateDict:
    """The tensors that lie directly in a mapping, where they look like a state dict's.

    A few facts may lie among them, but a lone tensor among facts (a random state, class
    weights) is a fact.

    Raises:
        CheckpointError: among them are sparse, quantized or other tensors that
            safetensors can't hold.
    """
    tensors: StateDict = {
        name: item
        for name, item in value.items()
        if isinstance(name, str) and isinstance(item, Tensor)
    }
    lost = {
        name: item.reason
        for name, item in value.items()
        if isinstance(item, Inert) and item.reason
    }
    others = sum(
        not (isinstance(name, str) and name.endswith("_extra_state")) for name in value
    ) - len(tensors)
    if lost and len(tensors) + 2 * len(lost) > others:
        name, reason = next(iter(lost.items()))
        raise CheckpointError(
            f"{len(lost)} of the checkpoint's tensors can't be released, first of them"
            f" {name}: {reason}",
            "make them dense (such as tensor.to_dense() or tensor.dequantize()) before"
            " saving, or name another state dict in checkpoint.state_dict",
        )
    return tensors if len(tensors) > others else {}


def _is_adapter(weights: Mapping[str, TensorLike]) -> bool:
    return all(_LORA.match(name) for name in weights)


def _at_key(value: Any, key: str) -> StateDict:
    found = value
    rest = key
    while rest:
        if not isinstance(found, Mapping):
            break
        # The longest key first, so that a name with dots in it can be reached as well.
        step = next((rest[:at] for at in _ends(rest) if rest[:at] in found), None)
        if step is None:
            break
        found, rest = found[step], rest[len(step) + 1 :]
    weights = _tensors(found) if isinstance(found, Mapping) and not rest else {}
    if not weights:
        raise CheckpointError(
            f"checkpoint.state_dict is {key!r}, and there is no state dict:"
            f" {_outline(value)}",
            (
                _SAVE_WEIGHTS
                if isinstance(value, Inert)
                else (
                    "name the key that holds the weights, with dots between nested"
                    " keys, or set it to null"
                )
            ),
        )
    return weights


def _ends(key: str) -> Iterator[int]:
    yield len(key)
    for at in range(len(key) - 1, 0, -1):
        if key[at] == ".":
            yield at


def _size(weights: Mapping[str, TensorLike]) -> str:
    elements = sum(
        int(np.prod(tensor.shape, dtype=np.int64)) for tensor in weights.values()
    )
    size = sum(
        int(np.prod(t.shape, dtype=np.int64)) * DTYPES[t.dtype].bits // 8
        for t in weights.values()
    )
    return f"{len(weights)} tensors, {elements:,} values, {size / 1e6:,.1f} MB"


def _outline(value: Any) -> str:
    if isinstance(value, Inert):
        return (
            "it is"
            f" {'an object of the class ' if value.args is not None else ''}{value.name}"
        )
    if not isinstance(value, Mapping):
        return f"it is a {type(value).__name__}"
    keys = [str(key)[:60] for key in value]
    return (
        f"its keys are {', '.join(keys[:12])}{', …' if len(keys) > 12 else ''}"
        if keys
        else "it is empty"
    )
