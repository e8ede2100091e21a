"""The table of runtimes in a document, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BEGIN = "<!-- runtimes: make test-runtimes writes what follows -->"
END = "<!-- end of runtimes -->"


@dataclass(frozen=True)
class Line:
    """What came of a row.

    Attributes:
        title: the runtime.
        version: of it; may be empty.
        reads: the file.
        cases: on how many it ran, and at which sizes.
        result: the verdict with its figures.
    """

    title: str
    version: str
    reads: str
    cases: str
    result: str


def table(lines: Sequence[Line], remark: str) -> str:
    """The table in Markdown.

    Args:
        lines: in order.
        remark: a sentence below it.
    """
    rows = [
        "| runtime | version | reads | cases | result |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        cells = (line.title, line.version, line.reads, line.cases, line.result)
        escaped = [cell.replace("|", "\\|") for cell in cells]
        rows.append(f"| {' | '.join(escaped)} |")
    return "\n".join([*rows, "", remark])


def with_table(document: str, text: str) -> str:
    """The document with what is between the marks replaced.

    Raises:
        ValueError: it hasn't each mark once, in this order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after or END in before:
        raise ValueError(f"the document needs {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"
