"""The typed form of timm's data config has the keys that timm gives."""

import timm
from timm.data import resolve_data_config

from dccd_timm.recipe.data_config import DataConfig


def test_timm_gives_each_key_that_is_required():
    config = resolve_data_config({}, model=timm.create_model("test_resnet"))
    assert DataConfig.__required_keys__ <= config.keys()
    assert config.keys() <= DataConfig.__required_keys__ | DataConfig.__optional_keys__
