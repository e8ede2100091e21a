"""A release's page in a real Chromium, and what npm packages its tests need."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, Playwright

from checkpoint_release.core.files import FileEntry
from checkpoint_release.page.npm import (
    Package,
    cache_folder,
    runtime_package,
    unpacked,
)
from tests.support.page_serving import serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    # no name but loopback's address leads anywhere
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
WEBGPU_IN_SOFTWARE = (
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan",
    "--use-webgpu-adapter=swiftshader",
    "--use-vulkan=swiftshader",
)
"""For Chromium: a graphics processor that is computed."""
_WITHOUT_GRAPHICS = ("--disable-gpu",)
_PATIENCE = 60_000  # milliseconds
AXE = Package(
    name="axe-core",
    version="4.14.1",
    integrity=(
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASy"
        "FNNtuFooJpZe37OgudVGtQ=="
    ),
    folder=".",
    files={
        "axe.min.js": FileEntry(
            653780, "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
        )
    },
)


@contextmanager
def chromium(playwright: Playwright, *graphics: str) -> Iterator[Browser]:
    """A headless Chromium, which is closed at the end.

    Args:
        playwright: what drives it; there is one in a process.
        graphics: arguments for its graphics; none: it has none.
    """
    if CHROMIUM is None:
        raise FileNotFoundError("chromium is missing: apt-get install chromium")
    arguments = [*_ARGUMENTS, *(graphics or _WITHOUT_GRAPHICS)]
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
    try:
        yield browser
    finally:
        browser.close()


def runtime_folder() -> Path:
    """The pinned onnxruntime-web; the first test on a machine fetches it."""
    return unpacked(runtime_package(), cache_folder())


def axe_script() -> str:
    """axe-core, which finds faults of accessibility."""
    return (unpacked(AXE, cache_folder()) / "axe.min.js").read_text()


@contextmanager
def served(release: Path) -> Iterator[str]:
    """A release's page as `checkpoint-release page` serves it; gives the address."""
    with serving(release, runtime_folder()) as server:
        yield server.url


class Visit:
    """A page that was opened, and what happened in it.

    Attributes:
        page: Playwright's.
        addresses: everything that it asked for.
        errors: what its scripts left uncaught, and what its policy forbade.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(_PATIENCE)
        self.addresses: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: object) -> None:
        kind, text = getattr(message, "type", ""), getattr(message, "text", "")
        if kind == "error":
            self.errors.append(text)

    def open(self, url: str) -> None:
        """Load the page, and wait for its verdict."""
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready]", state="attached")

    @property
    def state(self) -> str | None:
        """The verdict as the style sheet knows it: passed, wrong, refused, failed."""
        return self.page.get_attribute("#verdict", "data-state")

    @property
    def verdict(self) -> str:
        """The verdict as people read it."""
        return self.page.inner_text("#verdict")

    def foreign(self, url: str) -> list[str]:
        """What was asked of another host than that of an address."""
        own = "/".join(url.split("/")[:3])
        local = (f"{own}/", f"blob:{own}/", "data:")
        return [each for each in self.addresses if not each.startswith(local)]
