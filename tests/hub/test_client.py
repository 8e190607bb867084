"""Why a push failed, in a few words that say what helps."""

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled, RevisionNotFoundError

from dccd_timm.hub import client
from tests.test_network import http_error, httpx, response


def said(status, message):
    return http_error(status, **{"X-Error-Message": message})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalTokenNotFoundError("none"), "hf auth login"),
        (OfflineModeIsEnabled("offline"), "unset it"),
        (RevisionNotFoundError("x", response=response(404)), "no branch v2"),
        (http_error(401), "not valid"),
        (http_error(403), "may not write to alice/student"),
        (said(403, "Private repository storage limit reached, please upgrade."), "storage limit reached, please up"),
        (said(403, "Forbidden: pass `create_pr=1` as a query parameter"), "only open pull requests"),
        (said(403, "You don't have the rights to create a model under lab"), "under lab)"),
        (said(403, "This repository is locked."), "the Hub refused (403: This repository is locked)"),
        (said(402, "Payment required: subscribe to PRO"), "the Hub refused (402: Payment required: subscribe to PRO)"),
        (said(429, "too many repositories today"), "come back later (429: too many repositories today)"),
        (http_error(404), "alice/student does not exist"),
        (http_error(429), "come back later"),
        (http_error(503), "fault (503)"),
        (http_error(412), "refused (412: "),
        (httpx.ConnectError("no route"), "cannot be reached, or the connection broke (no route)"),
        (ConnectionError("model.safetensors did not arrive whole"), "did not arrive whole"),
        (RuntimeError("Error while uploading 'model.safetensors' to the Hub."), "cannot be reached"),
        (RuntimeError("odd\nerror"), "odd error"),
    ],
    ids=repr,
)
def test_every_failure_has_a_cause(error, words):
    cause = client.cause(error, "alice/student", "v2")
    assert words in cause and "\n" not in cause


def test_a_request_needs_a_token_and_is_tried_three_times(monkeypatch):
    tried = []

    def action(api):
        tried.append(api)
        raise ConnectionError("cut")

    monkeypatch.setattr("dccd_timm.network.time.sleep", lambda seconds: None)
    monkeypatch.setattr(client.huggingface_hub, "get_token", lambda: None)
    with pytest.raises(LocalTokenNotFoundError):
        client.request(action, "push")
    assert not tried
    monkeypatch.setattr(client.huggingface_hub, "get_token", lambda: "hf_some")
    with pytest.raises(ConnectionError):
        client.request(action, "push")
    assert len(tried) == 3


@pytest.mark.parametrize("error", [RuntimeError("a bug"), TypeError("a bug"), KeyError("a bug"), ValueError("a bug")])
def test_a_bug_is_not_tried_again(error, monkeypatch):
    tried = []

    def action(api):
        tried.append(api)
        raise error

    monkeypatch.setattr(client.huggingface_hub, "get_token", lambda: "hf_some")
    with pytest.raises(type(error), match="a bug"):
        client.request(action, "push")
    assert len(tried) == 1 and not client.is_refusal(error)
