"""The finished nest of values: arrays as tensors, pickled modules as state dicts.

What is too deep, too wide or contains itself is refused, so that whoever walks the nest
may do it without care.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth.arrays import array_of, is_array
from checkpoint_release.pth.records import Inert
from checkpoint_release.tensors.tensor import Tensor

MAX_DEPTH = 200
MAX_NODES = 10_000_000
# characters in the names of pickled modules' tensors and in arrays kept as text, all
# together
MAX_COPIED = 64 << 20
MAX_ATTRIBUTE_NAME = 200  # characters in the name of a module's parameter or the like

_CONTAINERS = frozenset({dict, list, tuple})
_COMPOSED = _CONTAINERS | {Inert}


def resolve(root: Any) -> tuple[Any, list[str]]:
    """The finished nest, and the class names of the pickled modules in it.

    Containers and records are changed in place, so that what was shared stays shared.

    Raises:
        CheckpointError: the nest contains itself, is more than 200 deep, or walks as
            more than ten million values.
    """
    resolver = _Resolver()
    root = resolver.resolve(root)
    while resolver.waiting:
        record = resolver.waiting.pop()
        record.args = resolver.resolve(record.args)
        record.state = resolver.resolve(record.state)
        resolver.resolve(record.items)
        resolver.resolve(record.entries)
    return root, resolver.modules


@dataclass(frozen=True)
class _Size:
    """As how many values something walks, and how deep it is."""

    nodes: int
    depth: int


_LEAF = _Size(1, 0)


@dataclass(frozen=True)
class _Members:
    """What a pickled module consists of, by name."""

    parameters: dict[Any, Any]
    buffers: dict[Any, Any]
    modules: dict[Any, Any]
    non_persistent: frozenset[str]

    def __len__(self) -> int:
        return len(self.parameters) + len(self.buffers) + len(self.modules)

    def saved(self) -> Iterator[tuple[Any, Any]]:
        """Name and value of what a state dict holds, in torch's order."""
        for name, value in self.parameters.items():
            if value is not None:
                yield name, value
        for name, value in self.buffers.items():
            if value is not None and name not in self.non_persistent:
                yield name, value


class _Resolver:
    """Walks a nest down to the records, whose own insides wait in `waiting`.

    Attributes:
        waiting: the records that were met and not yet walked.
        modules: class names of the pickled modules that were met.
    """

    def __init__(self) -> None:
        self.waiting: list[Inert] = []
        self.modules: list[str] = []
        self._results: dict[int, Any] = {}  # by the id of what they stand for
        self._sizes: dict[int, _Size] = {}
        self._kept: list[Any] = []  # keeps every id above from being used again
        self._copies_left = MAX_COPIED

    def resolve(self, root: Any) -> Any:
        """Resolve everything below `root`, children before what holds them.

        The walk has a stack of its own, because a file chooses how deep it goes.

        Raises:
            CheckpointError: a container contains itself, or is too deep or too wide.
        """
        above: set[int] = set()  # ids of the containers that hold the one at hand
        todo = [(root, False)]
        while todo:
            node, finished = todo.pop()
            if finished:
                above.discard(id(node))
                self._finish(node)
            elif id(node) in self._results:
                continue
            elif id(node) in above:
                raise CheckpointError(
                    f"the checkpoint holds a {type(node).__name__} that contains"
                    " itself",
                    "save a state dict of tensors instead",
                )
            elif type(node) is Inert:
                self._kept.append(node)
                self._results[id(node)] = self._stands_for(node)
            elif type(node) in _CONTAINERS:
                above.add(id(node))
                if len(above) > MAX_DEPTH:
                    raise _too_large(f"is {len(above)} levels deep")
                todo.append((node, True))
                todo.extend(_composed_children(node))
        return self._results.get(id(root), root)

    def _finish(self, node: Any) -> None:
        """Put what the children stand for in their places, now that all are resolved.

        Raises:
            CheckpointError: the container walks as more values or levels than allowed.
        """
        result = self._with_results(node)
        size = self._measure(result)
        if size.depth > MAX_DEPTH:
            raise _too_large(f"is {size.depth} levels deep")
        if size.nodes > MAX_NODES:
            raise _too_large(f"unfolds into {size.nodes} values")
        self._kept += [node, result]
        self._results[id(node)] = result
        self._results[id(result)] = result
        self._sizes[id(result)] = size

    def _with_results(self, node: Any) -> Any:
        """The same dict or list, changed; the same tuple where nothing changes."""
        results = self._results
        if type(node) is dict:
            for key, child in node.items():
                node[key] = results.get(id(child), child)
            return node
        resolved = [results.get(id(child), child) for child in node]
        if type(node) is list:
            node[:] = resolved
            return node
        for new, old in zip(resolved, node, strict=True):
            if new is not old:
                return tuple(resolved)
        return node

    def _measure(self, container: Any) -> _Size:
        """The size of a container whose children have been measured.

        What is shared counts each time, as a walk would meet it.
        """
        nodes, depth = 1, 0
        for child in container.values() if type(container) is dict else container:
            below = _LEAF
            if type(child) in _CONTAINERS:
                below = self._sizes.get(id(child), _LEAF)
            nodes += below.nodes
            depth = max(depth, below.depth)
        return _Size(nodes, depth + 1)

    def _stands_for(self, record: Inert) -> Any:
        """A tensor for an array, a state dict for a module, otherwise the record."""
        if is_array(record):
            return self._array(record)
        members = _members(record)
        if members is None:
            return self._wait(record)
        tensors = self._state_dict(record)
        self.modules.append(record.name)
        self._kept.append(tensors)
        self._sizes[id(tensors)] = _Size(1 + len(tensors), 1)
        self._results[id(tensors)] = tensors
        return tensors

    def _wait(self, record: Inert) -> Inert:
        self.waiting.append(record)
        return record

    def _array(self, record: Inert) -> Tensor | Inert:
        """The array's tensor; the record itself where it holds other than numbers.

        Text in its state is copied into bytes, and charged.
        """
        if isinstance(record.state, tuple):
            for part in record.state[:8]:
                if type(part) is str:
                    self._charge(record, len(part))
        return array_of(record) or self._wait(record)

    def _charge(self, record: Inert, characters: int) -> None:
        """Account for text that a record makes the reader copy.

        Raises:
            CheckpointError: more than MAX_COPIED all together.
        """
        self._copies_left -= characters
        if self._copies_left < 0:
            raise CheckpointError(
                f"what {record.name} stands for is repeated too often in the checkpoint"
            )

    def _state_dict(self, root: Inert) -> dict[str, Any]:
        """The state dict of a pickled module, in torch's order.

        It holds parameters, persistent buffers, and the same of the submodules.

        Raises:
            CheckpointError: a submodule isn't one, or they are nested too deeply.
        """
        found: dict[str, Any] = {}
        todo: list[tuple[str, Any, int]] = [("", root, 1)]
        while todo:
            prefix, module, depth = todo.pop()
            members = _members(module)
            if members is None or depth > MAX_DEPTH:
                raise CheckpointError(
                    f"the pickled module {root.name} can't be walked at {prefix!r}",
                    "save model.state_dict() instead of the model",
                )
            self._charge(root, (len(prefix) + 64) * (1 + len(members)))
            for name, value in members.saved():
                found[f"{prefix}{_attribute(name)}"] = self._tensor(value)
            for name, submodule in reversed(members.modules.items()):
                if submodule is not None:
                    below = f"{prefix}{_attribute(name)}."
                    todo.append((below, submodule, depth + 1))
        return found

    def _tensor(self, value: Any) -> Any:
        if not isinstance(value, Inert):
            return value
        return self._array(value) if is_array(value) else self._wait(value)


def _composed_children(container: Any) -> Iterator[tuple[Any, bool]]:
    """The children that may hold others, each marked as not yet resolved."""
    for child in container.values() if type(container) is dict else container:
        if type(child) in _COMPOSED:
            yield child, False


def _members(record: Any) -> _Members | None:
    """A pickled module's members.

    Returns:
        None for what is no module: one has these three in its __dict__, whatever its
        class is called.
    """
    if not isinstance(record, Inert) or type(record.state) is not dict:
        return None
    state = record.state
    parts: list[dict[Any, Any]] = []
    for key in ("_parameters", "_buffers", "_modules"):
        part = state.get(key)
        if type(part) is not dict:
            return None
        parts.append(part)
    parameters, buffers, modules = parts
    non_persistent = _names(state.get("_non_persistent_buffers_set"))
    return _Members(parameters, buffers, modules, non_persistent)


def _names(listed: Any) -> frozenset[str]:
    """The names in a pickled set, which comes as a list; no more than MAX_DEPTH."""
    if not isinstance(listed, list | tuple):
        return frozenset()
    listed = listed[:MAX_DEPTH]
    return frozenset(name for name in listed if type(name) is str)


def _attribute(name: Any) -> str:
    """The name, checked.

    Raises:
        CheckpointError: no attribute can be called so.
    """
    if type(name) is not str or len(name) > MAX_ATTRIBUTE_NAME:
        raise CheckpointError(
            "a pickled module has a name in it that no attribute can have"
        )
    return name


def _too_large(how: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint's nest of values {how} or more; {MAX_DEPTH} levels and"
        f" {MAX_NODES} values are allowed",
        "do not load it: it looks like a pickle bomb; if it is yours, save a state dict"
        " of tensors",
    )
