"""The look into TorchScript and .pt2 that comes before torch opens them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from checkpoint_release.core.artifacts.formats import TORCHSCRIPT
from checkpoint_release.core.trust import Trust
from checkpoint_release.runtimes.torch_archive import TorchArchive, damage_named
from checkpoint_release.runtimes.torch_export_check import torch_export_problems
from checkpoint_release.runtimes.torchscript_check import (
    Operators,
    torchscript_problems,
)
from checkpoint_release.tensors.tensor import MappedFile

_MAX_LISTED = 3


@contextmanager
def trusted_archive(format: str, path: Path, trust: Trust) -> Iterator[Path]:
    """Give a path to open a file by, after it was seen that it only computes.

    On Linux the path stands for the file that was looked through: another one that is
    moved to its place meanwhile isn't opened.

    Args:
        format: TorchScript's or torch.export's.
        path: an existing file.
        trust: where it covers the format, nothing is looked into.

    Raises:
        ArtifactError: the archive is damaged, or torch could read it in another way.
        UntrustedCodeError: it does more than compute, and isn't trusted.
    """
    if trust.covers(format):
        yield path
        return
    with path.open("rb") as opened:
        same = Path(f"/proc/self/fd/{opened.fileno()}")
        file = same if same.exists() else path
        with damage_named(path):
            problems = _problems(format, file)
        if problems:
            listed = "; ".join(problems[:_MAX_LISTED])
            if len(problems) > _MAX_LISTED:
                listed += f"; and {len(problems) - _MAX_LISTED} more"
            trust.require(format, f"{path} does more than compute: {listed}")
        yield file


def _problems(format: str, file: Path) -> list[str]:
    """What the archive does beyond computing, as clauses."""
    archive = TorchArchive(MappedFile.of_file(file))
    if format == TORCHSCRIPT.name:
        return torchscript_problems(archive, _operators())
    return torch_export_problems(archive)


def _operators() -> Operators:
    """The operators of aten and prim that this torch has."""
    functions, methods = set(), set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace not in ("aten", "prim"):
            continue
        functions.add(name)
        if any(map(_is_receiver, schema.arguments)):
            methods.add(name)
    return Operators(frozenset(functions), frozenset(methods))


def _is_receiver(argument: torch._C.Argument) -> bool:
    """Whether a value that computes can stand for an operator's argument as `x` does in
    `x.method()`.

    A generator's methods change nothing but the program's own generator, and references
    to other processes can't be made without a function that does more than compute.
    """
    if argument.name != "self":
        return False
    return not str(argument.type).startswith(("Generator", "RRef"))
