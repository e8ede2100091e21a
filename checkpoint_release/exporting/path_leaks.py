"""What must not be in an artifact: absolute paths, and what stack traces look like."""

from __future__ import annotations

import re

_ROOT_FOLDERS = (
    rb"home|root|tmp|usr|var|opt|mnt|Users|private|work|workspace|app|srv|data|venv"
)
_LEAKS = re.compile(
    rb"(?<![\w.:/])/(?:" + _ROOT_FOLDERS + rb")/[\w.-]+"
    rb"|(?<![\w.:/])/[\w./ -]+\.pyc?\b"
    rb"|[A-Za-z]:\\\\?[\w. -]+\\"
    rb"|site-packages"
    rb"|Traceback \(most"
    rb"|File \\?\""
)
_EXCERPT = 80  # bytes


def find_path_leak(content: bytes) -> str | None:
    """The first leak in code, names or metadata, with what follows it; None: no leak.

    Names of nodes and modules, such as layers.0/MatMul, are no paths. Not for the bytes
    of tensors, which may look like anything.
    """
    leak = _LEAKS.search(content)
    if leak is None:
        return None
    excerpt = content[leak.start() : leak.start() + _EXCERPT].decode("utf-8", "replace")
    return excerpt.partition("\n")[0]
