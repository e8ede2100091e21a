"""Names of weights: as transformers saves them, and as its models have them.

`save_pretrained` keeps the names of earlier versions and leaves out tied weights; a
state dict has the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from checkpoint_release.core.errors import ArchitectureError, first_few
from checkpoint_release.models.transformers.building import build_model


def own_names(kwargs: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """The model's own name of each weight → the name that the checkpoint has.

    Tied weights that the checkpoint has once are named by each of their names; names
    that the model hasn't stay as they are.

    Args:
        kwargs: the configuration.
        names: of the checkpoint's tensors.

    Raises:
        ArchitectureError: transformers would compute other tensors of some.
    """
    import torch

    with torch.device("meta"):
        model: Any = build_model(kwargs)
    own = dict(model.state_dict())
    if own.keys() == set(names):
        return {name: name for name in names}
    found = _renamed(model, own, names)
    for target, source in model.all_tied_weights_keys.items():
        if target in own and target not in found and source in found:
            found[target] = found[source]
        elif source in own and source not in found and target in found:
            found[source] = found[target]
    return found


def _renamed(
    model: Any, own: Mapping[str, Any], names: Sequence[str]
) -> dict[str, str]:
    """The names, those of the model as they are and others as transformers maps them.

    Raises:
        ArchitectureError: transformers would compute other tensors of some.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    steps = get_model_conversion_mapping(model)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    found: dict[str, str] = {}
    computed: list[str] = []
    for name in names:
        if name in own:
            found[name] = name
            continue
        renamed, converter = rename_source_key(
            name, renamings, converters, model.base_model_prefix, own
        )
        if converter is not None:
            computed.append(name)
        found[renamed] = name
    if computed:
        raise ArchitectureError(
            f"transformers computes other weights of {len(computed)} that the"
            f" checkpoint holds: {first_few(computed, 3)}",
            "load it with transformers, and save torch.save(model.state_dict(), path)",
        )
    return found
