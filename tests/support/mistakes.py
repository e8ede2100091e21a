"""Mistakes planted in exports, to see whether each is caught.

Each is a function that changes an ONNX model in place, or a torch module on its way to
TorchScript, and is tried in the families of tests.support.zoo that have what it
changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

Plant = Callable[[onnx.ModelProto], None]

ONNX_MISTAKES: dict[str, tuple[Plant, Sequence[str]]] = {}
"""What was done → how, and the families in which it is done."""

PERCEPTRONS = ("gelu", "tanh", "layer_norm")


class InapplicableError(Exception):
    """The model has nothing that the mistake could be made in."""


def mistake(*families: str, name: str | None = None) -> Callable[[Plant], Plant]:
    """Register a mistake under its function's name.

    Args:
        families: in which it is made.
        name: None: the function's, with spaces.
    """

    def register(plant: Plant) -> Plant:
        ONNX_MISTAKES[name or plant.__name__.replace("_", " ")] = (plant, families)
        return plant

    return register


# --------------------------------------------------------------------------------------
# Weights


def weights_of(model: onnx.ModelProto) -> list[TensorProto]:
    """The float initialisers with more than one number."""
    weights = []
    for tensor in model.graph.initializer:
        if (
            tensor.data_type == TensorProto.FLOAT
            and numpy_helper.to_array(tensor).size > 1
        ):
            weights.append(tensor)
    if not weights:
        raise InapplicableError
    return weights


def replace(tensor: TensorProto, array: np.ndarray[Any, Any]) -> None:
    """Give an initialiser other numbers."""
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))


def step(array: np.ndarray[Any, Any], index: Any) -> np.ndarray[Any, Any]:
    """The array with one number moved to the next float32."""
    moved = array.copy()
    moved[index] = np.nextafter(moved[index], np.float32(np.inf))
    return moved


Change = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def change_weight(name: str, dimensions: int, change: Change, *families: str) -> None:
    """Register a change of the largest weight with so many dimensions."""

    def plant(model: onnx.ModelProto) -> None:
        chosen = None
        for tensor in weights_of(model):
            if len(tensor.dims) == dimensions:
                larger = chosen is None or np.prod(tensor.dims) > np.prod(chosen.dims)
                chosen = tensor if larger else chosen
        if chosen is None:
            raise InapplicableError
        replace(chosen, change(numpy_helper.to_array(chosen)))

    mistake(*families, name=name)(plant)


def first_changed(array: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    changed = array.copy()
    changed.flat[0] = value
    return changed


def rows_swapped(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    changed = array.copy()
    changed[[0, 1]] = changed[[1, 0]]
    return changed


def first_row_zero(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    changed = array.copy()
    changed[0] = 0
    return changed


MATRICES = (*PERCEPTRONS, "attention", "residual_network")
change_weight("the last bit of a weight", 2, lambda w: step(w, (0, 0)), *MATRICES)
change_weight(
    "the last bit of the last weight", 2, lambda w: step(w, (-1, -1)), *MATRICES
)
change_weight("the last bit of a bias", 1, lambda b: step(b, 0), *MATRICES)
change_weight(
    "a weight transposed",
    2,
    lambda w: w.T if w.shape[0] == w.shape[1] else w[::-1],
    *MATRICES,
)
change_weight("a row of a weight zero", 2, first_row_zero, *MATRICES)
change_weight("two rows of a weight swapped", 2, rows_swapped, *MATRICES)
change_weight(
    "a weight in half precision", 2, lambda w: w.astype(np.float16), *MATRICES
)
change_weight("a bias in half precision", 1, lambda b: b.astype(np.float16), *MATRICES)
change_weight(
    "a weight times 1 + 2⁻²³", 2, lambda w: w * np.float32(1 + 2**-23), *MATRICES
)
change_weight("a bias negated", 1, lambda b: -b, *MATRICES)
change_weight("a bias left out", 1, np.zeros_like, *MATRICES)
change_weight("a number lost", 2, lambda w: first_changed(w, np.nan), *MATRICES)
change_weight("a kernel flipped", 4, lambda w: w[..., ::-1], "group_norm", "pooling")
change_weight(
    "the last bit of a kernel",
    4,
    lambda w: step(w, (0, 0, 0, 0)),
    "group_norm",
    "pooling",
    "upsampling",
)
change_weight(
    "a table off by one",
    2,
    lambda w: np.roll(w, 1, 0),
    "embedding",
    "exact_outputs",
    "language_model",
)
change_weight(
    "a frequency one step off",
    1,
    lambda b: step(b, 1),
    "rotary_attention",
    "sines_of_positions",
)
change_weight(
    "the gates of a cell permuted",
    2,
    lambda w: np.roll(w, w.shape[0] // 4, 0),
    "lstm",
    "two_layers_of_lstm",
)
change_weight(
    "the last bit in a cell", 2, lambda w: step(w, (0, 0)), "gru", "lstm", "rnn"
)


@mistake("residual_network", "transformer_block")
def two_equal_weights_swapped(model: onnx.ModelProto) -> None:
    by_shape: dict[tuple[int, ...], list[TensorProto]] = {}
    for tensor in weights_of(model):
        by_shape.setdefault(tuple(tensor.dims), []).append(tensor)
    for first, second, *_ in (group for group in by_shape.values() if len(group) > 1):
        arrays = [numpy_helper.to_array(tensor).copy() for tensor in (first, second)]
        replace(first, arrays[1])
        replace(second, arrays[0])
        return
    raise InapplicableError


# --------------------------------------------------------------------------------------
# Nodes


def nodes_of(model: onnx.ModelProto, *kinds: str) -> Iterator[NodeProto]:
    """The nodes of some operators.

    Raises:
        InapplicableError: there are none.
    """
    found = [node for node in model.graph.node if node.op_type in kinds]
    if not found:
        raise InapplicableError
    yield from found


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Give a node an attribute, in the place of one it has."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def attribute_of(node: NodeProto, name: str) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    raise InapplicableError


def operator(old: str, new: str, *families: str, **attributes: Any) -> None:
    """Register the mistake of one operator in the place of another."""

    def plant(model: onnx.ModelProto) -> None:
        node = next(nodes_of(model, old))
        node.op_type = new
        if attributes or new in BARE:
            del node.attribute[:]
        for name, value in attributes.items():
            set_attribute(node, name, value)

    mistake(*families, name=f"{new} for {old}")(plant)


BARE = (
    "Softsign",
    "Identity",
    "Tanh",
    "HardSigmoid",
    "Relu",
    "Sub",
    "Div",
    "Cos",
    "Sin",
)

operator("Sigmoid", "HardSigmoid", "sigmoid", "silu", "sigmoid head at -2")
operator("Tanh", "Softsign", "tanh", "gelu_tanh", "mish")
operator("Erf", "Tanh", "gelu", "transformer_block")
operator("Relu", "Identity", "relu", "layer_norm")
operator("Relu", "LeakyRelu", "relu", "layer_norm", alpha=1e-7)
operator("Elu", "Selu", "elu", "booleans")
operator("Softplus", "Relu", "softplus", "mish")
operator("LogSoftmax", "Softmax", "log_softmax_head", "sure_log_softmax", axis=-1)
operator(
    "ReduceMean", "ReduceMax", "mean_over_the_length", "rms_norm", "a_mean_of_many"
)
operator("Sin", "Cos", "rotary_attention", "sines_of_positions")
operator("Cos", "Sin", "rotary_attention")
operator("Add", "Sub", "attention", "transformer_block", "residual_network")
operator("Mul", "Max", "silu", "rms_norm")
operator("ArgMax", "ArgMin", "language_model")
operator("Abs", "Identity", "powers_and_roots", "attention_with_distances")
operator("Greater", "GreaterOrEqual", "causal_attention", "language_model")
operator("Greater", "Less", "booleans", "causal_attention")
operator("MaxPool", "AveragePool", "pooling", kernel_shape=[3, 3], strides=[2, 2])
operator("Sqrt", "Identity", "powers_and_roots")


def attribute(name: str, kind: str, label: str, value: Any, *families: str) -> None:
    """Register the mistake of another attribute.

    Args:
        name: of the attribute.
        kind: of the operator.
        label: what was done.
        value: the new one, or a function of the old one.
        families: in which it is made.
    """

    def plant(model: onnx.ModelProto) -> None:
        node = next(nodes_of(model, kind))
        new = value(attribute_of(node, name)) if callable(value) else value
        set_attribute(node, name, new)

    mistake(*families, name=label)(plant)


def next_float(value: float) -> float:
    """The next float32."""
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


attribute(
    "epsilon",
    "LayerNormalization",
    "an epsilon of 1.01e-5 for 1e-5",
    1.01e-5,
    "layer_norm",
    "transformer_block",
)
attribute(
    "epsilon",
    "LayerNormalization",
    "an epsilon one step off",
    next_float,
    "layer_norm",
    "transformer_block",
)
attribute(
    "epsilon",
    "InstanceNormalization",
    "an epsilon of 1e-6 for 1e-5",
    1e-6,
    "instance_norm",
    "group_norm",
)
attribute(
    "epsilon",
    "BatchNormalization",
    "another epsilon in a batch norm",
    1.0001e-5,
    "batch_norm",
)
attribute(
    "axis", "LayerNormalization", "a norm over another axis", 0, "transformer_block"
)
attribute(
    "axis", "Softmax", "a softmax over another axis", 0, "attention", "softmax_head"
)
attribute(
    "alpha", "LeakyRelu", "another slope", 0.0101, "leaky_relu", "leaky_relu at -5"
)
attribute(
    "alpha",
    "LeakyRelu",
    "a slope one step off",
    next_float,
    "leaky_relu",
    "leaky_relu at -5",
)
attribute("alpha", "Elu", "an alpha one step off", next_float, "elu", "elu at -5")
attribute(
    "linear_before_reset",
    "GRU",
    "the other kind of GRU",
    0,
    "gru",
    "gru_in_both_directions",
)
attribute("direction", "GRU", "a cell that runs backwards", "reverse", "gru")
attribute(
    "direction",
    "LSTM",
    "an LSTM that runs backwards",
    "reverse",
    "lstm",
    "two_layers_of_lstm",
)
attribute(
    "pads", "Conv", "padding on the other side", lambda pads: [2, 2, 0, 0], "group_norm"
)
attribute(
    "dilations", "Conv", "another dilation", lambda d: [1, 2], "pooling", "upsampling"
)
attribute("mode", "Resize", "another interpolation", "linear", "upsampling")
attribute("reverse", "CumSum", "a sum from the end", 1, "cumulated")
attribute("exclusive", "CumSum", "a sum without its last term", 1, "cumulated")


@mistake("gelu", "powers_and_roots", "attention_with_distances")
def a_constant_one_step_off(model: onnx.ModelProto) -> None:
    for node in nodes_of(model, "Constant"):
        tensor = attribute_of(node, "value")
        array = numpy_helper.to_array(tensor)
        fraction = np.frexp(array)[0] * 4096 if array.dtype == np.float32 else 0
        if array.size == 1 and not np.all(fraction == np.round(fraction)):
            moved = np.nextafter(array, np.float32(np.inf))
            set_attribute(node, "value", numpy_helper.from_array(moved))
            return
    raise InapplicableError


@mistake("rms_norm", "transformer_block", "language_model")
def an_epsilon_of_a_millionth_and_a_hundredth(model: onnx.ModelProto) -> None:
    for node in nodes_of(model, "Constant"):
        array = numpy_helper.to_array(attribute_of(node, "value"))
        if array.dtype == np.float32 and np.float32(1e-6) in array:
            wrong = np.full_like(array, 1.01e-6)
            set_attribute(node, "value", numpy_helper.from_array(wrong))
            return
    raise InapplicableError


@mistake("cancelling", "standardised_by_hand")
def the_operands_of_a_difference_swapped(model: onnx.ModelProto) -> None:
    node = next(nodes_of(model, "Sub"))
    node.input[:] = reversed(node.input)


@mistake("rotary_attention")
def a_concatenation_in_the_other_order(model: onnx.ModelProto) -> None:
    joined = nodes_of(model, "Concat")
    node = next(node for node in joined if attribute_of(node, "axis") == -1)
    node.input[:] = reversed(node.input)


@mistake("tiny_and_huge_outputs")
def two_outputs_swapped(model: onnx.ModelProto) -> None:
    first, second = (output.name for output in model.graph.output)
    names = {first: second, second: first}
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]


def after_output(label: str, families: Sequence[str], *nodes: NodeProto) -> None:
    """Register the mistake of more nodes between a model's first output and its end.

    Args:
        label: what was done.
        families: in which it is done.
        nodes: that read "true" and write "y"; "x" is the input.
    """

    def plant(model: onnx.ModelProto) -> None:
        name = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["true" if each == name else each for each in node.output]
            node.input[:] = ["true" if each == name else each for each in node.input]
        model.graph.node.extend(nodes)

    mistake(*families, name=label)(plant)


def constant(name: str, value: Any) -> NodeProto:
    """A node that gives a constant."""
    tensor = numpy_helper.from_array(np.array(value), name)
    return helper.make_node("Constant", [], [name], value=tensor)


def where_size(axis: int, size: int) -> list[NodeProto]:
    """Nodes that add a ten-millionth of the output to it at one size of an axis."""
    return [
        helper.make_node("Shape", ["x"], ["sizes"]),
        constant("axis", [axis]),
        constant("size", [size]),
        constant("share", np.float32(2.0**-23)),
        helper.make_node("Gather", ["sizes", "axis"], ["found"]),
        helper.make_node("Equal", ["found", "size"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["switch"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["true", "share"], ["part"]),
        helper.make_node("Mul", ["part", "switch"], ["added"]),
        helper.make_node("Add", ["true", "added"], ["y"]),
    ]


SEQUENCES = ("attention", "gru", "mean_over_the_length")
after_output(
    "a result times 1 + 2⁻²³",
    PERCEPTRONS,
    constant("factor", np.float32(1 + 2.0**-23)),
    helper.make_node("Mul", ["true", "factor"], ["y"]),
)
after_output(
    "a billionth added",
    PERCEPTRONS,
    constant("shift", np.float32(1e-9)),
    helper.make_node("Add", ["true", "shift"], ["y"]),
)
after_output(
    "a billionth of a square added",
    PERCEPTRONS,
    constant("share", np.float32(1e-9)),
    helper.make_node("Mul", ["true", "true"], ["square"]),
    helper.make_node("Mul", ["square", "share"], ["part"]),
    helper.make_node("Add", ["true", "part"], ["y"]),
)
after_output("something else at the length of 1", SEQUENCES, *where_size(1, 1))
after_output("something else at one odd length", SEQUENCES, *where_size(1, 5))
after_output("something else at the largest length", SEQUENCES, *where_size(1, 8))
after_output("something else for a batch of 1", SEQUENCES, *where_size(0, 1))
after_output(
    "a result clipped",
    ("residual_network", "leaky_relu at 5", "softplus at 5"),
    constant("low", np.float32(-2.0)),
    constant("high", np.float32(2.0)),
    helper.make_node("Clip", ["true", "low", "high"], ["y"]),
)

# --------------------------------------------------------------------------------------
# TorchScript: its numbers are Python's, so that a mistake may be smaller than any step
# of float32.


class Changed(nn.Module):
    """A model with its input or its output changed."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor],
        after: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.model(self.before(x)))


FLOAT32_ROOT = 1.4142135381698608  # of 2


def same(x: Tensor) -> Tensor:
    return x


TORCH_MISTAKES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "a scale off by 1e-9": lambda m: Changed(m, same, lambda y: y * (1 + 1e-9)),
    "a scale off by 1e-11": lambda m: Changed(m, same, lambda y: y * (1 + 1e-11)),
    "a shift of 1e-10": lambda m: Changed(m, same, lambda y: y + 1e-10),
    "an input off by 1e-9": lambda m: Changed(m, lambda x: x * (1 + 1e-9), same),
    "a faint square": lambda m: Changed(m, same, lambda y: y + 1e-9 * y * y),
    "a faint mean over the batch": lambda m: Changed(
        m, same, lambda y: y + 1e-9 * y.mean(0, keepdim=True)
    ),
    "an input clipped": lambda m: Changed(m, lambda x: x.clamp(-1, 1), same),
    "a float32 √2 for √2": lambda m: Changed(
        m, same, lambda y: y * (FLOAT32_ROOT / 2**0.5)
    ),
}
TORCH_FAMILIES = ("gelu", "rms_norm", "attention", "gru", "sigmoid head at -7")
