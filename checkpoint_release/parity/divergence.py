"""Where an ONNX graph diverges from the model: the first node whose value the model
never computes.

The graph is evaluated in float64 by onnx's reference evaluator, and the eager model in
float64 by torch, with every intermediate value of both kept. A value of the graph is
known when the model computes the same numbers somewhere, in whatever layout (both are
compared sorted). Exporters cut operations up differently, so an unknown value is no
fault by itself: it is one when nothing that is computed from it is known either. Of the
nodes whose inputs are all sound, the graph diverges at the first one whose value the
model nearly computes; where there is none, at the first of all.

It needs torch and onnx, and a graph that is broken may break them: explain_divergence
runs it in a process of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from checkpoint_release.core.signature import Array
from checkpoint_release.parity.graph_proof import BAR
from checkpoint_release.parity.search import search_isolated

if TYPE_CHECKING:
    import onnx

# relative; the graph's own constants, such as √2, are rounded to float32
CONSTANTS = 3e-7
# likewise, where these constants are known: a mistake may be far below float32's noise
ALIGNED = 1e-13
ROUNDED = 1e-5  # relative; where the graph computes in float32 whatever it is given
# relative; a value so close to one of the model's, and not it, is the same operation
# done wrong
NEARLY = 1e-2


def explain_divergence(
    checkpoint: Path, file: Path, inputs: Mapping[str, Array], output: str
) -> str:
    """One sentence on where the graph diverges from the model.

    It never fails; see search_isolated.

    Args:
        checkpoint: the folder of the checkpoint.
        file: the ONNX file.
        inputs: those of a case in which it is wrong; the fewer numbers, the faster.
        output: the name of an output that is wrong.
    """
    what = "the first node that diverges"
    return search_isolated(what, find_divergence, checkpoint, file, inputs, output)


def find_divergence(
    checkpoint: Path, file: Path, inputs: Mapping[str, Array], output: str
) -> str:
    """The work behind explain_divergence, in this process.

    Args:
        checkpoint, file, inputs, output: as for explain_divergence.

    Returns:
        One sentence: on the first node that diverges; or that none does, because the
        graph is right in float64, or because only its outputs are mixed up.
    """
    from checkpoint_release.parity.constants import weights_of
    from checkpoint_release.parity.double_graph import DoubleGraph
    from checkpoint_release.parity.eager_values import record_eager

    evaluated = DoubleGraph(file, weights_of(checkpoint))
    evaluated.set_likely_constants()
    graph, values = evaluated.graph, evaluated.every_value(inputs)
    modules, expected = record_eager(checkpoint, inputs)
    known = _KnownValues(modules)
    for tolerance in (CONSTANTS, ALIGNED):
        trace = _Trace.of(graph, values, set(inputs), known, tolerance)
        wrong = trace.wrong_outputs(expected, max(trace.tolerance, BAR))
        if wrong:
            break
    else:
        return (
            "evaluated in float64 the graph computes what the model computes, so no"
            " node of it diverges: the error arises where ONNX Runtime computes in less"
            " precision"
        )
    suspects = list(trace.suspects(output if output in wrong else wrong[0]))
    for node in suspects:
        if trace.is_nearly_known(node):
            return trace.describe(node)
    if suspects:
        return trace.describe(suspects[0])
    return (
        f"no node diverges: every value is one that the model computes, and {wrong[0]}"
        f" holds that of {trace.origin(wrong[0])}"
    )


class _KnownValues:
    """Everything the model computes, to be found by its numbers in any order.

    A graph may transpose or reshape a value that the model lays out otherwise. That
    two values agree by chance when both are sorted is left out of account.

    Args:
        recorded: each of the model's values with the module that computes it, in the
            order of computation.
    """

    def __init__(self, recorded: Iterable[tuple[str, Array]]) -> None:
        self._by_size: dict[int, list[tuple[str, Array]]] = defaultdict(list)
        for module, array in recorded:
            ascending = np.sort(array, axis=None)
            self._by_size[array.size].append((module, ascending))

    def find(self, value: Array, tolerance: float) -> str | None:
        """The module that computes it, the last one where several do; None: none does.

        Args:
            value: of the graph; only floats are looked for.
            tolerance: relative to the largest of the model's numbers.
        """
        if value.dtype.kind != "f" or value.size == 0:
            return None
        numbers = np.sort(value.astype(np.float64), axis=None)
        for module, array in reversed(self._by_size[value.size]):
            # the largest magnitude of ascending numbers is at one of their ends
            reach = float(np.abs(array[[0, -1]]).max())
            if np.allclose(numbers, array, rtol=0, atol=tolerance * reach):
                return module
        return None


@dataclass(frozen=True)
class _Trace:
    """The values of a graph, and which of them the model computes too.

    Attributes:
        graph: the graph.
        values: name → what it holds.
        derived: the names of all values that depend on the inputs.
        known: what the model computes.
        tolerance: relative; within it, numbers are the same.
        origins: derived value that consists of floats → the module that computes it;
            None: none does.
        sound: the inputs, the derived values that the model computes, and those that
            something sound is computed from.
    """

    graph: onnx.GraphProto
    values: Mapping[str, Array]
    derived: set[str]
    known: _KnownValues
    tolerance: float
    origins: Mapping[str, str | None]
    sound: set[str]

    @classmethod
    def of(
        cls,
        graph: onnx.GraphProto,
        values: Mapping[str, Array],
        inputs: set[str],
        known: _KnownValues,
        tolerance: float,
    ) -> _Trace:
        """Look for every derived value among those of the model.

        Where a derived value is in float32 although the graph was widened, some node
        rounds whatever it is given, and everything is compared by ROUNDED.

        Args:
            graph: the graph.
            values: name → what it holds.
            inputs: the names of the graph's inputs.
            known: what the model computes.
            tolerance: relative, where nothing is rounded to float32.
        """
        derived = _derived(graph, inputs)
        floats = {}
        for name in derived.intersection(values):
            if values[name].dtype.kind == "f":
                floats[name] = values[name]
        dtypes = {array.dtype for array in floats.values()}
        if np.dtype(np.float32) in dtypes:
            tolerance = max(tolerance, ROUNDED)
        origins = {}
        for name, array in floats.items():
            origins[name] = known.find(array, tolerance)
        sound = inputs | _sound_values(graph, values, derived, origins)
        return cls(graph, values, derived, known, tolerance, origins, sound)

    def wrong_outputs(self, expected: Sequence[Array], tolerance: float) -> list[str]:
        """The names of the graph's outputs that aren't what the model gives.

        Args:
            expected: the model's outputs, in the graph's order.
            tolerance: relative.

        Returns:
            Names in that order.
        """
        wrong = []
        for output, array in zip(self.graph.output, expected, strict=True):
            if not _close(self.values[output.name], array, tolerance):
                wrong.append(output.name)
        return wrong

    def suspects(self, output: str) -> Iterator[onnx.NodeProto]:
        """The nodes at which an output may diverge, in the graph's order.

        The output depends on them, and they make an unsound value of sound ones.

        Args:
            output: the name of an output that is wrong.
        """
        needed = _ancestors(self.graph, output)
        for node in self.graph.node:
            outputs = self._derived_of(node.output)
            if needed.isdisjoint(outputs):
                continue
            unsound = self.sound.isdisjoint(outputs)
            if unsound and self.sound.issuperset(self._derived_of(node.input)):
                yield node

    def is_nearly_known(self, node: onnx.NodeProto) -> bool:
        """Whether the model computes nearly the node's value.

        Args:
            node: a suspect; of several values, one is enough.
        """
        for name in self.origins.keys() & set(node.output):
            if self.known.find(self.values[name], NEARLY):
                return True
        return False

    def origin(self, name: str) -> str | None:
        """The module that computes a value, or None.

        Args:
            name: of an output, which may be the input itself or a constant.
        """
        return self.known.find(self.values[name], self.tolerance)

    def describe(self, node: onnx.NodeProto) -> str:
        """The sentence that names a node as the first that diverges.

        It also names the modules that compute the node's inputs, and its constants:
        what is wrong is the operation, or one of these.

        Args:
            node: a suspect; of one without a name, the first value's name is given.
        """
        name = node.name or self._derived_of(node.output)[0]
        sentence = f"the first node that diverges is {node.op_type} {name!r}"
        modules, constants = [], []
        for source in _given(node.input):
            module = self.origins.get(source)
            if source not in self.derived:
                constants.append(source)
            elif module and module not in modules:
                modules.append(module)
        if modules:
            sentence += f", which takes what {' and '.join(modules)} computes"
        if constants:
            sentence += f" (and {', '.join(constants)})"
        return sentence

    def _derived_of(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose values depend on the inputs, in order.

        Args:
            names: the inputs or the outputs of a node.
        """
        return [name for name in names if name in self.derived]


def _sound_values(
    graph: onnx.GraphProto,
    values: Mapping[str, Array],
    derived: set[str],
    origins: Mapping[str, str | None],
) -> set[str]:
    """The derived values that the model computes, or from which something sound comes.

    A value that the model doesn't compute is sound nevertheless if something sound is
    computed from it: the operation is only cut up differently. So soundness spreads to
    what comes before, and this goes from the last node to the first.

    Args:
        graph: the graph; its nodes are in an order in which they can be computed.
        values, derived, origins: as of _Trace.
    """
    sound: set[str] = set()
    leads_on: set[str] = set()
    for node in reversed(graph.node):
        if _is_known(node, values, origins) or leads_on.intersection(node.output):
            sound.update(derived.intersection(node.output))
            leads_on.update(node.input)
    return sound


def _is_known(
    node: onnx.NodeProto,
    values: Mapping[str, Array],
    origins: Mapping[str, str | None],
) -> bool:
    """Whether the model computes one of a node's values.

    A node that gives no floats, such as one that computes a shape, counts as known:
    eager models compute such numbers in Python, where they aren't recorded.

    Args:
        node: of the graph.
        values, origins: as of _Trace.
    """
    known = True
    for name in node.output:
        if name in values and values[name].dtype.kind == "f":
            if origins.get(name) is not None:
                return True
            known = False
    return known


def _close(value: Array, expected: Array, tolerance: float) -> bool:
    """Whether two arrays are the same, up to rounding.

    The tolerance is absolute within an array, since small numbers among large ones are
    what is left of sums in which the large ones cancel.

    Args:
        value: of the graph.
        expected: of the model.
        tolerance: relative to the largest of the expected numbers.
    """
    if value.shape != expected.shape:
        return False
    reach = float(np.abs(expected).max(initial=0.0))
    return bool(np.allclose(value, expected, rtol=0, atol=tolerance * reach))


def _given(names: Iterable[str]) -> list[str]:
    """The names of the values that a node really has.

    ONNX leaves out an optional input or output by an empty name in its place.

    Args:
        names: a node's inputs or outputs.
    """
    return [name for name in names if name]


def _derived(graph: onnx.GraphProto, inputs: set[str]) -> set[str]:
    """The names of all values that depend on the inputs, these included.

    All others are constants: weights, and what is computed from weights alone.

    Args:
        graph: the graph; its nodes are in an order in which they can be computed.
        inputs: the names of its inputs.
    """
    derived = set(inputs)
    for node in graph.node:
        if derived.intersection(node.input):
            derived.update(_given(node.output))
    return derived


def _ancestors(graph: onnx.GraphProto, output: str) -> set[str]:
    """The names of all values that an output depends on, itself included.

    Args:
        graph: the graph; its nodes are in an order in which they can be computed.
        output: the name of the output.
    """
    needed = {output}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(_given(node.input))
    return needed
