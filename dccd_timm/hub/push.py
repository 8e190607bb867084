"""Push a student to the Hugging Face Hub: one commit with weights, card and evidence, verified, safe to repeat.

timm's own ``push_to_hf_hub`` would push pickles and keep a first push's card for ever.
"""

import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import safetensors
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.utils import disable_progress_bars

from dccd_timm.errors import UserError, report_bug
from dccd_timm.hub import client
from dccd_timm.hub.card import Card
from dccd_timm.hub.check import check, check_card
from dccd_timm.hub.manifest import CARD, MANIFEST, Contents, manifest
from dccd_timm.hub.target import Target
from dccd_timm.report.schema import Report

__all__ = ["Target", "check", "check_run", "gather", "push", "push_interim"]

_logger = logging.getLogger(__name__)


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
        UserError: names the cause, the student's folder and the command that tries again. A bug of this package is said
            to be one, and leaves its traceback in the run's errors.log.
    """
    check_run(run, report)
    if not sys.stderr.isatty():
        disable_progress_bars()
    safe = f"the student is safe in {run / 'best'}"
    try:
        card = Card(run, target.repo_id, target.license, report)
        with tempfile.TemporaryDirectory(prefix="dccd-push-") as folder:
            gather(card, Path(folder))
            done = client.request(lambda api: _commit(api, Path(folder), card, target), f"push to {target.repo_id}")
    except Exception as error:  # the clients' errors share no base class
        if not client.is_refusal(error):
            raise UserError(f"not pushed to {target.repo_id}: {report_bug(error, run)}; {safe}") from error
        cause = client.cause(error, target.repo_id, target.revision)
        raise UserError(
            f"not pushed to {target.repo_id}: {cause}; {safe}, and `{target.retry_command(run)}` tries again"
        ) from error
    visibility = "private" if done.private else "public"
    if done.private == target.public:
        visibility += (
            f" (as it was before: --hub-public {'changes' if target.public else 'is for'} new repositories only)"
        )
    print("\n".join(f"  {line}" for line in done.remarks), end="\n" if done.remarks else "")
    print(f"  pushed to {client.host()}/{target.repo_id}, commit {done.commit[:12]}, {visibility}", flush=True)
    return done.commit


def check_run(run: Path, report: Report | None = None) -> None:
    """Refuse a folder without a finished run, or with weights that are damaged; ``report`` as for :func:`push`.

    Raises:
        UserError: names what is missing or damaged.
    """
    for part in ("best/model.safetensors", "best/config.json", "args.yaml", "report/report.json"):
        if not (run / part).is_file() and not (report and part.startswith("report")):
            raise UserError(f"nothing to push in {run}: it has no {part}; give the folder of a finished run")
    weights = run / "best" / "model.safetensors"
    try:
        with safetensors.safe_open(weights, framework="pt"):
            pass
    except safetensors.SafetensorError as error:
        raise UserError(f"nothing to push in {run}: {weights} is damaged or cut short ({error})") from error


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


@dataclass(frozen=True)
class _Done:
    """A commit that arrived, with what is to be said of files that are not ours."""

    commit: str
    private: bool
    remarks: list[str]


def _commit(api: HfApi, folder: Path, card: Card, target: Target) -> _Done:
    """Create the repository and one commit, and verify it."""
    contents = Contents.read_from(api, target)
    contents.refuse_foreign(target)
    ours = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    ours.pop(MANIFEST, None)  # of an earlier try
    remarks = []
    if why := contents.keeps_card():
        del ours[CARD]
        remarks.append(f"{CARD} of {target.repo_id} stays: {why}; delete it there to have the model card in its place")
    else:
        check_card(card.text(), target)
    stale, changed = contents.stale(ours)
    for names, what in (
        (stale, "deleted (an earlier push wrote it)"),
        (changed, "not deleted (it changed after the push that wrote it)"),
        (contents.overwritten(ours), "replaced (no push of dccd-timm wrote it)"),
    ):
        remarks += [f"{what}: {', '.join(names)}"] if names else []
    (folder / MANIFEST).write_text(manifest(ours), encoding="utf-8")
    ours[MANIFEST] = folder / MANIFEST
    api.create_repo(target.repo_id, private=not target.public, exist_ok=True)
    if target.revision:
        api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
    # not upload_folder(): with Xet it may make several commits
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        CommitOperationAdd(name, str(path)) for name, path in ours.items()
    ]
    operations += [CommitOperationDelete(name) for name in stale]
    done = api.create_commit(target.repo_id, operations, commit_message=card.headline(), revision=target.revision)
    _verify(api, folder, ours, done.oid, target)
    return _Done(done.oid, bool(api.model_info(target.repo_id, revision=done.oid).private), remarks)


def _verify(api: HfApi, folder: Path, ours: dict[str, Path], commit: str, target: Target) -> None:
    """Compare the checksums of what arrived with those of ``ours``."""
    arrived = api.verify_repo_checksums(target.repo_id, revision=commit, local_dir=folder)
    wrong = [*arrived.extra_paths, *(mismatch["path"] for mismatch in arrived.mismatches)]  # extra: not there
    if wrong := [path for path in wrong if path in ours]:
        raise ConnectionError(f"{', '.join(wrong)} did not arrive whole")
