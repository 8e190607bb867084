"""Requests to the Hub: time limits that stay, what is tried again, and for how long."""

import importlib
import logging
import os
import time
import types

import huggingface_hub
import pyarrow
import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import close_session, hf_raise_for_status

from dccd_timm import network
from dccd_timm.errors import UserError
from dccd_timm.network import Patience, is_transient, limit_requests, retry

httpx = importlib.import_module(type(huggingface_hub.get_session()).__module__.split(".")[0])  # httpx or httpx2


def response(status, text="", **headers):
    request = httpx.Request("GET", "https://huggingface.co/x")
    return httpx.Response(status, text=text, headers=headers, request=request)


def http_error(status, **headers):
    try:
        hf_raise_for_status(response(status, **headers))
    except Exception as error:
        return error


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that were waited, by a clock that nothing else moves."""
    waited = []
    monkeypatch.setattr(network.time, "sleep", waited.append)
    monkeypatch.setattr(network.time, "monotonic", lambda: sum(waited))
    return waited


def limits():
    timeout = huggingface_hub.get_session().timeout
    return timeout.connect, timeout.read, timeout.write, timeout.pool


def test_time_limits_outlive_the_client_and_a_fork():
    limit_requests()
    assert limits() == network.TIMEOUTS
    close_session()  # as the client does after a connection that failed
    assert limits() == network.TIMEOUTS
    child = os.fork()
    if not child:
        os._exit(limits() != network.TIMEOUTS)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_conflict_that_does_not_end_is_an_error(pauses):
    limit_requests()
    conflict, other = (
        response(409, "another conflicting operation is in progress"),
        response(409, "you have it already"),
    )
    (hook,) = [
        hook for hook in huggingface_hub.get_session().event_hooks["response"] if "Conflict" in type(hook).__name__
    ]
    for answer in [conflict] * 5 + [other] + [conflict] * 5:
        hook(answer)
    for _ in range(2):  # and the next operation starts anew
        with pytest.raises(UserError, match="409"):
            hook(conflict)
        for _ in range(5):
            hook(conflict)
    assert len(pauses) == 20


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        *((http_error(status), True) for status in (408, 429, 500, 502, 503, 504)),
        *((http_error(status), False) for status in (400, 401, 403, 404, 409, 412)),
        (ConnectionError("cut"), True),
        (httpx.ReadTimeout("slow"), True),
        (RuntimeError("Error while uploading 'model.safetensors'"), True),
        (OSError("cannot read"), True),
        (FileNotFoundError("gone"), False),
        (pyarrow.ArrowInvalid("no parquet"), False),
        (UserError("wrong flag"), False),
        (OfflineModeIsEnabled("offline"), False),
        (LocalTokenNotFoundError("no token"), False),
    ],
    ids=repr,
)
def test_what_is_tried_again(error, transient):
    assert is_transient(error) is transient
    outer = RuntimeError("reading failed")
    outer.__cause__ = error
    assert is_transient(outer) is transient


def test_pauses_double_up_to_a_minute_and_seconds_count_from_the_last_success(pauses):
    patience = Patience(seconds=200)
    for _ in range(8):
        patience.wait("x", OSError("away"))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    patience.succeeded()
    patience.wait("x", OSError("away"))
    assert pauses[8:] == [1]
    pauses.append(200)
    with pytest.raises(OSError, match="away"):
        patience.wait("x", OSError("away"))


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry-After": "7"}, 8),
        ({"RateLimit": '"api";r=0;t=20'}, 21),
        ({"Retry-After": "3600"}, 60),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1),
    ],
)
def test_the_hub_says_how_long_to_wait(pauses, headers, pause):
    Patience().wait("x", http_error(429, **headers))
    assert pauses == [pause]


def test_an_action_is_tried_until_it_succeeds_or_tries_are_over(pauses, caplog):
    errors = [ConnectionError("one"), ConnectionError("two"), ConnectionError("three")]

    def action():
        if errors:
            raise errors.pop(0)
        return "done"

    with caplog.at_level(logging.WARNING):
        assert retry(action, "could not push", Patience(tries=4)) == "done"
    assert caplog.records[0].getMessage() == "could not push: one; trying again in 1 s"
    errors.extend([ConnectionError("one"), ConnectionError("two"), ConnectionError("three")])
    with pytest.raises(ConnectionError, match="three"):
        retry(action, "could not push", Patience(tries=3))
    errors.append(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        retry(action, "could not push", Patience(tries=3))


def test_a_wait_is_announced_after_some_seconds_and_ever_less_often(monkeypatch, caplog):
    monkeypatch.setattr(network, "_ANNOUNCED", (0.05, 0.05, 60.0))
    caplog.set_level(logging.INFO)
    with network.announced("student x"):
        pass
    assert not caplog.records
    with network.announced("student x"):
        time.sleep(0.5)
    assert len(caplog.records) == 2
    assert caplog.messages[0].startswith("student x: waiting for https://huggingface.co for 0 s")
    monkeypatch.setenv("RANK", "1")  # rank 0 says it for all
    with network.announced("student x"):
        time.sleep(0.2)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("answers", [[404], [httpx.ConnectError("away"), 503]])
def test_a_hub_that_answers_anything_can_be_reached(answers, pauses, monkeypatch):
    def head(*_, **__):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return response(answer)

    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: types.SimpleNamespace(head=head))
    network.check_reachable("teacher x")
    assert not answers


def test_who_is_offline_by_choice_asks_nothing(pauses, monkeypatch):
    def get_session():
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub.utils, "get_session", get_session)
    network.check_reachable("teacher x")
    assert not pauses
