"""The prefixes that wrappers of a model put before every name of its state dict."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.tensors.tensor import TensorLike

WRAPPER_PREFIXES = (
    "module.",  # DataParallel
    "_orig_mod.",  # torch.compile
    "_fsdp_wrapped_module.",
    "_forward_module.",  # Lightning Fabric
)


def without_prefix(
    state_dict: Mapping[str, TensorLike], more: tuple[str, ...] = ()
) -> tuple[StateDict, str]:
    """Strip the prefixes that wrappers add; one goes only when every name has it.

    Args:
        state_dict: name → tensor.
        more: further prefixes, beside WRAPPER_PREFIXES.

    Returns:
        The tensors under their own names, and all that was stripped.
    """
    stripped = ""
    names = dict.fromkeys(state_dict)
    while prefix := _common_prefix(names, (*WRAPPER_PREFIXES, *more)):
        names = dict.fromkeys(name.removeprefix(prefix) for name in names)
        stripped += prefix
    return {name: state_dict[stripped + name] for name in names}, stripped


def _common_prefix(names: Collection[str], prefixes: tuple[str, ...]) -> str:
    """The first of the prefixes that all names have; "" where there is none."""
    if not names:
        return ""
    for prefix in prefixes:
        if all(name.startswith(prefix) for name in names):
            return prefix
    return ""
