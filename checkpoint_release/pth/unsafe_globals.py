"""What a person must know of the globals that a pickle names.

Nothing here decides what is run, since nothing is. A name is judged by what it really
is: `numpy.ma.core.operator.attrgetter` is `operator.attrgetter`, whatever module it is
reached through. Only what is known to be inert passes without a word.
"""

from __future__ import annotations

import sys
from enum import StrEnum

from checkpoint_release.pth.known_globals import (
    CODE_FUNCTIONS,
    CODE_MODULES,
    OTHERS,
    REACHABLE_MODULES,
    STDLIB,
    TORCH,
    names_in,
)


class Verdict(StrEnum):
    """What another program would do that called the global."""

    HARMLESS = "harmless"
    """It is known to make a value and do nothing else."""
    UNKNOWN = "unknown"
    """It is somebody's own class or function, of which nothing is known."""
    DANGEROUS = "dangerous"
    """It runs code, reads or writes files, reaches the network, or leads there."""


_HARMLESS_MAGIC = {("copyreg", "__newobj__"), ("copyreg", "__newobj_ex__")}
"""What protocols below 2 make instances with; they call no more than the class does."""
_OWN_CLASSES = names_in("__main__ __mp_main__ __init__")
"""Where a training script's own classes are."""
_DESCRIBED = ("torch", "numpy")
"""Packages of which the inert names are listed: a function of theirs that takes a
file's name or another function isn't, and a dotted name leads anywhere.
"""
_FUNCTIONS_OF_TORCH = ("torch.nn.functional.", "torch._C._nn.", "torch.nn.init.")
"""Functions of numbers alone, which models hold as their activation."""


def judge(module: str, name: str) -> Verdict:
    """What calling a global could do.

    Args:
        module: dotted, as the pickle names it, in Python 3's names.
        name: of a function or class, perhaps dotted itself: protocol 4 resolves such a
            name attribute by attribute, so each of its parts counts.
    """
    dotted = f"{module}.{name}"
    components = dotted.split(".")
    if _has_magic(components):
        known = (module, name) in _HARMLESS_MAGIC or dotted in OTHERS
        return Verdict.HARMLESS if known else Verdict.DANGEROUS
    package = components[0]
    if package in sys.stdlib_module_names:
        harmless = name in STDLIB.get(module, ())
        return Verdict.HARMLESS if harmless else Verdict.DANGEROUS
    if dotted in OTHERS or TORCH.fullmatch(dotted):
        return Verdict.HARMLESS
    if _leads_to_code(components):
        return Verdict.DANGEROUS
    if package == "torch":
        return _judge_torch(dotted, name)
    if package in _DESCRIBED and "." in name:
        return Verdict.DANGEROUS
    return Verdict.UNKNOWN


def is_dangerous(module: str, name: str) -> bool:
    """Whether calling a global could do harm; the arguments as of `judge`."""
    return judge(module, name) is Verdict.DANGEROUS


def _has_magic(components: list[str]) -> bool:
    """Whether a part behind the package is one such as `__globals__`.

    From any Python function `__globals__` leads to its module's names, and from there
    to builtins and their eval: harmless.function.__globals__ is as good as os.system.

    Args:
        components: the parts of the dotted name, the package the first of them.
    """
    for part in components[1:]:
        if part.startswith("__") and part not in _OWN_CLASSES:
            return True
    return False


def _leads_to_code(components: list[str]) -> bool:
    """Whether the name is, or is reached through, something that runs code.

    Args:
        components: the parts of the dotted name, the package the first of them.
    """
    if components[-1] in CODE_FUNCTIONS:
        return True
    for length in range(1, len(components) + 1):
        if ".".join(components[:length]) in CODE_MODULES:
            return True
    return any(_is_foreign(components, at) for at in range(1, len(components)))


def _is_foreign(components: list[str], at: int) -> bool:
    """Whether a part is another package's module that the one before it imported.

    A project may well have a module called `types` or `code` with a class in it, so of
    a module, what is taken from it must be a function.

    Args:
        components: the parts of the dotted name.
        at: the part to look at, behind the package.
    """
    part = components[at]
    is_last = at == len(components) - 1
    if part in _DESCRIBED:
        return not is_last
    if part not in REACHABLE_MODULES:
        return False
    return is_last or not components[-1][:1].isupper() or part in _ALWAYS_FOREIGN


_ALWAYS_FOREIGN = names_in(
    """
    __builtin__ __builtins__ builtins ctypes importlib nt os pickle posix posixpath pty
    runpy shutil socket subprocess sys
    """
)
"""Names that no project gives to a module of its own."""


def _judge_torch(dotted: str, name: str) -> Verdict:
    """What is not on the list of torch's inert names.

    It loads libraries, compiles programs and opens URLs. The functions that models hold
    as their activation, and classes, are no more than unknown.

    Args:
        dotted: the whole name.
        name: of the function or class, perhaps dotted.
    """
    if "." in name:
        return Verdict.DANGEROUS
    for beginning in _FUNCTIONS_OF_TORCH:
        if dotted.startswith(beginning) and "." not in dotted[len(beginning) :]:
            return Verdict.UNKNOWN
    top = dotted == f"torch.{name}" and name in _ACTIVATIONS
    if top or (dotted.startswith(_CLASSES_OF_TORCH) and name.lstrip("_")[:1].isupper()):
        return Verdict.UNKNOWN
    return Verdict.DANGEROUS


_ACTIVATIONS = names_in(
    "celu exp relu selu sigmoid sin softmax tanh abs cos log_softmax rrelu prelu erf"
)
_CLASSES_OF_TORCH = (
    "torch.ao.nn.",
    "torch.ao.quantization.",
    "torch.quantization.",
    "torch.amp.",
    "torch.autograd.variable.",
    "torch.cuda.amp.",
    "torch.distributed.fsdp.",
    "torch.distributed._shard.",
    "torch.distributed._tensor.",
    "torch.distributed.tensor.",
    "torch.distributions.",
    "torch.nested.",
    "torch.nn.",
    "torch.optim.",
    "torch.utils.data.",
    "torch.utils.hooks.",
)
"""Beginnings of the dotted names of classes that trainers save."""
