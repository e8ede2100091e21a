"""What parity-check shows: a table, figures for `dvc metrics`, plots, a sample for
users, evidence of a failure.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_release.core.artifacts.parity import rounded
from checkpoint_release.core.files import replace_file
from checkpoint_release.core.params import ParityParams
from checkpoint_release.core.signature import Signature
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.error_stats import Arrays
from checkpoint_release.parity.judge import (
    REDUCED,
    OutputVerdict,
    Subject,
    Truth,
    Verdict,
)

WIDEST = 8  # outputs that the table has columns for


def table(verdicts: Sequence[Verdict], truth: Truth, params: ParityParams) -> str:
    """One line for each artifact, one column for each output: how many times the noise
    floor its error is.
    """
    names = list(truth.reference[0])
    shown = names if len(names) <= WIDEST else []
    rows = [["× noise floor", *(shown or ["worst output"]), "weights", ""]]
    for verdict in verdicts:
        cells = [_cell(verdict, name) for name in shown]
        if not shown:
            worst = max(
                verdict.outputs,
                key=lambda name: verdict.outputs[name].amount,
                default=None,
            )
            cells = [f"{worst} {_cell(verdict, worst)}" if worst else "–"]
        held = verdict.ran.weights
        bits = f"{held.found}/{held.total}" if held else "–"
        rows.append(
            [verdict.subject.name, *cells, bits, "ok" if verdict.passed else "WRONG"]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            _pad(cell, width, i)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    notes = [
        f"{len(truth.reference)} cases; up to {params.noise_multiple:g}× the floor"
        f" passes ({params.large_multiple:g}× for inputs of large magnitude); = is bit"
        " for bit"
    ]
    floors = ", ".join(
        f"{name} {floor.typical:.1e}"
        for name, floor in truth.floors.items()
        if name in (shown or names[:3])
    )
    notes.append(
        f"floor: eager float32 against float64, as a share of the output: {floors}"
    )
    if any(
        held.found < held.total for verdict in verdicts if (held := verdict.ran.weights)
    ):
        notes.append(
            "weights: those held bit for bit; the others aren't in the file (no input"
            " needs them, or folded)"
        )
    for verdict in verdicts:
        if verdict.subject.rule == REDUCED:
            limit = getattr(params.reduced, verdict.subject.precision or "float16")
            notes.append(
                f"{verdict.subject.name}: reduced precision, error as a share of the"
                f" output; {limit:.0%} passes"
            )
    return "\n".join(line.rstrip() for line in [*lines, *notes])


def metrics(
    verdicts: Sequence[Verdict],
    truth: Truth,
    cases: Sequence[Case],
    params: ParityParams,
    checked: Mapping[str, str],
) -> dict[str, Any]:
    """What parity.json holds: nested mappings of numbers, so that `dvc metrics diff`
    compares figure with figure.
    """
    return {
        "passed": all(verdict.passed for verdict in verdicts),
        "checked": dict(checked),
        "rule": {
            "noise_multiple": params.noise_multiple,
            "large_multiple": params.large_multiple,
            "seed": params.seed,
            "cases": len(cases),
        },
        "noise_floor": {
            name: {"typical": rounded(floor.typical), "worst": rounded(floor.worst)}
            for name, floor in truth.floors.items()
        },
        "formats": {
            verdict.subject.name: _figures(verdict, cases, params)
            for verdict in verdicts
        },
    }


def _figures(
    verdict: Verdict, cases: Sequence[Case], params: ParityParams
) -> dict[str, Any]:
    subject, held = verdict.subject, verdict.ran.weights
    figures: dict[str, Any] = {"passed": verdict.passed, "rule": subject.rule}
    if subject.precision:
        figures["reduced_precision"] = subject.precision
    if held:
        figures["weights"] = {"bit_for_bit": held.found, "of": held.total}
    figures["bit_identical_cases"] = min(
        (output.identical for output in verdict.outputs.values()), default=0
    )
    figures["outputs"] = {
        name: _output(subject, output, cases, name in params.tolerances)
        for name, output in verdict.outputs.items()
    }
    return figures


def _output(
    subject: Subject, output: OutputVerdict, cases: Sequence[Case], fixed: bool
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "max_abs_error": rounded(output.largest),
        "mean_abs_error": rounded(output.mean),
    }
    limit = output.limit
    if fixed:
        # What the tolerance comes to, at the worst place, in multiples of the floor.
        figures["share_of_tolerance"] = rounded(output.amount)
        limit = (
            rounded(output.times_floor / output.amount)
            if output.times_floor and output.amount
            else limit
        )
    if subject.rule == REDUCED and not fixed:
        figures["share_of_output"] = rounded(output.amount)
    else:
        figures["times_floor"] = rounded(
            output.amount if output.times_floor is None else output.times_floor
        )
    return figures | {
        "limit": limit,
        "cosine": round(output.cosine, 6),
        "ulps": rounded(output.ulps),
        "max_ulps": rounded(output.max_ulps),
        "worst_case": cases[output.case].name,
        "worst_index": ",".join(str(i) for i in output.worst.index),
    }


def write_sample(folder: Path, truth: Truth, cases: Sequence[Case]) -> None:
    """Inputs and outputs of one plain case of middling size; outputs are float64's,
    rounded to the model's dtype.
    """
    folder.mkdir(parents=True)
    plain = sorted(
        (number for number, case in enumerate(cases) if case.kind == "plain"),
        key=lambda number: (
            sum(array.size for array in cases[number].inputs.values()),
            number,
        ),
    )
    chosen = plain[len(plain) // 2]
    _save(folder / "inputs.safetensors", cases[chosen].inputs)
    _save(folder / "outputs.safetensors", _rounded(truth, chosen))


def write_plots(
    folder: Path,
    verdicts: Sequence[Verdict],
    truth: Truth,
    signature: Signature,
    cases: Sequence[Case],
) -> None:
    """outputs.csv: largest error by output and format; along.csv: error along the
    longest dynamic dimension.
    """
    folder.mkdir(parents=True)
    with (folder / "outputs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["output", "format", "relative_error"])
        for name, floor in truth.floors.items():
            writer.writerow([name, "noise floor", rounded(floor.worst)])
            for verdict in verdicts:
                shares = [
                    _largest(truth.reference[i][name], arrays[name])
                    / floor.magnitudes[i]
                    for i, arrays in enumerate(verdict.ran.outputs)
                    if floor.magnitudes[i]
                ]
                writer.writerow(
                    [name, verdict.subject.name, rounded(max(shares, default=0.0))]
                )
    _write_along(folder / "along.csv", verdicts, truth, signature, cases)


def _write_along(
    path: Path,
    verdicts: Sequence[Verdict],
    truth: Truth,
    signature: Signature,
    cases: Sequence[Case],
) -> None:
    """Position, output, format, and the root mean square error there as a share of the
    output's magnitude.
    """
    sizes = [_sizes(signature, case.inputs) for case in cases]
    longest = max(
        signature.dimensions, key=lambda name: max(s[name] for s in sizes), default=None
    )
    rows: list[list[Any]] = []
    if longest is not None:
        number = max(range(len(cases)), key=lambda i: sizes[i][longest])
        for spec in signature.outputs:
            if spec.name not in truth.floors or longest not in (spec.shape or ()):
                continue
            axis = (spec.shape or ()).index(longest)
            expected, scale = (
                truth.reference[number][spec.name],
                truth.floors[spec.name].magnitudes[number] or 1.0,
            )
            runs = {"noise floor": truth.eager[number]} | {
                v.subject.name: v.ran.outputs[number] for v in verdicts
            }
            for name, arrays in runs.items():
                distance = np.moveaxis(
                    arrays[spec.name].astype(np.float64) - expected, axis, 0
                )
                along = (
                    np.sqrt(
                        np.mean(
                            np.square(distance.reshape(distance.shape[0], -1)), axis=1
                        )
                    )
                    / scale
                )
                rows += [
                    [i, spec.name, name, rounded(float(value))]
                    for i, value in enumerate(along)
                ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["position", "output", "format", "relative_error"])
        writer.writerows(rows)


REPRODUCE = '''"""Run {file} on the case in which it is wrong, and show by how much: python {script}

Needs {needs}. The folder holds inputs, what float64 expects of them, and what the pipeline got.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

here = Path(__file__).parent
inputs, expected = load_file(here / "inputs.safetensors"), load_file(here / "expected.safetensors")

{run}
for name, got in zip({outputs!r}, outputs):
    want = expected[name]
    if got.shape != want.shape:
        print(f"{{name:20}} has shape {{got.shape}}, expected {{want.shape}}")
        continue
    error = np.abs(got.astype(np.float64) - want.astype(np.float64))
    largest, reach = error.max(initial=0), np.abs(want).max(initial=0)
    print(f"{{name:20}} largest error {{largest:.3g}} where values reach {{reach:.3g}}")
'''

RUN = {
    "onnx": (
        """import onnxruntime

session = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
outputs = session.run(None, {{name: inputs[name] for name in {inputs!r}}})
"""
    ),
    "torchscript": (
        """import torch

torch.set_num_threads(1)
module = torch.jit.load({path!r}).eval()
with torch.inference_mode():
    outputs = module(*(torch.from_numpy(inputs[name]) for name in {inputs!r}))
outputs = [tensor.numpy() for tensor in (outputs if isinstance(outputs, tuple) else (outputs,))]
"""
    ),
    "torch_export": (
        """import torch

torch.set_num_threads(1)
module = torch.export.load({path!r}).module()
with torch.inference_mode():
    outputs = module(*(torch.from_numpy(inputs[name]) for name in {inputs!r}))
outputs = [tensor.numpy() for tensor in (outputs if isinstance(outputs, tuple) else (outputs,))]
"""
    ),
    "safetensors": (
        """import sys

sys.path.insert(0, ".")
from checkpoint_release.runtimes.open import open_runtime

outputs = open_runtime("safetensors", {path!r}, threads=1).run(inputs).values()
"""
    ),
}
NEEDS = {
    "onnx": "numpy, safetensors and onnxruntime",
    "torchscript": "numpy, safetensors and torch",
    "torch_export": "numpy, safetensors and torch",
    "safetensors": (
        "this project's folder as the working directory, for the model's code is in it"
    ),
}
FILES = {"onnx": "model.onnx", "torchscript": "model.pt", "torch_export": "model.pt2"}


def write_evidence(
    folder: Path, verdict: Verdict, truth: Truth, cases: Sequence[Case]
) -> None:
    """Inputs, expected and got of the case that shows the failure, and a script that
    repeats it.
    """
    if verdict.case is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    inputs, subject = cases[verdict.case].inputs, verdict.subject
    _save(folder / "inputs.safetensors", inputs)
    _save(folder / "expected.safetensors", _rounded(truth, verdict.case))
    got = verdict.ran.outputs
    if verdict.case < len(got):
        _save(folder / "got.safetensors", got[verdict.case])
    path = (
        subject.path / FILES[subject.format]
        if subject.format in FILES and subject.path.is_dir()
        else subject.path
    )
    script = folder / "reproduce.py"
    run = RUN[subject.format].format(path=path.as_posix(), inputs=list(inputs))
    text = REPRODUCE.format(
        file=path.as_posix(),
        script=script.as_posix(),
        needs=NEEDS[subject.format],
        run=run,
        outputs=list(truth.reference[0]),
    )
    script.write_text(text, encoding="utf-8")


def _cell(verdict: Verdict, name: str) -> str:
    output = verdict.outputs.get(name)
    if output is None:
        return "–"
    mark = "" if output.passed else "!"
    if output.identical == len(verdict.ran.outputs):
        return "="
    if verdict.subject.rule == REDUCED:
        return f"{output.amount:.2%}{mark}"
    return f"{_short(output.amount if output.times_floor is None else output.times_floor)}{mark}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.1g}"


def _pad(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _sizes(signature: Signature, inputs: Arrays) -> dict[str, int]:
    return {
        size: inputs[spec.name].shape[axis]
        for spec in signature.inputs
        for axis, size in enumerate(spec.shape or ())
        if isinstance(size, str)
    }


def _rounded(truth: Truth, number: int) -> dict[str, Any]:
    eager = truth.eager[number]
    return {
        name: array.astype(eager[name].dtype)
        for name, array in truth.reference[number].items()
    }


def _save(path: Path, arrays: Arrays) -> None:
    from safetensors.numpy import save

    replace_file(
        path,
        save({name: np.asarray(array, order="C") for name, array in arrays.items()}),
    )


def _largest(expected: Any, found: Any) -> float:
    return float(np.max(np.abs(found.astype(np.float64) - expected), initial=0.0))
