"""Environment variables that processes inherit from this one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def inherited_environment(values: Mapping[str, str]) -> Iterator[None]:
    """The environment that processes started meanwhile inherit.

    Libraries read variables when they are loaded, so a process must have them from its
    start; afterwards this one has its own again.

    Args:
        values: variable → value, beside those that are set.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
