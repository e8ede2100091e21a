"""Looking for the cause of a failure, which must not fail itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from checkpoint_release.parity.workers import WorkerError, call_isolated

LIMIT = 120.0  # seconds


def search_isolated(what: str, function: Callable[..., str], *arguments: Any) -> str:
    """One sentence on a cause, found in a process of its own that has torch.

    Args:
        what: is looked for, such as "the first node that diverges".
        function: at the top level of its module; gives the sentence.
        *arguments: of the function.

    Returns:
        Of a search that breaks, or that takes longer than LIMIT, why nothing was found.
    """
    try:
        found: str = call_isolated(
            function, *arguments, needs_torch=True, timeout=LIMIT
        )
    except WorkerError as error:
        return f"{what} could not be found: the search {error}"
    return found
