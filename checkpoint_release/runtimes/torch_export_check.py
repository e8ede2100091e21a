"""Whether a .pt2 does more than compute, found out without loading it.

torch.export.load runs what a file says in several ways (torch/export/pt2_archive/
_package.py, torch/_export/serde/serialize.py of torch 2.13):

- it unpickles sample inputs, weights and constants that are marked so, and objects;
- it loads compiled libraries (data/aotinductor);
- it looks operators up by dotted names, and calls them when the program runs;
- it evaluates symbolic shapes as Python (sympy.sympify);
- it imports modules that an input's structure names (enums, default factories);
- it writes Python out of the graph's names and texts, and executes that.

So pickles may hold tensors alone, and every name and text of the program has to be of
the form that torch.export gives it. What isn't needs trust.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.pth.archive import Entry
from checkpoint_release.runtimes.torch_archive import (
    REMEDY,
    TorchArchive,
    globals_of_checkpoint,
)
from checkpoint_release.runtimes.torch_export_program import program_problems

_MAX_LISTED = 5
_MAX_PROBLEMS = 20  # that are looked for in one member
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"

_TENSORS = re.compile(
    r"torch\.(Size|Tensor|device|nn\.parameter\.Parameter)"
    r"|torch\.(cuda\.)?\w+Storage|torch\.storage\.\w*Storage"
    r"|torch\.u?int\d+|torch\.b?float\d+\w*|torch\.complex\d+|torch\.bool"
    r"|torch\.(strided|contiguous_format|channels_last\w*)"
    r"|torch\.serialization\._get_layout"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter"
    r"|parameter_with_state|sparse_tensor)"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|collections\.OrderedDict"
)
"""What a pickle of tensors imports."""

_NOT_READ = re.compile(
    r"archive_(format|version)|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/(version|serialization_id)|extra(_files)?/.*"
)
"""Members that torch.export.load reads as text or not at all."""


def torch_export_problems(archive: TorchArchive) -> list[str]:
    """What an archive of torch.export.save holds beyond computing.

    Args:
        archive: of the present layout, or of that before torch 2.8.

    Returns:
        A clause for each thing, without doubles; none where it only computes.

    Raises:
        CheckpointError: a member can't be read.
    """
    problems: dict[str, None] = {}
    pickled: set[str] = set()
    for name, entry in archive.members.items():
        found = _member_problems(archive, name, entry, pickled)
        problems |= dict.fromkeys(islice(found, _MAX_PROBLEMS))
    for name in sorted(pickled):
        named = archive.members.get(name)
        if named is not None:
            problems |= dict.fromkeys(_pickle_problems(archive, named))
    return list(problems)


def _member_problems(
    archive: TorchArchive, name: str, entry: Entry, pickled: set[str]
) -> Iterator[str]:
    """What one member holds beyond computing.

    Args:
        archive, name, entry: the member.
        pickled: gets the names of the members that this one says are pickles.
    """
    if name.startswith("models/") or name == "serialized_exported_program.json":
        yield from program_problems(_json(archive, entry))
    elif name.startswith((_WEIGHTS, _CONSTANTS)):
        yield from _payload_problems(archive, name, entry, pickled)
    elif name.startswith(("data/sample_inputs/", "serialized_")):
        yield from _pickle_problems(archive, entry)
    elif not _NOT_READ.fullmatch(name):
        yield f"it holds {entry.name}"


def _payload_problems(
    archive: TorchArchive, name: str, entry: Entry, pickled: set[str]
) -> Iterator[str]:
    """What a member among the weights or constants holds beyond tensors."""
    folder, _, file = name.rpartition("/")
    if file.startswith(("custom_obj_", "opaque_obj_")):
        yield f"it holds an object ({entry.name})"
    elif file.endswith("_config.json"):
        pickled |= {f"{folder}/{path}" for path in _pickled_paths(archive, entry)}
    elif file.endswith(".pt"):
        yield from _pickle_problems(archive, entry)


def _pickled_paths(archive: TorchArchive, entry: Entry) -> set[str]:
    """The files that a configuration of weights or constants says are pickles.

    Raises:
        CheckpointError: it isn't what torch.export.save writes.
    """
    config = _json(archive, entry)
    payloads = config.get("config") if isinstance(config, dict) else None
    if not isinstance(payloads, dict):
        raise CheckpointError(f"{entry.name} lists no payloads", REMEDY)
    found = set()
    for payload in payloads.values():
        path = payload.get("path_name") if isinstance(payload, dict) else None
        if not isinstance(path, str) or not re.fullmatch(r"[\w-]+", path):
            raise CheckpointError(f"{entry.name} names no file {path!r:.100}", REMEDY)
        if payload.get("use_pickle"):
            found.add(path.lower())
    return found


def _pickle_problems(archive: TorchArchive, entry: Entry) -> Iterator[str]:
    """What a pickled member holds beyond tensors."""
    if entry.size == 0:
        return
    names = globals_of_checkpoint(archive.bytes(entry))
    if names is None:
        yield f"{entry.name} is no archive of torch.save"
        return
    foreign = sorted(name for name in names if not _TENSORS.fullmatch(name))
    if foreign:
        yield f"{entry.name} makes {first_few(foreign, _MAX_LISTED)}"


def _json(archive: TorchArchive, entry: Entry) -> Any:
    """A member's JSON.

    Raises:
        CheckpointError: it is none, or nested too deeply.
    """
    try:
        return json.loads(archive.text(entry))
    except (ValueError, RecursionError):
        raise CheckpointError(f"{entry.name} is not JSON", REMEDY) from None
