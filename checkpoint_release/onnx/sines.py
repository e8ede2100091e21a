"""Cosines and sines in an ONNX graph by floor, sums, products and quotients alone.

A runtime's own sine can be poor: WebGPU allows it an error of 2⁻¹¹, also between -π and
π, and some implementations use that up. A model with rotary positions then errs by
hundreds of times float32's rounding. Sums, products and quotients are right to the last
digit or two everywhere.

1. Quarter turns are taken off, in three parts (Cody and Waite 1980): angle = k·π/2 + r
   with r in [-π/4, π/4].
2. With x = r/2, Lambert's continued fraction gives x / tan(x) = d = 1 - e with
   e = x² / (3 - x² / (5 - x² / (7 - …))), and the half-angle formulae
   cos(r) = 1 - 2·x² / (d² + x²) and sin(r) = r - r·w with w = (x² - e·d) / (d² + x²).
   Nothing is divided by 0, and little is subtracted from much: in float32 both are as
   good as a C library's.
3. The quarter turns are put back: cos(r)·u - sin(r)·v and sin(r)·u + cos(r)·v, with
   u = cos(k·π/2) and v = sin(k·π/2), which are 0, 1 or -1.

Every constant is exact in float32 but 2/π, which only chooses k. So the same graph,
evaluated in float64, is right to float64.

No angle is too large. Past 6000, the first part's product is rounded; that errs no more
than the angle itself does, which float32 holds to 6e-8 of its value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

QUARTER_IN_PARTS = (
    float.fromhex("0x1.92p+0"),
    float.fromhex("0x1.fb5444p-12"),
    float.fromhex("0x1.68c234p-39"),
)
"""Of 12, 24 and 24 bits; the first, times a whole number below 4096, is exact. Together
they are π/2 to 1e-19.
"""
LAST_TERM = 13
"""The last odd number in the continued fraction: with 11, it would err by 5e-15."""
_COS, _SIN = "Cos", "Sin"


def compute_sines(model: ModelProto) -> None:
    """Replace every Cos and Sin of the same float32 angles by arithmetic, in place.

    Such a pair turns something, as rotary positions do; a sine alone may be a model's
    activation, and is left. So is what lies in subgraphs.

    Args:
        model: whose graph states its values' types; the results keep their names.
    """
    graph = model.graph
    replacing: dict[str, list[NodeProto]] = {}
    for pair in _pairs(graph):
        nodes = _Arithmetic(graph, pair).nodes()
        for old in pair.values():
            # all of them in the place of the first of the pair
            replacing[old.output[0]], nodes = nodes, []
    if not replacing:
        return
    kept: list[NodeProto] = []
    for node in graph.node:
        output = node.output[0] if node.output else ""
        kept += replacing.get(output, [node])
    del graph.node[:]
    graph.node.extend(kept)


def _pairs(graph: GraphProto) -> list[dict[str, NodeProto]]:
    """The Cos and the Sin of all angles that have both and are float32, in the order of
    the graph.
    """
    by_angles: dict[str, dict[str, NodeProto]] = {}
    for node in graph.node:
        if node.op_type in (_COS, _SIN) and not node.domain:
            by_angles.setdefault(node.input[0], {}).setdefault(node.op_type, node)
    floats = _float32_values(graph)
    pairs = []
    for angles, found in by_angles.items():
        if len(found) == 2 and angles in floats:
            pairs.append(found)
    return pairs


def _float32_values(graph: GraphProto) -> set[str]:
    """The names of the values that the graph states to be float32."""
    found = set()
    for value in (*graph.value_info, *graph.input):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            found.add(value.name)
    return found


class _Arithmetic:
    """The nodes in the place of a pair.

    Args:
        graph: constants and the values' types are added to it.
        pair: operator → node, of a Cos and a Sin.
    """

    def __init__(self, graph: GraphProto, pair: dict[str, NodeProto]) -> None:
        self.graph, self.pair = graph, pair
        self.angles: str = pair[_COS].input[0]
        self._nodes: list[NodeProto] = []
        self._constants = {tensor.name for tensor in graph.initializer}
        values = (*graph.value_info, *graph.input)
        (self._type,) = [each.type for each in values if each.name == self.angles]

    def nodes(self) -> list[NodeProto]:
        """All of them, in the order in which they can run."""
        quarters, rest = self._reduced()
        cos, sin = self._of_small(rest)
        u, v = self._of_quarters(quarters)
        cos_u, sin_v = self._mul(cos, u, "cos_u"), self._mul(sin, v, "sin_v")
        sin_u, cos_v = self._mul(sin, u, "sin_u"), self._mul(cos, v, "cos_v")
        self._finish("Sub", [cos_u, sin_v], self.pair[_COS])
        self._finish("Add", [sin_u, cos_v], self.pair[_SIN])
        return self._nodes

    def _reduced(self) -> tuple[str, str]:
        """How many quarter turns are nearest to each angle, and what is left of it."""
        turns = self._mul(self.angles, self._constant(2 / math.pi), "turns")
        shifted = self._op("Add", [turns, self._constant(0.5)], "turns_shifted")
        # a half is rounded up; Round would do, and WebGPU has no kernel for it
        quarters = self._op("Floor", [shifted], "quarters")
        rest = self.angles
        for number, part in enumerate(QUARTER_IN_PARTS, start=1):
            multiple = self._mul(quarters, self._constant(part), f"multiple_{number}")
            rest = self._sub(rest, multiple, f"rest_{number}")
        return quarters, rest

    def _of_quarters(self, quarters: str) -> tuple[str, str]:
        """Cosine and sine of whole numbers of quarter turns."""
        one, two, four = (self._constant(number) for number in (1.0, 2.0, 4.0))
        turns = self._mul(quarters, self._constant(0.25), "whole_turns_and_rest")
        whole = self._op("Floor", [turns], "whole_turns")
        counted = self._mul(whole, four, "quarters_of_whole_turns")
        m = self._sub(quarters, counted, "quarters_modulo_4")
        far_from_two = self._op("Abs", [self._sub(m, two, "from_2")], "far_from_2")
        far_from_one = self._op("Abs", [self._sub(m, one, "from_1")], "far_from_1")
        cos = self._sub(far_from_two, one, "quarters_cos")
        sin = self._sub(one, far_from_one, "quarters_sin")
        return cos, sin

    def _of_small(self, r: str) -> tuple[str, str]:
        """Cosine and sine of angles up to π/4."""
        one = self._constant(1.0)
        x = self._mul(r, self._constant(0.5), "half")
        square = self._mul(x, x, "half_squared")
        e = self._continued_fraction(square)
        d = self._sub(one, e, "half_by_tangent")
        d_square = self._mul(d, d, "half_by_tangent_squared")
        total = self._op("Add", [d_square, square], "total")
        doubled = self._op("Add", [square, square], "half_squared_doubled")
        versine = self._div(doubled, total, "versine")
        cos = self._sub(one, versine, "rest_cos")
        lack = self._sub(square, self._mul(e, d, "e_d"), "lack")
        w = self._div(lack, total, "w")
        sin = self._sub(r, self._mul(r, w, "r_w"), "rest_sin")
        return cos, sin

    def _continued_fraction(self, square: str) -> str:
        """1 - x / tan(x), from x²."""
        below = self._constant(float(LAST_TERM))
        for term in range(LAST_TERM - 2, 1, -2):
            quotient = self._div(square, below, f"quotient_{term}")
            above = self._constant(float(term))
            below = self._sub(above, quotient, f"fraction_{term}")
        return self._div(square, below, "fraction")

    def _mul(self, a: str, b: str, name: str) -> str:
        return self._op("Mul", [a, b], name)

    def _sub(self, a: str, b: str, name: str) -> str:
        return self._op("Sub", [a, b], name)

    def _div(self, a: str, b: str, name: str) -> str:
        return self._op("Div", [a, b], name)

    def _op(self, operator: str, inputs: Sequence[str], name: str) -> str:
        """A node whose result has the angles' type and shape; gives its name."""
        output = f"{self.angles}/sines/{name}"
        node = helper.make_node(operator, inputs, [output], name=output)
        self._nodes.append(node)
        value = self.graph.value_info.add()
        value.name = output
        value.type.CopyFrom(self._type)
        return output

    def _finish(self, operator: str, inputs: Sequence[str], node: NodeProto) -> None:
        """The node that gives what one of the pair gave, under its name."""
        last = helper.make_node(operator, inputs, node.output, name=node.name)
        self._nodes.append(last)

    def _constant(self, value: float) -> str:
        """A float32 scalar; equal ones are one."""
        array = np.array(value, np.float32)
        name = f"constant/{array.tolist()}"
        if name not in self._constants:
            self._constants.add(name)
            self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name
