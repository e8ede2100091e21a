"""The Hub's own terms are checked where the card uses them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from checkpoint_release.card.hub_terms import check_terms
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import CardParams, load_params
from tests.support.project import ROOT


def card(**change: Any) -> CardParams:
    return msgspec.structs.replace(load_params(ROOT / "params.yaml").card, **change)


def test_the_project_s_own_terms_are_the_hub_s() -> None:
    check_terms(card())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"license": "Apache 2"}, ["card.license: found 'Apache 2'", "apache-2.0"]),
        ({"license": "other"}, ["card.license_name: found None", "license: other"]),
        ({"license_name": "Own"}, ["card.license_name: found 'Own'"]),
        ({"pipeline_tag": "video"}, ["card.pipeline_tag: found 'video'", "-video"]),
    ],
)
def test_a_term_that_the_hub_does_not_have_is_refused_with_those_that_are_near(
    change: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(ParamsError) as refused:
        check_terms(card(**change))
    for part in named:
        assert part in str(refused.value)
