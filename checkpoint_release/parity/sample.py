"""Inputs and outputs of one case, by which users of a release check their own
runtime.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from checkpoint_release.core.files import replace_file
from checkpoint_release.core.signature import Arrays
from checkpoint_release.parity.cases import NOMINAL
from checkpoint_release.parity.reference import CaseReference, Reference


def write_sample(folder: Path, reference: Reference) -> None:
    """Write the inputs and outputs of one nominal, drawn case of middling size.

    Args:
        folder: that doesn't exist yet; inputs.safetensors and outputs.safetensors go
            there.
        reference: what the checkpoint's own model computes. The outputs are float64's,
            rounded to the model's dtypes.
    """
    folder.mkdir(parents=True)
    chosen = sample_case(reference)
    save_arrays(folder / "inputs.safetensors", chosen.case.inputs)
    save_arrays(folder / "outputs.safetensors", chosen.rounded)


def sample_case(reference: Reference) -> CaseReference:
    """The case that is the sample.

    Args:
        reference: of the parity check; at least one of its cases is nominal and drawn.
    """
    typical = []
    for case in reference.cases:
        if case.case.is_sample:
            return case
        if case.case.kind == NOMINAL and case.case.drawn:
            typical.append(case)
    typical.sort(key=lambda case: case.case.elements)
    return typical[len(typical) // 2]


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write named arrays as safetensors, whole or not at all.

    Args:
        path: of the file, which is replaced.
        arrays: name → array in any layout; they are written row-major.
    """
    from safetensors.numpy import save

    # ascontiguousarray would make a vector of a scalar
    rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    replace_file(path, save(rows))
