"""What an installation lacks is named with the extra that brings it."""

from __future__ import annotations

import tomllib

import pytest

from checkpoint_release.core.errors import MissingLibraryError
from checkpoint_release.core.extras import EXTRAS, extras_named
from tests.support.project import ROOT


@pytest.mark.parametrize(("library", "extra"), EXTRAS.items())
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    library: str, extra: str
) -> None:
    install = rf"checkpoint-release\[{extra}\]"
    with pytest.raises(MissingLibraryError, match=install), extras_named():
        raise ModuleNotFoundError(f"No module named {library!r}", name=library)


def test_any_other_module_that_is_missing_stays_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), extras_named():
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")


def test_every_extra_exists_and_brings_its_library() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    for library, extra in EXTRAS.items():
        names = [text.replace("-", "_") for text in declared[extra]]
        assert any(name.startswith(library) for name in names), library
