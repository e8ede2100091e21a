"""Stage model-card: write the release's README.md, and draw its pictures, from what was
measured and written.

Reads the artifacts' manifests, checkpoint.json, the parity report and the author's
notes; writes artifacts/model-card. What isn't known is left out, and the card lists
what its author should still supply. Artifacts that didn't pass the parity check, or
changed since, get no card. Torch isn't imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

from checkpoint_release.card.address import Address
from checkpoint_release.card.author_notes import (
    SHORT_DIGEST,
    missing_items,
    read_notes,
)
from checkpoint_release.card.hub_terms import check_terms
from checkpoint_release.card.inputs import read_inputs
from checkpoint_release.card.pictures import draw_pictures, write_pictures
from checkpoint_release.card.render import render
from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.benchmark import BENCHMARK, read_benchmark
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.artifacts.release import CARD
from checkpoint_release.core.files import artifact_folder
from checkpoint_release.core.params import CardParams, load_params
from checkpoint_release.core.signing_keys import Signer
from checkpoint_release.core.sources import make_importable
from checkpoint_release.core.training import metrics

MODEL_CARD = "model-card"


def main() -> None:
    """Run the stage."""
    params = load_params()
    make_importable(params.model)
    key = params.publish.signing_key
    signer = Signer.of(key) if key else None
    address = Address.of(params)
    write_card(params.card, stage.ARTIFACTS, signer, address)


def write_card(
    params: CardParams,
    artifacts: Path,
    signer: Signer | None = None,
    address: Address | None = None,
) -> None:
    """Write artifacts/model-card.

    Args:
        params: what the author states.
        artifacts: the folder of all artifacts.
        signer: who will sign the release; None: nobody does.
        address: on the Hub, which the examples name; None: it has none.

    Raises:
        ArtifactError: an artifact is missing, changed, or didn't pass the parity check.
        CardError: no format is enabled, or the author's notes can't be used.
        ModelError: the model's module fails to describe it.
        ParamsError: the Hub doesn't take a licence or task.
    """
    check_terms(params)
    inputs = read_inputs(artifacts)
    checkpoint_sha256 = inputs.checkpoint.origin.sha256
    if inputs.benchmark is None and read_benchmark(artifacts) is not None:
        print(
            f"note: {artifacts / BENCHMARK} is about other artifacts; the card goes"
            " without it",
            file=sys.stderr,
        )
    notes = read_notes(params, checkpoint_sha256)
    if not notes.applicable:
        print(
            f"note: card.written_for names the checkpoint {params.written_for}…, and"
            f" this one is {checkpoint_sha256[:SHORT_DIGEST]}…; its card goes without"
            " the author's notes",
            file=sys.stderr,
        )
    missing = missing_items(
        notes,
        checkpoint_sha256,
        has_metrics=bool(metrics(inputs.checkpoint.training)),
    )
    pictures = draw_pictures(inputs)
    text = render(inputs, notes, missing, pictures, signer, address)
    target = artifacts / MODEL_CARD
    with artifact_folder(target) as folder:
        (folder / CARD).write_text(text, encoding="utf-8", newline="\n")
        write_pictures(folder, pictures)
        write_manifest(folder, MODEL_CARD, made_from=inputs.digests)
    if missing:
        outcome = f"missing from the author: {', '.join(item.what for item in missing)}"
    else:
        outcome = "card complete"
    print(f"{target}: {CARD}; {outcome}")


if __name__ == "__main__":
    stage.run(main)
