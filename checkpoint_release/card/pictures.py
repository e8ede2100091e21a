"""The card's pictures: of the figures, which are evidence like these, and of the
family's example, which is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint_release.card.benchmark import points
from checkpoint_release.card.files import sizes
from checkpoint_release.card.inputs import ReleaseInputs
from checkpoint_release.core.artifacts.release import EXAMPLE_PICTURE, PICTURES
from checkpoint_release.core.errors import ModelError
from checkpoint_release.pictures.latency import latency_picture
from checkpoint_release.pictures.picture import Picture
from checkpoint_release.pictures.proof import proof_picture
from checkpoint_release.pictures.sizes import sizes_picture

PROOF = "proof.svg"
SIZES = "sizes.svg"
LATENCY = "latency.svg"
"""Where a benchmark was measured."""


def draw_pictures(inputs: ReleaseInputs) -> dict[str, Picture]:
    """Draw what the card shows.

    Args:
        inputs: what the release is made of.

    Returns:
        File name in the folder of pictures → picture.

    Raises:
        ModelError: the family's hook fails, or returns no picture.
    """
    by_format = sizes(inputs.formats)
    pictures = {
        PROOF: proof_picture(inputs.parity),
        SIZES: sizes_picture(by_format),
    }
    if inputs.benchmark is not None:
        marks = points(inputs.benchmark, by_format, inputs.checkpoint.tensors.bytes)
        pictures[LATENCY] = latency_picture(marks, inputs.benchmark.headline)
    example = _example_picture(inputs)
    if example is not None:
        pictures[EXAMPLE_PICTURE] = example
    return pictures


def _example_picture(inputs: ReleaseInputs) -> Picture | None:
    """The family's picture of its example; None: it has none."""
    architecture = inputs.architecture
    hook = architecture.hook("picture")
    if hook is None or inputs.example is None:
        return None
    drawn: dict[str, Any] = hook(architecture.kwargs, *inputs.example)
    try:
        svg, alt = drawn["svg"], drawn["alt"]
    except (KeyError, TypeError):
        raise ModelError(
            "the picture of {model.factory} has no svg or no alt",
            "return both from the function `picture` of its module, as a dict of texts",
            options=["model.factory"],
        ) from None
    return Picture(str(svg), str(alt))


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
