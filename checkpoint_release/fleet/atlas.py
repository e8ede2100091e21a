"""The page about a fleet: charts first, then every release with its proof.

One file without scripts or anything from elsewhere. What checkpoints state is text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from checkpoint_release.fleet.charts import Chart, legend
from checkpoint_release.fleet.outcome import Failed
from checkpoint_release.fleet.plan import FleetPlan
from checkpoint_release.fleet.rows import STEPS, Row, axis_of, beside_axis, series_of

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #777; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1240px;
  padding: 0 1rem; }
h1 { margin: 0; } .lead { color: var(--quiet); margin-top: .2rem; }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: .5rem; }
svg { width: 100%; height: auto; } .title { font-weight: 600; fill: currentColor; }
.tick { font-size: 11px; fill: var(--quiet); } .grid { stroke: var(--line); }
.line { fill: none; stroke-width: 2; } .limit { stroke: #dc2626; stroke-width: 1.5; }
.sample { width: 26px; height: 8px; } .legend span { margin-right: 1rem; }
.legend { margin: .2rem .5rem; font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
td, th { padding: .25rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0;
  background: Canvas; }
.ok { color: #059669; } .bad { color: #dc2626; } code { font-size: 12px; }
td.why { white-space: normal; text-align: left; }
"""


def atlas(plan: FleetPlan, rows: Sequence[Row], failed: Sequence[Failed]) -> str:
    """The page as HTML.

    Args:
        plan: of the fleet.
        rows: one for each release, at least one.
        failed: members whose last result is a failure.
    """
    name = escape(plan.spec.name)
    members = len({row.member for row in rows})
    lead = f"{members} checkpoints, {len(rows)} releases"
    if len(plan.points) > 1:
        lead += f", {len(plan.points)} points of the matrix"
    lead += f"; pipeline at commit {plan.project.commit[:12]}"
    waiting = f"; still to build: {len(plan.todo)}" if plan.todo else ""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}: atlas</title><style>{_STYLE}</style></head><body>",
        f'<h1>{name}</h1><p class="lead">{escape(lead + waiting)}</p>',
        *_charts(rows),
        *_failures(failed),
        "<h2>Releases</h2>",
        *_table(rows),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _charts(rows: Sequence[Row]) -> Iterator[str]:
    """A chart for each figure: the proof of each format, sizes, and training facts."""
    axis, positions = axis_of(rows)
    yield '<div class="charts">'
    for chart in [*_built(rows, axis, positions), *_training(rows, axis, positions)]:
        names = list(chart.lines)
        shown = legend(names) if len(names) > 1 else ""
        yield f"<figure>{chart.svg()}{shown}</figure>"
    yield "</div>"


def _training(
    rows: Sequence[Row], axis: str, positions: Sequence[float]
) -> Iterator[Chart]:
    """What the checkpoints state about their training, where it differs."""
    names = dict.fromkeys(name for row in rows for name in row.training)
    for name in names:
        if name in STEPS or name == axis:
            continue
        lines = _lines_of(name, rows, axis, positions)
        values = {value for points in lines.values() for _, value in points}
        if len(values) > 1:
            yield Chart(name, axis, lines)


def _lines_of(
    name: str, rows: Sequence[Row], axis: str, positions: Sequence[float]
) -> dict[str, list[tuple[float, float]]]:
    """The lines of a training fact, which points of one checkpoint share.

    Args:
        name: of the fact.
        rows: all rows.
        axis: what they are in the order of.
        positions: where each row is on it.

    Returns:
        Line → its points, from left to right.
    """
    lines: dict[str, dict[float, float]] = {}
    for row, x in zip(rows, positions, strict=True):
        if name in row.training:
            line = ", ".join(beside_axis(row, axis)) or name
            lines.setdefault(line, {})[x] = row.training[name]
    return {line: sorted(points.items()) for line, points in lines.items()}


def _built(
    rows: Sequence[Row], axis: str, positions: Sequence[float]
) -> Iterator[Chart]:
    """Proof and size of each format."""
    proofs: dict[str, list[tuple[float, float]]] = {}
    sizes: dict[str, list[tuple[float, float]]] = {}
    for row, x in zip(rows, positions, strict=True):
        series = series_of(row, axis)
        for format, limit in row.limits.items():
            name = f"{format} ({series})" if series else format
            proofs.setdefault(name, []).append((x, limit))
        sizes.setdefault(series or "release", []).append((x, row.size / 1e6))
    yield Chart(
        "Worst error, as a share of what is allowed",
        axis,
        {name: sorted(points) for name, points in proofs.items()},
        limit=1.0,
    )
    yield Chart(
        "Size of the release in MB",
        axis,
        {name: sorted(points) for name, points in sizes.items()},
    )


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """Every release: facts, the proof of each format, sizes, digest, link."""
    formats = list(dict.fromkeys(name for row in rows for name in row.limits))
    facts = list(dict.fromkeys(name for row in rows for name in row.training))
    has_points = any(row.point for row in rows)
    heads = ["checkpoint", *(["point"] if has_points else []), *facts, *formats]
    yield '<div class="scroll"><table><thead><tr>'
    for head in [*heads, "MB", "built (sha256)", "release"]:
        yield f"<th>{escape(head)}</th>"
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>"
        yield f"<td>{escape(row.member)}</td>"
        if has_points:
            yield f"<td>{escape(row.point)}</td>"
        for cell in _cells(row, facts, formats):
            yield f"<td>{cell}</td>"
        yield "</tr>"
    yield "</tbody></table></div>"


def _cells(row: Row, facts: Sequence[str], formats: Sequence[str]) -> Iterator[str]:
    """What a row has after its names."""
    for fact in facts:
        yield _fact(row.training.get(fact))
    for format in formats:
        yield _proof(row.limits.get(format))
    yield f"{row.size / 1e6:,.1f}"
    yield f"<code>{escape(row.built[:12])}</code>"
    yield _link(row.link)


def _fact(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _proof(limit: float | None) -> str:
    if limit is None:
        return "–"
    return f'<span class="ok">✓</span> {limit:.2g}'


def _link(link: str) -> str:
    """A link to a release, of an address of the web alone."""
    if not link.startswith(("https://", "http://")):
        return "–"
    return f'<a href="{escape(link)}">{escape(link.rpartition("/")[2])}</a>'


def _failures(failed: Sequence[Failed]) -> Iterator[str]:
    if not failed:
        return
    yield '<h2>Failed</h2><div class="scroll"><table><tbody>'
    for each in failed:
        yield (
            f'<tr><td class="bad">{escape(each.name)}</td><td>{escape(each.stage)}</td>'
            f'<td class="why">{escape(each.message)}</td></tr>'
        )
    yield "</tbody></table></div>"
