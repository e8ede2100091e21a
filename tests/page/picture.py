"""The pictures of a release's page in the documents, made anew:

python -m tests.page.picture artifacts/release
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import FloatRect, Page, ViewportSize, sync_playwright

from tests.support.browser import Visit, chromium, served
from tests.support.project import ROOT

FOLDER = ROOT / "docs/pictures"
VIEW: ViewportSize = {"width": 1000, "height": 900}
FRAME = "20"  # a middle one, which is missing in what the model is given


def main(release: Path) -> None:
    """Write page.png (the proof) and page-motion.png (the stick figures' view)."""
    with (
        served(release) as url,
        sync_playwright() as playwright,
        chromium(playwright) as browser,
    ):
        # Nothing moves, so that a picture changes only where the page does.
        context = browser.new_context(viewport=VIEW, reduced_motion="reduce")
        visit = Visit(context)
        visit.open(url)
        visit.page.get_by_text("Given, the figure").wait_for()
        visit.page.get_by_label("frame", exact=True).fill(FRAME)
        visit.page.get_by_label("frame", exact=True).blur()
        visit.page.wait_for_timeout(500)
        picture(visit.page, "page.png", "header", "#chart-figure")
        picture(visit.page, "page-motion.png", "#motion", "#motion")


def picture(page: Page, name: str, first: str, last: str) -> None:
    """A picture of the page from the top of one element to the end of another."""
    margin = 16
    page.evaluate("() => window.scrollTo(0, 0)")  # boxes are seen from there
    top = page.locator(first).bounding_box()
    end = page.locator(last).bounding_box()
    if not top or not end:
        raise ValueError(f"the page has no {first} or no {last}")
    y = max(top["y"] - margin, 0)
    height = end["y"] + end["height"] + margin - y
    clip: FloatRect = {"x": 0, "y": y, "width": VIEW["width"], "height": height}
    page.screenshot(path=FOLDER / name, clip=clip, full_page=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
