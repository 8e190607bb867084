"""Why a push failed, in a few words that say what helps."""

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled, RevisionNotFoundError

from dccd_timm.hub import client
from tests.test_network import http_error, httpx, response


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalTokenNotFoundError("none"), "hf auth login"),
        (OfflineModeIsEnabled("offline"), "unset it"),
        (RevisionNotFoundError("x", response=response(404)), "no branch v2"),
        (http_error(401), "not valid"),
        (http_error(403), "may not write to alice/student"),
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
