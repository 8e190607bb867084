"""A student onto the Hugging Face Hub: one commit with weights, card and evidence, verified, safe to repeat.

timm's own ``push_to_hf_hub`` would push pickles and keep a first push's card for ever.
"""

import logging
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from dccd_timm.errors import UserError, one_line
from dccd_timm.hub.card import Card
from dccd_timm.recipe import Recipe

_logger = logging.getLogger(__name__)

# Seconds to connect, to read, to write and to wait for a connection: the client's own are infinite.
_TIMEOUTS = (10.0, 120.0, 120.0, 10.0)
_TRIES = 3
_CONFLICTS = 5
_LONGEST_PAUSE = 60.0
# What an earlier push, or timm's own, may have left and this one replaces.
_STALE = re.compile(r"report/.*|.*\.(bin|pth|pt|ckpt|pkl)")
_TRANSIENT = {408, 429, 500, 502, 503, 504}


class Target:
    """Where a student goes: repository, visibility of a new one, branch, license."""

    def __init__(self, repo_id: str, public: bool = False, revision: str | None = None, license: str | None = None):
        self.repo_id, self.public, self.revision, self.license = repo_id, public, revision, license

    @classmethod
    def of(cls, recipe: Recipe) -> Self | None:
        """Where a recipe wants its student, None when nowhere."""
        if not recipe.push_to_hub:
            return None
        return cls(recipe.push_to_hub, recipe.hub_public, recipe.hub_revision, recipe.hub_license)

    def retry_command(self, run: Path) -> str:
        """What to type to push a run here."""
        words = ["dccd-push", str(run), self.repo_id, *(["--hub-public"] if self.public else [])]
        words += ["--hub-revision", self.revision] if self.revision else []
        return " ".join([*words, *(["--hub-license", self.license] if self.license else [])])


def check(target: Target) -> None:
    """Learn before a training whether its student could be pushed; nothing is made.

    Raises:
        UserError: bad name, no token, a wrong one, or one that may not write there; or no Hub.
    """
    try:
        validate_repo_id(target.repo_id)
    except HFValidationError as error:
        raise UserError(f"cannot push to {target.repo_id}: {one_line(error)}") from None
    if target.repo_id.count("/") != 1:
        raise UserError(f"cannot push to {target.repo_id}: give owner/name")
    try:
        _patiently(lambda: _check(target), f"ask {_host()}")
    except UserError:
        raise
    except Exception as error:  # the clients' errors share no base class
        raise UserError(f"cannot push to {target.repo_id}: {_cause(error, target)}") from error


def _check(target: Target) -> None:
    api = HfApi(library_name="dccd-timm")
    if not huggingface_hub.get_token():
        raise LocalTokenNotFoundError("no token")
    me = api.whoami()
    owner = target.repo_id.split("/")[0]
    role = me.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise UserError(f"cannot push to {target.repo_id}: the token of {me['name']} may only read; it needs write"
                        " access (https://huggingface.co/settings/tokens)")  # fmt: skip
    try:
        api.auth_check(target.repo_id, write=True)
    except RepositoryNotFoundError:  # none yet, or a private one of somebody else
        owners = [me["name"], *(org["name"] for org in me.get("orgs", []))]
        if owner not in owners:
            raise UserError(f"cannot push to {target.repo_id}: the token is that of {me['name']}, who may write to"
                            f" {', '.join(owners)}") from None  # fmt: skip


def push_interim(run: Path, target: Target, report: dict[str, Any]) -> None:
    """Push the best student of a run that still trains; a failed push is only a warning."""
    try:
        push(run, target, report)
    except UserError as error:
        _logger.warning("%s", error)


def push(run: Path, target: Target, report: dict[str, Any] | None = None) -> str:
    """Push what a run exported, in one commit, and verify it; returns the commit. The run's folder is only read.

    Again is safe: what lies there already makes no commit. ``report`` is that of a run that goes on.

    Raises:
        UserError: names the cause, where the student lies and the command to try again.
    """
    for part in ("best/model.safetensors", "best/config.json", "args.yaml", "report/report.json"):
        if not (run / part).is_file() and not (report and part.startswith("report")):
            raise UserError(f"nothing to push in {run}: it has no {part}; give the folder of a finished run")
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        card = Card(run, target.repo_id, target.license, report)
        with tempfile.TemporaryDirectory(prefix="dccd-push-") as folder:
            gather(card, Path(folder))
            commit, private = _patiently(lambda: _commit(Path(folder), card, target), f"push to {target.repo_id}")
    except Exception as error:  # the clients' errors share no base class
        raise UserError(
            f"not pushed to {target.repo_id}: {_cause(error, target)}; the student is safe in {run / 'best'}, and"
            f" `{target.retry_command(run)}` tries again"
        ) from error
    seen = "private" if private else "public"
    if private == target.public:
        seen += f" (it was before: --hub-public {'changes' if target.public else 'is for'} new repositories only)"
    print(f"  pushed to {_host()}/{target.repo_id}, commit {commit[:12]}, {seen}", flush=True)
    return commit


def gather(card: Card, folder: Path) -> None:
    """Fill ``folder`` with what is published, and nothing else of the run."""
    run = card.run
    shutil.copyfile(run / "best" / "model.safetensors", folder / "model.safetensors")
    shutil.copyfile(run / "best" / "config.json", folder / "config.json")
    if (run / "summary.csv").is_file():
        shutil.copyfile(run / "summary.csv", folder / "summary.csv")
    (folder / "report").mkdir()
    for name in card.pictures:
        shutil.copyfile(run / "report" / name, folder / "report" / name)
    for name, text in (("README.md", card.text()), ("args.yaml", card.args()), ("recipe.yaml", card.recipe()),
                       ("report/report.json", card.public_report())):  # fmt: skip
        (folder / name).write_text(text, encoding="utf-8")


def _commit(folder: Path, card: Card, target: Target) -> tuple[str, bool]:
    """Make the repository and one commit, check what arrived; returns the commit and whether it is private."""
    api = HfApi(library_name="dccd-timm")
    if not huggingface_hub.get_token():
        raise LocalTokenNotFoundError("no token")
    api.create_repo(target.repo_id, private=not target.public, exist_ok=True)
    if target.revision:
        api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
    ours = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    there = api.list_repo_files(target.repo_id, revision=target.revision)
    stale = [name for name in there if name not in ours and _STALE.fullmatch(name)]
    # not upload_folder(): with Xet it may make several commits
    operations: list[Any] = [CommitOperationAdd(name, str(path)) for name, path in ours.items()]
    operations += [CommitOperationDelete(name) for name in stale]
    done = api.create_commit(target.repo_id, operations, commit_message=card.headline(), revision=target.revision)
    arrived = api.verify_repo_checksums(target.repo_id, revision=done.oid, local_dir=folder)
    if wrong := [*arrived.extra_paths, *(mismatch["path"] for mismatch in arrived.mismatches)]:  # extra: not there
        raise ConnectionError(f"{', '.join(wrong)} did not arrive whole")
    return done.oid, bool(api.model_info(target.repo_id, revision=done.oid).private)


def _patiently(work: Callable[[], Any], what: str) -> Any:
    """Do ``work``, which may be repeated; when the Hub is busy or away, again after a pause."""
    for number in range(1, _TRIES + 1):
        # set each time: the client forgets it when it makes itself anew
        session = huggingface_hub.get_session()
        session.timeout = _TIMEOUTS
        hooks = session.event_hooks
        others = [hook for hook in hooks["response"] if not isinstance(hook, _Conflicts)]
        session.event_hooks = {**hooks, "response": [*others, _Conflicts()]}
        try:
            return work()
        except Exception as error:
            if number == _TRIES or not _is_transient(error):
                raise
            pause = min(_wanted_pause(error) or 2**number * random.uniform(0.5, 1), _LONGEST_PAUSE)
            _logger.warning("could not %s (%s): again in %.0f s", what, one_line(error, 120), pause)
            time.sleep(pause)


class _Conflicts:
    """Ends the client's loop over "another conflicting operation": left alone it asks for ever, without a pause."""

    count = 0

    def __call__(self, response: Any) -> None:
        """Look at every answer."""
        if response.status_code != 409:
            return
        response.read()
        if "conflicting operation" in response.text:
            self.count += 1
            if self.count > _CONFLICTS:
                raise UserError("another operation on the repository does not end (409)")
            time.sleep(1)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        return _status(error) in _TRANSIENT
    if isinstance(error, UserError | OfflineModeIsEnabled | LocalTokenNotFoundError | ValueError | TypeError):
        return False
    return _is_network(error)


def _is_network(error: BaseException) -> bool:
    """Whether the way to the Hub failed; the HTTP client's own errors, Xet's and the uploader's."""
    module = type(error).__module__.split(".")[0]
    return isinstance(error, ConnectionError | TimeoutError) or module in ("httpx", "httpx2", "hf_xet") or (
        isinstance(error, RuntimeError) and "upload" in str(error).lower()
    )  # fmt: skip


def _wanted_pause(error: BaseException) -> float | None:
    """Seconds that the Hub asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    found = re.search(r"t=(\d+)", headers.get("RateLimit", "")) or re.fullmatch(
        r"(\d+)", headers.get("Retry-After", "")
    )
    return float(found[1]) + 1 if found else None


def _cause(error: BaseException, target: Target) -> str:
    """Why it failed, and what helps, in a few words."""
    status = _status(error)
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token: run `hf auth login`, or set HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no branch {target.revision}"
    if status == 401:
        return "the token is not valid: run `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return f"the token may not write to {target.repo_id}: it needs write access there"
    if status == 404:
        return f"{target.repo_id} does not exist, or is private and not yours"
    if status == 429:
        return "the Hub asks to come back later (429)"
    if status and status >= 500:
        return f"the Hub has a fault ({status})"
    if status:
        return f"the Hub refused ({status}: {one_line(error)})"
    if _is_network(error):
        return f"{_host()} cannot be reached, or the connection broke ({one_line(error)})"
    return one_line(error)


def _host() -> str:
    return huggingface_hub.constants.ENDPOINT
