"""How a foreign flag is spelled."""

from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.foreign import ForeignFlag


def test_the_spelling_is_timms():
    assert ForeignFlag("local_rank", 0, 1, "").flag == "--local_rank"
    assert ForeignFlag("aug_splits", 0, 1, "").flag == "--aug-splits"


def test_a_rank_is_taken_in_the_spelling_of_timm_and_of_torchs_old_launcher():
    for flag in ("--local_rank", "--local-rank"):
        load_recipe([flag, "3"])
        load_recipe([f"{flag}=3"])
