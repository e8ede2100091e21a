"""parity-check: every format computes what the checkpoint computes, or the pipeline
stops here.

The truth is the eager model in float64. Eager float32's own error against it is the
noise floor, and a format passes when its error is a small multiple of that floor,
output by output and case by case. What is checked are the files, each opened in a
process of its own; nothing is left over from the export.

Reads artifacts/checkpoint and the formats' folders. Writes artifacts/parity.json (the
verdict and its figures) and artifacts/parity/ (plots, and sample inputs and outputs by
which users of a release can check their own runtime). A format that is wrong ends the
stage, and scratch/parity/ then holds what it takes to see the error again.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from checkpoint_release.core import stage
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.artifacts.manifest import (
    MANIFEST,
    Manifest,
    read_verified,
    write_manifest,
)
from checkpoint_release.core.errors import ModelError, ParamsError, ParityError
from checkpoint_release.core.files import artifact_folder, read_json, sha256, write_json
from checkpoint_release.core.params import ParityParams, load_params
from checkpoint_release.core.signature import Signature
from checkpoint_release.parity import report as parity_report
from checkpoint_release.parity.cases import Case, draw_cases, unknown_dimensions
from checkpoint_release.parity.divergence import explain_divergence
from checkpoint_release.parity.error_stats import noise_floors
from checkpoint_release.parity.judge import (
    EXACT,
    NOISE,
    REDUCED,
    Subject,
    Truth,
    Verdict,
    judge,
)
from checkpoint_release.parity.weights import compare_by_name
from checkpoint_release.parity.workers import (
    Job,
    JobResult,
    Process,
    run_isolated,
    torch_worker,
)
from checkpoint_release.tensors.safetensors import open_sharded

EAGER: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
SCRATCH = Path("scratch/parity")


def main() -> None:
    """Judge every enabled format.

    Raises:
        ParityError: a format is wrong.
        ArtifactError: an artifact isn't what its manifest says.
        ModelError: the checkpoint's own model fails, or gives NaN or infinity.
    """
    params = load_params()
    artifacts = stage.ARTIFACTS
    checkpoint = artifacts / "checkpoint"
    with torch_worker() as importing:
        manifests = read_verified(artifacts, ("checkpoint", *FORMATS))
        formats = {name: manifests[name] for name in FORMATS if manifests[name].enabled}
        signature = Architecture.from_json(
            read_json(checkpoint / "checkpoint.json")["model"]
        ).signature
        cases = _cases(signature, params.parity)
        subjects = _subjects(artifacts, formats, params.safetensors.dtype)
        truth, ran = _run_all(checkpoint, subjects, cases, importing)
    for subject in subjects:
        if subject.format == "safetensors":
            held = compare_by_name(
                open_sharded(subject.path), checkpoint, params.safetensors.dtype
            )
            ran[subject.name] = replace(ran[subject.name], weights=held)
    verdicts = [
        judge(subject, ran[subject.name], truth, cases, params.parity)
        for subject in subjects
    ]
    print(parity_report.table(verdicts, truth, params.parity))

    shutil.rmtree(SCRATCH, ignore_errors=True)
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        raise _failure(failed, truth, cases, checkpoint)

    checked = {name: sha256(artifacts / name / MANIFEST) for name in formats}
    with artifact_folder(artifacts / "parity") as folder:
        parity_report.write_sample(folder / "sample", truth, cases)
        parity_report.write_plots(folder / "plots", verdicts, truth, signature, cases)
        write_manifest(folder, "parity", made_from=checked)
    write_json(
        artifacts / "parity.json",
        parity_report.metrics(verdicts, truth, cases, params.parity, checked),
    )


def _cases(signature: Signature, params: ParityParams) -> list[Case]:
    for name in unknown_dimensions(signature, params.sizes):
        print(
            f"note: parity.sizes names {name!r}; this model has"
            f" {list(signature.dimensions)}"
        )
    outputs = [spec.name for spec in signature.outputs]
    if unknown := [name for name in params.tolerances if name not in outputs]:
        raise ParamsError(
            f"parity.tolerances names {unknown}, and the model's outputs are {outputs}",
            "name those outputs",
        )
    return draw_cases(
        signature,
        seed=params.seed,
        sizes=params.sizes,
        magnitudes=params.magnitudes,
        repeats=params.repeats,
    )


def _subjects(
    artifacts: Path, formats: dict[str, Manifest], dtype: str
) -> list[Subject]:
    """Every file that computes: the enabled formats, and ONNX's variants."""
    subjects = []
    for name, manifest in formats.items():
        folder = artifacts / name
        if name == "safetensors" and dtype in ("float16", "bfloat16"):
            subjects.append(Subject(f"{name} {dtype}", name, folder, REDUCED, dtype))
        else:
            subjects.append(
                Subject(name, name, folder, EXACT if name == "safetensors" else NOISE)
            )
        for variant in manifest.facts.get("variants", []):
            precision = variant["precision"]
            subjects.append(
                Subject(
                    f"{name} {precision}",
                    name,
                    folder / variant["file"],
                    REDUCED,
                    precision,
                )
            )
    return subjects


def _run_all(
    checkpoint: Path, subjects: list[Subject], cases: list[Case], importing: Process
) -> tuple[Truth, dict[str, JobResult]]:
    """The checkpoint and every artifact on every case, each in a process of its own.

    Raises:
        ModelError: the checkpoint's own model fails, or gives NaN or infinity.
    """
    jobs: dict[str, Job] = {
        dtype: Job("checkpoint", str(checkpoint), dtype) for dtype in EAGER
    }
    for subject in subjects:
        # safetensors is compared name by name, and reduced precision isn't the
        # checkpoint's weights.
        compared = str(checkpoint) if subject.rule == NOISE else None
        jobs[subject.name] = Job(subject.format, str(subject.path), checkpoint=compared)
    ran = run_isolated(jobs, [case.inputs for case in cases], importing)
    own = {dtype: ran.pop(dtype) for dtype in EAGER}
    for dtype, of_dtype in own.items():
        if of_dtype.failure is not None:
            where = (
                f" in the case {cases[of_dtype.failed_case].name!r}"
                if of_dtype.failed_case is not None
                else ""
            )
            raise ModelError(
                f"the checkpoint's own model, in {dtype}, fails{where}:"
                f" {of_dtype.failure}",
                "correct the bounds in model.signature, so that they say what the model"
                " takes",
            )
        for case, arrays in zip(cases, of_dtype.outputs, strict=True):
            if broken := [
                name for name, array in arrays.items() if not np.isfinite(array).all()
            ]:
                raise ModelError(
                    f"the checkpoint's own model, in {dtype}, gives NaN or infinity for"
                    f" {broken} in the case {case.name!r}",
                    "look at its weights; if only that magnitude is too much for it,"
                    " take it out of parity.magnitudes",
                )
    reference, eager = own["float64"].outputs, own["float32"].outputs
    return (
        Truth(
            reference,
            eager,
            noise_floors(reference, eager, [case.kind for case in cases]),
        ),
        ran,
    )


def _failure(
    failed: list[Verdict], truth: Truth, cases: list[Case], checkpoint: Path
) -> ParityError:
    lines = []
    for verdict in failed:
        folder = SCRATCH / verdict.subject.name.replace(" ", "-")
        lines.append(f"{verdict.subject.name}: {verdict.problem}")
        if departure := _departure(verdict, cases, checkpoint):
            lines.append(f"  {departure}")
        if verdict.case is not None:
            parity_report.write_evidence(folder, verdict, truth, cases)
            lines.append(f"  see it again: python {folder / 'reproduce.py'}")
    listed = "\n".join(f"  {line}" for line in lines)
    return ParityError(
        f"{len(failed)} of the formats don't compute what the checkpoint"
        f" computes:\n{listed}",
        "don't release it: export it again, by another exporter if need be",
    )


def _departure(verdict: Verdict, cases: list[Case], checkpoint: Path) -> str | None:
    """Where a float32 ONNX graph that runs and errs departs from the model."""
    wrong = {name: output for name, output in verdict.outputs.items() if output.failing}
    if verdict.subject.format != "onnx" or verdict.subject.rule != NOISE or not wrong:
        return None
    name = max(wrong, key=lambda n: wrong[n].amount)
    smallest = min(
        wrong[name].failing,
        key=lambda i: sum(array.size for array in cases[i].inputs.values()),
    )
    return explain_divergence(
        checkpoint, verdict.subject.path / "model.onnx", cases[smallest].inputs, name
    )


if __name__ == "__main__":
    stage.run(main)
