"""The picture of an atlas in the docs: 60 checkpoints of a training, and their proofs.

    python -m tests.fleet.atlas_picture /tmp/atlas docs/pictures/atlas.png

The demo's training saves a checkpoint after each epoch, a fleet releases all of them on
this machine, and a browser shows what `fleet collect` wrote. Each checkpoint takes some
10 seconds of a core; a second call in the same folder goes on where the first ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from playwright.sync_api import Browser, sync_playwright

from checkpoints.train_demo import epoch_by_epoch
from tests.support.browser import chromium
from tests.support.fleets import FOLDER, Fleet
from tests.support.project import Project

CLIPS, VALIDATION_CLIPS = 512, 256  # a third of the demo's training
WIDTH = 1420  # the whole table fits
ROWS = 8  # of the table that the picture shows


def save_checkpoints(folder: Path, count: int) -> None:
    """Train the demo for so many epochs, and save a checkpoint after each."""
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint, _ in epoch_by_epoch(count, CLIPS, VALIDATION_CLIPS):
        torch.save(checkpoint, folder / f"step-{checkpoint['global_step']}.pth")


def opened(folder: Path, count: int) -> Fleet:
    """The project with its checkpoints and its fleet.yaml, made where it is missing."""
    project, home = Project(folder / "project"), folder / "home"
    fleet = Fleet(project, home)
    if not (fleet.path / "fleet.yaml").exists():
        Project.checkout(fleet.path)
        save_checkpoints(fleet.path / FOLDER, count)
        fleet.spec(name="demo-training")
        project.commit("A fleet")
    return fleet


def take(browser: Browser, atlas: Path, picture: Path) -> None:
    """Write a PNG of the charts and of the table's first rows."""
    page = browser.new_page(
        viewport={"width": WIDTH, "height": 900}, color_scheme="light"
    )
    page.goto(atlas.resolve().as_uri())
    page.add_style_tag(content=f"body {{ max-width: {WIDTH}px; }}")
    last = page.locator("tbody tr").nth(ROWS - 1).bounding_box()
    if last is None:
        raise ValueError(f"{atlas} has fewer than {ROWS} releases")
    height = last["y"] + last["height"]
    page.screenshot(
        path=picture,
        full_page=True,
        clip={"x": 0, "y": 0, "width": WIDTH, "height": height},
    )
    page.close()


def main() -> None:
    """Make the fleet, and take the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--checkpoints", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    fleet = opened(asked.folder.absolute(), asked.checkpoints)
    with fleet.started("run", "--cluster", f"local:{asked.workers}") as run:
        for line in run.stdout or ():
            print(line, end="", flush=True)
        if run.wait():
            raise SystemExit(run.returncode)
    fleet.command("collect")
    with sync_playwright() as playwright, chromium(playwright) as browser:
        take(browser, fleet.path / "fleet/index.html", asked.picture)


if __name__ == "__main__":
    main()
