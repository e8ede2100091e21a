"""Run the demo's release by every runtime that can be had, and write the table in
docs/deployment.md:

python -m tests.runtime_rows                     all rows; the table is written
python -m tests.runtime_rows onnxruntime tract   these rows; nothing is written

It ends with 1 where a row's verdict isn't the one that is known of it. A row that can't
be run here is no failure.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from checkpoint_release.parity.machine import this_machine
from tests.runtime_rows.measuring import NOT_RUN, Bench, Outcome
from tests.runtime_rows.rows import ROWS, Row
from tests.runtime_rows.table import table, with_table
from tests.support.project import ROOT

DOCUMENT = ROOT / "docs/deployment.md"


def main(names: list[str]) -> int:
    """Run rows, print each, and write the table if they are all."""
    known = {row.name: row for row in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no rows {unknown}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    rows = [known[name] for name in names] or ROWS
    outcomes, changed = [], []
    with TemporaryDirectory() as folder:
        bench = Bench.make(Path(folder) / "project")
        for row in rows:
            outcome = bench.measure(row)
            outcomes.append(outcome)
            line = outcome.line
            print(f"{row.name}: {line.version} {line.result}", flush=True)
            if is_changed(row, outcome):
                changed.append(row)
    if not names:
        write(outcomes)
    return report(changed)


def is_changed(row: Row, outcome: Outcome) -> bool:
    """Whether a row that ran has another verdict than the one that is known."""
    return row.expected is not None and outcome.verdict not in (NOT_RUN, row.expected)


def write(outcomes: list[Outcome]) -> None:
    """Write the table into the document."""
    machine = this_machine()
    remark = (
        f"Measured on {machine.architecture} ({machine.cpu_capability}) by"
        " `make test-runtimes`, with the rule and the cases of the parity check; up to"
        " 3× the floor passes. Largest errors are of nominal inputs."
    )
    text = table([outcome.line for outcome in outcomes], remark)
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), text))


def report(changed: list[Row]) -> int:
    """The exit code, and on standard error which rows are not as they are known."""
    for row in changed:
        print(f"{row.name}: known as {row.expected!r}, and isn't", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
