"""Symbolic expressions and guards of a .pt2, which torch evaluates as Python.

An expression such as "Mul(Integer(2), Symbol('s0', integer=True))" goes through
sympy.sympify, that is eval; a guard such as "L['x'].size()[0] <= 64" becomes a line of
a function that is executed (torch/export/_unlift.py). Both have to consist of the words
that torch writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from checkpoint_release.runtimes.computing_operators import names_in

MAX_LENGTH = 20_000  # characters
_MAX_DEPTH = 90  # brackets; Python itself takes 200
_MAX_POWER = 4096  # product of the exponents of an expression

# What sympy writes with srepr, and torch's own functions of shapes.
_EXPRESSION_NAMES = names_in(
    """
    Abs Add And BooleanFalse BooleanTrue CeilDiv CeilToInt CleanDiv Equality Eq Float
    FloatPow FloatTrueDiv FloorDiv FloorToInt Ge GreaterThan Gt Half Identity Infinity
    IntTrueDiv Integer IsNonOverlappingAndDenseIndicator LShift Le LessThan Lt Max Min
    Mod ModularIndexing Mul Ne NegativeInfinity NegativeOne Not One Or Piecewise Pow
    PowByNatural PythonMod RShift Rational RoundDecimal RoundToInt StrictGreaterThan
    StrictLessThan Symbol ToFloat TruncToFloat TruncToInt Tuple Unequality Where Zero
    ceiling false floor nan oo int_oo sqrt true
    True False None integer nonnegative negative nonpositive positive precision real
    evaluate finite zero nonzero
    """
)
_EXPRESSION = re.compile(
    r"(?P<text>'[^'\\\n]*')|(?P<name>[A-Za-z_]\w*)|(?P<number>\d{1,20}(\.\d{1,30})?)"
    r"|(?P<power>\*\*)|(?P<symbol>[-+*/%(),=<>!&|~ ])",
    re.ASCII,
)
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,6}", re.ASCII)
_QUOTED = re.compile(r"'([A-Za-z_]\w{0,60}|-?\d{1,20}(\.\d{1,30})?(e[+-]?\d\d?)?)'")
_POWER = re.compile(r"\b(?:Pow|PowByNatural|FloatPow|LShift)\(|\*\* ?|<<")
_EXPONENT = re.compile(
    r"[ (]*((Integer\(|Rational\(|Float\(')?-?(?P<value>\d{1,2})(\.\d+)?\b|Half\(\))"
)

_GUARD = re.compile(
    r"(?P<input>L\['[\w./ -]*'\](\['[\w./ -]*'\]|\[\d{1,9}\])*"
    r"(\.(size|stride)\(\)\[\d{1,3}\]|\.storage_offset\(\)|\.item\(\))?)"
    r"|(?P<function>math\.(ceil|floor|isnan|sqrt|trunc)\b)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<number>\d{1,20}(\.\d{1,30})?)"
    r"|(?P<symbol>\*\*|[-+*/%(),=<>! ])",
    re.ASCII,
)
_GUARD_NAMES = names_in(
    """
    CeilDiv CeilToInt CleanDiv Eq False FloorDiv FloorToInt IntTrueDiv FloatTrueDiv Max
    Min Mod ModularIndexing Ne PythonMod ToFloat True and float if else int max min not
    or
    """
)


def is_expression(text: str) -> bool:
    """Whether a text is a symbolic expression and no other Python.

    It is evaluated by sympy.sympify, that is by Python's eval: no attributes, no
    subscripts, no functions but those of shapes, and no powers that would take all
    memory.
    """
    return _consists_of(text, _EXPRESSION, _is_part)


def is_guard(text: str) -> bool:
    """Whether a text compares sizes of inputs, and is no other Python."""
    return _consists_of(
        text, _GUARD, lambda word: not word["name"] or word[0] in _GUARD_NAMES
    )


def _consists_of(
    text: str, words: re.Pattern[str], allowed: Callable[[re.Match[str]], bool]
) -> bool:
    """Whether a text is a short and flat sequence of allowed words.

    Args:
        text: Python, or meant to be.
        words: matches the next word.
        allowed: whether it may stand there.
    """
    if len(text) > MAX_LENGTH or not _has_small_powers(text):
        return False
    at = depth = 0
    while at < len(text):
        match = words.match(text, at)
        if match is None or not allowed(match):
            return False
        depth += (match[0] == "(") - (match[0] == ")")
        if depth > _MAX_DEPTH:
            return False
        at = match.end()
    return True


def _is_part(match: re.Match[str]) -> bool:
    """Whether a word may stand in an expression."""
    word = match[0]
    if match["text"]:
        return _QUOTED.fullmatch(word) is not None
    if match["name"]:
        return word in _EXPRESSION_NAMES or _SYMBOL.fullmatch(word) is not None
    return True


def _has_small_powers(text: str) -> bool:
    """Whether all powers have a number as exponent, and together stay small."""
    product = 1
    for power in _POWER.finditer(text):
        at = power.end()
        if power[0].endswith("("):
            at = _second_argument(text, at)
        exponent = _EXPONENT.match(text, at)
        if at < 0 or exponent is None:
            return False
        product *= max(1, int(exponent["value"] or 1))
        if product > _MAX_POWER:
            return False
    return True


def _second_argument(text: str, at: int) -> int:
    """Where a call's second argument begins; -1 where there is none.

    Args:
        text: an expression.
        at: where the first argument begins.
    """
    depth = 0
    for index in range(at, len(text)):
        character = text[index]
        if character == "," and depth == 0:
            return index + 1
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
    return -1
