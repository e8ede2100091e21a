"""Sizes that follow from dimensions: 2*tokens + 1, past + tokens, height/8.

An axis whose size follows from others has an expression in the place of a name:

    inputs:
      - {name: tokens, shape: [batch, tokens, 64]}
      - {name: frames, shape: [batch, 2*tokens + 1, 80]}

It is a sum of whole numbers and of dimensions, each by a factor. What is divided has
to come out whole, which the dimension's `multiple` sees to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

_PART = re.compile(r"\s*(?:(\d{1,9})|([^\W\d]\w*)|([-+*/]))")


@dataclass(frozen=True)
class SizeExpression:
    """A size as a sum: an offset, and each dimension by its factor.

    Attributes:
        factors: dimension → what it counts by, above 0.
        offset: what is added.
    """

    factors: Mapping[str, Fraction]
    offset: int

    def value(self, sizes: Mapping[str, int]) -> int:
        """The size.

        Args:
            sizes: dimension → size; where a factor is a fraction, a multiple of its
                denominator.

        Raises:
            KeyError: a dimension has no size.
        """
        total = Fraction(self.offset)
        for name, factor in self.factors.items():
            total += factor * sizes[name]
        return int(total)


@cache
def parse_size(text: str) -> SizeExpression | None:
    """The expression that a text is; None: it is none.

    A name alone is one, too.

    Args:
        text: as a shape has it.
    """
    parts = _parts(text)
    if not parts:
        return None
    if parts[0] not in ("+", "-"):
        parts.insert(0, "+")
    factors: dict[str, Fraction] = {}
    offset = Fraction(0)
    for sign, product in _terms(parts):
        term = _term(product)
        if term is None:
            return None
        name, factor = term
        if name is None:
            offset += sign * factor
        else:
            factors[name] = factors.get(name, Fraction(0)) + sign * factor
    if offset.denominator != 1 or not factors:
        return None
    if any(factor <= 0 for factor in factors.values()):
        return None
    return SizeExpression(factors, int(offset))


def size_names(text: str) -> frozenset[str]:
    """The dimensions that a size depends on; what is no expression is one itself."""
    expression = parse_size(text)
    return frozenset([text] if expression is None else expression.factors)


def size_text(factors: Mapping[str, Fraction], offset: int) -> str:
    """An expression as people write it, such as 2*tokens + 1.

    Args:
        factors: dimension → what it counts by, above 0.
        offset: what is added.
    """
    terms = []
    for name, factor in factors.items():
        term = name if factor.numerator == 1 else f"{factor.numerator}*{name}"
        terms.append(
            term if factor.denominator == 1 else f"{term}/{factor.denominator}"
        )
    text = " + ".join(terms)
    if offset:
        text += f" {'+' if offset > 0 else '-'} {abs(offset)}"
    return text


def _parts(text: str) -> list[str]:
    """Numbers, names and signs in order; none where anything else is among them."""
    parts: list[str] = []
    end = 0
    for match in _PART.finditer(text):
        if match.start() != end:
            return []
        parts.append(match.group().strip())
        end = match.end()
    return [] if text[end:].strip() else parts


def _terms(parts: list[str]) -> list[tuple[int, list[str]]]:
    """What is added: the sign of each term, and its numbers, names and signs."""
    terms: list[tuple[int, list[str]]] = []
    for part in parts:
        if part in ("+", "-"):
            terms.append((1 if part == "+" else -1, []))
        else:
            terms[-1][1].append(part)
    return terms


def _term(product: list[str]) -> tuple[str | None, Fraction] | None:
    """The dimension of a term, if any, and its factor; None: it isn't one.

    Args:
        product: numbers and at most one name, with * or / between them.
    """
    if len(product) % 2 == 0:
        return None
    factor = Fraction(1)
    found: str | None = None
    for sign, value in zip(["*", *product[1::2]], product[::2], strict=True):
        if sign not in ("*", "/") or value in ("*", "/"):
            return None
        if value.isdigit() and (sign == "*" or int(value)):
            factor = factor * int(value) if sign == "*" else factor / int(value)
        elif value.isdigit() or found is not None or sign == "/":
            return None
        else:
            found = value
    return found, factor
