"""A release's page, served while a test runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoint_release.page.server import PageServer, page_server


@contextmanager
def serving(release: Path, runtime: Path) -> Iterator[PageServer]:
    """Serve a release and a runtime from a thread, which ends with the block."""
    with page_server(release, runtime) as server:
        thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
