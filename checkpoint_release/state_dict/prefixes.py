"""The prefixes that wrappers of a model put before every name of its state dict."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.tensors.tensor import TensorLike

# The wrappers' own attribute that holds the model; each nests the names by one more.
WRAPPER_PREFIXES = (
    "module.",  # DataParallel
    "_orig_mod.",  # torch.compile
    "_fsdp_wrapped_module.",
    "_forward_module.",  # Lightning Fabric
    "base_model.model.",  # PEFT
)


def without_prefix(
    state_dict: Mapping[str, TensorLike], more: tuple[str, ...] = ()
) -> tuple[StateDict, str]:
    """Strip the prefixes that wrappers add; one goes only when every name has it.

    A model may have a submodule called "module" of its own, and then some names begin
    with it and others don't. Wrappers lie within each other in any order (DataParallel
    of a compiled model, or a compiled DataParallel), so stripping goes on as long as
    any of the prefixes is common to all names.

    Args:
        state_dict: name → tensor.
        more: further prefixes, beside WRAPPER_PREFIXES.

    Returns:
        The tensors under their own names in the same order, and all that was stripped,
        such as "module._orig_mod.".
    """
    prefixes = (*WRAPPER_PREFIXES, *more)
    stripped = ""
    names = list(state_dict)
    while prefix := _common_prefix(names, prefixes):
        names = [name.removeprefix(prefix) for name in names]
        stripped += prefix
    return {name: state_dict[stripped + name] for name in names}, stripped


def _common_prefix(names: Collection[str], prefixes: tuple[str, ...]) -> str:
    """The first of the prefixes that all names have; "" where there is none.

    Args:
        names: of all tensors; none of them: no prefix is common to them.
        prefixes: each with the dot behind it.
    """
    if not names:
        return ""
    for prefix in prefixes:
        if all(name.startswith(prefix) for name in names):
            return prefix
    return ""
