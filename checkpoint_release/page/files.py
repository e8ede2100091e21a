"""The page's own files, which are the same for every release."""

from __future__ import annotations

from pathlib import Path

FOLDER = "page"
"""The page's folder in a release; index.html is in it."""

_STATIC = Path(__file__).with_name("static")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}


def page_files() -> dict[str, Path]:
    """Name in the page's folder → the file, sorted by name."""
    files = {}
    for path in sorted(_STATIC.iterdir()):
        if path.suffix in _KINDS:
            files[path.name] = path
    return files


def media_type(name: str) -> str:
    """What a file is sent as; a file of an unknown kind is bytes to a browser.

    Args:
        name: of the file.
    """
    return _KINDS.get(Path(name).suffix, "application/octet-stream")
