"""What a training asks of its publisher is what the Hub's publisher offers: `run` may not import `hub`."""

import inspect

import pytest

from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.run.publisher import Publisher

METHODS = [name for name in vars(Publisher) if not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_the_hub_offers_it_with_the_same_parameters(name):
    asked, offered = (inspect.signature(getattr(cls, name)) for cls in (Publisher, HubPublisher))
    assert list(asked.parameters) == list(offered.parameters)


def test_all_that_a_training_needs_is_asked():
    assert set(METHODS) == {"check", "write_card", "push_interim", "push"}
