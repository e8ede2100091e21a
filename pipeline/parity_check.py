"""parity-check: every format computes what the checkpoint computes, or the pipeline
stops here.

The reference is the eager model in float64. Eager float32's own error against it is the
noise floor, and a format passes when its error is a small multiple of that floor,
output by output and case by case. What is checked are the files, each opened in a
process of its own; nothing is left over from the export.

Reads artifacts/checkpoint and the formats' folders. Writes artifacts/parity/ (all
figures, plots, and sample inputs and outputs by which users of a release can check
their own runtime) and artifacts/parity.json (the few figures that DVC shows). A format
that is wrong ends the stage, and scratch/parity/ then holds what it takes to reproduce
the error.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT, CheckpointFolder
from checkpoint_release.core.artifacts.formats import (
    FORMATS,
    TORCH_EXPORT,
    TORCHSCRIPT,
)
from checkpoint_release.core.artifacts.manifest import (
    MANIFEST,
    read_verified,
    write_manifest,
)
from checkpoint_release.core.artifacts.parity import METRICS, PARITY_FOLDER, REPORT
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.files import artifact_folder, sha256
from checkpoint_release.core.params import ParityParams, load_params
from checkpoint_release.core.parity_sizes import possible_sizes
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.sources import make_importable
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.parity.candidates import find_candidates
from checkpoint_release.parity.cases import Case, draw_cases, draw_fixed_cases
from checkpoint_release.parity.check import check_parity
from checkpoint_release.parity.example import example_cases, write_example
from checkpoint_release.parity.failure import parity_error
from checkpoint_release.parity.machine import this_machine
from checkpoint_release.parity.other_runtimes import other_runtimes
from checkpoint_release.parity.plots import write_plots
from checkpoint_release.parity.report import parity_metrics, parity_report, summary
from checkpoint_release.parity.rules import Limits, Tolerance
from checkpoint_release.parity.sample import write_sample
from checkpoint_release.parity.workers import preload_torch

SCRATCH = Path("scratch/parity")
TRACED = (TORCHSCRIPT.name, TORCH_EXPORT.name)
"""The formats whose export has run the model alone, as the check does without them."""


def main() -> None:
    """Judge every enabled format.

    Raises:
        ParityError: a format is wrong.
        ArtifactError: an artifact isn't what its manifest says.
        ModelError: the checkpoint's own model fails, or gives NaN or infinity.
    """
    preload_torch()  # first, for everything else here takes less time than that
    params = load_params()
    make_importable(params.model)
    artifacts = stage.ARTIFACTS
    manifests = read_verified(artifacts, (CHECKPOINT, *FORMATS))
    enabled = {name: manifests[name] for name in FORMATS if manifests[name].enabled}
    checkpoint = CheckpointFolder.open(artifacts / CHECKPOINT, OWN_ARTIFACTS)
    signature = checkpoint.architecture.signature

    candidates = find_candidates(artifacts, enabled, params.safetensors.dtype)
    cases = _draw(signature, params.parity)
    cases += example_cases(checkpoint.architecture)
    for candidate in candidates:
        if candidate.sizes:
            cases += _draw_fixed(signature, candidate.sizes, params.parity)
    runtimes = other_runtimes(params.parity.runtimes)
    limits = _limits(params.parity)
    traced = any(name in enabled for name in TRACED)
    check = check_parity(
        checkpoint.path, candidates, cases, limits, runtimes, known_sound=traced
    )
    print(summary(check))

    shutil.rmtree(SCRATCH, ignore_errors=True)
    if check.failed:
        raise parity_error(check.failed, checkpoint.path, SCRATCH)

    checked = {name: sha256(artifacts / name / MANIFEST) for name in enabled}
    report = parity_report(
        check, this_machine(), seed=params.parity.seed, checked=checked
    )
    with artifact_folder(artifacts / PARITY_FOLDER) as folder:
        report.write(folder / REPORT)
        write_sample(folder / "sample", check.reference)
        write_example(folder, check.reference)
        write_plots(folder / "plots", check, signature)
        write_manifest(folder, PARITY_FOLDER, made_from=checked)
    parity_metrics(check).write(artifacts / METRICS)


def _draw(signature: Signature, params: ParityParams) -> list[Case]:
    sizes, notes = possible_sizes(signature, params.sizes)
    for note in notes:
        print(f"note: {note}")
    outputs = [spec.name for spec in signature.outputs]
    unknown = [name for name in params.tolerances if name not in outputs]
    if unknown:
        raise ParamsError(
            f"parity.tolerances names {unknown}, and the model's outputs are {outputs}",
            "name those outputs",
        )
    return draw_cases(
        signature,
        seed=params.seed,
        sizes=sizes,
        magnitudes=params.magnitudes,
        repeats=params.repeats,
    )


def _draw_fixed(
    signature: Signature, sizes: Mapping[str, int], params: ParityParams
) -> list[Case]:
    return draw_fixed_cases(
        signature,
        sizes,
        seed=params.seed,
        magnitudes=params.magnitudes,
        repeats=params.repeats,
    )


def _limits(params: ParityParams) -> Limits:
    return Limits(
        noise_multiple=params.noise_multiple,
        reduced=msgspec.structs.asdict(params.reduced),
        tolerances={
            name: Tolerance(tolerance.atol, tolerance.rtol)
            for name, tolerance in params.tolerances.items()
        },
    )


if __name__ == "__main__":
    stage.run(main)
