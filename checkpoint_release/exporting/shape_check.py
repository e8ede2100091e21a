"""Does an exported graph hold at sizes that it was not traced at? Every exporter checks
this before it hands its file on.

Parity is measured later and with care; here a graph with a dimension baked into it is
caught while it is still clear which export did so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from checkpoint_release.core.errors import ExportError, first_few, one_line
from checkpoint_release.core.signature import (
    Array,
    Arrays,
    Dimension,
    Signature,
    TensorSpec,
    known_shape,
    sample_inputs,
)

Run = Callable[[Sequence[Array]], Sequence[Array]]
"""Inputs in the signature's order → outputs in the signature's order."""

Sizes = dict[str, int]
"""Name of a dynamic dimension → its size."""


class BakedError(ExportError):
    """Something that should follow the inputs became a constant of the graph."""

    def explained(self, decisions: Sequence[str]) -> ExportError:
        """The error with its remedy, by what is known of the model.

        Args:
            decisions: lines of the model's code that may decide by values of tensors.
        """
        if not decisions:
            return ExportError(
                self.problem, _BAKED_DIMENSION, options=["model.signature"]
            )
        return ExportError(
            f"{self.problem}; forward turns values of tensors into Python's"
            f" ({first_few(decisions, _MAX_LISTED)}), and a graph keeps what its"
            " example had there",
            "compute both ways and choose with torch.where, or keep numbers in tensors",
        )


# Relative to the largest output: arithmetic differs by less, a baked dimension by much
# more.
_TOLERANCE = 1e-2
_MAX_LISTED = 3  # lines of code in a message
_MORE_SEEDS = 7  # so that a decision by a sign comes out both ways, but once in 64
_SCALES = (0.0, 100.0)  # of float inputs, beside 1
_BAKED_DIMENSION = (
    "the exporter took a size of its example for a constant: compute sizes from"
    " tensors' shapes in forward, without int(), len() or a cache; or state the"
    " dimension as a number in {model.signature}"
)


def example_sizes(signature: Signature) -> Sizes:
    """The sizes to trace at: the examples, but 2 instead of 1 where that is allowed.

    Broadcasting would hide what depends on a size of 1, and torch.export takes a size
    of 0 or 1 for a constant.

    Returns:
        A size for each of the signature's dimensions, within its bounds.
    """
    sizes = {}
    for name, dimension in signature.dimensions.items():
        sizes[name] = dimension.example
        if dimension.example == 1 and dimension.allows(2):
            sizes[name] = 2
    return sizes


def check_sizes(signature: Signature) -> Iterator[Sizes]:
    """The sizes traced at, other ones for all dimensions at once, and the smallest.

    Each is given once: where the bounds leave one size, so do these.

    Args:
        signature: whose dimensions are resized.

    Returns:
        One to three choices of a size for every dimension, within its bounds.
    """
    traced = example_sizes(signature)
    others: Sizes = {}
    smallest: Sizes = {}
    for name, dimension in signature.dimensions.items():
        others[name] = _other_size(dimension, traced[name])
        smallest[name] = dimension.minimum
    yield traced
    if others != traced:
        yield others
    if smallest not in (traced, others):
        yield smallest


def check_shapes(
    export_name: str,
    signature: Signature,
    exported: Run,
    eager: Run | None = None,
    decisions: Sequence[str] = (),
) -> None:
    """Run the export at several sizes and compare its outputs with the signature and
    with the eager model.

    Args:
        export_name: names the export in an error.
        signature: what it takes and gives.
        exported: runs it.
        eager: runs the model that was exported; None where that would need torch.
        decisions: lines of the model's code that may decide by values of tensors.

    Raises:
        ExportError: it fails at some sizes, or an output's dtype, shape or values are
            not what they should be.
    """
    samples = list(_samples(signature, decisions))
    try:
        _check_samples(export_name, signature, samples, exported, eager)
    except BakedError as error:
        raise error.explained(decisions) from error.__cause__


def _samples(
    signature: Signature, decisions: Sequence[str]
) -> Iterator[tuple[Sizes, Arrays]]:
    """The inputs to compare at: at each size, and of a model that may decide by values
    also other values.

    Args:
        signature: what the model takes.
        decisions: lines of its code that may decide by values of tensors.
    """
    for sizes in check_sizes(signature):
        yield sizes, sample_inputs(signature, sizes, seed=0)
    if decisions:
        sizes = example_sizes(signature)
        for seed in range(1, _MORE_SEEDS):
            yield sizes, sample_inputs(signature, sizes, seed)
        for scale in _SCALES:
            yield sizes, sample_inputs(signature, sizes, 0, scale)


def _check_samples(
    export_name: str,
    signature: Signature,
    samples: Iterable[tuple[Sizes, Arrays]],
    exported: Run,
    eager: Run | None,
) -> None:
    """As check_shapes.

    Raises:
        BakedError: the export isn't the model at some sizes.
        ExportError: an output's dtype isn't the signature's, or the model fails.
    """
    for sizes, sample in samples:
        place = f"{export_name} at {_sizes_text(sizes)}"
        inputs = list(sample.values())
        expected = None if eager is None else _run_eager(place, eager, inputs)
        outputs = _run_export(place, exported, inputs)
        pairs = zip(signature.outputs, outputs, strict=True)
        for i, (spec, output) in enumerate(pairs):
            output_place = f"{place}: output {spec.name!r}"
            _check_against_signature(output_place, spec, output, sizes)
            if expected is not None:
                _check_against_model(output_place, output, expected[i])


def _run_eager(place: str, eager: Run, inputs: Sequence[Array]) -> Sequence[Array]:
    """The eager model's outputs.

    Args:
        place: the export and its sizes, for the message.
        eager: runs the model.
        inputs: in the signature's order.

    Raises:
        ExportError: the model doesn't take these sizes.
    """
    try:
        return eager(inputs)
    except (Exception, SystemExit) as error:  # the model is anybody's code
        raise ExportError(
            f"{place}: the eager model itself fails: {_cause(error)}",
            "state the sizes that it takes as minimum and maximum of the dimensions in"
            " {model.signature}",
            options=["model.signature"],
        ) from error


def _run_export(place: str, exported: Run, inputs: Sequence[Array]) -> Sequence[Array]:
    """The export's outputs.

    Args:
        place: the export and its sizes, for the message.
        exported: runs it.
        inputs: in the signature's order.

    Raises:
        ExportError: it fails, as most graphs do at a size that isn't the baked one.
    """
    try:
        return exported(inputs)
    except Exception as error:  # a runtime can fail in any way
        raise _baked_dimension(f"{place} fails: {_cause(error)}") from error


def _check_against_signature(
    place: str, spec: TensorSpec, output: Array, sizes: Sizes
) -> None:
    """An output must have the signature's dtype and, where that is known, its shape.

    It is known where it is stated, and only in dimensions that inputs have too.

    Args:
        place: the export, its sizes and the output, for the message.
        spec: the output in the signature.
        output: what the export gave.
        sizes: of the inputs.

    Raises:
        ExportError: it has others.
    """
    if output.dtype != np.dtype(spec.dtype):
        raise ExportError(
            f"{place} is {output.dtype}, and the signature says {spec.dtype}",
            f"state `dtype: {output.dtype}` for it in {{model.signature}}",
            options=["model.signature"],
        )
    shape = known_shape(spec, sizes)
    if shape is not None and output.shape != shape:
        raise _baked_dimension(
            f"{place} has the shape {output.shape}, and it should be {shape}"
        )


def _check_against_model(place: str, output: Array, expected: Array) -> None:
    """An output must have the eager model's shape and, where finite, nearly its values.

    Args:
        place: the export, its sizes and the output, for the message.
        output: what the export gave.
        expected: what the eager model gave.

    Raises:
        ExportError: it has others.
    """
    if output.shape != expected.shape:
        raise _baked_dimension(
            f"{place} has the shape {output.shape}, and the eager model gives"
            f" {expected.shape}"
        )
    if not np.isfinite(expected).all():
        return
    magnitude = float(np.abs(expected, dtype=np.float64).max(initial=0.0))
    error = float(np.abs(output.astype(np.float64) - expected).max(initial=0.0))
    if not error <= _TOLERANCE * max(1.0, magnitude):  # NaN is not
        raise _baked_dimension(f"{place} is off the eager model's by {error:.3g}")


def _baked_dimension(problem: str) -> BakedError:
    """An error about a size that became a constant."""
    return BakedError(problem)


def _sizes_text(sizes: Sizes) -> str:
    """The sizes of a run, for a message."""
    if not sizes:
        return "its fixed sizes"
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _cause(error: BaseException) -> str:
    """A library's or a model's own error, for a message."""
    return f"{type(error).__name__}: {one_line(error, 300)}"


def _other_size(dimension: Dimension, traced: int) -> int:
    """Another size than the traced one: half as much again, within the bounds.

    Args:
        dimension: whose bounds count.
        traced: the size that the export was traced at.

    Returns:
        The largest or the smallest size, where half as much again is too large; the
        traced one, where there is no other.
    """
    wanted = dimension.nearest(traced + (traced + 1) // 2)
    return wanted if wanted != traced else dimension.minimum
