"""What `make` ends with: what was made and where, how large it is, and how exact.

Not a stage: it reads the manifests, parity.json and the receipt, and writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from checkpoint_release.card.markdown import human_size
from checkpoint_release.core import stage
from checkpoint_release.core.errors import PipelineError
from checkpoint_release.core.files import Manifest, read_json, read_manifest
from checkpoint_release.core.params import FORMATS


def main() -> None:
    """Print the summary."""
    try:
        print("\n".join(summary(stage.ARTIFACTS)))
    except PipelineError as error:
        sys.exit(f"error: {error}")


def summary(artifacts: Path) -> Iterator[str]:
    """The summary's lines.

    Raises:
        ArtifactError: an artifact is missing: the pipeline hasn't run through.
    """
    formats = {name: manifest for name in FORMATS if (manifest := read_manifest(artifacts / name)).enabled}
    checkpoint = read_json(artifacts / "checkpoint" / "checkpoint.json")
    parity = read_json(artifacts / "parity.json")
    receipt = read_json(artifacts / "publish.json")
    values, size = checkpoint["tensors"]["values"], checkpoint["origin"]["size"]
    yield f"From a checkpoint of {human_size(size)} with {values:,} weights ({checkpoint['model']['factory']}):"
    for name, manifest in formats.items():
        written = sum(entry.size for entry in manifest.files.values())
        yield f"  {name:<12} {human_size(written):>9}  {_main_files(artifacts, manifest)}"
    if off := [name for name in FORMATS if name not in formats]:
        yield f"  {'off':<12} {'':>9}  {', '.join(off)}"
    for label, told in zip(("parity", ""), worst(parity), strict=False):
        yield f"  {label:<12} {'':>9}  {told}"
    yield f"  {'model card':<12} {'':>9}  {artifacts / 'model-card' / 'README.md'}"
    released = sum(entry["size"] for entry in receipt["files"].values())
    yield f"  {'release':<12} {human_size(released):>9}  {artifacts / 'release'}, {len(receipt['files'])} files"
    yield ""
    if receipt["published"]:
        yield f"Published as {receipt['repo']} {receipt.get('tag') or receipt['revision']} on {receipt['endpoint']}."
    else:
        yield f"Not published: {receipt['reason']}."
        yield "Next: your own checkpoint (checkpoint.path in params.yaml), then `dvc repro`; a repository on the Hub"
        yield "(publish.repo_id), then `dvc repro` again. README.md has the tour."


def _main_files(artifacts: Path, manifest: Manifest) -> str:
    """The files with weights in them."""
    weights = [name for name in manifest.files if name.endswith((".safetensors", ".onnx", ".pt", ".pt2"))]
    shown = ", ".join(weights[:3]) + (f", … ({len(weights)} files)" if len(weights) > 3 else "")
    return f"{artifacts / manifest.format}: {shown}"


def worst(parity: Mapping[str, Any]) -> list[str]:
    """The largest error of all artifacts in full precision, and that of those in reduced precision."""
    full, reduced = [], []
    for format, figures in parity["formats"].items():
        for output, of in figures["outputs"].items():
            where = f"worst error {of['max_abs_error']:.2g} ({format}, {output})"
            if "share_of_output" in of:
                reduced.append((of["share_of_output"], f"{where}, {of['share_of_output']:.2%} of the output"))
            else:
                told = f"{where}, {of['times_floor']:.2g}× float32's own; {of['limit']:g}× is allowed"
                full.append((of["times_floor"], told))
    return [max(found)[1] for found in (full, reduced) if found]


if __name__ == "__main__":
    main()
