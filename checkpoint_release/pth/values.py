"""From records to plain values, wherever what they mean is beyond doubt.

`resolve` finishes a nest that the machine has built: arrays become tensors, pickled
modules their state dicts, and what is too deep, too wide or contains itself is refused,
so that whoever walks the nest may do it without care. `to_json_value` goes further, down to
what JSON can hold, for facts that are shown to people.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Any, NoReturn

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth.builders import array_of, is_array
from checkpoint_release.pth.records import Inert
from checkpoint_release.tensors.tensor import Tensor

MAX_DEPTH = 200
MAX_NODES = 10_000_000
MAX_FACTS = 100_000
# characters in the names of pickled modules' tensors and in arrays kept as text, all
# together
MAX_COPIED = 64 << 20

_Size = tuple[int, int]
"""As how many values a container walks, and how deep it is."""


def resolve(root: Any) -> tuple[Any, list[str]]:
    """The finished nest, and the class names of the pickled modules in it.

    Containers and records are changed in place, so that what was shared stays shared.

    Raises:
        CheckpointError: the nest contains itself, is more than 200 deep, or walks as
        more than ten million values.
    """
    resolver = _Resolver()
    root = resolver.resolve(root)
    while resolver.records:
        record = resolver.records.pop()
        record.args = resolver.resolve(record.args)
        record.state = resolver.resolve(record.state)
        resolver.resolve(record.items)
        resolver.resolve(record.entries)
    return root, resolver.modules


class _Resolver:
    def __init__(self) -> None:
        self.records: list[Inert] = []
        self.modules: list[str] = []
        self._done: dict[int, Any] = {}
        self._sizes: dict[int, _Size] = {}
        self._kept: list[Any] = []  # keeps every id above from being used again
        self._left = MAX_COPIED

    def resolve(self, root: Any) -> Any:
        """Settle everything below `root` down to the records, whose own insides wait in
        `records`.
        """
        above: set[int] = set()  # ids of the containers that hold the one at hand
        todo = [(root, False)]
        while todo:
            node, finished = todo.pop()
            kind = type(node)
            if finished:
                above.discard(id(node))
                self._finish(node)
            elif id(node) in self._done:
                continue
            elif id(node) in above:
                raise CheckpointError(
                    f"the checkpoint holds a {kind.__name__} that contains itself",
                    "save a plain state dict instead",
                )
            elif kind is Inert:
                self._kept.append(node)
                self._done[id(node)] = self._instead_of(node)
            elif kind in _CONTAINERS:
                above.add(id(node))
                if len(above) > MAX_DEPTH:
                    _refuse(len(above), 0)
                todo.append((node, True))
                children = node.values() if kind is dict else node
                todo.extend(
                    (child, False) for child in children if type(child) in _COMPOSED
                )
        return self._done.get(id(root), root)

    def _finish(self, node: Any) -> None:
        result = node
        if type(node) is dict:
            for key, child in node.items():
                node[key] = self._done.get(id(child), child)
        elif type(node) is list:
            node[:] = [self._done.get(id(child), child) for child in node]
        else:
            result = tuple([self._done.get(id(child), child) for child in node])
            if all(new is old for new, old in zip(result, node, strict=True)):
                result = node
        nodes, depth = 1, 0
        for child in result.values() if type(node) is dict else result:
            below = (
                self._sizes.get(id(child), (1, 0))
                if type(child) in _CONTAINERS
                else (1, 0)
            )
            nodes += below[0]
            depth = max(depth, below[1])
        if nodes > MAX_NODES or depth + 1 > MAX_DEPTH:
            _refuse(depth + 1, nodes)
        self._kept += [node, result]
        self._done[id(node)] = result
        self._sizes[id(result)] = (nodes, depth + 1)
        self._done[id(result)] = result

    def _instead_of(self, record: Inert) -> Any:
        if is_array(record):
            return self._array(record)
        if _members(record) is None:
            return self._wait(record)
        tensors = self._module(record)
        self.modules.append(record.name)
        self._kept.append(tensors)
        self._sizes[id(tensors)] = (1 + len(tensors), 1)
        self._done[id(tensors)] = tensors
        return tensors

    def _wait(self, record: Inert) -> Inert:
        self.records.append(record)
        return record

    def _array(self, record: Inert) -> Any:
        if isinstance(record.state, tuple):
            self._charge(
                record, sum(len(part) for part in record.state[:8] if type(part) is str)
            )
        return array_of(record) or self._wait(record)

    def _charge(self, record: Inert, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise CheckpointError(
                f"what {record.name} stands for is repeated too often in the checkpoint"
            )

    def _module(self, root: Inert) -> dict[str, Any]:
        """The state dict of a pickled module: parameters, persistent buffers and
        submodules, in torch's order.
        """
        found: dict[str, Any] = {}
        todo = [("", root, 1)]
        while todo:
            prefix, module, depth = todo.pop()
            members = _members(module)
            if members is None or depth > MAX_DEPTH:
                raise CheckpointError(
                    f"the pickled module {root.name} can't be walked at {prefix!r}",
                    "save model.state_dict() instead of the model",
                )
            parameters, buffers, modules, passing = members
            self._charge(
                root,
                (len(prefix) + 64)
                * (1 + len(parameters) + len(buffers) + len(modules)),
            )
            left_out = {name for name in passing[:MAX_DEPTH] if type(name) is str}
            for name, value in (*parameters.items(), *buffers.items()):
                if isinstance(value, Inert):
                    value = self._array(value) if is_array(value) else self._wait(value)
                if value is not None and (name in parameters or name not in left_out):
                    found[f"{prefix}{_short(name)}"] = value
            submodules = [
                (f"{prefix}{_short(name)}.", submodule, depth + 1)
                for name, submodule in modules.items()
                if submodule is not None
            ]
            todo.extend(reversed(submodules))
        return found


def _refuse(depth: int, nodes: int) -> NoReturn:
    much = (
        f"is {depth} levels deep"
        if depth > MAX_DEPTH
        else f"unfolds into {nodes} values"
    )
    raise CheckpointError(
        f"the checkpoint's nest of values {much} or more; {MAX_DEPTH} levels and"
        f" {MAX_NODES} values are allowed",
        "leave it alone: this is how a pickle bomb looks; if it is yours, save a plain"
        " state dict",
    )


_CONTAINERS = frozenset({dict, list, tuple})
_COMPOSED = _CONTAINERS | {Inert}


def _members(
    record: Any,
) -> tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any], Sequence[Any]] | None:
    """A pickled module's parameters, buffers, submodules and the names of the buffers
    that aren't saved.
    """
    if not isinstance(record, Inert) or type(record.state) is not dict:
        return None
    parts: list[Any] = [
        record.state.get(key) for key in ("_parameters", "_buffers", "_modules")
    ]
    if not all(type(part) is dict for part in parts):
        return None
    passing = record.state.get("_non_persistent_buffers_set")
    return (
        parts[0],
        parts[1],
        parts[2],
        passing if isinstance(passing, list | tuple) else (),
    )


def _short(name: Any) -> str:
    if type(name) is not str or len(name) > 200:
        raise CheckpointError(
            "a pickled module has a name in it that no attribute can have"
        )
    return name


def escape_surrogates(text: str) -> str:
    """The text with its lone surrogates, which a pickle can hold and a file can't, as
    escapes.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def to_json_value(value: Any) -> Any:
    """What JSON can hold of a settled value: names for what has no other form, a
    summary for a tensor.

    Instances come as the dict of their fields, enum members as their values, omegaconf
    as the config it holds, tensors of one element as the number, and NaN and the
    infinities as text. At most 100,000 values are shown.
    """
    return _Plain().of(value, 0)


class _Plain:
    def __init__(self) -> None:
        self.left = MAX_FACTS
        self.above: set[int] = set()

    def of(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH or id(value) in self.above:
            return "…"
        match value:
            case None | bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else str(value)
            case str():
                self.left -= len(value) >> 6
                return escape_surrogates(value)
            case bytes():
                return f"{len(value)} bytes"
            case complex():
                return str(value)
            case Tensor():
                return self._tensor(value, depth)
        self.above.add(id(value))
        try:
            if isinstance(value, Inert):
                return self._record(value, depth)
            if isinstance(value, dict):
                return self._dict(value, depth)
            return [self.of(part, depth + 1) for part in value]
        finally:
            self.above.discard(id(value))

    def _tensor(self, value: Tensor, depth: int) -> Any:
        if value.size == 1 and value.dtype not in ("C32", "F4"):
            return self.of(value.numpy().reshape(-1)[0].item(), depth)
        return f"tensor {value.dtype} {list(value.shape)}"

    def _dict(self, entries: dict[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in entries.items():
            text = self.of(key, depth + 1)
            text = text if isinstance(text, str) else str(text)
            found[repr(text) if text in found else text] = self.of(value, depth + 1)
        return found

    def _record(self, record: Inert, depth: int) -> Any:
        state = record.state
        # an instance with slots
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = {**(state[0] if isinstance(state[0], dict) else {}), **state[1]}
        match record:
            case Inert(args=None):
                return record.name
            case Inert(name="uuid.UUID", state={"int": int() as number}) if (
                0 <= number < 1 << 128
            ):
                return str(uuid.UUID(int=number))
            case Inert(
                name="datetime.timedelta",
                args=(int() as days, int() as seconds, int() as micro),
            ):
                return self.of(days * 86400 + seconds + micro / 1e6, depth)
            case Inert(name="numpy.dtype", args=(str() as code, *_)):
                return self.of(code, depth)
        if record.name.startswith("omegaconf.") and isinstance(state, dict):
            for key in ("_content", "_val"):
                if key in state:
                    return self.of(state[key], depth + 1)
        if record.entries and not record.items:
            return self._dict(record.entries, depth)
        if record.items and not record.entries:
            return [self.of(item, depth + 1) for item in record.items]
        if isinstance(state, dict) and not record.items:
            fields = state.get("__dict__")  # pydantic keeps the fields one step down
            return self._dict(fields if isinstance(fields, dict) else state, depth)
        args = record.args or ()
        if state is None and len(args) == 1 and isinstance(args[0], str | int | float):
            return self.of(args[0], depth)
        if state is None and not args:
            return {}
        return {
            "class": record.name,
            "arguments": self.of(args, depth + 1),
            "state": self.of(state, depth + 1),
        }
