"""Whether a TorchScript archive does more than compute, found out without loading it.

A TorchScript archive is a program: torch.jit.load compiles its code, and runs some of
it (`__setstate__`) at once. The code is a small language that names operators, and what
it can do is what these do. So its text is read as a sequence of words, as torch's own
lexer does (torch/csrc/jit/frontend/lexer.h), and every word that could name an operator
has to be one that only computes. A program that can't be read so needs trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from checkpoint_release.core.errors import first_few
from checkpoint_release.pth.archive import Entry
from checkpoint_release.runtimes.computing_operators import (
    ANY_NAMESPACE,
    COMPUTING,
    names_in,
)
from checkpoint_release.runtimes.torch_archive import TorchArchive, globals_of_pickle
from checkpoint_release.runtimes.torchscript_words import (
    UnreadableProgramError,
    Word,
    statements,
)

MAX_CODE = 32 << 20  # bytes of all the code of an archive
_MAX_PROBLEMS = 20  # that are looked for in one member
_MAX_LISTED = 5

_ROOTS = frozenset({"torch", "ops", "__torch__", "CONSTANTS"})
"""What an archive's code begins a dotted name with; torch/csrc/jit/serialization/
import_source.cpp defines them."""

_KEYWORDS = names_in(
    """
    None True False and as assert break class continue def del elif else for if import
    in is not or pass raise return while with
    """
)
_FUNCTIONS = names_in(
    """
    Exception NamedTuple abs all annotate any awaitable bin bool complex dict divmod
    enumerate float fork getattr hasattr hash hex int isinstance len list max min oct
    ord print range round set slice sorted str sum super tuple unchecked_cast
    uninitialized zip
    """
)
_TYPES = names_in(
    """
    Any AnyClassType AnyEnumType AnyListType AnyTupleType Await Capsule Device Dict Enum
    Final Function Future Generator Interface InterfaceType Layout List MemoryFormat
    Module ModuleInterface NoneType NotImplemented Optional PyObject QScheme RRef
    ScalarType Set Storage Stream StreamObj Tensor Tuple Union float16 number
    """
)
_NUMBERS = frozenset({"inf", "nan", "infj", "nanj"})
_KNOWN = _KEYWORDS | _FUNCTIONS | _TYPES | _NUMBERS | {"__annotations__"}
_REMOTE = frozenset({"rpc_async", "rpc_remote", "rpc_sync"})
"""Functions that reach other processes, whatever else a program calls by the name."""
_CLASSES = frozenset({"quantized", "rnn", "sparse"})
"""Namespaces of torch.classes whose objects are packed weights."""

_PICKLED = re.compile(
    r"__torch__\.(?!torch\.classes\.)[\w.]+"
    r"|__torch__\.torch\.classes\.(quantized|rnn|sparse)\.\w+"
    r"|torch\.jit\._pickle\.\w+"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|qtensor|parameter"
    r"|sparse_tensor|sparse_csr_tensor)"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.(cuda\.)?\w+Storage|torch\.storage\.\w*Storage"
    r"|torch\.(device|Size|per_tensor_affine|per_channel_affine\w*|Tensor)"
    r"|torch\.q?u?int\d+(x\d)?|torch\.b?float\d+\w*|torch\.complex\d+|torch\.bool"
    r"|torch\.(strided|sparse_\w+|serialization\._get_layout)"
    r"|collections\.OrderedDict"
)
"""What torch's reader of TorchScript pickles builds without calling anything else."""


class Operators(NamedTuple):
    """The names, without namespace, of torch's own operators (of aten and prim).

    Attributes:
        functions: all of them, which code calls as torch.name or ops.aten.name.
        methods: those that a value has as methods: they have an argument `self`.
    """

    functions: frozenset[str]
    methods: frozenset[str]


def torchscript_problems(archive: TorchArchive, operators: Operators) -> list[str]:
    """What an archive of torch.jit.save holds beyond computing.

    Args:
        archive: nothing in it is compiled or run.
        operators: those that this torch has.

    Returns:
        A clause for each thing, without doubles; none where it only computes.

    Raises:
        CheckpointError: a member can't be read.
    """
    problems: dict[str, None] = {}
    code_size = 0
    for name, entry in archive.members.items():
        if name.startswith("extra/"):  # handed out as they are, to those who ask
            continue
        if name == "model.json":
            problems["it is of torch 1.0, whose archives are read another way"] = None
        if name.endswith(".py"):
            code_size += entry.size
        if code_size > MAX_CODE:
            problems[f"its code has more than {MAX_CODE} bytes"] = None
            break
        found = _member_problems(archive, name, entry, operators)
        problems |= dict.fromkeys(islice(found, _MAX_PROBLEMS))
    return list(problems)


def _member_problems(
    archive: TorchArchive, name: str, entry: Entry, operators: Operators
) -> Iterator[str]:
    """What one member holds beyond computing: code and pickles are looked into."""
    if name.endswith(".py"):
        yield from program_problems(bytes(archive.bytes(entry)), operators)
    elif name.endswith((".pkl", ".debug_pkl")):
        foreign = foreign_globals(globals_of_pickle(archive.bytes(entry)))
        if foreign:
            yield f"{entry.name} makes {first_few(foreign, _MAX_LISTED)}"


def foreign_globals(names: Iterable[str]) -> list[str]:
    """The globals of a TorchScript pickle that aren't its own classes or data."""
    return sorted(name for name in names if not _PICKLED.fullmatch(name))


def program_problems(code: bytes, operators: Operators) -> Iterator[str]:
    """What a program names beyond what computes.

    Args:
        code: the content of a file of code in an archive.
        operators: as for torchscript_problems.

    Yields:
        A clause for each word.
    """
    try:
        known = _KNOWN
        for statement in statements(code):
            yield from _statement_problems(statement, operators)
            if _begins_function(statement):
                known = _KNOWN
            known |= _bound(statement)
            for name in sorted(_bare(statement) - known | _bare(statement) & _REMOTE):
                yield f"it uses {name!r}, which is not known here"
    except UnreadableProgramError as error:
        yield f"its code can't be understood without running it: {error}"


def _statement_problems(words: list[Word], operators: Operators) -> Iterator[str]:
    """What the words of a statement name, one after another."""
    if any(word.text in ("getattr", "hasattr") for word in words):
        yield from _lookup_problems(words, operators)
    for at, (word, root) in enumerate(zip(words, _roots(words), strict=True)):
        if word.kind != "name":
            continue
        if _behind_dot(words, at):
            is_function = root in ("torch", "ops")
            known = operators.functions if is_function else operators.methods
            if _does_more(word.text, known):
                yield f"it names the operator {_dotted(words, at)}"
        elif word.text in _ROOTS:
            yield from _root_problems(words, at)


def _lookup_problems(words: list[Word], operators: Operators) -> Iterator[str]:
    """What a statement looks up by its name as a text."""
    for word in words:
        if word.kind != "string":
            continue
        if _does_more(word.text[1:-1], operators.functions):
            yield f"it looks up {word.text}"


def _roots(words: list[Word]) -> Iterator[str]:
    """The first word of the dotted name that each word is part of.

    It is empty for what follows the dot behind a call or a bracket.
    """
    root = ""
    for at, word in enumerate(words):
        behind_dot = _behind_dot(words, at)
        goes_on = behind_dot and at > 1 and words[at - 2].is_name
        if word.text != "." and not goes_on:
            root = "" if behind_dot else word.text
        yield root


def _behind_dot(words: list[Word], at: int) -> bool:
    """Whether a word names an attribute of what stands before it."""
    return at > 0 and words[at - 1].text == "."


def _does_more(name: str, operators: frozenset[str]) -> bool:
    """Whether a name is that of an operator that does more than compute.

    What no operator is called is an attribute, a method or a class of the archive: its
    code is looked through too.
    """
    return name in operators and name not in ANY_NAMESPACE


def _root_problems(words: list[Word], at: int) -> Iterator[str]:
    """What is wrong with a dotted name that begins with one of _ROOTS.

    A root that isn't followed by a dot is given another name, or is the name of
    something else: then words wouldn't mean what they are taken for. torch.autograd
    stands for torch once more.
    """
    root = words[at].text
    parts = _dotted(words, at).split(".")
    stands_for_torch = root in ("torch", "ops") and parts[-1] == "autograd"
    if len(parts) < 2 or stands_for_torch:
        yield f"it gives {'.'.join(parts)} another name"
    elif root == "ops":
        namespace = parts[1]
        if namespace not in COMPUTING or len(parts) < 3:
            yield f"it names the operator {'.'.join(parts)}"
    elif parts[:3] == ["__torch__", "torch", "classes"] and not _is_weights(parts):
        yield f"it uses the class {'.'.join(parts[1:])}"


def _is_weights(parts: list[str]) -> bool:
    """Whether a class of C++ is one of packed weights, by the parts of its name."""
    return len(parts) > 3 and parts[3] in _CLASSES


def _dotted(words: list[Word], at: int) -> str:
    """The dotted name around a word."""
    start = at
    while start >= 2 and words[start - 1].text == "." and words[start - 2].is_name:
        start -= 2
    end = start
    while (
        end + 2 < len(words) and words[end + 1].text == "." and words[end + 2].is_name
    ):
        end += 2
    return ".".join(words[at].text for at in range(start, end + 1, 2))


def _bare(words: list[Word]) -> set[str]:
    """The names of a statement that stand without a dot before.

    Left out are roots, and names of arguments in a call (`name=value`).
    """
    found: set[str] = set()
    for at, word in enumerate(words):
        if word.kind != "name" or word.text in _ROOTS:
            continue
        if not _behind_dot(words, at) and not _is_argument(words, at, "="):
            found.add(word.text)
    return found


def _begins_function(words: list[Word]) -> bool:
    """Whether the names before are out of sight in what follows.

    A function without parameters may lie within another one and see its names: so torch
    writes what is forked.
    """
    return words[0].text == "def" and bool(_parameters(words))


def _bound(words: list[Word]) -> set[str]:
    """The names that a statement gives a meaning.

    They are what it assigns, a loop's variables, the parameters and name of a function
    and the name of a class.
    """
    first = words[0].text
    if first in ("def", "class"):
        return {word.text for word in words[1:2]} | _parameters(words)
    if first == "for":
        return _names_up_to(words[1:], ("in",))
    if first == "with":
        return _after_as(words)
    if first in _KEYWORDS:
        return set()
    return _names_up_to(words, (":", "="))


def _parameters(words: list[Word]) -> set[str]:
    """The parameters in the head of a function."""
    found: set[str] = set()
    for at, word in enumerate(words):
        if any(_is_argument(words, at, mark) for mark in (":", ",", ")", "=")):
            found.add(word.text)
    return found


def _is_argument(words: list[Word], at: int, mark: str) -> bool:
    """Whether a word begins a parameter or argument, with the mark behind it."""
    if not 0 < at < len(words) - 1 or words[at].kind != "name":
        return False
    return words[at - 1].text in ("(", ",") and words[at + 1].text == mark


def _names_up_to(words: list[Word], marks: tuple[str, ...]) -> set[str]:
    """The names of a list of targets that ends at a mark; none where it isn't one.

    A bracket behind a name is that of a call, whose arguments have a mark too.
    """
    found: set[str] = set()
    before = ""
    for word in words:
        is_call = word.text == "(" and before == "name"
        if word.text in marks:
            return found
        if word.kind == "name":
            found.add(word.text)
        elif is_call or word.text not in (",", "(", ")"):
            break
        before = word.kind
    return set()


def _after_as(words: list[Word]) -> set[str]:
    """The names that a with statement gives."""
    found: set[str] = set()
    for at in range(1, len(words)):
        if words[at - 1].text == "as" and words[at].kind == "name":
            found.add(words[at].text)
    return found
