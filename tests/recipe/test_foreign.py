"""How a foreign flag is spelled."""

from dccd_timm.recipe.foreign import ForeignFlag


def test_the_spelling_is_timms():
    assert ForeignFlag("local_rank", 0, 1, "").flag == "--local_rank"
    assert ForeignFlag("aug_splits", 0, 1, "").flag == "--aug-splits"
