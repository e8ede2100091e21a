"""parity.sizes is for any model: what this one doesn't take is left out with a note."""

from __future__ import annotations

from checkpoint_release.core.parity_sizes import possible_sizes
from checkpoint_release.core.signature import Dimension, Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("x", shape=("batch", "sequence")),),
    (TensorSpec("y"),),
    {
        "batch": Dimension("batch"),
        "sequence": Dimension("sequence", 2, 64),
    },
)


def test_sizes_within_the_bounds_are_kept_without_a_word() -> None:
    sizes = {"sequence": [2, 64], "batch": [100]}
    assert possible_sizes(SIGNATURE, sizes) == (sizes, [])


def test_other_sizes_and_other_names_are_left_out_with_a_note() -> None:
    sizes, notes = possible_sizes(SIGNATURE, {"sequence": [1, 3, 250], "frames": [9]})
    assert sizes == {"sequence": [3]}
    assert notes == [
        "parity.sizes: sequence 1, 250 is not tried, for the model takes 2 to 64",
        "parity.sizes names 'frames'; this model has ['batch', 'sequence']",
    ]
