"""Pull a student from the Hugging Face Hub into a folder: what a push publishes, and nothing that could run."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import safetensors
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from dccd_timm.atomic import replacing
from dccd_timm.errors import UserError, one_line
from dccd_timm.hub import client
from dccd_timm.recipe.model_name import ModelName

# Endings of files that cannot run: weights without pickles, settings, card, report.
_PULLED = (".safetensors", ".json", ".md", ".yaml", ".csv", ".png")
_NEEDED = ("config.json", "model.safetensors")


def pull(name: str, folder: Path | None = None, revision: str | None = None) -> Path:
    """Download the student ``owner/name`` into a new folder, whole or not at all; returns the folder.

    Raises:
        UserError: for a bad name, a folder that exists, a repository that is not there or has no student, or no
            connection to the Hub.
    """
    model = ModelName.parse(name)
    repo_id, revision = model.place, revision or model.revision
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"cannot pull {name}: give owner/name ({one_line(error, 120)})") from None
    target = folder or Path(repo_id.split("/")[-1])
    if target.exists():
        raise UserError(f"cannot pull {name} into {target}, which exists: give a new folder")
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        commit = client.request(lambda api: _find(api, repo_id, revision), f"ask for {repo_id}", needs_token=False)
        with replacing(target) as fresh:
            client.request(lambda api: _download(api, repo_id, commit, fresh), f"pull {repo_id}", needs_token=False)
            with safetensors.safe_open(fresh / "model.safetensors", framework="pt"):  # reads the header and the size
                pass
    except safetensors.SafetensorError as error:
        raise UserError(f"cannot pull {name}: its model.safetensors is damaged ({one_line(error, 120)})") from error
    except Exception as error:  # the clients' errors share no base class
        if not client.is_refusal(error):
            raise
        raise UserError(f"cannot pull {name}: {_cause(error, repo_id, revision)}") from error
    module = json.loads((target / "config.json").read_text(encoding="utf-8")).get("registered_by")
    own = ["--import", str(module)] if module else []  # a network of its author's
    evaluate = shlex.join(["dccd-timm", "validate", str(target), *own, "--data-dir"])
    print(f"  pulled {repo_id}, commit {commit[:12]}, into {target}\n  evaluate it: {evaluate} FOLDER", flush=True)
    return target


def _find(api: HfApi, repo_id: str, revision: str | None) -> str:
    """The commit of a student, which has all files that are needed."""
    info = api.model_info(repo_id, revision=revision)
    present = {file.rfilename for file in info.siblings or ()}
    if missing := [part for part in _NEEDED if part not in present]:
        raise UserError(f"it is no timm student: it has no {', '.join(missing)}")
    assert info.sha is not None
    return info.sha


def _download(api: HfApi, repo_id: str, commit: str, folder: Path) -> None:
    patterns = [f"*{ending}" for ending in _PULLED]
    api.snapshot_download(repo_id, revision=commit, local_dir=folder, allow_patterns=patterns)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes


def _cause(error: BaseException, repo_id: str, revision: str | None) -> str:
    """Why a repository could not be read, and what helps."""
    if isinstance(error, GatedRepoError):
        return "it is gated: ask for access on its page, then run `hf auth login` or set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no branch, tag or commit {revision}"
    if isinstance(error, RepositoryNotFoundError):
        return "it does not exist, or is private: check the name, and run `hf auth login` or set HF_TOKEN"
    return client.cause(error, repo_id, revision)
