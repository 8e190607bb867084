"""The Hub's client for a push: tries again after transient errors, and says in a few words why a request failed."""

from collections.abc import Callable
from typing import TypeVar

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from dccd_timm.errors import UserError, one_line
from dccd_timm.network import Patience, limit_requests, retry, status_code

_T = TypeVar("_T")
_TRIES = 3


def request(action: Callable[[HfApi], _T], what: str, needs_token: bool = True) -> _T:
    """Call ``action``, which may be repeated, with a client that has time limits, and a token where it needs one.

    Raises:
        Exception: what the client raises in the last try; its errors share no base class.
    """
    limit_requests()
    if needs_token and not huggingface_hub.get_token():
        raise LocalTokenNotFoundError("no token")
    api = HfApi(library_name="dccd-timm")
    return retry(lambda: action(api), f"could not {what}", Patience(tries=_TRIES), _is_network)


def host() -> str:
    """Address of the Hub."""
    return huggingface_hub.constants.ENDPOINT


def cause(error: BaseException, repo_id: str, revision: str | None) -> str:
    """Why a request about ``repo_id`` failed, and what helps, in a few words."""
    status, said = status_code(error), _said(error)
    reasons = {
        401: "the token is not valid: run `hf auth login`, or set HF_TOKEN",
        403: _forbidden(said, repo_id),
        404: f"{repo_id} does not exist, or is private and not yours",
        429: f"the Hub asks to come back later (429{said and f': {said}'})",
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
        return f"the Hub refused ({status}: {said or one_line(error)})"
    if _is_network(error):
        return f"{host()} cannot be reached, or the connection broke ({one_line(error)})"
    return one_line(error)


def is_refusal(error: BaseException) -> bool:
    """Whether the Hub, the network, the disk or the user is the cause; every other error is a bug of this package."""
    return isinstance(error, UserError | OSError | HFValidationError) or _is_network(error)


def _said(error: BaseException) -> str:
    """What the Hub itself says of a request that it refused, without addresses and ids."""
    return " ".join(str(getattr(error, "server_message", None) or "").split())[:200].rstrip(".")


def _forbidden(said: str, repo_id: str) -> str:
    """What a 403 means: not every one is about the token."""
    lower = said.lower()
    if "storage" in lower or "quota" in lower:
        return (
            f"the Hub refused (403: {said}): free some of your storage there, or push to a new --hub-public repository"
        )
    if "create_pr" in lower:
        return f"the token may not write to {repo_id}, only open pull requests there: it needs write access"
    reason = f" (403: {said})" if said else ""
    if said and not any(
        word in lower for word in ("token", "right", "permission", "forbidden", "authorized", "access")
    ):
        return f"the Hub refused{reason}"
    return f"the token may not write to {repo_id}: it needs write access there{reason}"


def _is_network(error: BaseException) -> bool:
    """Whether the way to the Hub failed: an error of the HTTP client, of Xet or of the upload."""
    if isinstance(error, ConnectionError | TimeoutError | HfHubHTTPError):
        return True
    if isinstance(error, RuntimeError) and "upload" in str(error).lower():
        return True
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "hf_xet")
