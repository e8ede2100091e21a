"""The finished nest of values: arrays as tensors, pickled modules as state dicts.

What is too deep, too wide or contains itself is refused, so that whoever walks the nest
may do it without care.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.pth.arrays import array_of, is_array
from checkpoint_release.pth.budget import Budget
from checkpoint_release.pth.records import Inert
from checkpoint_release.tensors.tensor import Tensor

# Levels of containers: whoever walks the nest may recurse, and Python's stack allows
# about 1,000 calls. Checkpoints have some ten levels.
MAX_DEPTH = 200
# Values that a walk meets, what is shared counted each time: thirty lists that each
# hold the one before twice are a few bytes in a pickle and a billion values to a walk.
MAX_NODES = 10_000_000
_NAME = 250  # bytes that a name of a module's tensor takes, besides its prefix
_NOTE = 400  # bytes that the walk keeps of a container or record
MAX_ATTRIBUTE_NAME = 200  # characters in the name of a module's parameter or the like

_CONTAINERS = frozenset({dict, list, tuple})
_COMPOSED = _CONTAINERS | {Inert}


def resolve(root: Any, budget: Budget) -> tuple[Any, list[str]]:
    """The finished nest, and the class names of the pickled modules in it.

    Containers and records are changed in place, so that what was shared stays shared.
    Records are walked after what holds them, each as a root of its own: two objects may
    well name each other, and only containers must not.

    Args:
        root: a pickle's value, as the Unpickler makes it.
        budget: of the file; the walk's own notes are charged to it.

    Raises:
        CheckpointError: the nest contains itself, is more than 200 deep, or walks as
            more than ten million values; or the budget is spent.
    """
    resolver = _Resolver(budget)
    root = resolver.resolve(root)
    while resolver.waiting:
        record = resolver.waiting.pop()
        record.args = resolver.resolve(record.args)
        record.state = resolver.resolve(record.state)
        resolver.resolve(record.items)
        resolver.resolve(record.entries)
    return root, resolver.modules


@dataclass(frozen=True, slots=True)
class _Size:
    """As how many values something walks, and how deep it is.

    Attributes:
        nodes: itself and everything below it, what is shared counted each time.
        depth: levels of containers, itself among them.
    """

    nodes: int
    depth: int


_EMPTY = _Size(1, 1)  # a container


@dataclass(frozen=True)
class _Members:
    """What a pickled module consists of, by name.

    The fields of torch.nn.Module (torch/nn/modules/module.py); names and values are as
    the pickle has them, not yet checked.

    Attributes:
        parameters, buffers: tensors, or None for one that is registered and unset.
        modules: the submodules' records, or None.
        non_persistent: the buffers that a state dict leaves out.
    """

    parameters: dict[Any, Any]
    buffers: dict[Any, Any]
    modules: dict[Any, Any]
    non_persistent: frozenset[str]

    def __len__(self) -> int:
        return len(self.parameters) + len(self.buffers) + len(self.modules)

    def saved(self) -> Iterator[tuple[Any, Any]]:
        """Name and value of what a state dict holds, in torch's order.

        As Module._save_to_state_dict does: parameters, then persistent buffers, without
        those that are unset.
        """
        for name, value in self.parameters.items():
            if value is not None:
                yield name, value
        for name, value in self.buffers.items():
            if name in self.non_persistent:
                continue
            if value is not None:
                yield name, value


class _Resolver:
    """Walks a nest down to the records, whose own insides wait in `waiting`.

    What a value stands for is found once and remembered by the value's id, so that a
    value that a million places share costs as much as one, and stays one.

    Attributes:
        waiting: the records that were met and not yet walked.
        modules: class names of the pickled modules that were met.

    Args:
        budget: of the file.
    """

    def __init__(self, budget: Budget) -> None:
        self.waiting: list[Inert] = []
        self.modules: list[str] = []
        self._results: dict[int, Any] = {}  # by the id of what they stand for
        self._sizes: dict[int, _Size] = {}
        self._kept: list[Any] = []  # keeps every id above from being used again
        self._budget = budget

    def resolve(self, root: Any) -> Any:
        """Resolve everything below `root`, children before what holds them.

        The walk has a stack of its own, because a file chooses how deep it goes. On it
        are the containers that hold the one at hand, each with those of its children
        that are still to be looked at.

        Args:
            root: anything; a container is changed in place.

        Returns:
            What `root` stands for: itself, a tensor, a state dict or a new tuple.

        Raises:
            CheckpointError: a container contains itself, or is too deep or too wide.
        """
        if id(root) in self._results:
            return self._results[id(root)]
        above: dict[int, tuple[Any, Iterator[Any]]] = {}
        self._enter(root, above)
        while above:
            node, children = next(reversed(above.values()))
            child = self._next_unresolved(children)
            if child is None:
                del above[id(node)]
                self._finish(node)
            else:
                self._enter(child, above)
        return self._results.get(id(root), root)

    def _next_unresolved(self, children: Iterator[Any]) -> Any:
        """The next child that may hold others and wasn't met before; None: no more.

        Most values are numbers, text and tensors, and are passed over.
        """
        for child in children:
            if type(child) in _COMPOSED and child and id(child) not in self._results:
                return child
        return None

    def _enter(self, node: Any, above: dict[int, tuple[Any, Iterator[Any]]]) -> None:
        """Find what a record stands for, or put a container on top of `above`.

        Args:
            node: met for the first time.
            above: id → container that is being walked, and its children to come.

        Raises:
            CheckpointError: the container contains itself or is too deep, a record
                can't be walked, or the budget is spent.
        """
        if id(node) in above:
            raise CheckpointError(
                f"the checkpoint holds a {type(node).__name__} that contains itself",
                "save a state dict of tensors instead",
            )
        if type(node) is Inert:
            self._budget.charge(_NOTE)
            self._kept.append(node)
            self._results[id(node)] = self._stands_for(node)
        elif type(node) in _CONTAINERS and node:  # an empty one holds nothing
            self._budget.charge(_NOTE + 2 * len(node))
            above[id(node)] = node, iter(_children(node))
            if len(above) > MAX_DEPTH:
                raise _too_large(f"is {len(above)} levels deep")

    def _finish(self, node: Any) -> None:
        """Put what the children stand for in their places, now that all are resolved.

        The container is measured then, from its children's measures, so nothing has to
        walk a bomb to know that it is one.

        Args:
            node: a dict, list or tuple.

        Raises:
            CheckpointError: the container walks as more values or levels than allowed.
        """
        size, changed = self._measure(node)
        if size.depth > MAX_DEPTH:
            raise _too_large(f"is {size.depth} levels deep")
        if size.nodes > MAX_NODES:
            raise _too_large(f"unfolds into {size.nodes} values")
        result = self._with_results(node) if changed else node
        if result is not node:
            self._kept += [node, result]
            self._results[id(result)] = result
            self._sizes[id(result)] = size
        self._results[id(node)] = result
        self._sizes[id(node)] = size

    def _with_results(self, node: Any) -> Any:
        """The container with what its children stand for in their places.

        Args:
            node: a dict (whose keys hold nothing to resolve), list or tuple.

        Returns:
            The same dict or list, changed; a new tuple.
        """
        results = self._results
        if type(node) is dict:
            for key, child in node.items():
                node[key] = results.get(id(child), child)
            return node
        resolved = [results.get(id(child), child) for child in node]
        if type(node) is tuple:
            return tuple(resolved)
        node[:] = resolved
        return node

    def _measure(self, container: Any) -> tuple[_Size, bool]:
        """The size of a container whose children have been measured.

        What is shared counts each time, as a walk would meet it. A record is one value:
        its insides are walked later.

        Args:
            container: a dict, list or tuple.

        Returns:
            The size, and whether some of its children stand for something else.
        """
        results, sizes = self._results, self._sizes
        nodes, depth, changed = 1 + len(container), 0, False
        for child in _children(container):
            if type(child) not in _COMPOSED:
                continue
            result = results.get(id(child), child)
            changed = changed or result is not child
            if type(result) in _CONTAINERS:
                below = sizes.get(id(result), _EMPTY)
                nodes += below.nodes - 1
                if below.depth > depth:
                    depth = below.depth
        return _Size(nodes, depth + 1), changed

    def _stands_for(self, record: Inert) -> Any:
        """A tensor for an array, a state dict for a module, otherwise the record.

        Args:
            record: one that the walk meets for the first time.

        Raises:
            CheckpointError: a module can't be walked, or the copies are too many.
        """
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
        """The record itself, whose insides are walked later."""
        self.waiting.append(record)
        return record

    def _array(self, record: Inert) -> Tensor | Inert:
        """The array's tensor; the record itself where it holds other than numbers.

        Text in its state (an array's bytes as Python 2 wrote them) is copied into
        bytes, and charged: a thousand arrays could share one long text.

        Args:
            record: one that is_array; its state is checked by array_of, after this.
        """
        state = record.state if isinstance(record.state, tuple) else ()
        for part in state[:8]:  # numpy's own has five parts
            if type(part) is str:
                self._budget.charge(len(part))
        return array_of(record) or self._wait(record)

    def _state_dict(self, root: Inert) -> dict[str, Any]:
        """The state dict of a pickled module, in torch's order.

        It holds parameters, persistent buffers, and the same of the submodules, named
        as torch.nn.Module.state_dict names them: "features.0.weight". A submodule that
        is shared comes under each of its names. One that contains itself is refused by
        its depth, and sharing without end by the text that the names take.

        Args:
            root: the module's record.

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
                    f"the pickled module {root.name} can't be walked at"
                    f" {printable(prefix) or 'its top'}",
                    "save model.state_dict() instead of the model",
                )
            self._budget.charge((len(prefix) + _NAME) * (1 + len(members)))
            for name, value in members.saved():
                full_name = f"{prefix}{_attribute(name)}"
                if full_name in found:
                    raise CheckpointError(
                        f"the pickled module {root.name} has two tensors named"
                        f" {printable(full_name)}",
                        "save model.state_dict() instead of the model",
                    )
                found[full_name] = self._tensor(value)
            for name, submodule in reversed(members.modules.items()):
                if submodule is None:
                    continue
                below = f"{prefix}{_attribute(name)}."
                todo.append((below, submodule, depth + 1))
        return found

    def _tensor(self, value: Any) -> Any:
        """What a module's parameter or buffer stands for.

        Args:
            value: a tensor, mostly; an array, or a record of a tensor that can't be
                released, where a file has that.
        """
        if not isinstance(value, Inert):
            return value
        if is_array(value):
            return self._array(value)
        return self._wait(value)


def _children(container: Any) -> Iterable[Any]:
    """What a dict, list or tuple holds; a dict's keys are checked by the Unpickler."""
    if type(container) is dict:
        return container.values()
    return container  # type: ignore[no-any-return]


def _members(record: Any) -> _Members | None:
    """A pickled module's members.

    Args:
        record: anything that a module or the nest holds.

    Returns:
        None for what is no module: one has these three in its __dict__, whatever its
        class is called.
    """
    if not isinstance(record, Inert):
        return None
    if type(record.state) is not dict:
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
    """The names in a pickled set, which comes as a list; no more than MAX_DEPTH.

    It is walked once for each module that shares it, so its length is bounded.
    """
    if not isinstance(listed, list | tuple):
        return frozenset()
    listed = listed[:MAX_DEPTH]
    return frozenset(name for name in listed if type(name) is str)


def _attribute(name: Any) -> str:
    """The name of a parameter, buffer or submodule, checked.

    It becomes part of a tensor's name, and so of messages and of the release.

    Raises:
        CheckpointError: no attribute can be called so.
    """
    if type(name) is not str or len(name) > MAX_ATTRIBUTE_NAME:
        raise CheckpointError(
            "a pickled module has a name in it that no attribute can have"
        )
    return name


def _too_large(how: str) -> CheckpointError:
    """The error for a nest beyond MAX_DEPTH or MAX_NODES.

    Args:
        how: completes "the checkpoint's nest of values …".
    """
    return CheckpointError(
        f"the checkpoint's nest of values {how} or more; {MAX_DEPTH} levels and"
        f" {MAX_NODES} values are allowed",
        "do not load it: it looks like a pickle bomb; if it is yours, save a state dict"
        " of tensors",
    )
