"""The sample in a release: a case that shows what a model does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.parity.cases import draw_cases
from checkpoint_release.parity.reference import measure_reference
from checkpoint_release.parity.sample import write_sample


def test_the_sample_s_integers_are_drawn_and_not_all_the_same(tmp_path: Path) -> None:
    """Two of the three cases of a fixed shape are of integers that are all the same."""
    tokens = {"name": "tokens", "dtype": "int64", "shape": [2, 8], "low": 0, "high": 99}
    signature = read_signature({"inputs": [tokens], "outputs": ["total"]})
    cases = draw_cases(signature, seed=0, sizes={}, magnitudes=[])
    assert [case.drawn for case in cases] == [True, False, False]
    outputs = [{"total": case.inputs["tokens"].sum(1)} for case in cases]
    write_sample(tmp_path / "sample", measure_reference(cases, outputs, outputs))
    inputs = load_file(tmp_path / "sample/inputs.safetensors")
    assert np.array_equal(inputs["tokens"], cases[0].inputs["tokens"])
