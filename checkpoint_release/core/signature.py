"""What a model takes and gives: named inputs and outputs, dynamic dimensions, sample
inputs.

Shapes are tuples in which a number is fixed and a name is a dynamic dimension; two
inputs that name the
same dimension agree on it. In params.yaml, config.json and checkpoint.json a signature
reads:

    inputs:
      - {name: tokens, dtype: int64, shape: [batch, sequence], low: 0, high: 29}
      - {name: image, dtype: float32, shape: [batch, 3, height, width]}
    outputs:
      - {name: logits}
    dimensions:
      sequence: {minimum: 1, maximum: 512, example: 12}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
        shape: numbers and names of dynamic dimensions; None for an output whose shape
            nobody stated.
        low, high: integers lie in [low, high); both are None for floats.
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
    """A dynamic dimension: its bounds (inclusive; no maximum: unbounded) and the size
    that examples take.
    """

    name: str
    minimum: int = 1
    maximum: int | None = None
    example: int = 2

    def to_json(self) -> dict[str, Any]:
        """The bounds and the example as JSON holds them."""
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "example": self.example,
        }


@dataclass(frozen=True)
class Signature:
    """A model's inputs and outputs, in order, and the dynamic dimensions that they
    name.
    """

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
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "dimensions": {
                name: dimension.to_json() for name, dimension in self.dimensions.items()
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Signature:
        """Read what to_json wrote, or what a person wrote under model.signature.

        Dimensions that are named in a shape and nowhere else get the defaults of
        Dimension.

        Raises:
            ParamsError: a key is unknown or missing, a value isn't what its key takes,
                an integer input has no range, two tensors have one name; the message
                names the key and what was found.
        """
        _only(value, {"inputs", "outputs", "dimensions"}, "model.signature")
        inputs = tuple(
            _input(item, f"model.signature.inputs[{i}]")
            for i, item in _items(value, "inputs")
        )
        outputs = tuple(
            _tensor(item, f"model.signature.outputs[{i}]")
            for i, item in _items(value, "outputs")
        )
        names = [spec.name for spec in (*inputs, *outputs)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ParamsError(
                f"model.signature names {sorted(twice)} more than once",
                "give each tensor its own name",
            )
        used = list(
            dict.fromkeys(
                size
                for spec in inputs
                for size in spec.shape or ()
                if isinstance(size, str)
            )
        )
        stated = _or_empty(value.get("dimensions"))
        where = "model.signature.dimensions"
        if not isinstance(stated, Mapping):
            raise ParamsError(
                f"{where} is {stated!r}",
                "give a mapping of names that stand in shapes to their bounds",
            )
        if unused := [name for name in stated if name not in used]:
            raise ParamsError(
                f"{where}: no input's shape names {unused}", "remove or use them"
            )
        dimensions = {
            name: _dimension(name, _or_empty(stated.get(name)), f"{where}.{name}")
            for name in used
        }
        return cls(inputs, outputs, dimensions)

    def taking(self, names: Collection[str]) -> Signature:
        """The signature with only the named inputs, in its own order, and the
        dimensions that these still have.
        """
        inputs = tuple(spec for spec in self.inputs if spec.name in names)
        used = {size for spec in inputs for size in spec.shape or ()}
        dimensions = {
            name: dimension
            for name, dimension in self.dimensions.items()
            if name in used
        }
        return Signature(inputs, self.outputs, dimensions)


def resolve_shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The spec's shape with numbers in the place of names."""
    return tuple(
        sizes[size] if isinstance(size, str) else size for size in spec.shape or ()
    )


def sample_inputs(
    signature: Signature, sizes: Mapping[str, int], seed: int, scale: float = 1.0
) -> Arrays:
    """Random inputs: floats from a normal distribution times `scale`, integers uniform
    in their range.

    The same seed gives the same values on every machine, and every input has a stream
    of its own, so that adding an input leaves the values of the others alone.
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


def check_inputs(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Check named arrays against the signature and return the sizes of the dynamic
    dimensions.

    Raises:
        InferenceError: a name, dtype, shape or integer range isn't what the signature
            says.
    """
    expected = [spec.name for spec in signature.inputs]
    if missing := [name for name in expected if name not in inputs]:
        raise InferenceError(f"inputs {missing} are missing", f"give all of {expected}")
    if extra := [name for name in inputs if name not in expected]:
        raise InferenceError(
            f"inputs {extra} are not among the model's inputs",
            f"give exactly {expected}",
        )
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        array = np.asarray(inputs[spec.name])
        wanted = f"{spec.dtype} {list(spec.shape or ())}"
        got = f"{array.dtype} {list(array.shape)}"
        if array.dtype != np.dtype(spec.dtype):
            raise InferenceError(
                f"input {spec.name!r} is {got}, and the model takes {wanted}",
                f"convert it with .astype('{spec.dtype}')",
            )
        if array.ndim != len(spec.shape or ()):
            raise InferenceError(
                f"input {spec.name!r} is {got}, and the model takes {wanted}",
                "reshape it",
            )
        for axis, (size, want) in enumerate(
            zip(array.shape, spec.shape or (), strict=True)
        ):
            if isinstance(want, int):
                if size != want:
                    raise InferenceError(
                        f"input {spec.name!r} is {got}, and the model takes {wanted}",
                        f"axis {axis} must have {want} entries",
                    )
                continue
            if sizes.setdefault(want, size) != size:
                raise InferenceError(
                    f"input {spec.name!r} is {got}: its {want!r} is {size}, and another"
                    f" input's is {sizes[want]}",
                    f"give every input the same {want!r}",
                )
            dimension = signature.dimensions[want]
            if size < dimension.minimum or (
                dimension.maximum is not None and size > dimension.maximum
            ):
                raise InferenceError(
                    f"input {spec.name!r} has {want!r} {size}, and allowed are"
                    f" {dimension.minimum} to {dimension.maximum or 'any number'}",
                    "give it a size within the bounds",
                )
        if (
            spec.is_integer
            and array.size
            and (array.min() < (spec.low or 0) or array.max() >= (spec.high or 0))
        ):
            raise InferenceError(
                f"input {spec.name!r} holds {array.min()} to {array.max()}, and the"
                f" model takes {spec.low} to {(spec.high or 0) - 1}",
                "clip or re-index the values",
            )
    return sizes


def _items(value: Mapping[str, Any], key: str) -> list[tuple[int, Any]]:
    items = value.get(key)
    if not isinstance(items, list | tuple) or not items:
        raise ParamsError(
            f"model.signature.{key} is {items!r}",
            f"list the model's {key}, in forward's order",
        )
    return list(enumerate(items))


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def _input(value: Any, where: str) -> TensorSpec:
    spec = _tensor(value, where)
    if spec.shape is None:
        raise ParamsError(
            f"{where} ({spec.name}) has no shape",
            "give it one, such as [batch, 3, 224, 224]",
        )
    if spec.is_integer and spec.high is None:
        raise ParamsError(
            f"{where} ({spec.name}) holds integers ({spec.dtype}) and has no range",
            "state low (included) and high (excluded), so that samples are values the"
            " model accepts",
        )
    return spec


def _tensor(value: Any, where: str) -> TensorSpec:
    if isinstance(value, str):
        value = {"name": value}
    _only(value, {"name", "dtype", "shape", "low", "high", "description"}, where)
    name, dtype, description = (
        value.get("name"),
        value.get("dtype", "float32"),
        value.get("description", ""),
    )
    if not isinstance(name, str) or not name:
        raise ParamsError(
            f"{where}.name is {name!r}",
            "give the name that the model's forward has for it",
        )
    if dtype not in SIGNATURE_DTYPES:
        raise ParamsError(
            f"{where}.dtype is {dtype!r}",
            f"choose one of {', '.join(SIGNATURE_DTYPES)}",
        )
    if not isinstance(description, str):
        raise ParamsError(
            f"{where}.description is {description!r}",
            "give a text, in quotes if need be",
        )
    shape = value.get("shape")
    if shape is not None:
        if not isinstance(shape, list | tuple):
            raise ParamsError(
                f"{where}.shape is {shape!r}",
                "give a list of numbers and names of dimensions",
            )
        shape = tuple(
            _size(size, f"{where}.shape[{axis}]") for axis, size in enumerate(shape)
        )
    low, high = _range(value.get("low"), value.get("high"), dtype, where)
    return TensorSpec(name, dtype, shape, low, high, description)


def _size(size: Any, where: str) -> int | str:
    return (
        size
        if isinstance(size, str) and size
        else _whole(size, where, 1, "or the name of a dimension")
    )


def _range(
    low: Any, high: Any, dtype: str, where: str
) -> tuple[int | None, int | None]:
    """The checked range; none where neither end is stated."""
    if low is None and high is None:
        return None, None
    if np.dtype(dtype).kind not in "iu":
        raise ParamsError(
            f"{where} is {dtype} and has a range: low={low!r}, high={high!r}",
            "remove low and high",
        )
    for key, value in (("low", low), ("high", high)):
        _whole(value, f"{where}.{key}")
    info = np.iinfo(dtype)
    if not info.min <= low < high <= int(info.max) + 1:
        raise ParamsError(
            f"{where}.low is {low}, and high is {high}",
            f"choose low (included) below high (excluded), within what {dtype} holds:"
            f" {info.min} to {info.max}",
        )
    return low, high


def _dimension(name: str, value: Any, where: str) -> Dimension:
    _only(value, {"minimum", "maximum", "example"}, where)
    for key, least in (("minimum", 0), ("maximum", 1), ("example", 1)):
        if key in value and not (key == "maximum" and value[key] is None):
            _whole(
                value[key],
                f"{where}.{key}",
                least,
                "or null: unbounded" if key == "maximum" else "",
            )
    dimension = Dimension(name, **value)
    minimum, maximum, example = dimension.minimum, dimension.maximum, dimension.example
    if maximum is not None and minimum > maximum:
        raise ParamsError(
            f"{where}.minimum is {minimum}, and maximum is {maximum}",
            "choose minimum ≤ maximum",
        )
    if example < minimum or (maximum is not None and example > maximum):
        raise ParamsError(
            f"{where}.example is"
            f" {example}{'' if 'example' in value else ', where none is stated'}, and"
            f" the bounds are {minimum} to"
            f" {maximum if maximum is not None else 'any number'}",
            "state an example with minimum ≤ example ≤ maximum",
        )
    return dimension


def _whole(
    value: Any, where: str, least: int | None = None, otherwise: str = ""
) -> int:
    """The value, if it is a whole number; YAML's true is an int to Python, and none
    here.
    """
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or (least is not None and value < least)
    ):
        words = [
            "give a whole number",
            *([f"of at least {least}"] if least is not None else []),
            otherwise,
        ]
        raise ParamsError(f"{where} is {value!r}", " ".join(filter(None, words)))
    return value


def _only(value: Any, allowed: set[str], where: str) -> None:
    if not isinstance(value, Mapping):
        raise ParamsError(
            f"{where} is {value!r}",
            f"give a mapping with the keys {', '.join(sorted(allowed))}",
        )
    if unknown := [key for key in value if key not in allowed]:
        raise ParamsError(
            f"{where}: unknown keys {unknown}",
            f"allowed are {', '.join(sorted(allowed))}",
        )
