"""Push a student to the Hugging Face Hub: one commit with weights, card and evidence, verified, safe to repeat.

timm's own ``push_to_hf_hub`` would push pickles and keep a first push's card for ever.
"""

import logging
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from dccd_timm.errors import UserError, one_line
from dccd_timm.hub import client
from dccd_timm.hub.card import Card
from dccd_timm.recipe import Hub
from dccd_timm.report.schema import Report

_logger = logging.getLogger(__name__)

# Files of an earlier push, or of timm's own, that this one replaces.
_STALE = re.compile(r"report/.*|.*\.(bin|pth|pt|ckpt|pkl)")


@dataclass(frozen=True)
class Target:
    """Where a student goes: repository, visibility of a new one, branch, license."""

    repo_id: str
    public: bool = False
    revision: str | None = None
    license: str | None = None

    @classmethod
    def of(cls, hub: Hub) -> Self | None:
        """Where a recipe pushes its student; None without ``--push-to-hub``."""
        if not hub.push_to_hub:
            return None
        return cls(hub.push_to_hub, hub.hub_public, hub.hub_revision, hub.hub_license)

    def retry_command(self, run: Path) -> str:
        """The command that pushes a run here."""
        words = ["dccd-push", str(run), self.repo_id, *(["--hub-public"] if self.public else [])]
        words += ["--hub-revision", self.revision] if self.revision else []
        return " ".join([*words, *(["--hub-license", self.license] if self.license else [])])


def check(target: Target) -> None:
    """Check before a training that its student could be pushed; this creates nothing.

    Raises:
        UserError: bad name, no token, a wrong one, or one that may not write there; or no connection to the Hub.
    """
    try:
        validate_repo_id(target.repo_id)
    except HFValidationError as error:
        raise UserError(f"cannot push to {target.repo_id}: {one_line(error)}") from None
    if target.repo_id.count("/") != 1:
        raise UserError(f"cannot push to {target.repo_id}: give owner/name")
    try:
        client.request(lambda api: _check(api, target), f"ask {client.host()}")
    except UserError:
        raise
    except Exception as error:  # the clients' errors share no base class
        raise UserError(
            f"cannot push to {target.repo_id}: {client.cause(error, target.repo_id, target.revision)}"
        ) from error


def _check(api: HfApi, target: Target) -> None:
    me = api.whoami()
    owner = target.repo_id.split("/")[0]
    role = me.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise UserError(
            f"cannot push to {target.repo_id}: the token of {me['name']} may only read; it needs write"
            " access (https://huggingface.co/settings/tokens)"
        )
    try:
        api.auth_check(target.repo_id, write=True)
    except RepositoryNotFoundError:  # a new one, or a private one of somebody else
        owners = [me["name"], *(org["name"] for org in me.get("orgs", []))]
        if owner not in owners:
            raise UserError(
                f"cannot push to {target.repo_id}: the token is that of {me['name']}, who may write to"
                f" {', '.join(owners)}"
            ) from None


def push_interim(run: Path, target: Target, report: Report) -> None:
    """Push the best student of a run that still trains; a failed push is only a warning."""
    try:
        push(run, target, report)
    except UserError as error:
        _logger.warning("%s", error)


def push(run: Path, target: Target, report: Report | None = None) -> str:
    """Push what a run exported, in one commit, and verify it; returns the commit. The run's folder is only read.

    It is safe to repeat: files that did not change make no new commit. ``report`` is that of a run that still trains.

    Raises:
        UserError: names the cause, the student's folder and the command that tries again.
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
            commit, private = client.request(
                lambda api: _commit(api, Path(folder), card, target), f"push to {target.repo_id}"
            )
    except Exception as error:  # the clients' errors share no base class
        cause = client.cause(error, target.repo_id, target.revision)
        raise UserError(
            f"not pushed to {target.repo_id}: {cause}; the student is safe in {run / 'best'}, and"
            f" `{target.retry_command(run)}` tries again"
        ) from error
    visibility = "private" if private else "public"
    if private == target.public:
        visibility += (
            f" (as it was before: --hub-public {'changes' if target.public else 'is for'} new repositories only)"
        )
    print(f"  pushed to {client.host()}/{target.repo_id}, commit {commit[:12]}, {visibility}", flush=True)
    return commit


def gather(card: Card, folder: Path) -> None:
    """Fill ``folder`` with the files that are published, and nothing else of the run."""
    run = card.run
    shutil.copyfile(run / "best" / "model.safetensors", folder / "model.safetensors")
    shutil.copyfile(run / "best" / "config.json", folder / "config.json")
    if (run / "summary.csv").is_file():
        shutil.copyfile(run / "summary.csv", folder / "summary.csv")
    (folder / "report").mkdir()
    for name in card.pictures:
        shutil.copyfile(run / "report" / name, folder / "report" / name)
    for name, text in (
        ("README.md", card.text()),
        ("args.yaml", card.args()),
        ("recipe.yaml", card.recipe()),
        ("report/report.json", card.public_report()),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def _commit(api: HfApi, folder: Path, card: Card, target: Target) -> tuple[str, bool]:
    """Create the repository and one commit, and verify it; returns the commit and whether the repository is private."""
    api.create_repo(target.repo_id, private=not target.public, exist_ok=True)
    if target.revision:
        api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
    ours = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    there = api.list_repo_files(target.repo_id, revision=target.revision)
    stale = [name for name in there if name not in ours and _STALE.fullmatch(name)]
    # not upload_folder(): with Xet it may make several commits
    operations: list[CommitOperationAdd | CommitOperationDelete | CommitOperationCopy] = [
        CommitOperationAdd(name, str(path)) for name, path in ours.items()
    ]
    operations += [CommitOperationDelete(name) for name in stale]
    done = api.create_commit(target.repo_id, operations, commit_message=card.headline(), revision=target.revision)
    arrived = api.verify_repo_checksums(target.repo_id, revision=done.oid, local_dir=folder)
    if wrong := [*arrived.extra_paths, *(mismatch["path"] for mismatch in arrived.mismatches)]:  # extra: not there
        raise ConnectionError(f"{', '.join(wrong)} did not arrive whole")
    return done.oid, bool(api.model_info(target.repo_id, revision=done.oid).private)
