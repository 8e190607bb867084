"""A Hub on loopback that takes and gives models, for the real clients; with users, faults on request and a log."""

from tests.fakes.model_hub.server import ModelHub

__all__ = ["ModelHub"]
