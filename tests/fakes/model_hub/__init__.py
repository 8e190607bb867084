"""The fake Hub of models: on loopback, it takes uploads from the real clients and serves what it has.

It has users, faults on request and a log.

The fake Hub of data sets, which only serves folders, is ``tests/fakes/data_hub.py``.
"""

from tests.fakes.model_hub.server import ModelHub

__all__ = ["ModelHub"]
