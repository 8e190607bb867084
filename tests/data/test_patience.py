"""Waiting for a remote source ends with one line that names --data-timeout."""

import datasets.config
import pytest

from dccd_timm import network
from dccd_timm.data.patience import DataPatience, disable_inner_retries, is_of_network, is_offline
from dccd_timm.errors import UserError
from tests.test_network import http_error, httpx


def test_a_source_that_stays_away_is_one_line(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(network.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(network.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    patience = DataPatience(4)
    with pytest.raises(
        UserError, match=r"shard 3 gave no data for 4 s \(--data-timeout\): cut off; .* start again$"
    ) as caught:
        network.retry(lambda: (_ for _ in ()).throw(ConnectionError("cut\noff")), "shard 3", patience)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert now[0] == 1 + 2 + 4  # no pause is longer than the limit


def test_datasets_does_not_retry_on_its_own(monkeypatch):
    for name in [name for name in vars(datasets.config) if name.startswith("STREAMING_")]:
        monkeypatch.setattr(datasets.config, name, getattr(datasets.config, name))
    disable_inner_retries()
    assert datasets.config.STREAMING_READ_MAX_RETRIES == datasets.config.STREAMING_OPEN_MAX_RETRIES == 1
    assert datasets.config.STREAMING_READ_RETRY_INTERVAL == 0


@pytest.mark.parametrize(
    ("error", "network"),
    [
        (http_error(503), True),
        (httpx.ConnectError("no route"), True),
        (ConnectionError("cut"), True),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), False),
        (ValueError("no such split"), False),
    ],
    ids=repr,
)
def test_only_a_network_is_waited_for(error, network):
    assert is_of_network(error) is network
    outer = RuntimeError("generation failed")
    outer.__cause__ = error
    assert is_of_network(outer) is network
    after = RuntimeError("it is a script")
    after.__context__ = error
    assert not is_of_network(after)


def test_either_variable_keeps_datasets_offline(monkeypatch):
    for offline in (True, False):
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
        assert is_offline() is offline
