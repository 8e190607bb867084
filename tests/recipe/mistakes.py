"""How the tests of each subject check what a user gets wrong."""

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe

TEACHER = "--kd-model-name resnet18"
DCCD = f"{TEACHER} --kd-distill-type dccd"


def assert_refused(flags, message):
    """These flags are one mistake, in one line that holds ``message``."""
    with pytest.raises(UserError) as caught:
        load_recipe(flags.split())
    assert message in str(caught.value) and "\n" not in str(caught.value)
