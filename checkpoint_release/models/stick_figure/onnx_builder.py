"""Building an ONNX graph by hand: named values whose shapes are known, and the layers
that every opset spells its way.

A value's shape is stated where it is made and goes into the graph, so that a viewer
shows it and the checker's
inference can contradict it. Weights go in by their state-dict names, with dtype and
dims but no bytes:
whoever writes the file streams those. Linear layers keep their [out, in] weights
through Gemm's transB. https://onnx.ai/onnx/operators/
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
    """A tensor in the graph: its name, its shape (numbers, and names of dynamic sizes)
    and its ONNX element type.
    """

    name: str
    shape: Shape
    dtype: int = FLOAT


class GraphBuilder:
    """Collects nodes in the order in which they are asked for, which is an order in
    which they can run.

    Args:
        weights: the state dict; only names, dtypes and shapes are looked at.
        opset: decides how a layer is spelt: as one operator where the opset has it.
    """

    def __init__(self, weights: Mapping[str, Array], opset: int) -> None:
        self.opset = opset
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._made: dict[str, Value] = {}
        self._inputs: list[onnx.ValueInfoProto] = []

    def model(
        self,
        name: str,
        doc: str,
        outputs: Sequence[TensorSpec],
        ir_version: int | None = None,
    ) -> onnx.ModelProto:
        """The graph as a model whose initialisers have no bytes yet.

        Args:
            name: of the graph.
            doc: what the graph computes, for people who open it in a viewer.
            outputs: which values come out, in order, with their descriptions.
            ir_version: None: the lowest that the opset allows.
        """
        kept = {spec.name for spec in outputs}
        graph = helper.make_graph(
            self._nodes,
            name,
            self._inputs,
            [_info(self._made[spec.name], spec.description) for spec in outputs],
            list(self._initializers.values()),
            doc_string=doc,
            value_info=[
                _info(value) for value in self._made.values() if value.name not in kept
            ],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        lowest: int = helper.find_min_ir_version_for(opsets)
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=ir_version or lowest
        )

    # Values

    def input(self, spec: TensorSpec) -> Value:
        """One of the graph's inputs."""
        value = Value(
            spec.name,
            spec.shape or (),
            helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)),
        )
        self._inputs.append(_info(value, spec.description))
        return value

    def weight(self, name: str) -> Value:
        """A tensor of the state dict, under its own name; half precision is widened in
        the graph, which is exact.
        """
        if name not in self._initializers:
            array = self._weights[name]
            self._initializers[name] = TensorProto(
                name=name,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                dims=array.shape,
            )
        tensor = self._initializers[name]
        value = Value(name, tuple(tensor.dims), tensor.data_type)
        if value.dtype == FLOAT:
            return value
        wide = f"{name}/float32"
        return self._made.get(wide) or self.op(
            "Cast", [value], value.shape, wide, dtype=FLOAT, to=FLOAT
        )

    def constant(self, value: float | Sequence[int]) -> Value:
        """A float32 scalar, an int64 scalar or a list of int64, made once and shared."""
        array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        name = f"constant/{array.tolist()}"
        dtype = FLOAT if array.dtype == np.float32 else INT64
        made = self._made.get(name)
        return made or self.op(
            "Constant",
            [],
            array.shape,
            name,
            dtype,
            value=numpy_helper.from_array(array),
        )

    # Operators

    def op(
        self,
        operator: str,
        inputs: Sequence[Value | None],
        shape: Shape,
        name: str,
        dtype: int | None = None,
        doc: str = "",
        **attributes: Any,
    ) -> Value:
        """Add a node with one output, which has the node's name.

        Args:
            operator: of the default domain.
            inputs: None stands for an optional one that is left out.
            shape: the output's.
            name: the module's dotted path, a slash, and what is computed.
            dtype: the output's; None: the first input's.
            doc: what the name doesn't say.
            attributes: the node's.
        """
        first = inputs[0] if inputs else None
        value = Value(
            name, shape, dtype if dtype is not None else first.dtype if first else FLOAT
        )
        return self.ops(operator, inputs, [value], name, doc, **attributes)[0]

    def ops(
        self,
        operator: str,
        inputs: Sequence[Value | None],
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
            if value.name in self._made:
                raise ValueError(f"two values are named {value.name}")
            self._made[value.name] = value
        node = helper.make_node(
            operator,
            [value.name if value else "" for value in inputs],
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

    def mul(self, a: Value, b: Value, name: str, doc: str = "") -> Value:
        """A · b; the shape is a's."""
        return self.op("Mul", [a, b], a.shape, name, doc=doc)

    def reshape(
        self, x: Value, to: Value | Sequence[int], shape: Shape, name: str
    ) -> Value:
        """X in another shape: `to` as Reshape takes it, `shape` as it comes out."""
        return self.op(
            "Reshape",
            [x, to if isinstance(to, Value) else self.constant(to)],
            shape,
            name,
        )

    def transpose(self, x: Value, axes: Sequence[int], name: str) -> Value:
        """X with its axes in another order."""
        return self.op(
            "Transpose",
            [x],
            tuple(x.shape[axis] for axis in axes),
            name,
            perm=list(axes),
        )

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
        pieces = [
            Value(part, (*x.shape[:-1], size), x.dtype)
            for part, size in zip(names, sizes, strict=True)
        ]
        return self.ops("Split", [x, self.constant(sizes)], pieces, name, axis=-1)

    def shape_of(self, x: Value, start: int, end: int, name: str) -> Value:
        """The sizes of x's axes from start to end, as int64."""
        if self.opset >= 15:
            return self.op(
                "Shape", [x], (end - start,), name, dtype=INT64, start=start, end=end
            )
        whole = self.op("Shape", [x], (len(x.shape),), f"{name}/all", dtype=INT64)
        return self.op(
            "Slice",
            [whole, self.constant([start]), self.constant([end])],
            (end - start,),
            name,
        )

    def mean(self, x: Value, axis: int, keep: bool, name: str) -> Value:
        """The mean over one axis, which keeps the size 1 or goes away."""
        axis %= len(x.shape)
        shape = (*x.shape[:axis], *((1,) if keep else ()), *x.shape[axis + 1 :])
        if self.opset >= 18:
            return self.op(
                "ReduceMean",
                [x, self.constant([axis])],
                shape,
                name,
                keepdims=int(keep),
            )
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
        matrix = self.weight(weight or f"{name}.weight")
        terms = [
            x,
            matrix,
            *(
                [self.weight(_bias(weight) if weight else f"{name}.bias")]
                if bias
                else []
            ),
        ]
        return self.op(
            "Gemm",
            terms,
            (x.shape[0], matrix.shape[0]),
            output or f"{name}/linear",
            transB=1,
        )

    def gelu(self, x: Value, name: str) -> Value:
        """The exact GELU, x/2 · (1 + erf(x/√2))."""
        if self.opset >= 20:
            return self.op("Gelu", [x], x.shape, f"{name}/gelu")
        scaled = self.op(
            "Div",
            [x, self.constant(float(np.sqrt(np.float32(2))))],
            x.shape,
            f"{name}/gelu/scaled",
        )
        erf = self.op("Erf", [scaled], x.shape, f"{name}/gelu/erf")
        shifted = self.add(erf, self.constant(1.0), f"{name}/gelu/shifted")
        product = self.mul(x, shifted, f"{name}/gelu/product")
        return self.mul(product, self.constant(0.5), f"{name}/gelu")

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
        centred = self.op(
            "Sub",
            [x, self.mean(x, -1, True, f"{name}/mean")],
            x.shape,
            f"{name}/centred",
        )
        squares = self.op(
            "Pow", [centred, self.constant(2.0)], x.shape, f"{name}/squares"
        )
        variance = self.mean(squares, -1, True, f"{name}/variance")
        deviation = self._root(variance, epsilon, name)
        normed = self.op("Div", [centred, deviation], x.shape, f"{name}/normed")
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
        squares = self.op("Pow", [x, self.constant(2.0)], x.shape, f"{name}/squares")
        root = self._root(self.mean(squares, -1, True, f"{name}/mean"), epsilon, name)
        return self.mul(
            self.op("Div", [x, root], x.shape, f"{name}/normed"), weight, output
        )

    def _root(self, x: Value, epsilon: float, name: str) -> Value:
        return self.op(
            "Sqrt",
            [self.add(x, self.constant(epsilon), f"{name}/shifted")],
            x.shape,
            f"{name}/root",
        )


def _info(value: Value, doc: str = "") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, value.dtype, value.shape, doc)


def _bias(weight: str) -> str:
    head, _, tail = weight.rpartition("weight")
    return f"{head}bias{tail}"
