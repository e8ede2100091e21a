"""The public interface of the package, which costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import checkpoint_release
from checkpoint_release.core import errors
from tests.support.project import ROOT


def test_the_public_names_are_sorted_and_can_be_imported() -> None:
    assert checkpoint_release.__all__ == sorted(checkpoint_release.__all__)
    for name in checkpoint_release.__all__:
        assert getattr(checkpoint_release, name).__name__ == name
    assert set(checkpoint_release.__all__) <= set(dir(checkpoint_release))


def test_every_error_is_public() -> None:
    own = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert own <= set(checkpoint_release.__all__)


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys\n"
        "import checkpoint_release.core.errors\n"
        "ours = {name for name in sys.modules if name.startswith('checkpoint_')}\n"
        "rooms = {'checkpoint_release', 'checkpoint_release.core'}\n"
        "assert ours == rooms | {'checkpoint_release.core.errors'}, ours\n"
        "assert 'numpy' not in sys.modules\n"
        "from checkpoint_release import load, verify\n"
        "assert not {'torch', 'onnxruntime', 'onnx'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_public_is_missing() -> None:
    assert not hasattr(checkpoint_release, "publish")
