"""How an adapter is scaled, as it is stated beside its factors.

PEFT states it in adapter_config.json (its class LoraConfig), fine-tuning scripts in the
checkpoint: lora_config, or somewhere in the configuration of the training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable, shown
from checkpoint_release.pth import Checkpoint, to_json_value
from checkpoint_release.state_dict.name_patterns import NamePatterns

ADAPTER_CONFIG = "adapter_config"
"""Key of adapter_config.json's content among the facts of a checkpoint."""
_PLACES = (
    (("lora_config",), ("alpha", "lora_alpha"), ("rank", "r", "lora_rank")),
    (("config", "lora_config"), ("alpha", "lora_alpha"), ("rank", "r", "lora_rank")),
    (("config", "lora"), ("alpha", "lora_alpha"), ("rank", "r", "lora_rank")),
    (("peft_config", "default"), ("lora_alpha",), ("r",)),
    (("peft_config",), ("lora_alpha",), ("r",)),
    (("hyper_parameters",), ("lora_alpha",), ("lora_r", "lora_rank")),
    (("config",), ("lora_alpha",), ("lora_r", "lora_rank")),
    (("args",), ("lora_alpha",), ("lora_r", "lora_rank")),
)
"""Where scripts put it: path, keys of alpha, keys of the rank. In the configuration of
all the training, alone a key that names LoRA is LoRA's.
"""
_MERGE_IT = (
    "merge it where it was trained, by model.merge_and_unload() and saving the result"
)
_UNMERGEABLE = {
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "velora_config": "VeLoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "alora_invocation_tokens": "aLoRA, which adapts a part of the tokens,",
    "trainable_token_indices": "trained tokens",
    "layer_replication": "replicated layers",
    "target_parameters": "adapted parameters of experts",
    "lora_bias": "LoRA with biases",
}
"""Options of PEFT's LoraConfig with which an adapter is other than W + s·B·A."""
_KEEPING_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
"""init_lora_weights that leave the base's weights as they were; others, such as pissa
and olora, subtract from them what the adapter begins with.
"""


@dataclass(frozen=True)
class LoraConfig:
    """What is stated about an adapter's scale and form.

    Attributes:
        alpha: the scale's numerator; None: it isn't stated.
        rank: of all layers that rank_pattern doesn't name; None: it isn't stated.
        alpha_pattern, rank_pattern: those of single layers.
        rank_stabilized: whether the scale is alpha / √rank, instead of alpha / rank.
        transposed: whether the layers' weights are [in, out], as GPT-2's are.
        replaces: whether the adapter's other tensors take the place of the base's:
            biases, and whole modules that were trained.
        place: where it is stated, for messages.
    """

    alpha: float | None = None
    rank: float | None = None
    alpha_pattern: NamePatterns = field(default_factory=NamePatterns)
    rank_pattern: NamePatterns = field(default_factory=NamePatterns)
    rank_stabilized: bool = False
    transposed: bool = False
    replaces: bool = False
    place: str = "lora_config"

    def alpha_of(self, layer: str) -> float | None:
        """The alpha of a layer; None where it isn't stated."""
        return self.alpha_pattern.get(layer, self.alpha)

    def scale(self, alpha: float, rank: int) -> float:
        """What the product of the factors is multiplied by."""
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)

    def check_rank(self, layer: str, rank: int, name: str) -> None:
        """Raise CheckpointError where a factor hasn't the rank that is stated.

        Such a config belongs to another adapter, and so does its alpha.
        """
        stated = self.rank_pattern.get(layer, self.rank)
        if stated is not None and stated != rank:
            raise CheckpointError(
                f"{self.place} says rank {stated:g}, and {printable(name)} has"
                f" rank {rank}",
                "the file contradicts itself: export it again where it was trained",
            )

    def with_alpha(self, stated: float | None) -> LoraConfig:
        """The same with the alpha that the user states, where there is none.

        Raises:
            CheckpointError: another one is there.
        """
        if stated is None:
            return self
        if self.alpha is not None and stated != self.alpha:
            raise CheckpointError(
                f"{self.place} in the file says alpha {self.alpha:g}, and"
                f" {{checkpoint.lora_alpha}} says {stated:g}",
                "leave {checkpoint.lora_alpha} unset to take the file's own",
                options=["checkpoint.lora_alpha"],
            )
        return replace(self, alpha=stated)


def lora_config(checkpoint: Checkpoint, stated: float | None = None) -> LoraConfig:
    """What a file states about its adapter, and the user beside it.

    Args:
        checkpoint: holds the factors.
        stated: checkpoint.lora_alpha.

    Raises:
        CheckpointError: it isn't a LoRA that can be merged, or places and the user
            contradict each other.
    """
    peft = checkpoint.facts.get(ADAPTER_CONFIG)
    if peft is not None:
        return _of_peft(peft).with_alpha(stated)
    return _of_script(checkpoint.value).with_alpha(stated)


def _of_peft(config: Any) -> LoraConfig:
    """The content of adapter_config.json.

    Raises:
        CheckpointError: it isn't LoRA's, or its adapter isn't W + s·B·A.
    """
    place = "adapter_config.json"
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{place} holds no configuration", _MERGE_IT)
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(
            f"the adapter is of the kind {shown(kind)}, and only LORA can be merged"
            " here",
            _MERGE_IT,
        )
    for option, method in _UNMERGEABLE.items():
        if config.get(option):
            raise CheckpointError(
                f"the adapter has {method} ({place}: {option}), which can't be merged"
                " here",
                _MERGE_IT,
            )
    _refuse_changed_base(config.get("init_lora_weights"), place)
    bias = config.get("bias") or "none"
    return LoraConfig(
        alpha=_number(config, place, "lora_alpha"),
        rank=_number(config, place, "r"),
        alpha_pattern=NamePatterns.of(config.get("alpha_pattern"), place),
        rank_pattern=NamePatterns.of(config.get("rank_pattern"), place),
        rank_stabilized=config.get("use_rslora") is True,
        transposed=config.get("fan_in_fan_out") is True,
        replaces=bias != "none" or bool(config.get("modules_to_save")),
        place=place,
    )


def _refuse_changed_base(init: Any, place: str) -> None:
    """Raise CheckpointError where the adapter belongs to a base that was changed."""
    if isinstance(init, bool | str | None) and init in _KEEPING_INITS:
        return
    raise CheckpointError(
        f"{place} says init_lora_weights {shown(init)}, which changes the base's own"
        " weights before training: the adapter doesn't fit the original base",
        "save it with path_initial_model_for_weight_conversion, as PEFT's documentation"
        " says, or merge it where it was trained",
    )


def _of_script(value: Any) -> LoraConfig:
    """What a fine-tuning script left in its checkpoint.

    Raises:
        CheckpointError: two places state different numbers.
    """
    found: LoraConfig | None = None
    for config in _stated(value):
        if found is None:
            found = config
        elif (found.alpha, found.rank) != (config.alpha, config.rank):
            raise CheckpointError(
                f"{found.place} says alpha {found.alpha}, rank {found.rank}, and"
                f" {config.place} says alpha {config.alpha}, rank {config.rank}",
                "the file contradicts itself: save it again with one of them",
            )
    return found or LoraConfig()


def _stated(value: Any) -> Iterator[LoraConfig]:
    """The places that state something, the most telling first.

    Args:
        value: what the file holds.
    """
    if not isinstance(value, Mapping):
        return
    converted: dict[str, Any] = {}
    for path, alpha_keys, rank_keys in _PLACES:
        top = path[0]
        if top not in converted:
            converted[top] = to_json_value(value.get(top))
        config = _descend(converted[top], path[1:])
        place = ".".join(path)
        alpha = _number(config, place, *alpha_keys)
        rank = _number(config, place, *rank_keys)
        if alpha is not None or rank is not None:
            yield LoraConfig(
                alpha,
                rank,
                rank_stabilized=config.get("use_rslora") is True,
                place=place,
            )


def _descend(value: Any, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """The mapping that the keys lead to; an empty one where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _number(config: Mapping[str, Any], place: str, *keys: str) -> float | None:
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
                    f"{place}'s {key} is a number of {value.bit_length()} bits,"  # type: ignore[union-attr]
                    " and no scale or rank can be that large",
                    "state alpha in {checkpoint.lora_alpha}, and save the file again"
                    " without this number",
                    options=["checkpoint.lora_alpha"],
                ) from None
    return None
