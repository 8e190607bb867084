"""What earlier pushes of ours wrote into a repository: only that is deleted, and a README of somebody else stays.

A push leaves a manifest, which names its files with their hashes.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from dccd_timm.errors import UserError
from dccd_timm.hub.target import Target

MANIFEST = ".dccd-push.json"
CARD = "README.md"
# A sentence of every card: it marks the repositories of pushes that wrote no manifest
CARD_MARK = "DCCD's formulas are dccd-timm's reading of the paper's abstract."
# The title of a push's commit, Card.headline()
_HEADLINE = re.compile(r"\S+, \w+(, top-1 \d+\.\d\d %)?")
_NAMED = 5


@dataclass(frozen=True)
class Contents:
    """The files of a branch before a push.

    ``files`` are by path; ``written`` has the hashes of what the last push wrote, None when it left no manifest;
    ``card`` is the README there, and ``card_is_edited`` says of one of ours that somebody changed it since. ``read``
    downloads a file.
    """

    files: dict[str, RepoFile]
    written: dict[str, str] | None
    card: bytes | None
    read: Callable[[str], bytes]
    card_is_edited: bool = False

    @classmethod
    def read_from(cls, api: HfApi, target: Target) -> Self:
        """Read them; a branch that does not exist yet will be a copy of the main one."""
        for revision in dict.fromkeys((target.revision, None)):
            try:
                tree = list(api.list_repo_tree(target.repo_id, recursive=True, revision=revision))
            except RepositoryNotFoundError:
                return cls({}, None, None, lambda path: b"")
            except RevisionNotFoundError:
                continue
            break
        else:
            raise UserError(f"{target.repo_id} has no branch main to start {target.revision} from")
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

        def read(path: str) -> bytes:
            with tempfile.TemporaryDirectory(prefix="dccd-push-") as folder:
                return Path(api.hf_hub_download(target.repo_id, path, revision=revision, local_dir=folder)).read_bytes()

        written = _parse(read(MANIFEST)) if MANIFEST in files else None
        card = read(CARD) if CARD in files else None
        if written is not None:
            edited = card is not None and _hash(card) != written.get(CARD)
        else:
            edited = _has_mark(card) and _is_edited(api, target.repo_id, revision, files[CARD])
        return cls(files, written, card, read, edited)

    @property
    def is_ours(self) -> bool:
        """Whether a push may write here: nothing is there, or an earlier push of ours was."""
        return self.written is not None or _has_mark(self.card) or not self._others

    @property
    def _others(self) -> list[str]:
        return [path for path in self.files if path != ".gitattributes"]

    def refuse_foreign(self, target: Target) -> None:
        """Refuse a repository with other work in it, unless --hub-overwrite was given.

        Raises:
            UserError: names some of its files.
        """
        if not self.is_ours and not target.overwrite:
            raise UserError(
                f"the repository has files that no push of dccd-timm wrote"
                f" ({_listed(self._others)}): give another name, or --hub-overwrite to write beside them and over those"
                " of the same names"
            )

    def keeps_card(self) -> str | None:
        """Why the README that is there stays, None when a push writes its own."""
        if self.card is None:
            return None
        if not (_has_mark(self.card) if self.written is None else CARD in self.written):
            return "no push of dccd-timm wrote it as it is"
        return "it was edited after the last push" if self.card_is_edited else None

    def stale(self, ours: Iterable[str]) -> tuple[list[str], list[str]]:
        """Files of the last push that are not among ``ours``, those of this one: unchanged since, which are deleted,
        and changed since, which stay."""
        gone = sorted(set(self.written or {}) & set(self.files) - {*ours, CARD, MANIFEST})
        unchanged = [path for path in gone if self._is_unchanged(path)]
        return unchanged, [path for path in gone if path not in unchanged]

    def overwritten(self, ours: Iterable[str]) -> list[str]:
        """Files that this push replaces and no push of ours wrote."""
        if self.written is None and _has_mark(self.card):  # a push that did not note its files
            return []
        return sorted(set(ours) & set(self.files) - {*(self.written or {}), CARD, MANIFEST})

    def _is_unchanged(self, path: str) -> bool:
        large = self.files[path].lfs
        found = large.sha256 if large else _hash(self.read(path))
        return self.written is not None and found == self.written[path]


def manifest(files: dict[str, Path]) -> str:
    """The manifest of a push that writes ``files``, by their paths in the repository."""
    hashes = {name: _hash(path.read_bytes()) for name, path in sorted(files.items())}
    note = "Files that dccd-timm pushed, with their SHA-256: its next push deletes those that it no longer writes."
    return json.dumps({"note": note, "files": hashes}, indent=2) + "\n"


def _has_mark(card: bytes | None) -> bool:
    return card is not None and CARD_MARK.encode() in card


def _is_edited(api: HfApi, repo_id: str, revision: str | None, card: RepoFile) -> bool:
    """Whether a card of a push without manifest is another one now than in the commit of that push."""
    try:
        commits = api.list_repo_commits(repo_id, revision=revision)
        pushed = next((commit.commit_id for commit in commits if _HEADLINE.fullmatch(commit.title)), None)
        then = list(api.list_repo_tree(repo_id, revision=pushed)) if pushed else []
    except HfHubHTTPError:  # the mark must do
        return False
    return card.blob_id not in [file.blob_id for file in then if isinstance(file, RepoFile) and file.path == CARD]


def _parse(text: bytes) -> dict[str, str]:
    """The files of a manifest; none of one that somebody broke, so that nothing is deleted."""
    try:
        files = json.loads(text)["files"]
        return {str(path): str(sha256) for path, sha256 in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(sorted(names)[:_NAMED]) + (f" and {more} more" if more > 0 else "")
