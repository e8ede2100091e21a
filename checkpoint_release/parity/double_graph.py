"""An ONNX graph in double precision: what it computes when nothing is rounded to
float32 but the numbers in its file.

onnx's reference evaluator runs it, with float64 in the place of float32. The file keeps
scalar constants (√2, 1/√d, the epsilon of a normalisation) in float32, where the model
computes with the numbers that round to them; see checkpoint_release.parity.constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from onnx.reference import ReferenceEvaluator

from checkpoint_release.core.dtypes import FLOATS
from checkpoint_release.core.large import is_large
from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.parity.constants import Constant, Weights, likely_number
from checkpoint_release.parity.double_operators import OPERATORS
from checkpoint_release.runtimes.onnx_graph import (
    names,
    names_read,
    subgraphs,
    walk_graphs,
    walk_nodes,
)
from checkpoint_release.runtimes.onnx_skeleton import (
    embed,
    map_initializers,
    read_in_place,
)
from checkpoint_release.tensors.tensor import Tensor

TYPES = ("to", "dtype", "output_datatype")
"""The attributes by which a node says what type it gives.

Not stash_type, the type that a normalisation computes in: the evaluator computes in
that of the input, which is widened, and takes no node that states another than float32.
"""
NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
"""What is widened."""
LARGEST_HELD = 64 << 10
"""Bytes of a weight of a large model; larger ones are widened while a node reads them.
"""
EXACT_BITS = 12
"""Numbers of so few significant bits, such as 0.5 and 768, are what was meant."""


NO_WEIGHTS = Weights()


class DoubleGraph:
    """A graph that is ready to be evaluated.

    Attributes:
        graph: as it is evaluated.

    Args:
        file: the ONNX file, in float32.
        weights: of the checkpoint.
        names: what to call the outputs, in order; None: as the graph does.
        tables: gives a constant in double precision that the model computes as a table;
            None: it is none. See checkpoint_release.parity.computed_tables.
    """

    def __init__(
        self,
        file: Path,
        weights: Weights = NO_WEIGHTS,
        names: Sequence[str] | None = None,
        tables: Callable[[Array], Array | None] | None = None,
    ) -> None:
        model = read_in_place(file, keep=LARGEST_HELD)
        self._mapped = _take_mapped(file, model.graph)
        # what lies in subgraphs and attributes
        load_external_data_for_model(model, str(file.parent))
        _widen(model.graph)
        # the types that it states for its values are those before it was widened
        del model.graph.value_info[:]
        self.graph = model.graph
        self._evaluator: Any = ReferenceEvaluator(model, new_ops=OPERATORS)
        self._last_reader = _last_readers(model.graph)
        self._names = names
        self._weights = weights
        known = set() if tables is None else self._set_tables(tables)
        self._places = list(_constant_places(self._evaluator, weights, known))

    def tensors_beside_weights(self) -> Arrays:
        """Name → numbers of the constants that are floats and no weights, widened."""
        found = {}
        for name, array in self._evaluator.rt_inits_.items():
            is_float = array.dtype == np.float64
            if is_float and not self._weights.include(name, array):
                found[name] = array
        return found

    def _set_tables(self, tables: Callable[[Array], Array | None]) -> set[str]:
        """Let the graph compute with tables in double precision.

        Returns:
            The names of those that are tables.
        """
        known = set()
        for name, array in self.tensors_beside_weights().items():
            wide = tables(array)
            if wide is not None:
                self._evaluator.rt_inits_[name] = wide
                known.add(name)
        return known

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """The outputs, by name, in the graph's order.

        Args:
            inputs: by name, as the signature has them.
        """
        own_names = [output.name for output in self.graph.output]
        found = self._evaluate(inputs, keep=False)
        outputs = {}
        for name, own in zip(self._names or own_names, own_names, strict=True):
            value = found[own] if own in found else _wide(self._mapped[own])
            outputs[name] = np.asarray(value)
        return outputs

    def every_value(self, inputs: Mapping[str, Array]) -> Arrays:
        """Name → value of the inputs, of weights that aren't large, and of everything
        that is computed; optional values that the graph leaves out have none.

        Args:
            inputs: by name, as the signature has them.
        """
        found = self._evaluate(inputs, keep=True)
        values = {}
        for name, value in found.items():
            if value is not None:
                # of arrays without a dimension, the evaluator may give a scalar
                values[name] = np.asarray(value)
        return values

    def _evaluate(self, inputs: Mapping[str, Array], *, keep: bool) -> dict[str, Any]:
        """Run every node, in the file's order, and widen large weights for those nodes
        alone that read them.

        Args:
            inputs: by name, as the signature has them.
            keep: whether to keep what no later node reads, and isn't an output.

        Returns:
            Name → value.
        """
        values: dict[str, Any] = {"": None}  # an optional input that is left out
        values.update(self._evaluator.rt_inits_)
        values.update(_feeds(inputs))
        for position, node in enumerate(self._evaluator.rt_nodes_):
            computed = self._run_node(node, values)
            values.update(zip(node.output, computed, strict=False))
            if not keep:
                for name in self._last_reader.get(position, ()):
                    values.pop(name, None)
        return values

    def _run_node(self, node: Any, values: Mapping[str, Any]) -> Sequence[Any]:
        """What a node computes.

        Args:
            node: the evaluator's.
            values: all that was computed before it.
        """
        table = self._mapped.get(node.input[0]) if node.op_type == "Gather" else None
        if table is not None:
            # rows of what may be the largest weight of all: the rows alone are widened
            rows = node.run(table.numpy(), self._value(values, node.input[1]))[0]
            wide = np.asarray(rows, np.float64)
            table.forget()
            return (wide,)
        read = [self._value(values, name) for name in node.input]
        # the nodes with subgraphs, which may read anything
        options = {"context": values} if node.need_context() else {}
        computed: Sequence[Any] = node.run(*read, **options)
        return computed

    def _value(self, values: Mapping[str, Any], name: str) -> Any:
        """What a node reads under a name."""
        return values[name] if name in values else _wide(self._mapped[name])

    def constants(self, *, by_value: bool = True) -> list[Constant]:
        """The constants that may stand for other numbers than the stored ones.

        Args:
            by_value: whether equal numbers are one constant, wherever they occur.
        """
        if not by_value:
            return [Constant(place.stored, [place.set]) for place in self._places]
        constants: dict[float, Constant] = {}
        for place in self._places:
            constant = constants.setdefault(place.stored, Constant(place.stored))
            constant.places.append(place.set)
        return list(constants.values())

    def set_likely_constants(self) -> None:
        """Set every constant to the number that it most likely stands for."""
        for constant in self.constants():
            constant.set(likely_number(constant.stored))

    def operators(self) -> Iterator[Any]:
        """The evaluator's nodes of the main graph, whose `run` may be replaced."""
        yield from self._evaluator.rt_nodes_

    def narrow_operators(self, inputs: Mapping[str, Array]) -> list[str]:
        """The types of nodes that give float32 although the graph was widened: the
        evaluator has them in no other precision.

        Args:
            inputs: by name, as the signature has them.
        """
        values = self.every_value(inputs)
        narrow = set()
        for node in self.graph.node:
            for name in node.output:
                if name in values and values[name].dtype == np.float32:
                    narrow.add(node.op_type)
        return sorted(narrow)


def _take_mapped(file: Path, graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Take the large weights out of the graph of a large model, and bring all others
    into it; the large ones stay in the file.

    Args:
        file: of the graph.
        graph: as read_in_place gives it. What a subgraph reads, and what isn't a float,
            stays in it.

    Returns:
        Name → tensor.
    """
    inner = _read_inside(graph)
    tensors = map_initializers(file, graph)
    mapped = {}
    if is_large(sum(tensor.nbytes for tensor in tensors.values())):
        for name, tensor in tensors.items():
            is_float = tensor.dtype in FLOATS
            if is_float and tensor.nbytes > LARGEST_HELD and name not in inner:
                mapped[name] = tensor
    kept = [tensor for tensor in graph.initializer if tensor.name not in mapped]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    embed(graph, tensors)
    return mapped


def _wide(tensor: Tensor) -> Array:
    """A large weight in float64; nothing else of it is kept in memory."""
    wide: Array = tensor.numpy().astype(np.float64)
    tensor.forget()
    return wide


def _read_inside(graph: onnx.GraphProto) -> set[str]:
    """The names that the subgraphs of a graph's nodes read."""
    found: set[str] = set()
    for node in graph.node:
        for subgraph in subgraphs(node):
            found |= names_read(subgraph)
    return found


def _last_readers(graph: onnx.GraphProto) -> dict[int, list[str]]:
    """Position of a node → the values that nothing reads after it.

    Args:
        graph: whose outputs, and whatever a subgraph reads, are always kept.
    """
    last: dict[str, int] = {}
    for position, node in enumerate(graph.node):
        for name in (*node.input, *node.output):
            last[name] = position
    kept = {"", *names(graph.output)} | _read_inside(graph)
    readers: dict[int, list[str]] = {}
    for name, position in last.items():
        if name not in kept:
            readers.setdefault(position, []).append(name)
    return readers


def _feeds(inputs: Mapping[str, Array]) -> Arrays:
    """The inputs with floats in float64."""
    feeds = {}
    for name, array in inputs.items():
        is_float = array.dtype.kind == "f"
        feeds[name] = array.astype(np.float64) if is_float else array
    return feeds


# --------------------------------------------------------------------------------------
# Widening


def _widen(graph: onnx.GraphProto) -> None:
    """Make every float in the graph and its subgraphs float64, in place.

    Their types stand in weights and constants, in the types of inputs and outputs, and
    in attributes by which a node names the type that it casts to or computes in.

    Args:
        graph: of a model that is consistent in its types; it is in float64 afterwards,
            and its constants are initialisers.
    """
    for inner in walk_graphs(graph):
        _make_initialisers_of_constants(inner)
        for tensor in inner.initializer:
            _widen_tensor(tensor)
        for value in (*inner.input, *inner.output):
            declared = value.type.tensor_type
            if declared.elem_type in NARROW:
                declared.elem_type = TensorProto.DOUBLE
    for node in walk_nodes(graph):
        if node.op_type == "ConstantOfShape" and not node.attribute:
            node.attribute.append(helper.make_attribute("value", _ZERO))
        if node.op_type in _WINDOWS and _WINDOW_TYPE not in names(node.attribute):
            node.attribute.append(helper.make_attribute(_WINDOW_TYPE, _SINGLE))
        for attribute in node.attribute:
            _widen_attribute(attribute)


_ZERO = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
_WINDOWS = ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix")
_WINDOW_TYPE = "output_datatype"  # float32 where a node doesn't say
_SINGLE = int(TensorProto.FLOAT)


def _make_initialisers_of_constants(graph: onnx.GraphProto) -> None:
    """Turn the Constant nodes of a graph into initialisers, in place.

    Args:
        graph: without regard to its subgraphs.
    """
    nodes = []
    for node in graph.node:
        tensor = _tensor_of(node)
        if tensor is None:
            nodes.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(nodes)


def _tensor_of(node: onnx.NodeProto) -> TensorProto | None:
    """What a Constant node gives, if that is a tensor of numbers; otherwise None."""
    if node.op_type != "Constant":
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        return tensor
    dtype = _CONSTANT_DTYPES.get(attribute.name)
    if dtype is None:
        return None
    value = helper.get_attribute_value(attribute)
    return numpy_helper.from_array(np.array(value, dtype=dtype))


_CONSTANT_DTYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def _widen_attribute(attribute: onnx.AttributeProto) -> None:
    """Widen an attribute in place, if it concerns floats.

    Args:
        attribute: one that is a tensor, such as a constant's value, has its numbers
            widened; one that names a type, the type; others stay.
    """
    if attribute.type == attribute.TENSOR:
        _widen_tensor(attribute.t)
    if attribute.name in TYPES and attribute.i in NARROW:
        attribute.i = TensorProto.DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    """Make a tensor of floats float64 in place, which changes none of its numbers.

    Args:
        tensor: of any type; others stay as they are.
    """
    if tensor.data_type in NARROW:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


# --------------------------------------------------------------------------------------
# Constants


@dataclass(frozen=True)
class _Place:
    """Where one number stands.

    Attributes:
        stored: the number in the file.
        set: sets it.
    """

    stored: float
    set: Callable[[float], None]


def _constant_places(
    evaluator: Any, weights: Weights, known: Collection[str] = ()
) -> Iterator[_Place]:
    """Every number in the graph and its subgraphs that isn't a weight and may have been
    rounded when the file was written.

    Args:
        evaluator: of the graph.
        weights: as of DoubleGraph.
        known: the names of tensors that stay as they are.
    """
    constants = evaluator.rt_inits_
    for name, array in constants.items():
        small = array.size <= weights.largest_table
        if small and name not in known and not weights.include(name, array):
            constants[name] = array.copy()  # which may be written to
            yield from _array_places(constants[name])
    for node in evaluator.rt_nodes_:
        for name in node.attributes_names_:
            value = getattr(node, name)
            if isinstance(value, ReferenceEvaluator):
                yield from _constant_places(value, weights)
            elif isinstance(value, np.floating) and _may_be_rounded(float(value)):
                yield _Place(float(value), partial(setattr, node, name))


def _array_places(array: Array) -> Iterator[_Place]:
    """The numbers of an array, if they are floats."""
    if array.dtype != np.float64:
        return
    for index, value in np.ndenumerate(array):
        if _may_be_rounded(float(value)):
            yield _Place(float(value), partial(array.__setitem__, index))


def _may_be_rounded(value: float) -> bool:
    """Whether a number is one that others are likely to have been rounded to."""
    if not math.isfinite(value):
        return False
    fraction, _ = math.frexp(value)
    return not (fraction * 2.0**EXACT_BITS).is_integer()
