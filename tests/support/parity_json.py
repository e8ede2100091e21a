"""The parity report as parity-check writes it, for tests that start behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from checkpoint_release.core.artifacts.formats import FORMATS, SAFETENSORS
from checkpoint_release.core.artifacts.manifest import (
    MANIFEST,
    read_manifest,
    write_manifest,
)
from checkpoint_release.core.artifacts.parity import (
    PARITY_FOLDER,
    REPORT,
    FormatFigures,
    GraphFigures,
    Machine,
    NoiseFloor,
    OutputFigures,
    ParityReport,
    Rule,
    WeightsHeld,
)
from checkpoint_release.core.files import sha256

MACHINE = Machine(
    architecture="x86_64", cpu_capability="AVX2", libraries={"torch": "2.13.0"}
)


def passed_report(checked: Mapping[str, str], outputs: Sequence[str]) -> ParityReport:
    """A verdict that passed these formats (name → sha256 of the manifest), every figure
    another number.
    """
    formats = {}
    for position, name in enumerate(checked):
        exact = name == SAFETENSORS.name
        formats[name] = FormatFigures(
            passed=True,
            rule="exact" if exact else "noise",
            graph=None
            if exact
            else GraphFigures(evaluated=True, error=3e-15, limit=1e-12, cases=11),
            weights=WeightsHeld(bit_for_bit=40 + position, of=50),
            bit_identical_cases=11 if exact else 0,
            outputs={
                output: _figures(position, number)
                for number, output in enumerate(outputs)
            },
        )
    floor = NoiseFloor(typical=1.5e-7, worst=2e-7)
    return ParityReport(
        passed=True,
        machine=MACHINE,
        checked=dict(checked),
        rule=Rule(noise_multiple=8.0, seed=0, cases=11),
        noise_floor=dict.fromkeys(outputs, floor),
        formats=formats,
    )


def _figures(format: int, output: int) -> OutputFigures:
    return OutputFigures(
        max_abs_error=1e-6 + format * 1e-7 + output * 1e-8,
        mean_abs_error=1e-8,
        times_floor=0.5 + format + output / 10,
        limit=8.0,
        cosine=1.0,
        ulps=1.0,
        max_ulps=3.0,
        worst_case="nominal, sequence=5, batch=1",
        worst_index="0,0",
    )


def write_parity(artifacts: Path, outputs: Sequence[str] = ("y",)) -> ParityReport:
    """Pass the formats as they are now, those that are enabled."""
    checked = {
        name: sha256(artifacts / name / MANIFEST)
        for name in FORMATS
        if read_manifest(artifacts / name).enabled
    }
    report = passed_report(checked, outputs)
    store_report(artifacts, report)
    return report


def store_report(artifacts: Path, report: ParityReport) -> None:
    """Write the report among the artifacts, where its folder's manifest lists it."""
    folder = artifacts / PARITY_FOLDER
    folder.mkdir(exist_ok=True)
    report.write(folder / REPORT)
    write_manifest(folder, PARITY_FOLDER)
