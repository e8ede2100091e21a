"""A moving picture of a clip: what the model was given, and what it makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.models.stick_figure.huggingface import FRAMES_PER_SECOND

_WIDTH, _HEIGHT = 360, 230
_MARGIN = 16
_HEADING = 34  # pixels above a figure
_STILLS = 6
_NOTHING = "M0 0"
_HEAD = 0.1  # metres from its middle, which is where the first segment ends
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_STYLE = (
    ".paper{fill:#ffffff}.ink{fill:#1f2328}.faint{fill:#59636e}"
    ".ground{stroke:#dfe3e8}.given{stroke:#e69f00}.restored{stroke:#0072b2}"
    ".figure{fill:none;stroke-width:3.5;stroke-linecap:round;stroke-linejoin:round}"
    ".stills{display:none}.stills .figure{stroke-width:2.5}"
    "@media (prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}"
    ".faint{fill:#9198a1}.ground{stroke:#30363d}.given{stroke:#f0b429}"
    ".restored{stroke:#4da3e0}}"
    "@media (prefers-reduced-motion:reduce){.moving{display:none}"
    ".stills{display:inline}}"
)


def picture(
    kwargs: Mapping[str, Any], inputs: Arrays, outputs: Arrays
) -> dict[str, str]:
    """The first clip of a batch as an animated SVG, which repeats.

    Readers who want no motion see some of its frames side by side.

    Args:
        kwargs: the constructor's arguments.
        inputs: with motion, [frames, batch, 48]; frames of zeros are a gap.
        outputs: with pose, of the same shape.

    Returns:
        "svg", and "alt", which says what it shows.
    """
    given = _frames(inputs["motion"])
    restored = _frames(outputs["pose"])
    view = _View.of(restored)
    seen = view.paths(given)
    missing = np.flatnonzero((given == 0).all(axis=(1, 2)))
    for frame in missing:
        seen[frame] = _NOTHING
    panels = [
        _panel("given", "given, with a gap", seen, 0),
        _panel("restored", "restored by the model", view.paths(restored), 1),
    ]
    alt = (
        f"A stick figure moves for {len(given)} frames. Left what the model is given:"
        f" {len(missing)} frames are missing. Right what it makes of it."
    )
    size = f'width="{2 * _WIDTH}" height="{_HEIGHT}"'
    svg = "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}',
            f' viewBox="0 0 {2 * _WIDTH} {_HEIGHT}" role="img">',
            f"<title>A clip, given and restored</title><desc>{alt}</desc>",
            f'<style>{_STYLE}</style><rect class="paper" {size}/>',
            *panels,
            "</svg>\n",
        ]
    )
    return {"svg": svg, "alt": alt}


def _frames(motion: Array) -> Array:
    """The first clip, [frames, 24 points, 2], in float64."""
    clip = motion[:, 0].astype(np.float64)
    return clip.reshape(len(clip), -1, 2)


class _View:
    """Metres to pixels, so that a clip and its heads fit their panel.

    Args:
        left, top: of what is shown, in metres.
        scale: pixels in a metre.
    """

    def __init__(self, left: float, top: float, scale: float) -> None:
        self._left, self._top, self._scale = left, top, scale

    @classmethod
    def of(cls, clip: Array) -> _View:
        """The view that shows a whole clip."""
        low = clip.min(axis=(0, 1)) - (_HEAD, 0.0)  # the feet are on the ground
        high = clip.max(axis=(0, 1)) + _HEAD
        wide, tall = np.maximum(high - low, 0.1)
        room = (_WIDTH - 2 * _MARGIN, _HEIGHT - _HEADING - 2 * _MARGIN)
        scale = min(room[0] / wide, room[1] / tall)
        spare = (room[0] / scale - wide) / 2
        return cls(float(low[0] - spare), float(high[1]), float(scale))

    def paths(self, clip: Array) -> list[str]:
        """A path for each frame: a stroke for each segment, and a circle, the head."""
        x = (clip[..., 0] - self._left) * self._scale + _MARGIN
        y = (self._top - clip[..., 1]) * self._scale + _MARGIN + _HEADING
        radius = round(_HEAD * self._scale)
        paths = []
        for xs, ys in zip(x, y, strict=True):
            strokes = []
            for start in range(0, len(xs), 2):
                strokes.append(
                    f"M{xs[start]:.0f} {ys[start]:.0f}"
                    f"L{xs[start + 1]:.0f} {ys[start + 1]:.0f}"
                )
            arc = f"a{radius} {radius} 0 1 1"
            head = f"M{xs[1] - radius:.0f} {ys[1]:.0f}{arc} {2 * radius} 0"
            strokes.append(f"{head}{arc} {-2 * radius} 0")
            paths.append("".join(strokes))
        return paths


def _panel(name: str, heading: str, paths: Sequence[str], place: int) -> str:
    """One side of the picture.

    Args:
        name: the figure's class.
        heading: in words.
        paths: of the frames.
        place: 0 left, 1 right.
    """
    seconds = f"{len(paths) / FRAMES_PER_SECOND:g}s"
    timing = f'dur="{seconds}" calcMode="discrete" repeatCount="indefinite"'
    frames = ";".join(paths)
    moving = (
        f'<path class="figure {name}" d="{paths[0]}"><animate attributeName="d"'
        f' {timing} values="{frames}"/></path>'
    )
    stills = []
    for number in np.linspace(0, len(paths) - 1, _STILLS).astype(int):
        stills.append(f'<path class="figure {name}" d="{paths[number]}"/>')
    ground = _HEIGHT - _MARGIN
    return (
        f'<g transform="translate({place * _WIDTH},0)">'
        f'<text class="ink" x="{_MARGIN}" y="26" font-family="{_FONT}"'
        f' font-size="14" font-weight="bold">{heading}</text>'
        f'<path class="ground" d="M{_MARGIN} {ground}H{_WIDTH - _MARGIN}"/>'
        f'<g class="moving">{moving}</g><g class="stills">{"".join(stills)}</g></g>'
    )
