"""Cosine and sine in an ONNX graph, by floor, sums, products and quotients alone.

A runtime's own sine can be poor: WebGPU allows it an error of 2⁻¹¹, also between -π and
π, and some implementations use that up. In a model with rotary positions, outputs then
err by hundreds of times float32's rounding. Sums, products and quotients are right to
the last digit or two everywhere.

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

from checkpoint_release.models.stick_figure.onnx_builder import GraphBuilder, Value

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


def cosine_and_sine(g: GraphBuilder, angles: Value, scope: str) -> tuple[Value, Value]:
    """The cosines and the sines of angles.

    Args:
        g: nodes are added to it.
        angles: float32, in radians, of any shape; the results have it too.
        scope: what the results' names begin with: `scope/cos` and `scope/sin`.
    """
    quarters, rest = _reduced(g, angles, f"{scope}/reduced")
    cos, sin = _of_small_angles(g, rest, f"{scope}/rest")
    u, v = _of_quarter_turns(g, quarters, f"{scope}/quarters")
    cos_u = g.mul(cos, u, f"{scope}/cos_u")
    sin_v = g.mul(sin, v, f"{scope}/sin_v")
    sin_u = g.mul(sin, u, f"{scope}/sin_u")
    cos_v = g.mul(cos, v, f"{scope}/cos_v")
    return g.sub(cos_u, sin_v, f"{scope}/cos"), g.add(sin_u, cos_v, f"{scope}/sin")


def _reduced(g: GraphBuilder, angles: Value, name: str) -> tuple[Value, Value]:
    """How many quarter turns are nearest to each angle, and what is left of it."""
    turns = g.mul(angles, g.constant(2 / math.pi), f"{name}/quarters")
    shifted = g.add(turns, g.constant(0.5), f"{name}/quarters/shifted")
    # a half is rounded up; Round would do, and WebGPU has no kernel for it
    quarters = g.op("Floor", [shifted], angles.shape, f"{name}/quarters/nearest")
    rest = angles
    for number, part in enumerate(QUARTER_IN_PARTS, start=1):
        multiple = g.mul(quarters, g.constant(part), f"{name}/multiple_{number}")
        rest = g.sub(rest, multiple, f"{name}/rest_{number}")
    return quarters, rest


def _of_quarter_turns(
    g: GraphBuilder, quarters: Value, name: str
) -> tuple[Value, Value]:
    """Cosine and sine of whole numbers of quarter turns."""
    four, two, one = g.constant(4.0), g.constant(2.0), g.constant(1.0)
    turns = g.mul(quarters, g.constant(0.25), f"{name}/turns")
    whole = g.op("Floor", [turns], quarters.shape, f"{name}/turns/whole")
    counted = g.mul(whole, four, f"{name}/turns/quarters")
    m = g.sub(quarters, counted, f"{name}/modulo_4")
    from_two = g.sub(m, two, f"{name}/from_2")
    from_one = g.sub(m, one, f"{name}/from_1")
    far_from_two = g.op("Abs", [from_two], m.shape, f"{name}/from_2/abs")
    far_from_one = g.op("Abs", [from_one], m.shape, f"{name}/from_1/abs")
    cos = g.sub(far_from_two, one, f"{name}/cos")
    sin = g.sub(one, far_from_one, f"{name}/sin")
    return cos, sin


def _of_small_angles(g: GraphBuilder, r: Value, name: str) -> tuple[Value, Value]:
    """Cosine and sine of angles up to π/4."""
    one = g.constant(1.0)
    x = g.mul(r, g.constant(0.5), f"{name}/half")
    square = g.mul(x, x, f"{name}/half_squared")
    e = _continued_fraction(g, square, f"{name}/fraction")
    d = g.sub(one, e, f"{name}/x_by_tangent")
    total = g.add(g.mul(d, d, f"{name}/d_squared"), square, f"{name}/total")
    doubled = g.add(square, square, f"{name}/doubled")
    versine = g.div(doubled, total, f"{name}/versine")
    cos = g.sub(one, versine, f"{name}/cos")
    e_d = g.mul(e, d, f"{name}/e_d")
    w = g.div(g.sub(square, e_d, f"{name}/lack"), total, f"{name}/w")
    sin = g.sub(r, g.mul(r, w, f"{name}/r_w"), f"{name}/sin")
    return cos, sin


def _continued_fraction(g: GraphBuilder, square: Value, name: str) -> Value:
    """1 - x / tan(x), from x²."""
    below = g.constant(float(LAST_TERM))
    for term in range(LAST_TERM - 2, 1, -2):
        quotient = g.div(square, below, f"{name}/quotient_{term}")
        above = g.constant(float(term))
        below = g.sub(above, quotient, f"{name}/from_{term}")
    return g.div(square, below, name)
