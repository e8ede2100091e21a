"""The nodes of a graph by module, and a picture of their errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from checkpoint_release.core.artifacts.typed import Record
from checkpoint_release.core.text import printable
from checkpoint_release.pictures import theme
from checkpoint_release.pictures.picture import Picture, draw
from checkpoint_release.report.lines import Axis

_MOST_POINTS = 3000
_OTHERS = "others"
_MOST_COLOURS = len(theme.SERIES)


class NodeError(Record, frozen=True, kw_only=True):
    """A node that computes floats from the inputs.

    Attributes:
        name: module/operation, as this project names nodes.
        operator: its type, such as "Gemm".
        error: root mean square against double precision, as a share of the value.
    """

    name: str
    operator: str
    error: float

    @property
    def module(self) -> str:
        """What its name says before the first slash."""
        return self.name.partition("/")[0]

    @property
    def operation(self) -> str:
        """Which of its module's nodes it is; the whole name where that has no slash."""
        return self.name.partition("/")[2] or self.name


@dataclass(frozen=True)
class ModuleErrors:
    """The nodes of one module.

    Attributes:
        name: of the module.
        nodes: in the graph's order, at least one.
    """

    name: str
    nodes: list[NodeError]

    @property
    def operators(self) -> str:
        """The types of its nodes and how many there are, the most frequent first."""
        counts = Counter(node.operator for node in self.nodes).most_common()
        return ", ".join(f"{count} {operator}" for operator, count in counts)

    @property
    def worst(self) -> NodeError:
        """The node that is furthest from double precision."""
        return max(self.nodes, key=lambda node: node.error)

    @property
    def last(self) -> NodeError:
        """Its last node, by which it hands on what it computed."""
        return self.nodes[-1]


def by_module(nodes: Sequence[NodeError]) -> list[ModuleErrors]:
    """The modules in the order in which they begin."""
    found: dict[str, list[NodeError]] = {}
    for node in nodes:
        found.setdefault(node.module, []).append(node)
    return [ModuleErrors(name, members) for name, members in found.items()]


def nodes_picture(nodes: Sequence[NodeError]) -> Picture | None:
    """A mark for each node in the graph's order, at its error.

    Args:
        nodes: of a graph.

    Returns:
        None where no node has an error.
    """
    erring = [(place, node) for place, node in enumerate(nodes) if node.error > 0]
    if not erring:
        return None
    groups = _groups(nodes)
    step = -(-len(erring) // _MOST_POINTS)
    rows = []
    for place, node in erring[::step]:
        rows.append(
            {"node": place, "error": node.error, "part": groups[_part(node.module)]}
        )
    shown = sorted(dict.fromkeys(groups.values()), key=lambda part: part == _OTHERS)
    worst = max(nodes, key=lambda node: node.error)
    title = "Error of each node of the ONNX graph"
    alt = (
        f"{title}: {len(nodes)} nodes; the largest is {worst.error:.1e} of the value,"
        f" at {printable(worst.name)} ({worst.operator})."
    )
    return draw(_spec(rows, shown, title), title=title, alt=alt)


def _part(module: str) -> str:
    """The part of the model that a module is in: the first of its dotted names."""
    return module.partition(".")[0]


def _groups(nodes: Sequence[NodeError]) -> dict[str, str]:
    """Part of the model → what the legend calls it; the smallest parts share a name."""
    counts = Counter(_part(node.module) for node in nodes)
    order = list(counts)
    if len(counts) <= _MOST_COLOURS:
        return {part: printable(part, 30) for part in order}
    largest = {part for part, _ in counts.most_common(_MOST_COLOURS - 1)}
    return {part: printable(part, 30) if part in largest else _OTHERS for part in order}


def _spec(
    rows: Sequence[dict[str, object]], parts: Sequence[str], title: str
) -> dict[str, object]:
    x = Axis(
        "node",
        "node, in the graph's order",
        scale={"nice": False},
        options={"grid": False, "tickCount": 8},
    )
    y = Axis("error", scale={"type": "log"}, options={"format": ".0e", "tickCount": 5})
    colours = list(theme.colours(parts).values())
    return {
        "data": {"values": list(rows)},
        "title": {
            "text": title,
            "subtitle": "root mean square against double precision, as a share of the"
            " value",
        },
        "width": 620,
        "height": 180,
        "mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.9},
        "encoding": {
            "x": x.encoding(),
            "y": y.encoding(),
            "color": {
                "field": "part",
                "type": "nominal",
                "title": None,
                "scale": {"domain": list(parts), "range": colours},
            },
        },
    }
