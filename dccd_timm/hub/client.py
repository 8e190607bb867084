"""The Hub's client for a push: tries again after transient errors, and says in a few words why a request failed."""

from collections.abc import Callable
from typing import TypeVar

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled, RevisionNotFoundError

from dccd_timm.errors import one_line
from dccd_timm.network import Patience, limit_requests, retry, status_code

_T = TypeVar("_T")
_TRIES = 3


def request(action: Callable[[HfApi], _T], what: str) -> _T:
    """Call ``action``, which may be repeated, with a client that has a token and time limits.

    Raises:
        Exception: what the client raises in the last try; its errors share no base class.
    """
    limit_requests()
    if not huggingface_hub.get_token():
        raise LocalTokenNotFoundError("no token")
    api = HfApi(library_name="dccd-timm")
    return retry(lambda: action(api), f"could not {what}", Patience(tries=_TRIES))


def host() -> str:
    """Address of the Hub."""
    return huggingface_hub.constants.ENDPOINT


def cause(error: BaseException, repo_id: str, revision: str | None) -> str:
    """Why a request about ``repo_id`` failed, and what helps, in a few words."""
    status = status_code(error)
    reasons = {
        401: "the token is not valid: run `hf auth login`, or set HF_TOKEN",
        403: f"the token may not write to {repo_id}: it needs write access there",
        404: f"{repo_id} does not exist, or is private and not yours",
        429: "the Hub asks to come back later (429)",
    }
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token: run `hf auth login`, or set HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no branch {revision}"
    if status in reasons:
        return reasons[status]
    if status and status >= 500:
        return f"the Hub has a fault ({status})"
    if status:
        return f"the Hub refused ({status}: {one_line(error)})"
    if _is_network(error):
        return f"{host()} cannot be reached, or the connection broke ({one_line(error)})"
    return one_line(error)


def _is_network(error: BaseException) -> bool:
    """Whether the way to the Hub failed: an error of the HTTP client, of Xet or of the upload."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, RuntimeError) and "upload" in str(error).lower():
        return True
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "hf_xet")
