"""What a model takes and gives: inputs, outputs, dynamic dimensions, sample inputs.

In a shape a number is fixed and a name is a dynamic dimension; inputs that name the
same dimension agree on its size. As the option model.signature, in config.json and in
checkpoint.json a signature reads:

    inputs:
      - {name: tokens, dtype: int64, shape: [batch, sequence], low: 0, high: 29}
      - {name: image, dtype: float32, shape: [batch, 3, height, width]}
    outputs:
      - {name: logits}
    dimensions:
      sequence: {minimum: 1, maximum: 512, example: 12}
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from checkpoint_release.core.dtypes import SIGNATURE_DTYPES
from checkpoint_release.core.errors import InferenceError, ParamsError

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: as the model's forward names it.
        dtype: a numpy name out of SIGNATURE_DTYPES.
        shape: numbers and names of dynamic dimensions; None for an output without a
            stated shape.
        low, high: integers are in [low, high); both are None for floats.
        description: what it means, with units, for people.
    """

    name: str
    dtype: str = "float32"
    shape: tuple[int | str, ...] | None = None
    low: int | None = None
    high: int | None = None
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON holds it; what isn't known is left out."""
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
        """Axis → the name of its dynamic dimension."""
        axes = {}
        for axis, size in enumerate(self.shape or ()):
            if isinstance(size, str):
                axes[axis] = size
        return axes

    @property
    def is_integer(self) -> bool:
        """Whether the values are whole numbers in [low, high)."""
        return np.dtype(self.dtype).kind in "iu"


@dataclass(frozen=True)
class Dimension:
    """A dynamic dimension.

    Attributes:
        name: as shapes name it.
        minimum, maximum: bounds, both included; no maximum: unbounded.
        example: the size in examples.
    """

    name: str
    minimum: int = 1
    maximum: int | None = None
    example: int = 2

    @property
    def bounds(self) -> str:
        """The bounds, for a message."""
        largest = "any number" if self.maximum is None else self.maximum
        return f"{self.minimum} to {largest}"

    def allows(self, size: int) -> bool:
        """Whether a size is within the bounds."""
        if size < self.minimum:
            return False
        return self.maximum is None or size <= self.maximum

    def to_json(self) -> dict[str, Any]:
        """The bounds and the example as JSON holds them."""
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "example": self.example,
        }


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

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Signature:
        """Read what to_json wrote, or what the option model.signature states.

        Dimensions that only shapes name get the defaults of Dimension.

        Raises:
            ParamsError: a key is unknown or missing, a value isn't what its key takes,
                an integer input has no range, two tensors have one name; the message
                names the key and what was found.
        """
        _require_keys(value, {"inputs", "outputs", "dimensions"}, _OPTION)
        inputs = _parse_tensors(value, "inputs", _parse_input)
        outputs = _parse_tensors(value, "outputs", _parse_tensor)
        _require_unique_names((*inputs, *outputs))
        used = _dynamic_names(inputs)
        dimensions = _parse_dimensions(value.get("dimensions"), used)
        return cls(inputs, outputs, dimensions)

    def taking(self, names: Collection[str]) -> Signature:
        """The signature with only the named inputs, in its own order.

        It has the dimensions that these inputs name.
        """
        inputs = tuple(spec for spec in self.inputs if spec.name in names)
        used = _dynamic_names(inputs)
        dimensions = {}
        for name, dimension in self.dimensions.items():
            if name in used:
                dimensions[name] = dimension
        return Signature(inputs, self.outputs, dimensions)


def _dynamic_names(inputs: Collection[TensorSpec]) -> list[str]:
    """The dimensions that the inputs name, in the order of their first mention."""
    names: list[str] = []
    for spec in inputs:
        names += spec.dynamic_axes.values()
    return list(dict.fromkeys(names))


def resolve_shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The spec's shape with numbers in the place of names.

    Args:
        spec: an input or output; one without a stated shape gives ().
        sizes: dimension → size.
    """
    shape = list(spec.shape or ())
    for axis, name in spec.dynamic_axes.items():
        shape[axis] = sizes[name]
    return tuple(int(size) for size in shape)


def sample_inputs(
    signature: Signature, sizes: Mapping[str, int], seed: int, scale: float = 1.0
) -> Arrays:
    """Random inputs: normally distributed floats, integers uniform in their range.

    The same seed gives the same values on every machine, and every input has a stream
    of its own, so that another input doesn't change its values.

    Args:
        signature: of the model.
        sizes: dimension → size.
        seed: at least 0.
        scale: the floats' standard deviation.
    """
    arrays: Arrays = {}
    for spec in signature.inputs:
        random = np.random.Generator(np.random.PCG64([seed, *spec.name.encode()]))
        shape = resolve_shape(spec, sizes)
        values: Any  # of the shape [], numpy draws a scalar and no array
        if spec.is_integer:
            values = random.integers(spec.low or 0, spec.high, shape)
        elif spec.dtype == "bool":
            values = random.integers(0, 2, shape)
        else:
            values = random.standard_normal(shape) * scale
        arrays[spec.name] = np.asarray(values).astype(spec.dtype)
    return arrays


# Inputs that a caller gives


def check_inputs(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Check named arrays against the signature.

    Returns:
        Dynamic dimension → its size.

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
            dimension = signature.dimensions[name]
            _check_size(spec, array, dimension, array.shape[axis], sizes)
        _check_range(spec, array)
    return sizes


def _check_layout(spec: TensorSpec, array: Array) -> None:
    """Check the dtype, the number of axes and the fixed sizes.

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


def _check_range(spec: TensorSpec, array: Array) -> None:
    """Check the values of integers.

    Raises:
        InferenceError: one is out of the spec's range.
    """
    if spec.low is None or spec.high is None or not array.size:
        return
    lowest, highest = array.min(), array.max()
    if lowest < spec.low or highest >= spec.high:
        raise InferenceError(
            f"input {spec.name!r} holds {lowest} to {highest}, and the model takes"
            f" {spec.low} to {spec.high - 1}",
            "clip or re-index the values",
        )


# A signature that a person states

_OPTION = "{model.signature}"


def _invalid(problem: str, remedy: str) -> ParamsError:
    """An error about a part of the option model.signature."""
    return ParamsError(problem, remedy, options=["model.signature"])


def _parse_tensors(
    value: Mapping[str, Any], key: str, parse: Callable[[Any, str], TensorSpec]
) -> tuple[TensorSpec, ...]:
    """The inputs or the outputs of a signature.

    Args:
        value: the signature.
        key: "inputs" or "outputs".
        parse: reads one of them; takes it and where it is.
    """
    items = value.get(key)
    if not isinstance(items, list | tuple) or not items:
        raise _invalid(
            f"{_OPTION}.{key} is {items!r}",
            f"list the model's {key}, in forward's order",
        )
    specs = []
    for number, item in enumerate(items):
        specs.append(parse(item, f"{_OPTION}.{key}[{number}]"))
    return tuple(specs)


def _require_unique_names(specs: Collection[TensorSpec]) -> None:
    """Make sure that no two inputs or outputs have the same name."""
    seen: set[str] = set()
    for spec in specs:
        if spec.name in seen:
            raise _invalid(
                f"{_OPTION} names {spec.name!r} more than once",
                "give each tensor its own name",
            )
        seen.add(spec.name)


def _parse_dimensions(value: Any, used: list[str]) -> dict[str, Dimension]:
    """The dimensions of a signature.

    Args:
        value: what is stated about them; None: nothing.
        used: the names that stand in shapes of inputs.
    """
    where = f"{_OPTION}.dimensions"
    stated = {} if value is None else value
    if not isinstance(stated, Mapping):
        raise _invalid(
            f"{where} is {stated!r}",
            "give a mapping of names that stand in shapes to their bounds",
        )
    unused = sorted(set(stated).difference(used), key=str)
    if unused:
        raise _invalid(
            f"{where}: no input's shape names {unused}", "remove or use them"
        )
    dimensions = {}
    for name in used:
        key = f"{where}.{name}"
        dimensions[name] = _parse_dimension(name, stated.get(name), key)
    return dimensions


def _parse_input(value: Any, where: str) -> TensorSpec:
    """One input, which needs a shape, and a range if it holds integers."""
    spec = _parse_tensor(value, where)
    if spec.shape is None:
        raise _invalid(
            f"{where} ({spec.name}) has no shape",
            "give it one, such as [batch, 3, 224, 224]",
        )
    if spec.is_integer and spec.high is None:
        raise _invalid(
            f"{where} ({spec.name}) holds integers ({spec.dtype}) and has no range",
            "state low (included) and high (excluded), so that samples are values the"
            " model accepts",
        )
    return spec


def _parse_tensor(value: Any, where: str) -> TensorSpec:
    """One input or output.

    Args:
        value: a mapping, or the name alone.
        where: its key, for messages.
    """
    if isinstance(value, str):
        value = {"name": value}
    keys = {"name", "dtype", "shape", "low", "high", "description"}
    _require_keys(value, keys, where)
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise _invalid(f"{where}.name is {name!r}", "give the name that forward uses")
    dtype = value.get("dtype", "float32")
    if dtype not in SIGNATURE_DTYPES:
        allowed = ", ".join(SIGNATURE_DTYPES)
        raise _invalid(f"{where}.dtype is {dtype!r}", f"choose one of {allowed}")
    description = value.get("description", "")
    if not isinstance(description, str):
        raise _invalid(
            f"{where}.description is {description!r}",
            "give a text, in quotes if need be",
        )
    shape = _parse_shape(value.get("shape"), f"{where}.shape")
    low, high = _parse_range(value.get("low"), value.get("high"), dtype, where)
    return TensorSpec(name, dtype, shape, low, high, description)


def _parse_shape(value: Any, where: str) -> tuple[int | str, ...] | None:
    """The sizes of the axes; None where they aren't stated."""
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise _invalid(
            f"{where} is {value!r}", "give a list of numbers and names of dimensions"
        )
    shape = []
    for axis, size in enumerate(value):
        if not isinstance(size, str) or not size:
            remedy = "give a whole number of at least 1 or the name of a dimension"
            _require_whole(size, f"{where}[{axis}]", remedy, least=1)
        shape.append(size)
    return tuple(shape)


def _parse_range(
    low: Any, high: Any, dtype: str, where: str
) -> tuple[int | None, int | None]:
    """The range of integers; none where neither end is stated.

    Args:
        low, high: what is stated.
        dtype: one of SIGNATURE_DTYPES.
        where: the tensor's key, for messages.
    """
    if low is None and high is None:
        return None, None
    if np.dtype(dtype).kind not in "iu":
        raise _invalid(
            f"{where} is {dtype} and has a range: low={low!r}, high={high!r}",
            "remove low and high",
        )
    _require_whole(low, f"{where}.low", "give a whole number")
    _require_whole(high, f"{where}.high", "give a whole number")
    info = np.iinfo(dtype)
    if not info.min <= low < high <= int(info.max) + 1:
        raise _invalid(
            f"{where}.low is {low}, and high is {high}",
            f"choose low (included) below high (excluded), within what {dtype} holds:"
            f" {info.min} to {info.max}",
        )
    return low, high


def _parse_dimension(name: str, value: Any, where: str) -> Dimension:
    """The bounds and the example of a dimension.

    Args:
        name: of the dimension.
        value: what is stated about it; None: nothing.
        where: its key, for messages.
    """
    stated = {} if value is None else value
    _require_keys(stated, {"minimum", "maximum", "example"}, where)
    for key, least in (("minimum", 0), ("maximum", 1), ("example", 1)):
        remedy = f"give a whole number of at least {least}"
        if key == "maximum":
            remedy += " or null: unbounded"
            if stated.get(key) is None:
                continue
        if key in stated:
            _require_whole(stated[key], f"{where}.{key}", remedy, least)
    dimension = Dimension(name, **stated)
    minimum, maximum = dimension.minimum, dimension.maximum
    if maximum is not None and minimum > maximum:
        raise _invalid(
            f"{where}.minimum is {minimum}, and maximum is {maximum}",
            "choose minimum ≤ maximum",
        )
    if not dimension.allows(dimension.example):
        origin = "" if "example" in stated else ", where none is stated"
        raise _invalid(
            f"{where}.example is {dimension.example}{origin}, and the bounds are"
            f" {dimension.bounds}",
            "state an example with minimum ≤ example ≤ maximum",
        )
    return dimension


def _require_whole(
    value: Any, where: str, remedy: str, least: int | None = None
) -> None:
    """Make sure that a value is a whole number, which true and false are not.

    Args:
        value: what is stated.
        where: its key, for the message.
        remedy: for the message.
        least: the smallest that is allowed.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (least is not None and value < least):
        raise _invalid(f"{where} is {value!r}", remedy)


def _require_keys(value: Any, allowed: set[str], where: str) -> None:
    """Make sure that a value is a mapping without other keys."""
    names = ", ".join(sorted(allowed))
    if not isinstance(value, Mapping):
        raise _invalid(f"{where} is {value!r}", f"give a mapping with the keys {names}")
    unknown = sorted(set(value) - allowed, key=str)
    if unknown:
        raise _invalid(f"{where}: unknown keys {unknown}", f"allowed are {names}")
