"""What we rely on exists in timm's families."""

import pytest
import timm

from dccd_timm.models.timm_model import Stage, TimmModel, as_timm


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_convnext", "cifar_resnet8"])
def test_the_type_names_what_models_have(name):
    model = timm.create_model(name)
    assert as_timm(model) is model
    optional = {"set_grad_checkpointing"}
    assert all(hasattr(model, attribute) for attribute in set(TimmModel.__annotations__) - optional)
    assert set(Stage.__annotations__) <= set(model.feature_info[0])
