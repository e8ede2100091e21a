"""The program in a .pt2: the names, texts and expressions of its JSON.

Its schema is torch/_export/serde/schema.py. Names become Python, which torch executes;
operators are looked up; expressions are evaluated. Each has a form that torch.export
writes, and anything else is reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from checkpoint_release.runtimes.computing_operators import (
    COMPUTING,
    HIGHER_ORDER,
    names_in,
)
from checkpoint_release.runtimes.torch_export_expressions import is_expression, is_guard

_MAX_SHOWN = 80

_IDENTIFIER = re.compile(r"[A-Za-z_]\w{0,500}", re.ASCII)
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f'\"\\\u2028\u2029]*")
_KEY = re.compile(r"[\w./ -]*")
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,6}", re.ASCII)
_UNBACKED = ("u", "zuf")  # symbols that are counted up to their number

_OPERATOR_FUNCTIONS = names_in(
    """
    abs add and_ eq floordiv ge getitem gt index inv invert le lshift lt mod mul ne neg
    not_ or_ pos pow rshift sub truediv xor
    """
)
_MATH_FUNCTIONS = names_in(
    """
    acos asin atan ceil cos cosh exp floor log log2 pow sin sinh sqrt tan tanh trunc
    """
)
_TORCH_FUNCTIONS = names_in(
    """
    sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt sym_sum _sym_acos
    _sym_asin _sym_atan _sym_cos _sym_cosh _sym_log2 _sym_sin _sym_sinh _sym_sqrt
    _sym_tan _sym_tanh
    """
)
_NAMESPACES = frozenset({"aten", "prim", "prims", "quantized", "_quantized"})

_STRUCTURES = names_in(
    """
    builtins.dict builtins.list builtins.tuple collections.OrderedDict collections.deque
    torch.Size torch.fx.immutable_collections.immutable_dict
    torch.fx.immutable_collections.immutable_list
    """
)
_FACTORIES = frozenset({"dict", "float", "int", "list", "set", "str", "tuple"})

_NAMES = frozenset({"name", "as_name", "forward_arg_names"})
_KINDS = {"expr_str": "expression", "guards_code": "guard"} | dict.fromkeys(
    _NAMES, "name"
)
_Path = tuple[str, ...]
_ARGUMENT = ("nodes", "inputs", "arg", "as_string")
"""Where a text may be anything: torch writes it into Python as a literal."""
_OPERATORS = frozenset({"target", "as_operator"})
_SPECS = frozenset({"in_spec", "out_spec"})


def program_problems(program: Any) -> Iterator[str]:
    """What a program names that torch.export doesn't write for what only computes.

    Args:
        program: the JSON of an ExportedProgram.

    Yields:
        A clause for each thing, perhaps one several times.
    """
    pending: list[tuple[_Path, Any]] = [((), program)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for name, part in value.items():
                yield from _key_problems(path[-1:], name)
                if not _is_metadata(path, name, part):
                    pending.append(((*path[-3:], name), part))
        elif isinstance(value, list):
            pending.extend((path, part) for part in value)
        elif isinstance(value, str) and path != _ARGUMENT:
            yield from _text_problems(path[-1] if path else "", value)


def _is_metadata(path: _Path, name: str, value: Any) -> bool:
    """Whether a value is metadata of a node or program: texts such as stack traces."""
    if name != "metadata" or path[-1:] not in (("nodes",), ("graph_module",)):
        return False
    if not isinstance(value, dict):
        return False
    return all(isinstance(text, str) for text in value.values())


def _key_problems(parent: _Path, name: str) -> Iterator[str]:
    """What is wrong with a key of the JSON: some become names of the program."""
    if name in ("as_custom_obj", "custom_obj"):
        yield "it uses an object of a class of its own"
    elif parent == ("range_constraints",) and name.startswith(_UNBACKED):
        if not _SYMBOL.fullmatch(name):
            yield f"it has a symbol {name!r:.{_MAX_SHOWN}}"
    elif not _TEXT.fullmatch(name):
        yield f"it has a name {name!r:.{_MAX_SHOWN}}"


def _text_problems(key: str, text: str) -> Iterator[str]:
    """What is wrong with a text, by the key that it is found under."""
    if key in _OPERATORS:
        if not computes(text):
            yield f"it names the operator {text!r:.{_MAX_SHOWN}}"
    elif key in _SPECS:
        yield from structure_problems(text)
    elif not _has_form(key, text):
        yield f"it has the {_KINDS.get(key, 'text')} {text!r:.{_MAX_SHOWN}}"


def _has_form(key: str, text: str) -> bool:
    """Whether a text has the form of what is found under a key."""
    if key == "expr_str":
        return is_expression(text)
    if key == "guards_code":
        return is_guard(text)
    if key in _NAMES:
        return not text or _IDENTIFIER.fullmatch(text) is not None
    return _TEXT.fullmatch(text) is not None


def computes(target: str) -> bool:
    """Whether a node's target is an operator that only computes.

    Args:
        target: dotted, as in "torch.ops.aten.add.Tensor" or "_operator.mul".
    """
    parts = target.split(".")
    match parts:
        case ["torch", "ops", "higher_order", name]:
            return name in HIGHER_ORDER
        case ["torch", "ops", namespace, name, overload]:
            if namespace not in _NAMESPACES or not _IDENTIFIER.fullmatch(overload):
                return False
            return not overload.startswith("__") and name in COMPUTING[namespace]
        case ["torch", name]:
            return name in _TORCH_FUNCTIONS
        case ["_operator", name]:
            return name in _OPERATOR_FUNCTIONS
        case ["math", name]:
            return name in _MATH_FUNCTIONS
    return False


def structure_problems(text: str) -> Iterator[str]:
    """What the structure of inputs or outputs names beyond containers.

    Args:
        text: JSON in the JSON, as torch.utils._pytree.treespec_dumps writes it.
    """
    if not text:
        return
    try:
        _, spec = json.loads(text)
        pending = [spec]
        while pending:
            node = pending.pop()
            yield from _node_problems(node["type"], node["context"])
            pending.extend(node["children_spec"])
    except (ValueError, TypeError, KeyError, RecursionError):
        yield f"it has inputs or outputs of the structure {text!r:.{_MAX_SHOWN}}"


def _node_problems(kind: Any, context: Any) -> Iterator[str]:
    """What a container of inputs names.

    Args:
        kind: the dotted name of its type, None for a leaf.
        context: what belongs to the type; for most JSON once more, of a dict its keys.

    Raises:
        ValueError, TypeError: the context is no JSON.
    """
    if kind is None and context is None:
        return
    if kind == "collections.defaultdict":
        parts = dict(context)
        module, name = parts["default_factory_module"], parts["default_factory_name"]
        if module != "builtins" or name not in _FACTORIES:
            yield f"its inputs or outputs call {module}.{name}"
        context = parts["dict_context"]
    elif kind == "collections.namedtuple":
        context = [context]  # the name of a class that has to be known already
    elif kind not in _STRUCTURES:
        yield f"its inputs or outputs are of the type {kind!r:.{_MAX_SHOWN}}"
        return
    keys = json.loads(context) if isinstance(context, str) else context
    if not isinstance(keys, list):
        keys = [keys]
    if not all(map(_is_key, keys)):
        yield f"its inputs or outputs have the keys {context!r:.{_MAX_SHOWN}}"


def _is_key(value: Any) -> bool:
    """Whether a key of a container can be written into Python without being code."""
    if value is None or type(value) in (int, bool, float):
        return True
    return isinstance(value, str) and _KEY.fullmatch(value) is not None
