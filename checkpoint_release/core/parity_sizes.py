"""The options parity.sizes and benchmark.sizes, as far as a model has such dimensions
and takes such sizes.

Their default is for the models that come with the project, so that a size which another
model doesn't take is left out with a note and stops nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from checkpoint_release.core.signature import Signature


def possible_sizes(
    signature: Signature,
    sizes: Mapping[str, Sequence[int]],
    option: str = "parity.sizes",
) -> tuple[dict[str, list[int]], list[str]]:
    """The sizes that a model takes, and a note on each of the others.

    Args:
        signature: of the model.
        sizes: by dimension, as the option states them.
        option: its name.

    Returns:
        The sizes within the bounds of the model's own dimensions, in the same order,
        and sentences about what was left out.
    """
    possible: dict[str, list[int]] = {}
    notes = []
    for name, stated in sizes.items():
        dimension = signature.dimensions.get(name)
        if dimension is None:
            known = list(signature.dimensions)
            notes.append(f"{option} names {name!r}; this model has {known}")
            continue
        possible[name] = [size for size in stated if dimension.allows(size)]
        left_out = [str(size) for size in stated if not dimension.allows(size)]
        if left_out:
            notes.append(
                f"{option}: {name} {', '.join(left_out)} is not tried, for the"
                f" model takes {dimension.bounds}"
            )
    return possible, notes
