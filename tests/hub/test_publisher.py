"""What a run asks of the Hub: nothing without --push-to-hub, and always a card."""

import pytest
from huggingface_hub import ModelCard

from dccd_timm.errors import UserError
from dccd_timm.hub import push
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import Report
from tests.hub.test_card import run  # noqa: F401


def publisher(*flags):
    return HubPublisher(load_recipe(["--kd-model-name", "resnet34", "--kd-distill-type", "dccd", *flags]))


@pytest.fixture
def refused(monkeypatch):
    """Calls of the push module, each of which fails."""
    calls = []

    def refuse(*arguments):
        calls.append(arguments)
        raise UserError("the Hub refused")

    monkeypatch.setattr(push, "push", refuse)
    monkeypatch.setattr(push, "check", refuse)
    return calls


def test_without_push_to_hub_only_the_card_is_written(run, refused):  # noqa: F811
    silent, folder = publisher(), run(license="mit")
    silent.check(), silent.push_interim(folder, Report()), silent.push(folder)
    silent.write_card(folder)
    assert not refused
    assert ModelCard.load(folder / "README.md").data.license == "mit"  # the one that the run's recipe chose


def test_a_failed_interim_push_is_a_warning_and_the_others_are_errors(tmp_path, refused, caplog):
    loud = publisher("--push-to-hub", "alice/student", "--hub-public", "--hub-license", "mit")
    loud.push_interim(tmp_path, Report())
    assert [record.getMessage() for record in caplog.records] == ["the Hub refused"]
    for action in (loud.check, lambda: loud.push(tmp_path)):
        with pytest.raises(UserError, match="the Hub refused"):
            action()
    assert all(isinstance(part, push.Target) for part in (refused[0][1], refused[1][0], refused[2][1]))
    assert vars(refused[1][0]) == dict(
        repo_id="alice/student", public=True, revision=None, license="mit", overwrite=False
    )
