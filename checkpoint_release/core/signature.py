"""What a model takes and gives: inputs, outputs, dynamic dimensions, sample inputs.

In a shape a number is fixed and a name is a dynamic dimension; inputs that name the
same dimension agree on its size. What follows from dimensions is an expression. As the
option model.signature, in config.json and in checkpoint.json a signature reads:

    inputs:
      - {name: tokens, dtype: int64, shape: [batch, sequence], low: 0, high: 29}
      - {name: frames, shape: [batch, 2*sequence + 1, 80]}
      - {name: image, shape: [batch, 3, height, width], low: 0.0, high: 1.0}
    outputs:
      - {name: logits}
    dimensions:
      sequence: {minimum: 1, maximum: 512, example: 12}
      height: {multiple: 8, example: 64}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from checkpoint_release.core.errors import InferenceError, ParamsError
from checkpoint_release.core.size_expressions import parse_size, size_names

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: as the model's forward names it.
        dtype: a numpy name out of SIGNATURE_DTYPES.
        shape: numbers, names of dynamic dimensions, and expressions of those (see
            checkpoint_release.core.size_expressions); None for an output without a
            stated shape.
        low, high: integers are in [low, high), floats in [low, high]; both are None for
            floats of any size.
        description: what it means, with units, for people.
    """

    name: str
    dtype: str = "float32"
    shape: tuple[int | str, ...] | None = None
    low: float | None = None
    high: float | None = None
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON holds it; what isn't known is left out.

        Returns:
            The keys that read_signature reads, in the order of the attributes.
        """
        value: dict[str, Any] = {"name": self.name, "dtype": self.dtype}
        if self.shape is not None:
            value["shape"] = list(self.shape)
        if self.high is not None:
            value["low"], value["high"] = self.low, self.high
        if self.description:
            value["description"] = self.description
        return value

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """Axis → the name of its dynamic dimension, or the expression of its size; none
        without a stated shape.
        """
        axes = {}
        for axis, size in enumerate(self.shape or ()):
            if isinstance(size, str):
                axes[axis] = size
        return axes

    @property
    def dimension_names(self) -> set[str]:
        """The dimensions that its sizes depend on."""
        names: set[str] = set()
        for size in self.dynamic_axes.values():
            names.update(size_names(size))
        return names

    @property
    def is_integer(self) -> bool:
        """Whether the values are whole numbers in [low, high)."""
        return np.dtype(self.dtype).kind in "iu"

    @property
    def range_text(self) -> str:
        """The values, both ends included, for people; empty where there is no range."""
        if self.low is None or self.high is None:
            return ""
        last = self.high - 1 if self.is_integer else self.high
        return f"{self.low} to {last}"


@dataclass(frozen=True)
class Dimension:
    """A dynamic dimension.

    Attributes:
        name: as shapes name it.
        minimum, maximum: bounds, both included; no maximum: unbounded.
        example: the size in examples.
        multiple: every size is a multiple of it, the other three included.
    """

    name: str
    minimum: int = 1
    maximum: int | None = None
    example: int = 2
    multiple: int = 1

    @property
    def bounds(self) -> str:
        """The bounds, for a message."""
        largest = "any number" if self.maximum is None else self.maximum
        steps = f", multiples of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.minimum} to {largest}{steps}"

    def allows(self, size: int) -> bool:
        """Whether a size is within the bounds.

        Args:
            size: entries along the dimension.
        """
        if size < self.minimum or size % self.multiple:
            return False
        return self.maximum is None or size <= self.maximum

    def nearest(self, size: int) -> int:
        """The nearest size that is allowed, upwards where it isn't a multiple.

        Args:
            size: entries along the dimension; without a maximum, nothing is too large.
        """
        steps = -(-size // self.multiple)
        wanted = max(self.minimum, steps * self.multiple)
        return wanted if self.maximum is None else min(wanted, self.maximum)

    def to_json(self) -> dict[str, Any]:
        """The bounds and the example as JSON holds them."""
        value: dict[str, Any] = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "example": self.example,
        }
        if self.multiple != 1:
            value["multiple"] = self.multiple
        return value


@dataclass(frozen=True)
class Signature:
    """A model's inputs and outputs in order, and the dimensions that inputs name."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dimensions: dict[str, Dimension]

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs, in order."""
        return [spec.name for spec in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, in order."""
        return [spec.name for spec in self.outputs]

    def to_json(self) -> dict[str, Any]:
        """The signature as config.json and checkpoint.json hold it."""
        dimensions = self.dimensions.items()
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "dimensions": {name: dimension.to_json() for name, dimension in dimensions},
        }

    def taking(self, names: Collection[str]) -> Signature:
        """The signature with only the named inputs, in its own order.

        It has the dimensions that these inputs name, and all outputs.

        Args:
            names: of the inputs to keep; those that the model doesn't have are passed
                over.

        Raises:
            ParamsError: the size of one that is kept follows from one that isn't.
        """
        inputs = tuple(spec for spec in self.inputs if spec.name in names)
        used: set[str] = set()
        for spec in inputs:
            used.update(spec.dynamic_axes.values())
        dimensions = {}
        for name, dimension in self.dimensions.items():
            if name in used:
                dimensions[name] = dimension
        for spec in inputs:
            missing = sorted(spec.dimension_names.difference(dimensions))
            if missing:
                raise ParamsError(
                    f"{{model.inputs}}: the shape of {spec.name!r} is"
                    f" {list(spec.shape or ())}, and no chosen input has {missing}",
                    "choose an input that has it too, or leave this one out",
                    options=["model.inputs"],
                )
        return Signature(inputs, self.outputs, dimensions)


def resolve_size(size: int | str, sizes: Mapping[str, int]) -> int:
    """An entry of a shape as a number.

    Args:
        size: a number, the name of a dimension, or an expression.
        sizes: dimension → size.

    Raises:
        KeyError: a dimension has no size.
    """
    if isinstance(size, int):
        return size
    if size in sizes:
        return int(sizes[size])
    expression = parse_size(size)
    if expression is None:
        raise KeyError(size)
    return expression.value(sizes)


def resolve_shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The spec's shape in numbers.

    Args:
        spec: an input or output; one without a stated shape gives ().
        sizes: dimension → size.

    Raises:
        KeyError: the shape depends on a dimension that has no size.
    """
    return tuple(resolve_size(size, sizes) for size in spec.shape or ())


def known_shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    """The spec's shape in numbers; None where it isn't stated, or has a dimension that
    no input has.

    Args:
        spec: an output.
        sizes: dimension → size.
    """
    if spec.shape is None:
        return None
    try:
        return resolve_shape(spec, sizes)
    except KeyError:
        return None


def sample_inputs(
    signature: Signature, sizes: Mapping[str, int], seed: int, scale: float = 1.0
) -> Arrays:
    """Random inputs: floats are normally distributed, and integers and floats that have
    a range are uniform in it.

    The same seed gives the same values on every machine, and every input has a stream
    of its own, so that another input doesn't change its values.

    Args:
        signature: of the model.
        sizes: dimension → size.
        seed: at least 0.
        scale: the floats' standard deviation. Floats with a range are multiplied by it
            and stay in their range: 0 gives what is nearest to 0, and a large one the
            ends.

    Returns:
        Name → array with the spec's dtype, in the signature's order.
    """
    arrays: Arrays = {}
    for spec in signature.inputs:
        random = np.random.Generator(np.random.PCG64([seed, *spec.name.encode()]))
        values = _draw(random, spec, resolve_shape(spec, sizes), scale)
        arrays[spec.name] = np.asarray(values).astype(spec.dtype)
    return arrays


def _draw(
    random: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...], scale: float
) -> Any:
    """Draw the values of one input.

    Args:
        random: the input's own stream.
        spec: of the input.
        shape: in numbers.
        scale: as of sample_inputs.

    Returns:
        An array in numpy's default dtype for such numbers; of the shape (), a scalar.
    """
    if spec.is_integer:
        return random.integers(int(spec.low or 0), int(spec.high or 1), shape)
    if spec.dtype == "bool":
        return random.integers(0, 2, shape)
    if spec.low is None or spec.high is None:
        return random.standard_normal(shape) * scale
    uniform = spec.low + (spec.high - spec.low) * random.random(shape)
    return np.clip(uniform * scale, spec.low, spec.high)


def check_inputs(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Check named arrays against the signature.

    Args:
        signature: of the model.
        inputs: name → array, in any order.

    Returns:
        Dynamic dimension → its size, the same in all inputs that name it; what follows
        from dimensions does so.

    Raises:
        InferenceError: a name, dtype, shape or value isn't what the signature states.
    """
    expected = signature.input_names
    missing = sorted(set(expected).difference(inputs))
    if missing:
        raise InferenceError(f"inputs {missing} are missing", f"give all of {expected}")
    extra = sorted(set(inputs).difference(expected))
    if extra:
        raise InferenceError(
            f"inputs {extra} are not among the model's inputs",
            f"give exactly {expected}",
        )
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        array = np.asarray(inputs[spec.name])
        _check_layout(spec, array)
        for axis, name in spec.dynamic_axes.items():
            dimension = signature.dimensions.get(name)
            if dimension is not None:
                _check_size(spec, array, dimension, array.shape[axis], sizes)
        _check_range(spec, array)
    for spec in signature.inputs:
        _check_expressions(spec, np.asarray(inputs[spec.name]), sizes)
    return sizes


def _check_layout(spec: TensorSpec, array: Array) -> None:
    """Check the dtype, the number of axes and the fixed sizes.

    Args:
        spec: of the input.
        array: the input.

    Raises:
        InferenceError: one of them isn't the spec's.
    """
    shape = spec.shape or ()
    problem = (
        f"input {spec.name!r} is {array.dtype} {list(array.shape)}, and the model takes"
        f" {spec.dtype} {list(shape)}"
    )
    if array.dtype != np.dtype(spec.dtype):
        raise InferenceError(problem, f"convert it with .astype('{spec.dtype}')")
    if array.ndim != len(shape):
        raise InferenceError(problem, "reshape it")
    for axis, size in enumerate(shape):
        if isinstance(size, int) and size != array.shape[axis]:
            raise InferenceError(problem, f"axis {axis} must have {size} entries")


def _check_size(
    spec: TensorSpec,
    array: Array,
    dimension: Dimension,
    size: int,
    sizes: dict[str, int],
) -> None:
    """Check the size of one dynamic dimension, and add it to the sizes.

    Args:
        spec: of the input.
        array: the input.
        dimension: one that the spec's shape names.
        size: what the array has there.
        sizes: dimension → size, as of the inputs before.

    Raises:
        InferenceError: another input has another size there, or it is out of bounds.
    """
    name = dimension.name
    if sizes.setdefault(name, size) != size:
        raise InferenceError(
            f"input {spec.name!r} is {array.dtype} {list(array.shape)}: its {name!r} is"
            f" {size}, and another input's is {sizes[name]}",
            f"give every input the same {name!r}",
        )
    if not dimension.allows(size):
        raise InferenceError(
            f"input {spec.name!r} has {name!r} {size}, and allowed are"
            f" {dimension.bounds}",
            "give it a size within the bounds",
        )


def _check_expressions(
    spec: TensorSpec, array: Array, sizes: Mapping[str, int]
) -> None:
    """Check the sizes that follow from dimensions.

    Args:
        spec: of the input.
        array: the input.
        sizes: of all dimensions.

    Raises:
        InferenceError: one is another.
    """
    for axis, text in spec.dynamic_axes.items():
        expected = resolve_size(text, sizes)
        if array.shape[axis] == expected:
            continue
        known = [f"{name} is {sizes[name]}" for name in sorted(size_names(text))]
        raise InferenceError(
            f"input {spec.name!r} is {array.dtype} {list(array.shape)}: its {text!r} is"
            f" {array.shape[axis]}, and where {' and '.join(known)} it is {expected}",
            f"give axis {axis} {expected} entries",
        )


def _check_range(spec: TensorSpec, array: Array) -> None:
    """Check the values.

    An index beyond its range is an error in some runtimes only; others read past the
    end of a table, or wrap around.

    Args:
        spec: of the input; without a range nothing is checked.
        array: the input.

    Raises:
        InferenceError: one is out of the spec's range, or NaN where there is one.
    """
    if spec.low is None or spec.high is None:
        return
    if array.size == 0:
        return
    lowest, highest = array.min(), array.max()
    if spec.is_integer:
        is_within = spec.low <= lowest and highest < spec.high
    else:  # as the dtype has the ends
        low, high = np.asarray([spec.low, spec.high], dtype=array.dtype)
        is_within = bool(low <= lowest and highest <= high)
    if not is_within:
        raise InferenceError(
            f"input {spec.name!r} holds {lowest} to {highest}, and the model takes"
            f" {spec.range_text}",
            "clip or re-index the values" if spec.is_integer else "scale the values",
        )
