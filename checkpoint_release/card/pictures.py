"""The card's pictures: evidence like the figures that they show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from checkpoint_release.card.files import sizes
from checkpoint_release.card.inputs import ReleaseInputs
from checkpoint_release.core.artifacts.release import PICTURES
from checkpoint_release.pictures.picture import Picture
from checkpoint_release.pictures.proof import proof_picture
from checkpoint_release.pictures.sizes import sizes_picture

PROOF = "proof.svg"
SIZES = "sizes.svg"


def draw_pictures(inputs: ReleaseInputs) -> dict[str, Picture]:
    """Draw what the card shows.

    Args:
        inputs: what the release is made of.

    Returns:
        File name in the folder of pictures → picture.
    """
    return {
        PROOF: proof_picture(inputs.parity),
        SIZES: sizes_picture(sizes(inputs.formats)),
    }


def write_pictures(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write the pictures beside a card.

    Args:
        folder: of the card.
        pictures: file name → picture.
    """
    target = folder / PICTURES
    target.mkdir()
    for name, picture in pictures.items():
        (target / name).write_text(picture.svg, encoding="utf-8", newline="\n")
