"""Reading a signature that a person or a config.json states, key by key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from checkpoint_release.core.dtypes import SIGNATURE_DTYPES
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.signature import Dimension, Signature, TensorSpec
from checkpoint_release.core.text import printable, shown

OPTION = "model.signature"
KEY = f"{{{OPTION}}}"
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")  # in msgspec's paths, such as $.shape[1]
_ALLOWED = {
    "inputs": "list the model's inputs, in forward's order",
    "outputs": "list the model's outputs, in the order of what forward returns",
    "dimensions": "give a mapping from the dimensions in shapes to their bounds",
    "name": "give the name that the model's forward has for it",
    "dtype": f"choose one of {', '.join(SIGNATURE_DTYPES)}",
    "shape": "list whole numbers of at least 1 and names of dimensions",
    "low": "give a whole number",
    "high": "give a whole number",
    "description": "give a text, in quotes if need be",
    "minimum": "give a whole number of at least 0",
    "maximum": "give a whole number of at least 1, or null: unbounded",
    "example": "give a whole number of at least 1",
    "multiple": "give a whole number of at least 1",
}
_Text = Annotated[str, Meta(min_length=1)]
_Size = Annotated[int, Meta(ge=1)]


class _Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping in which unknown keys and wrong types are refused."""


class _StatedSignature(_Stated, frozen=True):
    """model.signature; what the lists and the mapping hold is converted by itself."""

    inputs: Annotated[list[Any], Meta(min_length=1)]
    outputs: Annotated[list[Any], Meta(min_length=1)]
    dimensions: dict[str, Any] | None = None


class _StatedTensor(_Stated, frozen=True):
    """One of its inputs or outputs."""

    name: _Text
    dtype: str = TensorSpec.dtype
    shape: list[_Size | _Text] | None = None
    low: int | None = None
    high: int | None = None
    description: str = ""


class _StatedDimension(_Stated, frozen=True):
    """The bounds of one of its dimensions."""

    minimum: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    maximum: _Size | None = Dimension.maximum
    example: _Size | UnsetType = UNSET
    multiple: _Size = Dimension.multiple


def read_signature(value: Any) -> Signature:
    """Read what Signature.to_json wrote, or what the option model.signature states.

    Dimensions that only shapes name get the defaults of Dimension.

    Args:
        value: what YAML or JSON holds for it.

    Raises:
        ParamsError: a key is unknown or missing, a value isn't what its key allows; the
            message names the key, what was found and what is allowed.
    """
    stated = _convert(value, _StatedSignature, KEY)
    inputs = tuple(
        _input(item, f"{KEY}.inputs[{i}]") for i, item in enumerate(stated.inputs)
    )
    outputs = tuple(
        _tensor(item, f"{KEY}.outputs[{i}]") for i, item in enumerate(stated.outputs)
    )
    dimensions = _dimensions(inputs, stated.dimensions or {})
    signature = Signature(inputs, outputs, dimensions)
    _require_distinct(signature.input_names + signature.output_names)
    return signature


def _input(value: Any, key: str) -> TensorSpec:
    """One input, which needs a shape, and a range if it holds integers.

    Args:
        value: what is stated of it.
        key: where it stands, for messages.

    Raises:
        ParamsError: something in it is missing or isn't what its key allows.
    """
    spec = _tensor(value, key)
    if spec.shape is None:
        raise _error(
            key,
            f"({printable(spec.name)}) has no shape",
            "give one, such as [batch, 3, 224, 224]",
        )
    if spec.is_integer and spec.high is None:
        raise _error(
            key,
            f"({printable(spec.name)}) holds integers ({spec.dtype}) and has no range",
            "state low (included) and high (excluded), so that samples are values the"
            " model accepts",
        )
    return spec


def _tensor(value: Any, key: str) -> TensorSpec:
    """One input or output, stated as a mapping or by its name alone.

    Args:
        value: what is stated of it.
        key: where it stands, for messages.

    Raises:
        ParamsError: a key is unknown, or a value isn't what its key allows.
    """
    if isinstance(value, str):
        value = {"name": value}
    stated = _convert(value, _StatedTensor, key)
    if stated.dtype not in SIGNATURE_DTYPES:
        raise _error(f"{key}.dtype", f"is {shown(stated.dtype)}", _ALLOWED["dtype"])
    spec = TensorSpec(
        stated.name,
        stated.dtype,
        None if stated.shape is None else tuple(stated.shape),
        stated.low,
        stated.high,
        stated.description,
    )
    if spec.low is not None or spec.high is not None:
        _check_range(spec, key)
    return spec


def _check_range(spec: TensorSpec, key: str) -> None:
    """Make sure that a stated range is one of integers that the dtype holds.

    Args:
        spec: of which low or high is stated, or both.
        key: where it stands, for messages.

    Raises:
        ParamsError: it isn't, or only one of the two is stated.
    """
    if not spec.is_integer:
        raise _error(
            key,
            f"is {spec.dtype} and has a range: low={spec.low!r}, high={spec.high!r}",
            "remove low and high",
        )
    if spec.low is None:
        raise _error(f"{key}.low", "is None", _ALLOWED["low"])
    if spec.high is None:
        raise _error(f"{key}.high", "is None", _ALLOWED["high"])
    limits = np.iinfo(spec.dtype)
    if not limits.min <= spec.low < spec.high <= int(limits.max) + 1:
        raise _error(
            f"{key}.low",
            f"is {spec.low}, and high is {spec.high}",
            "choose low (included) below high (excluded), within what"
            f" {spec.dtype} holds: {limits.min} to {limits.max}",
        )


def _require_distinct(names: Sequence[str]) -> None:
    """Make sure that no two inputs or outputs have the same name.

    Args:
        names: of all inputs and outputs.

    Raises:
        ParamsError: some have; the message lists those that occur more than once.
    """
    counts = Counter(names)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise _error(
            KEY,
            f"names {shown(repeated)} more than once",
            "give each tensor its own name",
        )


def _dimensions(
    inputs: Iterable[TensorSpec], stated: Mapping[str, Any]
) -> dict[str, Dimension]:
    """The dimensions in the inputs' shapes, those that aren't stated with defaults.

    Args:
        inputs: whose shapes name them.
        stated: name of a dimension → what is stated of it.

    Returns:
        Name → dimension, in the order in which shapes first mention them.

    Raises:
        ParamsError: as _dimension, or one is stated that no input's shape names.
    """
    key = f"{KEY}.dimensions"
    dimensions: dict[str, Dimension] = {}
    for spec in inputs:
        for name in spec.dynamic_axes.values():
            dimensions[name] = _dimension(
                name, stated.get(name), f"{key}.{printable(name)}"
            )
    unused = [name for name in stated if name not in dimensions]
    if unused:
        raise _error(
            key,
            f"names {shown(unused)}, which are in no input's shape",
            "use or remove it",
        )
    return dimensions


def _dimension(name: str, value: Any, key: str) -> Dimension:
    """One dimension.

    Args:
        name: as shapes name it.
        value: what is stated of it; None: nothing.
        key: where it stands, for messages.

    Raises:
        ParamsError: a value isn't what its key allows, or they contradict each other.
    """
    value = {} if value is None else value
    stated = _convert(value, _StatedDimension, key)
    multiple, maximum = stated.multiple, stated.maximum
    # the smallest and the second multiple, as 1 and 2 are
    minimum, example = stated.minimum, stated.example
    if isinstance(minimum, UnsetType):
        minimum = Dimension.minimum * multiple
    if isinstance(example, UnsetType):
        example = Dimension.example * multiple
    _require_multiples(key, {"minimum": minimum, "maximum": maximum}, multiple)
    if maximum is not None and minimum > maximum:
        raise _error(
            f"{key}.minimum",
            f"is {minimum}, and maximum is {maximum}",
            "choose minimum ≤ maximum",
        )
    dimension = Dimension(name, minimum, maximum, example, multiple)
    if not dimension.allows(example):
        default = "" if "example" in value else ", where none is stated"
        raise _error(
            f"{key}.example",
            f"is {example}{default}, and the bounds are {dimension.bounds}",
            "state an example with minimum ≤ example ≤ maximum"
            + (f", a multiple of {multiple}" if multiple > 1 else ""),
        )
    return dimension


def _require_multiples(
    key: str, bounds: Mapping[str, int | None], multiple: int
) -> None:
    """Make sure that bounds are sizes that a dimension can have.

    Args:
        key: of the dimension, for messages.
        bounds: key → size; None: no bound.
        multiple: that every size is a multiple of.

    Raises:
        ParamsError: one isn't.
    """
    for name, size in bounds.items():
        if size is not None and size % multiple:
            raise _error(
                f"{key}.{name}",
                f"is {size}, and multiple is {multiple}",
                f"choose a multiple of {multiple}",
            )


S = TypeVar("S", bound=_Stated)


def _convert(value: Any, kind: type[S], key: str) -> S:
    """Check the types and ranges of a mapping's values.

    Args:
        value: what is stated.
        kind: the keys and what each allows.
        key: where the mapping stands, for messages.

    Raises:
        ParamsError: msgspec's reason, with the full key and what was found there.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
    allowed = f"the keys are {', '.join(kind.__struct_fields__)}"
    for name, index in _STEP.findall(path):
        value = value[name] if name else value[int(index)]
        key += f".{name}" if name else f"[{index}]"
        allowed = _ALLOWED.get(name, allowed)
    raise _error(key, f"is {shown(value)}: {reason}", allowed)


def _error(key: str, problem: str, remedy: str) -> ParamsError:
    """An error about a key of the option model.signature."""
    return ParamsError(f"{key} {problem}", remedy, options=[OPTION])
