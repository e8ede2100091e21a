"""An inspection as a text for people, and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.text import for_terminal, printable
from checkpoint_release.pth import escape_surrogates

if TYPE_CHECKING:
    from checkpoint_release.state_dict.fitting import Fit
    from checkpoint_release.state_dict.inspection import Inspection

TensorShapes = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name → (safetensors dtype such as "F32", shape)."""

_WIDTH = 100  # characters of a fact in the report
_UNITS = ("B", "kB", "MB", "GB", "TB")


def as_text(found: Inspection) -> str:
    """The report for people.

    A section is left out where there is nothing in it. Facts are cut to a line each
    (they may be as long as the file's author likes); tensors and the names of code are
    complete, because people look for one of them.
    """
    lines = [f"{found.path}: {found.kind}"]
    summary = [f"verdict: {found.safety}"]
    if found.tool:
        summary.insert(0, f"written by: {found.tool}")
    summary += [f"fits: {_fit_line(each)}" for each in found.fits]
    lines += summary
    for key, tensors in found.state_dicts.items():
        lines += _state_dict_lines(key, tensors, found.tied.get(key, []))
    training = found.training.items()
    facts = [printable(f"{key}: {value}", _WIDTH - 1) for key, value in training]
    lines += _section("training", facts)
    unsafe = _counted(found.unsafe_globals)
    lines += _section("code that could do harm, not run", unsafe)
    unknown = _counted(found.unknown_globals)
    lines += _section("code of which nothing is known, not run", unknown)
    lines += _section("inert types", _counted(found.other_globals))
    lines += _section("notes", found.notes)
    lines += _section("for params.yaml", _params_lines(found.params))
    return "\n".join(for_terminal(line) for line in lines)


def as_json(found: Inspection) -> dict[str, Any]:
    """The inspection as JSON holds it; sizes are in bytes."""
    return {
        "path": escape_surrogates(str(found.path)),
        "kind": found.kind,
        "written_by": found.tool,
        "verdict": str(found.safety),
        "state_dicts": {
            escape_surrogates(key): _state_dict_json(tensors, found.tied.get(key, []))
            for key, tensors in found.state_dicts.items()
        },
        "training": found.training,
        "globals": {
            "dangerous": dict(found.unsafe_globals),
            "unknown": dict(found.unknown_globals),
            "harmless": dict(found.other_globals),
        },
        "fits": [_fit_json(each) for each in found.fits],
        "params": dict(found.params),
        "notes": list(found.notes),
    }


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """The size of a tensor, in bytes."""
    return DTYPES[dtype].nbytes(math.prod(shape))


def for_people(size: int) -> str:
    """A number of bytes in the decimal unit that fits, such as "44.7 MB"."""
    number = float(size)
    for unit in _UNITS[:-1]:
        if number < 1000:
            return f"{number:.1f} {unit}" if unit != "B" else f"{size} B"
        number /= 1000
    return f"{number:,.1f} {_UNITS[-1]}"


def _fit_line(fit: Fit) -> str:
    """A family in the report: its name, and what has to be selected for it."""
    line = fit.factory
    if fit.state_dict:
        line += f", state dict {printable(fit.state_dict)}"
    if fit.selection.prefix is not None:
        line += f", without the prefix {printable(fit.selection.prefix)}"
    if fit.selection.leave_out:
        patterns = ", ".join(map(printable, fit.selection.leave_out))
        line += f", without {patterns}"
    return line


def _fit_json(fit: Fit) -> dict[str, Any]:
    return {
        "factory": fit.factory,
        "kwargs": dict(fit.kwargs),
        "state_dict": escape_surrogates(fit.state_dict),
        "prefix": fit.selection.prefix,
        "leave_out": [escape_surrogates(each) for each in fit.selection.leave_out],
    }


def _state_dict_json(tensors: TensorShapes, tied: list[list[str]]) -> dict[str, Any]:
    """A state dict's tensors by name, their sum, and the names that share one."""
    described = {}
    total = 0
    for name, (dtype, shape) in tensors.items():
        size = nbytes(dtype, shape)
        total += size
        described[escape_surrogates(name)] = {
            "dtype": dtype,
            "shape": list(shape),
            "bytes": size,
        }
    groups = [[escape_surrogates(name) for name in group] for group in tied]
    return {"tensors": described, "bytes": total, "tied": groups}


def _state_dict_lines(
    key: str, tensors: TensorShapes, tied: list[list[str]]
) -> list[str]:
    """A state dict in the report: how large it is, and a line for each tensor.

    Names are a file's own text; each is one visible line here, and complete.

    Args:
        key: where in the file it is.
        tensors: name → dtype and shape.
        tied: groups of names that share a tensor.
    """
    names = {name: printable(name, len(name)) for name in tensors}
    width = min(_WIDTH, max(map(len, names.values()), default=0))
    same = {name: group[0] for group in tied for name in group[1:]}
    rows = []
    elements = total = 0
    for name, (dtype, shape) in tensors.items():
        size = nbytes(dtype, shape)
        row = f"{names[name]:{width}}  {dtype} {list(shape)}  {for_people(size)}"
        if name in same:
            row += f"  the same as {names[same[name]]}"
        rows.append(row)
        elements += math.prod(shape)
        total += size
    title = f"state dict {printable(key)}" if key else "state dict"
    count = f"{len(tensors)} tensors, {elements:,} values, {for_people(total)}"
    return _section(f"{title}: {count}", rows)


def _params_lines(params: Mapping[str, Any]) -> list[str]:
    """The options as YAML has them, by section."""
    lines = []
    section = ""
    for option, value in params.items():
        name, _, key = option.partition(".")
        if name != section:
            section = name
            lines.append(f"{name}:")
        lines.append(f"  {key}: {_yaml(value)}")
    return lines


def _yaml(value: Any) -> str:
    """A value on one line of YAML: texts that could be read otherwise in quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    text = printable(str(value))
    if isinstance(value, str) and not _is_simple(text):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return text


def _is_simple(text: str) -> bool:
    """Whether YAML reads the text as itself, without quotes."""
    safe = all(each.isalnum() or each in "/._:<>- " for each in text)
    beginning = text[:1].isalpha() or text[:1] in "/."
    ambiguous = text.lower() in ("null", "true", "false", "yes", "no", "on", "off", "")
    tricky = ": " in text or text.endswith((":", " "))
    return safe and beginning and not ambiguous and not tricky


def _counted(names: Mapping[str, int]) -> list[str]:
    """A row for each name of code, with how often the pickle would have called it."""
    return [f"{name} ×{count}" for name, count in names.items()]


def _section(title: str, rows: list[str] | tuple[str, ...]) -> list[str]:
    """A part of the report: a title and indented rows; nothing without rows.

    Args:
        title: a line by itself.
        rows: a line each.
    """
    if not rows:
        return []
    return [title, *(f"  {for_terminal(row)}" for row in rows)]
