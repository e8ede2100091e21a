"""Low-rank adapters (LoRA, https://arxiv.org/abs/2106.09685) and how they are merged.

An adapter holds two factors for each layer that it adapts: lora_A [rank, in] and
lora_B [out, rank]. They come in a file of their own, or injected into the model's
state dict beside the layers' own weights, which are then named X.base_layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.artifacts.checkpoint import MergedLora
from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.core.text import printable
from checkpoint_release.pth import to_json_value
from checkpoint_release.state_dict.candidates import StateDict, candidates, outline
from checkpoint_release.state_dict.prefixes import without_prefix
from checkpoint_release.tensors.safetensors import nbytes
from checkpoint_release.tensors.tensor import Tensor, TensorLike
from checkpoint_release.tensors.wrappers import Computed

# PEFT's model has X.lora_A.default.weight ("default" is the adapter's name), PEFT's
# adapter files X.lora_A.weight; a script that keeps a factor as a parameter, X.lora_A.
_FACTOR = re.compile(r"^(?P<layer>.+)\.lora_(?P<factor>A|B)(\.default)?(\.weight)?$")
# Float32 would round each of the sums; the result is rounded once, to the weight's
# dtype.
_PRECISION = np.float64
_PEFT_PREFIX = "base_model.model."
_BLOCK = 1 << 17  # elements of a layer that are merged at a time
# A file's merges may take this many multiplications, and so many more for each byte of
# the factors and layers: a rank of 512 for a layer in half precision.
MAX_PRODUCTS = 1 << 29
PRODUCTS_A_BYTE = 256
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
            f" ({printable(adapter)})",
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
        holds = f"{len(adapters)} LoRA adapters ({first_few(adapters, 12)})"
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
        f"the adapter file's {printable(name) or 'state dict'} holds LoRA factors and"
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
    """What the first of the keys with a number holds; True and False are none.

    Raises:
        CheckpointError: it is beyond what a float holds.
    """
    for key in keys:
        value = config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise CheckpointError(
                    f"lora_config's {key} is a number of {value.bit_length()} bits,"  # type: ignore[union-attr]
                    " and no scale or rank can be that large",
                    "state alpha in {checkpoint.lora_alpha}, and save the file again"
                    " without this number",
                    options=["checkpoint.lora_alpha"],
                ) from None
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
                f"lora_config says rank {rank:g}, and {printable(name)} has shape"
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
            own_name = name.replace(".base_layer.", ".")
            if own_name in merged:
                raise CheckpointError(
                    f"two of the checkpoint's tensors would be named"
                    f" {printable(own_name)}: one under this name, and one under"
                    " base_layer, which an adapter puts between",
                    "remove the one that isn't the model's, and save the file again",
                )
            merged[own_name] = tensor
    layers = _pair_factors(_all_factors(injected, adapter))
    if not layers:
        return merged, None
    if alpha is None:
        raise CheckpointError(
            f"{len(layers)} layers have LoRA factors ({first_few(list(layers), 1)}),"
            " and the file doesn't say their alpha",
            "state the alpha it was trained with in {checkpoint.lora_alpha}",
            options=["checkpoint.lora_alpha"],
        )
    _check_work(layers, merged)
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
            f"the checkpoint holds LoRA factors ({first_few(list(injected), 1)}), and"
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
                f"the LoRA adapter holds {printable(name)}, which is no LoRA factor",
                "give lora_A and lora_B only",
            )
        factors = by_layer.setdefault(match["layer"], {})
        if match["factor"] in factors:
            raise CheckpointError(
                f"two tensors are the factor lora_{match['factor']} of"
                f" {printable(match['layer'])}, one of them {printable(name)}",
                "leave one of them out, and save the file again",
            )
        factors[match["factor"]] = tensor
    paired = {}
    for layer, pair in by_layer.items():
        if len(pair) != 2:
            raise CheckpointError(
                f"{printable(layer)} has lora_{next(iter(pair))} and not the other"
                " factor",
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
            f"the LoRA adapter adapts {printable(layer)}, and the base has no"
            f" {printable(layer)}.weight",
            _OWN_BASE,
        )
    a, b = factors.a.shape, factors.b.shape
    shapes = f"lora_A {list(a)}, lora_B {list(b)}, base {list(base.shape)}"
    if not len(a) == len(b) == len(base.shape) == 2:
        raise CheckpointError(
            f"{printable(layer)}: only Linear layers can be merged: {shapes}",
            "merge it where it was trained",
        )
    rank, inputs = a
    outputs = b[0]
    fit = b[1] == rank and base.shape == (outputs, inputs)
    if rank == 0 or not fit:  # of rank 0 there is no scale alpha / rank
        raise CheckpointError(
            f"{printable(layer)}: the LoRA factors don't fit: {shapes}", _OWN_BASE
        )


def _check_work(layers: Mapping[str, _Factors], weights: StateDict) -> None:
    """Raise CheckpointError where merging takes longer than the file's size explains.

    With a stride of zero a few bytes are a factor of any rank, and its product with
    another one would take hours.

    Args:
        layers: name → its factors; not yet checked whether they fit.
        weights: the model's.
    """
    products = 0
    stored: dict[object, int] = {}
    for layer, factors in layers.items():
        products += math.prod(factors.a.shape) * math.prod(factors.b.shape[:1])
        for tensor in (factors.a, factors.b, weights.get(f"{layer}.weight")):
            if isinstance(tensor, Tensor):
                stored[id(tensor.storage)] = tensor.storage.nbytes
            elif tensor is not None:  # computed, such as widened from half precision
                stored[id(tensor)] = nbytes(tensor)
    if products > MAX_PRODUCTS + PRODUCTS_A_BYTE * sum(stored.values()):
        raise CheckpointError(
            f"the work budget is exceeded: merging the LoRA factors of {len(layers)}"
            f" layers would take {products:.2g} multiplications, more than"
            f" {sum(stored.values())} bytes of weights explain",
            "merge it where it was trained",
        )


def _adapted(base: TensorLike, factors: _Factors, scale: float) -> Computed:
    """base + scale · B·A, computed when its bytes are asked for.

    Args:
        base: [out, in].
        factors: B [out, rank] and A [rank, in].
        scale: alpha / rank.
    """

    def compute() -> np.ndarray[Any, Any]:
        left = factors.b.numpy().astype(_PRECISION)
        right = factors.a.numpy().astype(_PRECISION)
        weight = base.numpy()
        merged = np.empty_like(weight, order="C")
        # Some rows at a time: all of a large layer in float64 would take several times
        # its file.
        rows = max(1, _BLOCK // max(1, weight.shape[1]))
        for at in range(0, weight.shape[0], rows):
            some = slice(at, at + rows)
            update = _product(left[some], right)
            merged[some] = weight[some].astype(_PRECISION) + scale * update
        return merged

    return Computed(base.dtype, base.shape, compute)


def _product(
    left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """left · right in float64, one rank after another.

    A BLAS product may add in an order that depends on the machine and its threads.

    Args:
        left: [rows, rank].
        right: [rank, columns].
    """
    product = np.zeros((left.shape[0], right.shape[1]), _PRECISION)
    for rank, row in enumerate(right):
        product += np.multiply.outer(left[:, rank], row)
    return product


def _merged_lora(layers: Mapping[str, _Factors], alpha: float) -> MergedLora:
    """The record of a merge for the release: one rank, or one for each layer."""
    ranks = {layer: factors.rank for layer, factors in layers.items()}
    distinct = set(ranks.values())
    rank = distinct.pop() if len(distinct) == 1 else ranks
    return MergedLora(alpha=alpha, rank=rank, layers=sorted(ranks))
