"""The picture of the report in the README, as a browser shows it.

    python -m tests.report.screenshot artifacts/report.html docs/pictures/report.png

It shows the proof and the heat map of ONNX; run it where the demo was released.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from tests.support.browser import chromium

Scheme = Literal["light", "dark"]
WIDTH = 860
_FROM, _TO = "#proof", "section[aria-label='Cases of onnx'] table.heat"
"""Where the picture begins and ends."""
_LEFT_OUT = """
nav { position: static !important; }  /* it would stay on top of what is shown */
#proof ~ details, #proof ~ .machine, #proof ~ .scroll:not(.picture) { display: none; }
section[aria-label='Cases of safetensors'] { display: none; }
"""


def take(browser: Browser, report: Path, picture: Path, scheme: Scheme) -> None:
    """Write a PNG of a part of the report.

    Args:
        browser: that shows it.
        report: the HTML file.
        picture: the PNG to write.
        scheme: which the reader is taken to prefer.
    """
    page = browser.new_page(
        viewport={"width": WIDTH, "height": 900}, color_scheme=scheme
    )
    page.goto(report.resolve().as_uri())
    page.add_style_tag(content=_LEFT_OUT)
    begin = page.locator(_FROM).bounding_box()
    end = page.locator(_TO).bounding_box()
    if begin is None or end is None:
        raise ValueError(f"{report} has no heat map of onnx")
    page.screenshot(
        path=picture,
        full_page=True,
        clip={
            "x": 0,
            "y": begin["y"],
            "width": WIDTH,
            "height": end["y"] + end["height"] + 16 - begin["y"],
        },
    )
    page.close()


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    asked = parser.parse_args()
    with sync_playwright() as playwright, chromium(playwright) as browser:
        take(browser, asked.report, asked.picture, asked.scheme)


if __name__ == "__main__":
    main()
