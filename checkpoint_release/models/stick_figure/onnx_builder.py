"""Building an ONNX graph by hand: named values of known shape, and common layers.

A value's shape is stated where it is created and goes into the graph, so that a viewer
shows it and the checker's inference can contradict it. Weights go in by their
state-dict names, with dtype and dims but no bytes: whoever writes the file streams
those; constants are initialisers as well, and have theirs. Linear layers keep their
[out, in] weights through Gemm's transB. Layers are spelt as the opset allows: as one
operator where it has one.
https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from checkpoint_release.core.signature import Array, TensorSpec

Shape = tuple[int | str, ...]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class Value:
    """A tensor in the graph.

    Attributes:
        name: unique in the graph.
        shape: numbers, and names of dynamic sizes.
        dtype: ONNX' element type.
    """

    name: str
    shape: Shape
    dtype: int = FLOAT


class GraphBuilder:
    """Collects nodes in an order in which they can run: that in which they are added.

    Args:
        weights: the state dict; only names, dtypes and shapes are looked at.
        opset: decides how a layer is spelt.
    """

    def __init__(self, weights: Mapping[str, Array], opset: int) -> None:
        self.opset = opset
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._values: dict[str, Value] = {}
        self._inputs: list[onnx.ValueInfoProto] = []

    def model(
        self, name: str, doc: str, outputs: Sequence[TensorSpec]
    ) -> onnx.ModelProto:
        """The graph as a model whose initialisers have no bytes yet.

        Its IR version is the lowest that the opset allows.

        Args:
            name: of the graph.
            doc: what the graph computes, for people who open it in a viewer.
            outputs: which values come out, in order, with their descriptions.
        """
        inner = {}
        for value in self._values.values():
            if value.name not in self._initializers:
                inner[value.name] = value
        results = []
        for spec in outputs:
            results.append(_info(inner.pop(spec.name), spec.description))
        graph = helper.make_graph(
            self._nodes,
            name,
            self._inputs,
            results,
            list(self._initializers.values()),
            doc_string=doc,
            value_info=[_info(value) for value in inner.values()],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        ir_version: int = helper.find_min_ir_version_for(opsets)
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)

    # Values

    def input(self, spec: TensorSpec) -> Value:
        """One of the graph's inputs."""
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        value = Value(spec.name, spec.shape or (), dtype)
        self._inputs.append(_info(value, spec.description))
        return value

    def weight(self, name: str) -> Value:
        """A tensor of the state dict, under its own name.

        Half precision is widened in the graph, which is exact.
        """
        array = self._weights[name]
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        if name not in self._initializers:
            self._initializers[name] = TensorProto(
                name=name, data_type=dtype, dims=array.shape
            )
        value = Value(name, tuple(array.shape), dtype)
        wide = f"{name}/float32"
        if dtype == FLOAT:
            return value
        if wide in self._values:
            return self._values[wide]
        return self.op("Cast", [value], value.shape, wide, dtype=FLOAT, to=FLOAT)

    def constant(self, value: float | Sequence[int]) -> Value:
        """A float32 scalar, an int64 scalar or int64s in a list; equal ones are one.

        They are initialisers, which viewers show inside of the nodes that read them. As
        nodes, a few would have edges to all parts of the graph.
        """
        is_float = isinstance(value, float)
        array = np.array(value, np.float32 if is_float else np.int64)
        name = f"constant/{array.tolist()}"
        if name in self._values:
            return self._values[name]
        dtype = FLOAT if is_float else INT64
        self._initializers[name] = numpy_helper.from_array(array, name)
        self._values[name] = Value(name, array.shape, dtype)
        return self._values[name]

    # Operators

    def op(
        self,
        operator: str,
        inputs: Sequence[Value],
        shape: Shape,
        name: str,
        dtype: int | None = None,
        doc: str = "",
        **attributes: Any,
    ) -> Value:
        """Add a node with one output, which has the node's name.

        Args:
            operator: of the default domain.
            inputs: all of the operator's.
            shape: the output's.
            name: the module's dotted path, a slash, and what is computed.
            dtype: the output's; None: the first input's.
            doc: what the name doesn't say.
            attributes: the node's.
        """
        value = Value(name, shape, inputs[0].dtype if dtype is None else dtype)
        return self.ops(operator, inputs, [value], name, doc, **attributes)[0]

    def ops(
        self,
        operator: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        name: str,
        doc: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """Add a node with several outputs.

        Raises:
            ValueError: a value of that name is there already.
        """
        for value in outputs:
            if value.name in self._values:
                raise ValueError(f"two values are named {value.name}")
            self._values[value.name] = value
        node = helper.make_node(
            operator,
            [value.name for value in inputs],
            [value.name for value in outputs],
            name=name,
            doc_string=doc or None,
            **attributes,
        )
        self._nodes.append(node)
        return list(outputs)

    def add(self, a: Value, b: Value, name: str, doc: str = "") -> Value:
        """A + b; the shape is a's."""
        return self.op("Add", [a, b], a.shape, name, doc=doc)

    def sub(self, a: Value, b: Value, name: str) -> Value:
        """A - b; the shape is a's, or b's where a is a single number."""
        return self.op("Sub", [a, b], a.shape or b.shape, name)

    def mul(self, a: Value, b: Value, name: str, doc: str = "") -> Value:
        """A · b; the shape is a's."""
        return self.op("Mul", [a, b], a.shape, name, doc=doc)

    def div(self, a: Value, b: Value, name: str) -> Value:
        """A / b; the shape is a's."""
        return self.op("Div", [a, b], a.shape, name)

    def reshape(
        self, x: Value, to: Value | Sequence[int], shape: Shape, name: str
    ) -> Value:
        """X in another shape: `to` as Reshape takes it, `shape` as it comes out."""
        target = to if isinstance(to, Value) else self.constant(to)
        return self.op("Reshape", [x, target], shape, name)

    def transpose(self, x: Value, axes: Sequence[int], name: str) -> Value:
        """X with its axes in another order."""
        shape = tuple(x.shape[axis] for axis in axes)
        return self.op("Transpose", [x], shape, name, perm=list(axes))

    def slice(
        self,
        x: Value,
        start: int,
        end: int,
        axis: int,
        shape: Shape,
        name: str,
        doc: str = "",
    ) -> Value:
        """The part of x from start to end along an axis."""
        bounds = [self.constant([number]) for number in (start, end, axis)]
        return self.op("Slice", [x, *bounds], shape, name, doc=doc)

    def concat(
        self, values: Sequence[Value], axis: int, size: int | str, name: str
    ) -> Value:
        """The values side by side along an axis, which then has that size."""
        shape = list(values[0].shape)
        shape[axis] = size
        return self.op("Concat", values, tuple(shape), name, axis=axis)

    def split(
        self, x: Value, sizes: Sequence[int], names: Sequence[str], name: str
    ) -> list[Value]:
        """X cut along its last axis."""
        pieces = []
        for piece, size in zip(names, sizes, strict=True):
            pieces.append(Value(piece, (*x.shape[:-1], size), x.dtype))
        return self.ops("Split", [x, self.constant(sizes)], pieces, name, axis=-1)

    def shape_of(self, x: Value, start: int, end: int, name: str) -> Value:
        """The sizes of x's axes from start to end, as int64."""
        shape = (end - start,)
        if self.opset >= 15:
            return self.op("Shape", [x], shape, name, INT64, start=start, end=end)
        whole = self.op("Shape", [x], (len(x.shape),), f"{name}/all", INT64)
        bounds = [self.constant([start]), self.constant([end])]
        return self.op("Slice", [whole, *bounds], shape, name)

    def mean(self, x: Value, axis: int, keep: bool, name: str) -> Value:
        """The mean over one axis, which keeps the size 1 or goes away."""
        axis %= len(x.shape)
        kept = (1,) if keep else ()
        shape = (*x.shape[:axis], *kept, *x.shape[axis + 1 :])
        if self.opset >= 18:
            axes = self.constant([axis])
            return self.op("ReduceMean", [x, axes], shape, name, keepdims=int(keep))
        return self.op("ReduceMean", [x], shape, name, axes=[axis], keepdims=int(keep))

    # Layers

    def linear(
        self, x: Value, name: str, bias: bool = True, weight: str = "", output: str = ""
    ) -> Value:
        """X · weightᵀ + bias, for x of rank 2 and a weight [out, in].

        Args:
            x: [rows, in].
            name: the module's path, whose `.weight` and `.bias` are taken.
            bias: whether there is one.
            weight: the weight's name where it isn't `name.weight`; the bias then has
                "weight" replaced by "bias".
            output: the output's name, where it isn't `name/linear`.
        """
        weight = weight or f"{name}.weight"
        matrix = self.weight(weight)
        terms = [x, matrix]
        if bias:
            head, _, tail = weight.rpartition("weight")
            terms.append(self.weight(f"{head}bias{tail}"))
        shape = (x.shape[0], matrix.shape[0])
        return self.op("Gemm", terms, shape, output or f"{name}/linear", transB=1)

    def mlp(self, x: Value, name: str, last: int, output: str = "") -> Value:
        """Linear `name.0`, GELU and linear `name.last`, on rows."""
        hidden = self.gelu(self.linear(x, f"{name}.0"), f"{name}.1")
        return self.linear(hidden, f"{name}.{last}", output=output)

    def gelu(self, x: Value, name: str) -> Value:
        """The exact GELU, x/2 · (1 + erf(x/√2))."""
        name = f"{name}/gelu"
        if self.opset >= 20:
            return self.op("Gelu", [x], x.shape, name)
        root_2 = self.constant(float(np.sqrt(np.float32(2))))
        scaled = self.div(x, root_2, f"{name}/scaled")
        erf = self.op("Erf", [scaled], x.shape, f"{name}/erf")
        shifted = self.add(erf, self.constant(1.0), f"{name}/shifted")
        product = self.mul(x, shifted, f"{name}/product")
        return self.mul(product, self.constant(0.5), name)

    def sigmoid(self, x: Value, name: str) -> Value:
        """1 / (1 + exp(-x))."""
        return self.op("Sigmoid", [x], x.shape, name)

    def layer_norm(
        self, x: Value, name: str, epsilon: float = 1e-5, output: str = ""
    ) -> Value:
        """LayerNorm over the last axis, with `name.weight` and `name.bias`."""
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        output = output or f"{name}/layer_norm"
        if self.opset >= 17:
            return self.op(
                "LayerNormalization",
                [x, weight, bias],
                x.shape,
                output,
                axis=-1,
                epsilon=epsilon,
            )
        mean = self.mean(x, -1, True, f"{name}/mean")
        centred = self.sub(x, mean, f"{name}/centred")
        squares = self._squares(centred, name)
        variance = self.mean(squares, -1, True, f"{name}/variance")
        deviation = self._root(variance, epsilon, name)
        normed = self.div(centred, deviation, f"{name}/normed")
        return self.add(self.mul(normed, weight, f"{name}/weighted"), bias, output)

    def rms_norm(self, x: Value, name: str, epsilon: float) -> Value:
        """X / sqrt(mean(x²) + epsilon) · `name.weight` over the last axis."""
        weight = self.weight(f"{name}.weight")
        output = f"{name}/rms_norm"
        if self.opset >= 23:
            return self.op(
                "RMSNormalization",
                [x, weight],
                x.shape,
                output,
                axis=-1,
                epsilon=epsilon,
            )
        mean = self.mean(self._squares(x, name), -1, True, f"{name}/mean")
        root = self._root(mean, epsilon, name)
        normed = self.div(x, root, f"{name}/normed")
        return self.mul(normed, weight, output)

    def _squares(self, x: Value, name: str) -> Value:
        return self.op("Pow", [x, self.constant(2.0)], x.shape, f"{name}/squares")

    def _root(self, x: Value, epsilon: float, name: str) -> Value:
        shifted = self.add(x, self.constant(epsilon), f"{name}/shifted")
        return self.op("Sqrt", [shifted], x.shape, f"{name}/root")


def _info(value: Value, doc: str = "") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, value.dtype, value.shape, doc)
