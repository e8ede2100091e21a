"""A signature at given sizes, for runtimes that want shapes to be numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.signature import Signature, TensorSpec
from checkpoint_release.core.size_expressions import parse_size, size_text


def require_allowed(signature: Signature, sizes: Mapping[str, int]) -> None:
    """Require that a model takes the sizes of the option onnx.fixed.

    Args:
        signature: of the model.
        sizes: dimension → size.

    Raises:
        ParamsError: there is no such dimension, or it doesn't allow the size.
    """
    for name, size in sizes.items():
        dimension = signature.dimensions.get(name)
        if dimension is None:
            raise ParamsError(
                f"{{onnx.fixed}} names {name!r}, and the model's dimensions are"
                f" {list(signature.dimensions)}",
                "choose among those",
                options=["onnx.fixed"],
            )
        if not dimension.allows(size):
            raise ParamsError(
                f"{{onnx.fixed}} is {size} for {name!r}, and allowed are"
                f" {dimension.bounds}",
                "choose a size within the bounds",
                options=["onnx.fixed"],
            )


def at_sizes(signature: Signature, sizes: Mapping[str, int]) -> Signature:
    """The signature with numbers in the place of dimensions.

    Args:
        signature: of the model.
        sizes: dimension → size; the other dimensions stay.
    """
    dimensions = {}
    for name, dimension in signature.dimensions.items():
        if name not in sizes:
            dimensions[name] = dimension
    return Signature(
        tuple(_spec_at(spec, sizes) for spec in signature.inputs),
        tuple(_spec_at(spec, sizes) for spec in signature.outputs),
        dimensions,
    )


def _spec_at(spec: TensorSpec, sizes: Mapping[str, int]) -> TensorSpec:
    if spec.shape is None:
        return spec
    return replace(spec, shape=tuple(_size_at(size, sizes) for size in spec.shape))


def _size_at(size: int | str, sizes: Mapping[str, int]) -> int | str:
    """An entry of a shape, as far as its dimensions have sizes."""
    if isinstance(size, int):
        return size
    if size in sizes:
        return sizes[size]
    expression = parse_size(size)
    if expression is None or not expression.factors.keys() & sizes.keys():
        return size
    open_factors, offset = {}, expression.offset
    for name, factor in expression.factors.items():
        if name in sizes:
            offset += int(factor * sizes[name])
        else:
            open_factors[name] = factor
    return size_text(open_factors, offset) if open_factors else offset
