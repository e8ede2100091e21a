"""What an installation lacks is named with the extra that brings it."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.utils import canonicalize_name

from checkpoint_release.core.errors import MissingLibraryError
from checkpoint_release.core.extras import EXTRAS, extras_named
from tests.support.installed import needed


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


def test_a_module_within_a_library_is_named_by_the_library() -> None:
    missing = ModuleNotFoundError("No module named", name="markdown_it.token")
    with pytest.raises(MissingLibraryError, match="markdown_it is"), extras_named():
        raise missing


@pytest.mark.parametrize("extra", sorted(set(EXTRAS.values())))
def test_every_extra_exists_and_brings_its_libraries(extra: str) -> None:
    brought = needed(extra)
    distributions = importlib.metadata.packages_distributions()
    for library, named in EXTRAS.items():
        if named == extra:
            names = {canonicalize_name(name) for name in distributions[library]}
            assert names & brought, library
