"""Whose model code may be called."""

from __future__ import annotations

from collections.abc import Iterable

from checkpoint_release.core.errors import ParamsError


def is_trusted(factory: str, named: Iterable[str] = ()) -> bool:
    """Whether a factory may be called for a model that comes from elsewhere.

    A config.json can name any callable, such as subprocess:run. So the only factories
    that are called are this project's own, the one that model.factory names here, and
    those that the user names.

    Args:
        factory: what the config.json names.
        named: the factories that the user trusts.
    """
    if factory in named or factory.startswith("checkpoint_release.models."):
        return True
    try:
        # The reader of YAML isn't there where a release is only used.
        from checkpoint_release.core.params import load_params

        return factory == load_params().model.factory
    except (ImportError, ParamsError):  # no options here, or another project's
        return False
