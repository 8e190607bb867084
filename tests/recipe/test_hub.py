"""Publishing: each option needs a repository."""

from dataclasses import fields

import pytest

from dccd_timm.recipe import Hub
from dccd_timm.recipe.option import option_of
from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--hub-public", "hub_public has no effect: push_to_hub is not set"),
        ("--hub-revision dev", "hub_revision has no effect"),
        ("--hub-interval 5", "hub_interval has no effect"),
        ("--hub-license mit", "hub_license has no effect"),
        ("--hub-overwrite", "hub_overwrite has no effect"),
        ("--push-to-hub a/b --hub-interval -1", "must be at least 0"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


def test_nothing_of_it_is_published():
    assert {option_of(spec).published for spec in fields(Hub)} == {"no"}
