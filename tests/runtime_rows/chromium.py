"""onnxruntime-web in Chromium, by the page's own engine, on one of its backends."""

from __future__ import annotations

import atexit
import base64
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as bytes_of

from tests.support.browser import WEBGPU_IN_SOFTWARE, chromium, served

Run = Callable[[dict[str, Any]], dict[str, Any]]
GRAPHICS: dict[str, tuple[str, ...]] = {"wasm": (), "webgpu": WEBGPU_IN_SOFTWARE}
MODEL = "onnx/model.onnx"
_START = """async ([path, backend]) => {
  const { Engine } = await import(new URL("runtime.js", document.baseURI));
  const answer = await fetch(new URL(`../${path}`, document.baseURI));
  const model = new Uint8Array(await answer.arrayBuffer());
  globalThis.engine = await Engine.start(backend, model, [], { local: true });
}"""
_RUN = """async (text) => {
  const url = new URL("tensors.js", document.baseURI);
  const { readSafetensors, writeSafetensors } = await import(url);
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const { outputs } = await globalThis.engine.run(readSafetensors(bytes, "the case"));
  const letters = [];
  for (const byte of writeSafetensors(outputs)) letters.push(String.fromCharCode(byte));
  return btoa(letters.join(""));
}"""


def load_on(backend: str, release: Path) -> Run:
    """The release's ONNX file in a browser that lives as long as this process.

    Args:
        backend: wasm, or webgpu on a graphics processor that is computed.
        release: the folder.
    """
    stack = ExitStack()
    atexit.register(stack.close)
    url = stack.enter_context(served(release))
    playwright = stack.enter_context(sync_playwright())
    browser = stack.enter_context(chromium(playwright, *GRAPHICS[backend]))
    page = browser.new_page()
    page.set_default_timeout(60_000)
    # the page's own proof would compute beside this
    page.route("**/main.js", lambda route: route.abort())
    page.goto(url)
    page.evaluate(_START, [MODEL, backend])

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        text = base64.b64encode(bytes_of(inputs)).decode()
        return dict(read_tensors(base64.b64decode(page.evaluate(_RUN, text))))

    return run
