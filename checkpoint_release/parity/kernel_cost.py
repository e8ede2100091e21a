"""Question two's absolute part: what a runtime's kernels may cost.

Kernels approximate a function to some share of its range, not of its value: ONNX
Runtime's sigmoid errs by 6e-8 where its value is near 1, and also where it is 10⁻⁴. A
sum is rounded at the magnitude of its terms, in an order that is the kernel's own,
whatever is left of it. How much of that reaches an output depends on the model. So the
graph is evaluated in double precision once more, with the results of such operations
moved by two steps of float32 at that magnitude: all up, all down, and each at random.
The largest change of an output over the three is what correct kernels may cost there.

Steps of float64 in the place of float32's give what double precision itself costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.signature import Array
from checkpoint_release.parity.double_graph import DoubleGraph
from checkpoint_release.parity.error_stats import error_stats
from checkpoint_release.parity.reference import NO_COST, KernelCost

FLOAT32_STEP = 2.0**-23
FLOAT64_STEP = 2.0**-52
"""The distance of 1 to the next number of the dtype."""
KERNEL_STEPS = 2.0
"""How many steps kernels may be off; those of ONNX Runtime are within one or two."""
SEED = 0

Signs = Callable[[tuple[int, ...]], Array | float]


@dataclass(frozen=True)
class Call:
    """One operation while a graph is evaluated.

    Attributes:
        node: the evaluator's node, which has the operator's attributes.
        run: computes its results.
        inputs: what it was given.
        value: its first result.
    """

    node: Any
    run: Callable[..., Any]
    inputs: Sequence[Array]
    value: Array


Reach = Callable[[Call], Array | float]
"""The magnitude at which an operation's result is rounded, as the result's shape."""


def kernel_costs(
    graph: DoubleGraph, inputs: Mapping[str, Array], step: float = FLOAT32_STEP
) -> dict[str, KernelCost]:
    """What kernels may cost in one case.

    Args:
        graph: of the artifact.
        inputs: of the case.
        step: of the precision, as a share of what is computed.

    Returns:
        Float output → its cost.
    """
    random = np.random.default_rng(SEED)
    draws: list[Signs] = [
        lambda shape: 1.0,
        lambda shape: -1.0,
        lambda shape: random.choice([-1.0, 1.0], size=shape),
    ]
    outputs = graph.run(inputs)
    costs: dict[str, KernelCost] = {}
    for signs in draws:
        with _moved(graph, KERNEL_STEPS * step, signs):
            changed = graph.run(inputs)
        for name, array in outputs.items():
            if array.dtype.kind != "f":
                continue
            stats = error_stats(array, changed[name])
            before = costs.get(name, NO_COST)
            costs[name] = KernelCost(
                max(before.typical, stats.rms), max(before.worst, stats.max_abs)
            )
    return costs


@contextmanager
def _moved(graph: DoubleGraph, step: float, signs: Signs) -> Iterator[None]:
    """Let the operators of REACHES give values that are a little off.

    Args:
        graph: whose nodes; those of subgraphs stay exact.
        step: as a share of the reach.
        signs: shape of a value → the directions to move it in.
    """
    changed = []
    for node in graph.operators():
        reach = REACHES.get(node.op_type)
        if reach is not None:
            node.run = _moving(node, node.run, reach, step, signs)
            changed.append(node)
    try:
        yield
    finally:
        for node in changed:
            del node.run  # the class's own again


def _moving(
    node: Any, run: Callable[..., Any], reach: Reach, step: float, signs: Signs
) -> Callable[..., Any]:
    """A node's `run` whose first result is moved.

    Args:
        node: the evaluator's node.
        run: its own.
        reach: of its operator.
        step, signs: as for _moved.
    """

    def moved(*inputs: Any, **options: Any) -> Any:
        if node.op_type in SUMS_INSIDE:
            x, *others = inputs
            inputs = (x + step * np.abs(x) * signs(x.shape), *others)
        value, *others = run(*inputs, **options)
        if value.dtype.kind != "f":
            return (value, *others)
        distance = step * reach(Call(node, run, inputs, value))
        return (value + distance * signs(value.shape), *others)

    return moved


def _one(call: Call) -> float:
    """Of functions with values about −1 to 1, or with a 1 added on the way."""
    return 1.0


def _of_input(call: Call) -> Array:
    """Of functions that are the input times such a function."""
    magnitudes: Array = np.abs(call.inputs[0])
    return magnitudes


def _of_alpha(call: Call) -> float:
    """Of α · (exp(x) − 1)."""
    return abs(float(call.node.alpha)) * float(getattr(call.node, "gamma", 1.0))


def _of_logarithm(call: Call) -> Array:
    """Of the logarithm of a sum: it is rounded where it is far from 0."""
    magnitudes: Array = np.maximum(1.0, np.abs(call.inputs[0]))
    return magnitudes


def _of_terms(call: Call) -> Array:
    """Of sums of products: the same operation on magnitudes, where nothing cancels."""
    magnitudes = []
    for value in call.inputs:
        is_float = value is not None and value.dtype.kind == "f"
        magnitudes.append(np.abs(value) if is_float else value)
    terms: Array = call.run(*magnitudes)[0]
    return terms


def _of_layer(call: Call) -> Array:
    """Of a normalisation over the last axes."""
    x, scale = call.inputs[:2]
    axes = tuple(range(int(call.node.axis) % x.ndim, x.ndim))
    return _of_normalised(x, axes, float(call.node.epsilon)) * np.abs(scale)


def _of_instance(call: Call) -> Array:
    """Of a normalisation of each channel, of shape (batch, channels, ...)."""
    x, scale = call.inputs[:2]
    axes = tuple(range(2, x.ndim))
    by_channel = np.abs(scale).reshape(-1, *(1 for _ in axes))
    return _of_normalised(x, axes, float(call.node.epsilon)) * by_channel


def _of_normalised(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Of (x − mean) / √(variance + epsilon): the mean is rounded at its own magnitude,
    and a small variance magnifies that.
    """
    mean = np.abs(x.mean(axis=axes, keepdims=True))
    deviation = np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)
    reach: Array = mean / deviation
    return reach


SUMS_INSIDE = ("RNN", "GRU", "LSTM")
"""Operators that sum products of their input before their functions: the terms move."""

REACHES: dict[str, Reach] = {
    "Sigmoid": _one,
    "HardSigmoid": _one,
    "Tanh": _one,
    "Erf": _one,
    "Sin": _one,
    "Cos": _one,
    "Softplus": _one,
    "RNN": _one,
    "GRU": _one,
    "LSTM": _one,
    "Gelu": _of_input,
    "HardSwish": _of_input,
    "Swish": _of_input,
    "Mish": _of_input,
    "Elu": _of_alpha,
    "Celu": _of_alpha,
    "Selu": _of_alpha,
    "LogSoftmax": _of_logarithm,
    "LayerNormalization": _of_layer,
    "InstanceNormalization": _of_instance,
    "MatMul": _of_terms,
    "Gemm": _of_terms,
    "Conv": _of_terms,
    "ConvTranspose": _of_terms,
    "CumSum": _of_terms,
    "ReduceMean": _of_terms,
    "ReduceSum": _of_terms,
    "GlobalAveragePool": _of_terms,
    "AveragePool": _of_terms,
}
"""Operator → the magnitude at which steps of float32 may be lost."""
