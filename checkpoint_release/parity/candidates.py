"""What is judged: every artifact that computes, and the rule that it is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from checkpoint_release.core.artifacts.formats import FORMATS, ONNX, SAFETENSORS
from checkpoint_release.core.artifacts.further_files import (
    FurtherFile,
    further_files,
)
from checkpoint_release.core.artifacts.manifest import Manifest
from checkpoint_release.core.dtypes import BY_TORCH_NAME, HALF
from checkpoint_release.parity.cases import Case

EXACT, NOISE, REDUCED = "exact", "noise", "reduced"
"""The rules, as parity.json names them; see checkpoint_release.parity.rules."""
KEEP = "keep"
"""The stored dtype of weights that must have the checkpoint's own."""


@dataclass(frozen=True)
class Candidate:
    """One artifact to be judged.

    Attributes:
        name: how reports call it, such as "onnx" or "onnx int8".
        format, path: as checkpoint_release.runtimes.open.open_runtime takes them.
        rule: EXACT, NOISE or REDUCED.
        precision: the dtype of a REDUCED one.
        stored_dtype: what the floats of weights were rounded to when they were stored,
            or KEEP.
        runtime: the other runtime that runs it; None: its format's own.
        sizes: dimension → size, of a file that takes these alone.
    """

    name: str
    format: str
    path: Path
    rule: str
    precision: str | None = None
    stored_dtype: str = KEEP
    runtime: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def takes(self, case: Case) -> bool:
        """Whether it can be run on a case."""
        return self.sizes.items() <= case.sizes.items()

    @property
    def file(self) -> Path:
        """The file that computes; of formats that hold weights alone, the folder."""
        format = FORMATS[self.format]
        return self.path if format.eager else format.main_file(self.path)

    @property
    def is_graph(self) -> bool:
        """Whether it is a graph that computes what the model does, unabridged."""
        return self.rule == NOISE

    @property
    def is_onnx_graph(self) -> bool:
        """Whether it is such a graph in ONNX."""
        return self.is_graph and self.format == ONNX.name

    def on(self, runtime: str) -> Candidate:
        """The same artifact, run by another runtime."""
        return replace(self, name=f"{self.name} on {runtime}", runtime=runtime)


def find_candidates(
    artifacts: Path, manifests: Mapping[str, Manifest], stored_dtype: str
) -> list[Candidate]:
    """Every file that computes: the formats, each followed by its variants.

    Args:
        artifacts: the folder that holds the formats' folders.
        manifests: format → manifest, of those that are enabled.
        stored_dtype: what the weights in the safetensors format were stored in, or
            KEEP.

    Returns:
        At least one candidate for each manifest, in their order.
    """
    candidates = []
    for name, manifest in manifests.items():
        folder = artifacts / name
        if name == SAFETENSORS.name:
            candidates.append(_stored_weights(folder, stored_dtype))
        else:
            candidates.append(Candidate(name, name, folder, NOISE))
        for further in further_files(name, manifest):
            candidates.append(_further(name, folder, further))
    return candidates


def _further(format: str, folder: Path, further: FurtherFile) -> Candidate:
    """A further file of a format, in reduced precision or of fixed shapes.

    Args:
        format: its name.
        folder: that holds its files.
        further: the file.
    """
    return Candidate(
        further.name,
        format,
        folder / further.file,
        REDUCED if further.precision else NOISE,
        further.precision,
        sizes=further.sizes,
    )


def _stored_weights(folder: Path, dtype: str) -> Candidate:
    """The safetensors format, which is exact where its dtype is not reduced.

    Args:
        folder: that holds the weights.
        dtype: what they were stored in, or KEEP.
    """
    name = SAFETENSORS.name
    if dtype != KEEP and BY_TORCH_NAME[dtype].name in HALF:
        return Candidate(f"{name} {dtype}", name, folder, REDUCED, dtype, dtype)
    return Candidate(name, name, folder, EXACT, stored_dtype=dtype)
