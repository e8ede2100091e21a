"""Serving a release and its page on loopback.

The page comes from this package, never from the release: scripts of a release are code
from elsewhere. Of the release, only the files that its release.json lists are served,
as data. The headers keep the page from asking any other host, so that what is computed
stays on this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.artifacts.release import RELEASE, Release, read_release
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.page.files import FOLDER, media_type, page_files

HOST = "127.0.0.1"
RUNTIME = "runtime"
"""The runtime's folder within the page's."""
_IDLE = 60  # seconds after which a silent connection is closed
_POLICY = "; ".join(
    [
        "default-src 'none'",
        # blob: is for the runtime, which the page makes a script of after its
        # digest was checked; only the page's own scripts can make such addresses
        "script-src 'self' blob: 'wasm-unsafe-eval'",
        "worker-src 'self' blob:",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    # These two let the runtime use several threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """Serves one release on a port of loopback.

    Attributes:
        files: path in the address → the file that is sent.
    """

    daemon_threads = True

    def __init__(self, files: Mapping[str, Path], port: int) -> None:
        """Take the port. Raises OSError where it can't be had."""
        self.files = dict(files)
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/{FOLDER}/"


def page_server(release: Path, runtime: Path, port: int = 0) -> PageServer:
    """A server for a release; serve_forever starts it.

    Args:
        release: the release's folder.
        runtime: the folder with the files of runtime.json.
        port: 0 takes a free one.

    Raises:
        ArtifactError: it is no release, holds no ONNX model, or the port is taken.
    """
    files = served_files(release, runtime)
    try:
        return PageServer(files, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"port {port} of {HOST} can't be had: {reason}",
            "name another in {port}, or none",
            options=["port"],
        ) from None


def served_files(release: Path, runtime: Path) -> dict[str, Path]:
    """Path in the address → file.

    Args:
        release, runtime: as of page_server.

    Raises:
        ArtifactError: it is no release, or holds no ONNX model.
    """
    description = read_release(release)
    require_onnx(description, release)
    files = {RELEASE: release / RELEASE}
    for name in description.files:
        if not name.startswith(f"{FOLDER}/"):
            files[name] = release / name
    for name, path in page_files().items():
        files[f"{FOLDER}/{name}"] = path
    for path in runtime.iterdir():
        files[f"{FOLDER}/{RUNTIME}/{path.name}"] = path
    return files


def require_onnx(release: Release, folder: Path) -> None:
    """Require a model that the page can run.

    Raises:
        ArtifactError: there is none.
    """
    for runnable in release.formats.values():
        if runnable.format == ONNX.name:
            return
    raise ArtifactError(
        f"{folder} holds no ONNX model, and that is what the page runs",
        "set {formats.onnx} to true, and release it again",
        options=["formats.onnx"],
    )


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    server: PageServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for what people need to read."""

    def _answer(self, *, body: bool) -> None:
        # Another site could have its name point to this address, and read on.
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._send_nothing(HTTPStatus.MISDIRECTED_REQUEST)
            return
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        if path in ("", FOLDER):
            self._send_nothing(HTTPStatus.FOUND, {"Location": f"/{FOLDER}/"})
            return
        name = f"{path}index.html" if path == f"{FOLDER}/" else path
        file = self.server.files.get(name)
        if file is None or not file.is_file():
            self._send_nothing(HTTPStatus.NOT_FOUND)
            return
        self._send_file(file, body=body)

    def _send_file(self, file: Path, *, body: bool) -> None:
        with file.open("rb") as content:
            self.send_response(HTTPStatus.OK)
            self._send_headers(
                {
                    "Content-Type": media_type(file.name),
                    "Content-Length": str(file.stat().st_size),
                }
            )
            if body:
                shutil.copyfileobj(content, self.wfile, 1 << 20)

    def _send_nothing(
        self, status: HTTPStatus, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self._send_headers({"Content-Length": "0", **(headers or {})})

    def _send_headers(self, headers: Mapping[str, str]) -> None:
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
