"""Does an exported graph hold at sizes that it was not traced at? Each exporter asks
before it hands its file on.

Parity is measured later and with care; here a graph with a dimension baked into it is
caught while it is still clear which export made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from checkpoint_release.core.errors import ExportError, one_line
from checkpoint_release.core.signature import (
    Array,
    Arrays,
    Dimension,
    Signature,
    resolve_shape,
    sample_inputs,
)

Run = Callable[[Sequence[Array]], Sequence[Array]]
"""Inputs in the signature's order → outputs in the signature's order."""

# relative to the largest output: arithmetic differs by less, a baked dimension by much
# more
_TOLERANCE = 1e-2


def example_sizes(signature: Signature) -> dict[str, int]:
    """The sizes to trace at: the examples, but no 1, which broadcasting would hide,
    where the bounds allow it.
    """
    return {
        name: (
            2
            if dimension.example == 1 and (dimension.maximum or 2) > 1
            else dimension.example
        )
        for name, dimension in signature.dimensions.items()
    }


def check_sizes(signature: Signature) -> Iterator[dict[str, int]]:
    """The sizes traced at, other ones for all dimensions at once, and the smallest."""
    dimensions = signature.dimensions
    found: list[dict[str, int]] = []
    for sizes in (
        example_sizes(signature),
        {
            name: _other(dimension, example_sizes(signature)[name])
            for name, dimension in dimensions.items()
        },
        {name: dimension.minimum for name, dimension in dimensions.items()},
    ):
        if sizes not in found:
            found.append(sizes)
            yield sizes


def check_shapes(
    what: str, signature: Signature, exported: Run, eager: Run | None = None
) -> None:
    """Run the export at several sizes and hold its outputs against the signature and
    against the eager model.

    Args:
        what: names the export in an error.
        signature: what it takes and gives.
        exported: runs it.
        eager: runs the model that it was made from; None where that would need torch.

    Raises:
        ExportError: it fails at some sizes, or an output's dtype, shape or values are
            not what they should be.
    """
    for sizes in check_sizes(signature):
        where = (
            f"{what} at"
            f" {', '.join(f'{name} {size}' for name, size in sizes.items()) or 'its fixed sizes'}"
        )
        inputs = list(sample_inputs(signature, sizes, seed=0).values())
        try:
            expected = eager(inputs) if eager is not None else None
        except (Exception, SystemExit) as error:  # the model is anybody's code
            raise ExportError(
                f"{where}: the eager model itself fails: {_told(error)}",
                "state the sizes that it takes as minimum and maximum under"
                " model.signature.dimensions",
            ) from error
        try:
            outputs = exported(inputs)
        except Exception as error:  # a runtime can fail in any way
            raise ExportError(f"{where} fails: {_told(error)}", _BAKED) from error
        _check(
            where,
            signature,
            sizes,
            dict(zip((s.name for s in signature.outputs), outputs, strict=True)),
            expected,
        )


_BAKED = (
    "the exporter took a size of its example for a constant: compute sizes from"
    " tensors' shapes in forward, without int(), len() or a cache; or state the"
    " dimension as a number in model.signature"
)


def _check(
    where: str,
    signature: Signature,
    sizes: dict[str, int],
    outputs: Arrays,
    expected: Sequence[Array] | None,
) -> None:
    for i, spec in enumerate(signature.outputs):
        output = outputs[spec.name]
        if output.dtype != np.dtype(spec.dtype):
            raise ExportError(
                f"{where}: output {spec.name!r} is {output.dtype}, and the signature"
                f" says {spec.dtype}",
                f"state `dtype: {output.dtype}` for it in model.signature",
            )
        known = spec.shape is not None and all(
            isinstance(size, int) or size in sizes for size in spec.shape
        )
        if known and output.shape != (shape := resolve_shape(spec, sizes)):
            raise ExportError(
                f"{where}: output {spec.name!r} has the shape {output.shape}, and it"
                f" should be {shape}",
                _BAKED,
            )
        if expected is None:
            continue
        if output.shape != expected[i].shape:
            raise ExportError(
                f"{where}: output {spec.name!r} has the shape {output.shape}, and the"
                f" eager model gives {expected[i].shape}",
                _BAKED,
            )
        scale = max(1.0, float(np.abs(expected[i], dtype=np.float64).max(initial=0.0)))
        error = float(np.abs(output.astype(np.float64) - expected[i]).max(initial=0.0))
        if not error <= _TOLERANCE * scale and np.isfinite(expected[i]).all():
            raise ExportError(
                f"{where}: output {spec.name!r} is off the eager model's by"
                f" {error:.3g}",
                _BAKED,
            )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error, 300)}"


def _other(dimension: Dimension, traced: int) -> int:
    """A size that wasn't traced at: one and a half times it, or what the bounds allow."""
    wanted = traced + (traced + 1) // 2
    if dimension.maximum is None or wanted <= dimension.maximum:
        return wanted
    return dimension.maximum if dimension.maximum != traced else dimension.minimum
