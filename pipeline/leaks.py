"""What must not be in an artifact: absolute paths, and what stack traces look like."""

from __future__ import annotations

import re

# Names of nodes and modules such as layers.0/MatMul are neither. Not for the bytes of tensors, which may look like
# anything.
LEAKS = re.compile(
    rb"(?<![\w.:/])/(?:home|root|tmp|usr|var|opt|mnt|Users|private|work|workspace|app|srv|data|venv)/[\w.-]+"
    rb"|(?<![\w.:/])/[\w./ -]+\.pyc?\b|[A-Za-z]:\\\\?[\w. -]+\\|site-packages|Traceback \(most|File \\?\""
)
