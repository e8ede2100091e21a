"""The mutants of a module, by mutmut's operators."""

from __future__ import annotations

import ast
import difflib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import (
    NEVER_MUTATE_FUNCTION_NAMES,
    MutationVisitor,
    deep_replace,
)
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        path: of the module, in the checkout.
        lines: the first and the last of the statement that is changed.
        source: of the whole module, changed.
        diff: the lines that differ.
    """

    path: str
    lines: tuple[int, int]
    source: str
    diff: str


class _Visitor(MutationVisitor):
    """Finds what mutmut changes, in decorated functions and constants of modules too.

    mutmut leaves those out since it keeps all mutants of a function beside each other;
    here there is one at a time.
    """

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            return node.name.value in NEVER_MUTATE_FUNCTION_NAMES
        if isinstance(node, cst.Import | cst.ImportFrom):
            return True
        return bool(super()._skip_node_and_children(node))


@dataclass(frozen=True)
class _Change:
    """A mutant that isn't written out yet.

    Attributes:
        path, module: what is changed.
        line: where the changed node begins.
        old, new: the node.
    """

    path: str
    module: cst.Module
    line: int
    old: cst.CSTNode
    new: cst.CSTNode

    def mutant(self) -> Mutant:
        """The whole module, changed."""
        before = self.module.code
        changed = deep_replace(self.module, self.old, self.new)
        after = cst.ensure_type(changed, cst.Module).code
        lines = _statement(ast.parse(before), self.line)
        return Mutant(self.path, lines, after, _diff(before, after))


def sample(root: Path, paths: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Random mutants of all modules together.

    Args:
        root: of the checkout.
        paths: of the modules, in the checkout.
        count: how many; all, where there are fewer.
        seed: the same sample for the same modules and seed.
    """
    changes: list[_Change] = []
    for path in sorted(paths):
        changes += _changes(path, (root / path).read_text(encoding="utf-8"))
    random.Random(seed).shuffle(changes)
    return [change.mutant() for change in changes[:count]]


def _changes(path: str, code: str) -> Iterator[_Change]:
    """All that mutmut's operators change in a module."""
    wrapper = MetadataWrapper(cst.parse_module(code))
    visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
    wrapper.visit(visitor)
    positions = wrapper.resolve(PositionProvider)
    for found in visitor.mutations:
        position = positions.get(found.original_node)
        if position is not None:
            line = position.start.line
            old, new = found.original_node, found.mutated_node
            yield _Change(path, wrapper.module, line, old, new)


def _statement(tree: ast.Module, line: int) -> tuple[int, int]:
    """The first and the last line of the innermost statement that a line is part of; of
    one that holds others, its head.
    """
    around = [(line, line)]
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.excepthandler):
            end = node.end_lineno or node.lineno
            if node.lineno <= line <= end:
                around.append((node.lineno, _head(node, end)))
    inner = [lines for lines in around[1:] if lines[1] >= line]
    return max(inner, default=around[0], key=lambda lines: (lines[0], -lines[1]))


def _head(node: ast.stmt | ast.excepthandler, end: int) -> int:
    """The last line of a statement that isn't in its body."""
    body = getattr(node, "body", None)
    return max(node.lineno, body[0].lineno - 1) if body else end


def _diff(before: str, after: str) -> str:
    """The lines that differ, the old ones with - and the new ones with +."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0)
    marks = ("---", "+++", "@@")
    return "\n".join(line for line in lines if not line.startswith(marks))
