"""The files that a format has beside its main one: in reduced precision, or of fixed
shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from checkpoint_release.core.artifacts.manifest import Manifest


@dataclass(frozen=True)
class FurtherFile:
    """One such file.

    Attributes:
        name: what reports and releases call it, such as "onnx float16" or "onnx fixed".
        file: its path in the format's folder.
        precision: the dtype that it computes in; None: that of the main file.
        sizes: dimension → size, where its shapes are fixed.
    """

    name: str
    file: str
    precision: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)


def further_files(format: str, manifest: Manifest) -> list[FurtherFile]:
    """The further files of a format, in the order in which they were exported.

    Args:
        format: its name.
        manifest: of its folder.
    """
    found = []
    for variant in manifest.facts.get("variants", []):
        precision = variant["precision"]
        found.append(FurtherFile(f"{format} {precision}", variant["file"], precision))
    fixed = manifest.facts.get("fixed")
    if fixed:
        name = f"{format} fixed"
        found.append(FurtherFile(name, fixed["file"], sizes=fixed["sizes"]))
    return found
