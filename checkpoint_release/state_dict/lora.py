"""Adapters (LoRA, DoRA), from where they are found to the weights that they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from checkpoint_release.core.artifacts.checkpoint import MergedLora
from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.core.text import printable
from checkpoint_release.state_dict.adapter_config import LoraConfig
from checkpoint_release.state_dict.adapter_names import (
    PEFT_PREFIX,
    Part,
    has_factors,
    is_adapter,
    other_method,
)
from checkpoint_release.state_dict.candidates import StateDict, candidates, outline
from checkpoint_release.state_dict.lora_layers import (
    OWN_BASE,
    Factors,
    Update,
    check_fit,
    check_magnitudes,
    pair_factors,
    state_dict_of,
)
from checkpoint_release.state_dict.prefixes import without_prefix
from checkpoint_release.tensors.joined import stored_tensors
from checkpoint_release.tensors.safetensors import nbytes
from checkpoint_release.tensors.tensor import TensorLike

# A file's merges may take this many multiplications, and so many more for each byte of
# the factors and layers: a rank of 512 for a layer in half precision.
MAX_PRODUCTS = 1 << 29
PRODUCTS_A_BYTE = 256

T = TypeVar("T", int, float)


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter and how it is merged.

    Attributes:
        tensors: name → factor, or another tensor that takes the base's place.
        config: how it is scaled.
        weight: what its update is multiplied by beside its own scale.
        name: by which a message and checkpoint.json know it.
    """

    tensors: StateDict
    config: LoraConfig = field(default_factory=LoraConfig)
    weight: float = 1.0
    name: str = ""


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


def find_adapter(value: Any, *, replaces: bool = False) -> StateDict:
    """The tensors in an adapter file.

    Args:
        value: what the file holds.
        replaces: whether tensors that take the base's place may lie among them.

    Returns:
        Name → tensor, under the names that the file has.

    Raises:
        CheckpointError: there are none, several sets, or other tensors among them.
    """
    found = dict(candidates(value))
    adapters = []
    for name, tensors in found.items():
        if is_adapter(tensors) or (replaces and has_factors(tensors)):
            adapters.append(name)
    if len(adapters) == 1:
        return found[adapters[0]]
    if adapters:
        holds = f"{len(adapters)} LoRA adapters ({first_few(adapters, 12)})"
    else:
        for name, tensors in found.items():
            _refuse_other_method(tensors)
            _refuse_mixed(name, tensors)
        holds = "no LoRA adapter"
    raise CheckpointError(
        f"the adapter file holds {holds}: {outline(value)}",
        "give a file with one set of …lora_A and …lora_B tensors in"
        " {checkpoint.adapter}",
        options=["checkpoint.adapter"],
    )


def _refuse_other_method(tensors: StateDict) -> None:
    """Raise CheckpointError where another method than LoRA trained the tensors."""
    method = other_method(tensors)
    if method:
        raise CheckpointError(
            f"the adapter is {method}, and only LoRA and DoRA can be merged here",
            "merge it where it was trained, and give the merged weights in"
            " {checkpoint.path}",
            options=["checkpoint.path"],
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
    others = [tensor for tensor in tensors if Part.of(tensor) is None]
    raise CheckpointError(
        f"the adapter file's {printable(name) or 'state dict'} holds LoRA factors and"
        f" {len(others)} other tensors: {first_few(others, 3)}",
        "if PEFT saved it, give its folder, whose adapter_config.json says what they"
        " are, in {checkpoint.adapter}; if they are a model's weights with its LoRA"
        " injected, give the file as {checkpoint.path} and leave {checkpoint.adapter}"
        " unset; otherwise merge it where it was trained",
        options=["checkpoint.path", "checkpoint.adapter"],
    )


def merge_lora(
    weights: StateDict,
    adapters: Sequence[LoraAdapter] = (),
    own: LoraConfig | None = None,
) -> tuple[StateDict, MergedLora | None]:
    """Add adapters to the weights they adapt: W + scale · B·A.

    Args:
        weights: state dict; an injected adapter (X.base_layer.weight, X.lora_A,
            X.lora_B) is merged as well.
        adapters: from files of their own.
        own: what is stated about the injected adapter.

    Returns:
        The weights under the names of the model without adapters, and what was merged;
        None where there was nothing to merge.

    Raises:
        CheckpointError: alpha isn't known, a factor is missing, shapes don't fit, an
            adapter matches nothing.
    """
    merged, injected = _split(weights)
    if injected:
        if adapters:
            raise CheckpointError(
                f"the checkpoint holds LoRA factors ({first_few(list(injected), 1)}),"
                " and {checkpoint.adapter} adds others",
                "leave {checkpoint.adapter} unset, or give a base checkpoint without"
                " adapters",
                options=["checkpoint.adapter"],
            )
        adapters = [LoraAdapter(injected, own or LoraConfig())]
        _refuse_several_injected(injected)
    replaced: set[str] = set()
    updates: dict[str, list[Update]] = {}
    record = _Record()
    for adapter in adapters:
        tensors = without_prefix(adapter.tensors, (PEFT_PREFIX,))[0]
        factors, others = _parts_of(tensors, adapter)
        _replace(merged, others, replaced, adapter)
        layers = pair_factors(factors)
        for layer, update in _updates(layers, adapter, record):
            updates.setdefault(layer, []).append(update)
    if not updates:
        return merged, None
    _check_work(updates, merged)
    for layer, all_updates in updates.items():
        for update in all_updates:
            check_fit(layer, update, merged)
        check_magnitudes(layer, all_updates, any(e.weight != 1 for e in adapters))
    state_dict_of(updates, merged)
    return merged, record.lora(sorted(updates), adapters, sorted(replaced))


def _split(weights: StateDict) -> tuple[StateDict, StateDict]:
    """The model's own tensors under their own names, and the factors among them.

    Raises:
        CheckpointError: two tensors would have the same name.
    """
    merged: StateDict = {}
    injected: StateDict = {}
    adapted = has_factors(weights)
    for name, tensor in weights.items():
        if Part.of(name):
            injected[name] = tensor
            continue
        if adapted and ".original_module." in name:
            continue  # PEFT's modules_to_save: beside it is what was trained
        own_name = name.replace(".base_layer.", ".")
        if adapted:
            own_name = own_name.replace(".modules_to_save.default.", ".")
        if own_name in merged:
            raise CheckpointError(
                f"two of the checkpoint's tensors would be named"
                f" {printable(own_name)}: one under this name, and one under"
                " base_layer, which an adapter puts between",
                "remove the one that isn't the model's, and save the file again",
            )
        merged[own_name] = tensor
    return merged, injected


def _refuse_several_injected(injected: StateDict) -> None:
    """Raise CheckpointError where a model holds several adapters by name."""
    names: set[str] = set()
    for name in injected:
        part = Part.of(name)
        if part is not None:
            names.add(part.adapter)
    if len(names) > 1:
        raise CheckpointError(
            f"the checkpoint holds {len(names)} adapters:"
            f" {first_few(sorted(names), 5)}",
            "save each with model.save_pretrained, and give their folders and weights"
            " in {checkpoint.adapter}",
            options=["checkpoint.adapter"],
        )


def _parts_of(
    tensors: StateDict, adapter: LoraAdapter
) -> tuple[StateDict, dict[str, TensorLike]]:
    """An adapter's factors, and what takes the place of the base's tensors.

    Without a config that says so, every tensor counts as a factor, and is refused as
    one where it is none.
    """
    if not adapter.config.replaces:
        return tensors, {}
    factors: StateDict = {}
    others: dict[str, TensorLike] = {}
    for name, tensor in tensors.items():
        if Part.of(name):
            factors[name] = tensor
        else:
            others[name.replace(".base_layer.", ".")] = tensor
    return factors, others


def _replace(
    merged: StateDict,
    others: Mapping[str, TensorLike],
    replaced: set[str],
    adapter: LoraAdapter,
) -> None:
    """Put an adapter's other tensors in the places of the base's.

    Args:
        merged: is changed. A head that the base lacks is added.
        others: name → tensor.
        replaced: the names that adapters before this one replaced; it grows.
        adapter: whose they are.

    Raises:
        CheckpointError: shapes differ, two adapters replace the same, or the adapter
            has a weight, by which only a difference could be multiplied.
    """
    for name, tensor in others.items():
        if name in replaced or adapter.weight != 1:
            raise CheckpointError(
                f"the adapter {printable(adapter.name)} replaces {printable(name)},"
                " which can be done by one adapter alone, with the weight 1",
                "merge the others where they were trained",
            )
        base = merged.get(name)
        if base is not None and base.shape != tensor.shape:
            raise CheckpointError(
                f"the adapter's {printable(name)} has shape {list(tensor.shape)}, and"
                f" the base's {list(base.shape)}",
                OWN_BASE,
            )
        merged[name] = tensor
        replaced.add(name)


def _updates(
    layers: Mapping[str, Factors], adapter: LoraAdapter, record: _Record
) -> list[tuple[str, Update]]:
    """What an adapter does to each layer.

    Raises:
        CheckpointError: alpha isn't known, or ranks aren't those that are stated.
    """
    config = adapter.config
    found = []
    for layer, factors in layers.items():
        config.check_rank(layer, factors.rank, factors.a_name)
        alpha = config.alpha_of(layer)
        if alpha is None:
            raise CheckpointError(
                f"{len(layers)} layers have LoRA factors ({first_few([layer], 1)}), and"
                " the file doesn't say their alpha",
                "state the alpha it was trained with in {checkpoint.lora_alpha}",
                options=["checkpoint.lora_alpha"],
            )
        # a rank of 0 is refused with the shapes
        scale = config.scale(alpha, factors.rank or 1) * adapter.weight
        transposed = factors.embedding or (
            config.transposed and len(factors.a.shape) == 2
        )
        record.add(adapter.name, layer, alpha, factors)
        found.append((layer, Update(factors, scale, transposed)))
    return found


def _check_work(
    updates: Mapping[str, Sequence[Update]], weights: Mapping[str, TensorLike]
) -> None:
    """Raise CheckpointError where merging takes longer than the file's size explains.

    With a stride of zero a few bytes are a factor of any rank, and its product with
    another one would take hours.

    Args:
        updates: layer → its updates; not yet checked whether they fit.
        weights: the model's.
    """
    products = 0
    stored: dict[object, int] = {}
    for layer, all_updates in updates.items():
        tensors = [weights.get(f"{layer}.weight")]
        for update in all_updates:
            products += update.factors.products
            tensors += [update.factors.a, update.factors.b]
        for tensor in tensors:
            if tensor is None:
                continue
            parts = list(stored_tensors(tensor))
            for part in parts:
                stored[id(part.storage)] = part.storage.nbytes
            if not parts:  # computed, such as widened from half precision
                stored[id(tensor)] = nbytes(tensor)
    if products > MAX_PRODUCTS + PRODUCTS_A_BYTE * sum(stored.values()):
        raise CheckpointError(
            f"the work budget is exceeded: merging the LoRA factors of {len(updates)}"
            f" layers would take {products:.2g} multiplications, more than"
            f" {sum(stored.values())} bytes of weights explain",
            "merge it where it was trained",
        )


class _Record:
    """Collects what was merged, for checkpoint.json."""

    def __init__(self) -> None:
        self._alphas: dict[tuple[str, str], float] = {}
        self._ranks: dict[tuple[str, str], int] = {}
        self._has_magnitude = False

    def add(self, adapter: str, layer: str, alpha: float, factors: Factors) -> None:
        """Take down one layer of one adapter."""
        self._alphas[adapter, layer] = alpha
        self._ranks[adapter, layer] = factors.rank
        self._has_magnitude |= factors.magnitude is not None

    def lora(
        self, layers: list[str], adapters: Sequence[LoraAdapter], replaced: list[str]
    ) -> MergedLora:
        """The record: numbers as one where all are the same."""
        several = len(adapters) > 1
        weighted = several or any(each.weight != 1 for each in adapters)
        return MergedLora(
            alpha=_summed_up(self._alphas, several),
            rank=_summed_up(self._ranks, several),
            layers=layers,
            weights={each.name: each.weight for each in adapters} if weighted else {},
            rank_stabilized=any(each.config.rank_stabilized for each in adapters),
            dora=self._has_magnitude,
            replaced=replaced,
        )


def _summed_up(numbers: Mapping[tuple[str, str], T], several: bool) -> T | dict[str, T]:
    """One number where all are the same; otherwise by layer, or adapter and layer."""
    distinct = set(numbers.values())
    if len(distinct) == 1:
        return distinct.pop()
    by_name = {}
    for (adapter, layer), number in numbers.items():
        by_name[f"{adapter}: {layer}" if several else layer] = number
    return by_name
