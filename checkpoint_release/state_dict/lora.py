"""Low-rank adapters (LoRA, https://arxiv.org/abs/2106.09685) and how they are merged.

An adapter holds two factors for each layer that it adapts: lora_A [rank, in] and
lora_B [out, rank]. They come in a file of their own, or injected into the model's
state dict beside the layers' own weights, which are then named X.base_layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.artifacts.checkpoint import MergedLora
from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.pth import to_json_value
from checkpoint_release.state_dict.candidates import StateDict, candidates, outline
from checkpoint_release.state_dict.prefixes import without_prefix
from checkpoint_release.tensors.tensor import TensorLike
from checkpoint_release.tensors.wrappers import Computed

# PEFT's model has X.lora_A.default.weight ("default" is the adapter's name), PEFT's
# adapter files X.lora_A.weight; a script that keeps a factor as a parameter, X.lora_A.
_FACTOR = re.compile(r"^(?P<layer>.+)\.lora_(?P<factor>A|B)(\.default)?(\.weight)?$")
_PEFT_PREFIX = "base_model.model."
_OWN_BASE = "give the adapter's own base checkpoint"


@dataclass(frozen=True)
class _Factors:
    """The factors of one layer: a [rank, in], b [out, rank]."""

    a: TensorLike
    b: TensorLike

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def is_adapter(tensors: Mapping[str, TensorLike]) -> bool:
    """Whether all of the tensors (name → tensor) are LoRA factors, by their names."""
    return all(_FACTOR.match(name) for name in tensors)


def has_factors(tensors: Mapping[str, TensorLike]) -> bool:
    """Whether some of the tensors (name → tensor) are LoRA factors, by their names."""
    return any(_FACTOR.match(name) for name in tensors)


def refuse_adapter_beside(adapter: str, path: str) -> None:
    """Raise where an adapter lies beside weights that don't hold it.

    Nothing says whether it is meant to be merged.

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
            "to leave it out, name the weights in {checkpoint.state_dict}; to merge it,"
            f" set both {{checkpoint.path}} and {{checkpoint.adapter}} to {path}",
            options=["checkpoint.state_dict", "checkpoint.path", "checkpoint.adapter"],
        )


def find_adapter(value: Any) -> StateDict:
    """The LoRA factors in an adapter file.

    Args:
        value: what the file holds.

    Returns:
        Name → factor, under the names that the file has.

    Raises:
        CheckpointError: there are none, several sets, or other tensors among them.
    """
    found = dict(candidates(value))
    adapters = [name for name, tensors in found.items() if is_adapter(tensors)]
    if len(adapters) == 1:
        return found[adapters[0]]
    if adapters:
        holds = f"{len(adapters)} LoRA adapters ({', '.join(adapters)})"
    else:
        for name, tensors in found.items():
            _refuse_mixed(name, tensors)
        holds = "no LoRA adapter"
    raise CheckpointError(
        f"the adapter file holds {holds}: {outline(value)}",
        "give a file with one set of …lora_A and …lora_B tensors in"
        " {checkpoint.adapter}",
        options=["checkpoint.adapter"],
    )


def _refuse_mixed(name: str, tensors: StateDict) -> None:
    """Raise CheckpointError where LoRA factors lie among other tensors.

    Merging only the factors would lose what the others were trained to.

    Args:
        name: dotted key of the state dict; "" where it is the whole file.
        tensors: name → tensor.
    """
    if not has_factors(tensors):
        return
    others = [tensor for tensor in tensors if not _FACTOR.match(tensor)]
    raise CheckpointError(
        f"the adapter file's {name or 'state dict'} holds LoRA factors and"
        f" {len(others)} other tensors: {first_few(others, 3)}",
        "only lora_A and lora_B can be merged: save the adapter without the others; if"
        " they are a model's weights with its LoRA injected, give the file as"
        " {checkpoint.path} and leave {checkpoint.adapter} unset",
        options=["checkpoint.path", "checkpoint.adapter"],
    )


def lora_alpha(
    value: Any, stated: float | None, weights: Mapping[str, TensorLike]
) -> float | None:
    """LoRA's alpha: what the file's lora_config says, or what the user states.

    Args:
        value: what the file holds.
        stated: checkpoint.lora_alpha.
        weights: the factors, perhaps among other tensors.

    Returns:
        None where neither says it.

    Raises:
        CheckpointError: both say something else, or lora_config's rank isn't the
            factors' own.
    """
    config = _lora_config(value)
    rank = _number(config, "rank", "r", "lora_rank")
    if rank is not None:
        _check_rank(rank, weights)
    alpha = _number(config, "alpha", "lora_alpha")
    if alpha is None:
        return stated
    if stated is not None and stated != alpha:
        raise CheckpointError(
            f"lora_config in the file says alpha {alpha:g}, and"
            f" {{checkpoint.lora_alpha}} says {stated:g}",
            "leave {checkpoint.lora_alpha} unset to take the file's own",
            options=["checkpoint.lora_alpha"],
        )
    return alpha


def _lora_config(value: Any) -> Mapping[str, Any]:
    """lora_config, a mapping or an object; empty where there is none.

    Args:
        value: what the file holds.
    """
    if not isinstance(value, Mapping):
        return {}
    config = to_json_value(value.get("lora_config"))
    return config if isinstance(config, Mapping) else {}


def _number(config: Mapping[str, Any], *keys: str) -> float | None:
    """What the first of the keys with a number holds; True and False are none."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _check_rank(rank: float, weights: Mapping[str, TensorLike]) -> None:
    """Raise CheckpointError where a factor hasn't the rank that lora_config says.

    Such a config belongs to another adapter, and so does its alpha.

    Args:
        rank: as lora_config says.
        weights: the factors, perhaps among other tensors; A is [rank, in].
    """
    for name, tensor in weights.items():
        match = _FACTOR.match(name)
        if match is None or match["factor"] != "A":
            continue
        if tensor.shape[:1] != (rank,):
            raise CheckpointError(
                f"lora_config says rank {rank:g}, and {name} has shape"
                f" {list(tensor.shape)}",
                "the file contradicts itself: export it again where it was trained",
            )


def merge_lora(
    weights: StateDict, adapter: Mapping[str, TensorLike] | None, alpha: float | None
) -> tuple[StateDict, MergedLora | None]:
    """Add adapters to the weights they adapt: W + (alpha / rank) · B·A.

    Computed in float64 and rounded once.

    Args:
        weights: state dict; injected adapters (X.base_layer.weight, X.lora_A, X.lora_B)
            are merged as well.
        adapter: lora_A [rank, in] and lora_B [out, rank] from a file of their own, or
            None.
        alpha: the scale's numerator; must be known where there is anything to merge.

    Returns:
        The weights under the names of the model without adapters, and what was merged;
        None where there was nothing to merge.

    Raises:
        CheckpointError: alpha isn't known, a factor is missing, shapes don't fit, an
            adapter matches nothing.
    """
    merged: StateDict = {}
    injected: StateDict = {}
    for name, tensor in weights.items():
        if _FACTOR.match(name):
            injected[name] = tensor
        else:
            merged[name.replace(".base_layer.", ".")] = tensor
    layers = _pair_factors(_all_factors(injected, adapter))
    if not layers:
        return merged, None
    if alpha is None:
        raise CheckpointError(
            f"{len(layers)} layers have LoRA factors ({next(iter(layers))}, …), and the"
            " file doesn't say their alpha",
            "state the alpha it was trained with in {checkpoint.lora_alpha}",
            options=["checkpoint.lora_alpha"],
        )
    for layer, factors in layers.items():
        name = f"{layer}.weight"
        _check_fit(layer, factors, merged)
        merged[name] = _adapted(merged[name], factors, alpha / factors.rank)
    return merged, _merged_lora(layers, alpha)


def _all_factors(
    injected: StateDict, adapter: Mapping[str, TensorLike] | None
) -> StateDict:
    """The factors to merge: those in the state dict, or those of the adapter file.

    Args:
        injected: the factors in the state dict.
        adapter: those of the adapter file, perhaps under PEFT's prefix; None: no file.

    Raises:
        CheckpointError: both have some, and in which order isn't known.
    """
    if adapter is None:
        return injected
    if injected:
        raise CheckpointError(
            f"the checkpoint holds LoRA factors ({next(iter(injected))}, …), and"
            " {checkpoint.adapter} adds others",
            "leave {checkpoint.adapter} unset, or give a base checkpoint without"
            " adapters",
            options=["checkpoint.adapter"],
        )
    return without_prefix(adapter, (_PEFT_PREFIX,))[0]


def _pair_factors(tensors: Mapping[str, TensorLike]) -> dict[str, _Factors]:
    """Layer → its factors.

    Args:
        tensors: name → factor, such as "encoder.0.lora_A.weight".

    Raises:
        CheckpointError: a name is no factor's, or a layer has only one of the two.
    """
    by_layer: dict[str, dict[str, TensorLike]] = {}
    for name, tensor in tensors.items():
        match = _FACTOR.match(name)
        if match is None:
            raise CheckpointError(
                f"the LoRA adapter holds {name}, which is no LoRA factor",
                "give lora_A and lora_B only",
            )
        by_layer.setdefault(match["layer"], {})[match["factor"]] = tensor
    paired = {}
    for layer, pair in by_layer.items():
        if len(pair) != 2:
            raise CheckpointError(
                f"{layer} has lora_{next(iter(pair))} and not the other factor",
                "give a complete adapter",
            )
        paired[layer] = _Factors(pair["A"], pair["B"])
    return paired


def _check_fit(layer: str, factors: _Factors, weights: StateDict) -> None:
    """Raise CheckpointError unless the layer has a matrix that the factors fit.

    Args:
        layer: its name in the model, such as "encoder.0".
        factors: A [rank, in] and B [out, rank].
        weights: the model's; "<layer>.weight" has to be [out, in].
    """
    base = weights.get(f"{layer}.weight")
    if base is None:
        raise CheckpointError(
            f"the LoRA adapter adapts {layer}, and the base has no {layer}.weight",
            _OWN_BASE,
        )
    a, b = factors.a.shape, factors.b.shape
    shapes = f"lora_A {list(a)}, lora_B {list(b)}, base {list(base.shape)}"
    if not len(a) == len(b) == len(base.shape) == 2:
        raise CheckpointError(
            f"{layer}: only Linear layers can be merged: {shapes}",
            "merge it where it was trained",
        )
    rank, inputs = a
    outputs = b[0]
    fit = b[1] == rank and base.shape == (outputs, inputs)
    if rank == 0 or not fit:  # of rank 0 there is no scale alpha / rank
        raise CheckpointError(
            f"{layer}: the LoRA factors don't fit: {shapes}", _OWN_BASE
        )


def _adapted(base: TensorLike, factors: _Factors, scale: float) -> Computed:
    """base + scale · B·A, computed when its bytes are asked for.

    Args:
        base: [out, in].
        factors: B [out, rank] and A [rank, in].
        scale: alpha / rank.
    """

    def compute() -> np.ndarray[Any, Any]:
        left = factors.b.numpy().astype(np.float64)
        right = factors.a.numpy().astype(np.float64)
        # One rank after another: a BLAS product may add in an order that depends on the
        # machine and its threads.
        update = np.zeros(base.shape)
        for rank in range(factors.rank):
            update += np.multiply.outer(left[:, rank], right[rank])
        weight = base.numpy()
        merged = weight.astype(np.float64) + scale * update
        return np.asarray(merged.astype(weight.dtype))

    return Computed(base.dtype, base.shape, compute)


def _merged_lora(layers: Mapping[str, _Factors], alpha: float) -> MergedLora:
    """The record of a merge for the release: one rank, or one for each layer."""
    ranks = {layer: factors.rank for layer, factors in layers.items()}
    distinct = set(ranks.values())
    rank = distinct.pop() if len(distinct) == 1 else ranks
    return MergedLora(alpha=alpha, rank=rank, layers=sorted(ranks))
