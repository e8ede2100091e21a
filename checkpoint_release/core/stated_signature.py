"""Reading a signature that a person or a config.json states, key by key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from checkpoint_release.core.dtypes import SIGNATURE_DTYPES
from checkpoint_release.core.signature import Dimension, Signature, TensorSpec
from checkpoint_release.core.size_expressions import size_names
from checkpoint_release.core.stated_tensors import (
    ALLOWED,
    OPTION,
    check_expressions,
    check_range,
    check_size,
    signature_error,
)
from checkpoint_release.core.text import printable, shown

KEY = f"{{{OPTION}}}"
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")  # in msgspec's paths, such as $.shape[1]
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
    low: int | float | None = None
    high: int | float | None = None
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
    for i, spec in enumerate(inputs):
        check_expressions(spec, dimensions, f"{KEY}.inputs[{i}].shape")
    for i, spec in enumerate(outputs):
        if spec.dimension_names <= dimensions.keys():
            check_expressions(spec, dimensions, f"{KEY}.outputs[{i}].shape")
    _require_distinct(signature.input_names + signature.output_names)
    return signature


def states_bounds_alone(value: Mapping[str, Any]) -> bool:
    """Whether model.signature only corrects the bounds of a signature that the
    factory's module states.
    """
    return value.keys() == {"dimensions"}


def with_bounds(signature: Signature, value: Mapping[str, Any]) -> Signature:
    """A signature with other bounds of its dimensions.

    Args:
        signature: as the factory's module states it.
        value: the option model.signature, with nothing but dimensions; what isn't
            stated of one stays, as far as the rest allows.

    Raises:
        ParamsError: there is no such dimension, or its bounds are wrong.
    """
    key = f"{KEY}.dimensions"
    stated = value["dimensions"]
    if not isinstance(stated, Mapping):
        raise signature_error(key, f"is {shown(stated)}", ALLOWED["dimensions"])
    unknown = [name for name in stated if name not in signature.dimensions]
    if unknown:
        raise signature_error(
            key,
            f"names {shown(unknown)}, and the model's are {list(signature.dimensions)}",
            "choose among those",
        )
    dimensions = dict(signature.dimensions)
    for name, bounds in stated.items():
        own_key = f"{key}.{printable(name)}"
        dimensions[name] = _rebounded(dimensions[name], bounds, own_key)
    bounded = replace(signature, dimensions=dimensions)
    for spec in bounded.inputs:
        check_expressions(spec, dimensions, f"the shape of {printable(spec.name)}")
    return bounded


def _rebounded(dimension: Dimension, value: Any, key: str) -> Dimension:
    """A dimension with what is stated of it, the rest moved within that.

    Raises:
        ParamsError: what is stated is wrong.
    """
    stated = _dimension(dimension.name, value, key, any_example=True)
    given = {} if value is None else value
    free = {name: own for name, own in dimension.to_json().items() if name not in given}
    changed = replace(dimension, **{name: getattr(stated, name) for name in given})
    if "minimum" in free:
        steps = -(-changed.minimum // changed.multiple)
        changed = replace(changed, minimum=steps * changed.multiple)
    if "maximum" in free and changed.maximum is not None:
        steps = changed.maximum // changed.multiple
        changed = replace(changed, maximum=steps * changed.multiple)
    if "example" in free:
        changed = replace(changed, example=changed.nearest(changed.example))
    return _dimension(dimension.name, changed.to_json(), key)


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
        raise signature_error(
            key,
            f"({printable(spec.name)}) has no shape",
            "give one, such as [batch, 3, 224, 224]",
        )
    if spec.is_integer and spec.high is None:
        raise signature_error(
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
        raise signature_error(
            f"{key}.dtype", f"is {shown(stated.dtype)}", ALLOWED["dtype"]
        )
    spec = TensorSpec(
        stated.name,
        stated.dtype,
        None if stated.shape is None else tuple(stated.shape),
        stated.low,
        stated.high,
        stated.description,
    )
    for axis, size in spec.dynamic_axes.items():
        check_size(size, f"{key}.shape[{axis}]")
    if spec.low is not None or spec.high is not None:
        check_range(spec, key)
    return spec


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
        raise signature_error(
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
            if size_names(name) != {name}:
                continue  # an expression, of names that are found elsewhere
            dimensions[name] = _dimension(
                name, stated.get(name), f"{key}.{printable(name)}"
            )
    unused = [name for name in stated if name not in dimensions]
    if unused:
        raise signature_error(
            key,
            f"names {shown(unused)}, which are in no input's shape by themselves",
            "use or remove it",
        )
    return dimensions


def _dimension(
    name: str, value: Any, key: str, *, any_example: bool = False
) -> Dimension:
    """One dimension.

    Args:
        name: as shapes name it.
        value: what is stated of it; None: nothing.
        key: where it stands, for messages.
        any_example: whether the example may be out of bounds.

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
        raise signature_error(
            f"{key}.minimum",
            f"is {minimum}, and maximum is {maximum}",
            "choose minimum ≤ maximum",
        )
    dimension = Dimension(name, minimum, maximum, example, multiple)
    if not any_example and not dimension.allows(example):
        default = "" if "example" in value else ", where none is stated"
        raise signature_error(
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
            raise signature_error(
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
        allowed = ALLOWED.get(name, allowed)
    raise signature_error(key, f"is {shown(value)}: {reason}", allowed)
