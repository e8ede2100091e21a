"""What must not be in an artifact: absolute paths, and what stack traces look like."""

from __future__ import annotations

import re

_LEAKS = re.compile(
    rb"(?<![\w.:/])/(?:home|root|tmp|usr|var|opt|mnt|Users|private|work|workspace|app|srv|data|venv)/[\w.-]+"
    rb"|(?<![\w.:/])/[\w./ -]+\.pyc?\b|[A-Za-z]:\\\\?[\w. -]+\\|site-packages|Traceback"
    rb" \(most|File \\?\""
)


def find_path_leak(content: bytes) -> str | None:
    """The first leak in code, names or metadata, with what follows it; None where there
    is none.

    Names of nodes and modules, such as layers.0/MatMul, are no paths. Not for the bytes
    of tensors, which may look like anything.
    """
    found = _LEAKS.search(content)
    if found is None:
        return None
    return (
        content[found.start() : found.start() + 80]
        .decode("utf-8", "replace")
        .partition("\n")[0]
    )
