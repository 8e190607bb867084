"""What the Hub keeps: repositories whose commits are dicts of path to file record, and blobs by their sha256."""

import base64
import hashlib
import json
import re
import threading
import time
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any, NotRequired, TypedDict

LARGE = (".safetensors", ".bin", ".pt", ".png")
ATTRIBUTES = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LARGE).encode()
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"


class HubError(Exception):
    """An answer that is not 2xx; ``code`` is the Hub's X-Error-Code, by which the client picks its exception."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, Any] | None = None, **more: Any
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers, self.more = status, message, code, dict(headers or {}), more


class File(TypedDict):
    """A file of a commit: ``sha256`` of its content, ``oid`` of what git keeps (of a large file the pointer)."""

    sha256: str
    size: int
    oid: str
    lfs: bool
    xet: NotRequired[str | None]


Tree = dict[str, File]


class Commit(TypedDict):
    """All files of one state by path; ``parent`` is the commit before."""

    parent: str | None
    tree: Tree
    title: str


class Repo(TypedDict):
    """A repository; ``refs`` has the commit of each branch and tag by its full name."""

    id: str
    private: bool
    refs: dict[str, str]
    commits: dict[str, Commit]
    created: str


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """What git keeps in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def checked(path: str) -> str:
    if "\\" in path or "\0" in path or any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise HubError(400, f"Invalid path: {path}")
    return path


class Store:
    """Users by token, repositories and blobs below ``root``.

    Args:
        root: folder of the blobs.
        tokens: token to (user, role), role read or write.
    """

    def __init__(self, root: Path, tokens: dict[str, tuple[str, str]]) -> None:
        self.root, self.tokens, self.lock = Path(root), dict(tokens), threading.RLock()
        self.repos: dict[str, Repo] = {}
        for part in ("blobs", "parts", "xet"):
            (self.root / part).mkdir(parents=True, exist_ok=True)

    def user(self, headers: Message) -> tuple[str | None, str | None]:
        """Name and role behind a request's token, (None, None) without one."""
        token = (headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        if not token:
            return None, None
        if token not in self.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def repo(self, repo_id: str, user: str | None, role: str | None = None) -> Repo:
        """A repository that this user may see, and with a role write to; private ones are hidden, as on the Hub."""
        repo = self.repos.get(repo_id)
        owner = repo_id.split("/")[0]
        if repo is None or (repo["private"] and owner != user):
            if user is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        if role is not None and (owner != user or role != "write"):
            if user is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(403, "Forbidden: you must use a write token of this owner")
        return repo

    def create(self, name: str, user: str, role: str | None, private: bool) -> str:
        """A new repository of this user; returns its id."""
        repo_id = f"{user}/{name.split('/')[-1]}"
        if not re.fullmatch(f"{NAME}/{NAME}", repo_id):
            raise HubError(400, f"Invalid repo name: {repo_id}")
        if role != "write":
            raise HubError(403, "You don't have the rights to create a repo: use a token with write access")
        with self.lock:
            if repo_id in self.repos:
                raise HubError(409, "You already created this model repo", url=repo_id)
            repo: Repo = {"id": repo_id, "private": private, "refs": {}, "commits": {}, "created": now()}
            self.repos[repo_id] = repo
            self.commit(repo, "refs/heads/main", {".gitattributes": self.record(ATTRIBUTES)}, "initial commit")
        return repo_id

    def blob(self, sha256: str) -> Path:
        """Where the content with this hash lies, or is to lie."""
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise HubError(400, "bad oid")
        return self.root / "blobs" / sha256

    def keep(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blob(sha256).write_bytes(data)
        return sha256

    def record(self, data: bytes) -> File:
        """A small file's record."""
        return {"sha256": self.keep(data), "size": len(data), "oid": git_oid(data), "lfs": False}

    def large_record(self, sha256: str, xet: str | None) -> File:
        """The record of an uploaded large file; ``xet`` is its Xet hash, if it came that way."""
        if not self.blob(sha256).is_file():
            raise HubError(400, f"object {sha256} was not uploaded")
        size = self.blob(sha256).stat().st_size
        return {"sha256": sha256, "size": size, "oid": git_oid(pointer(sha256, size)), "lfs": True, "xet": xet}

    def commit(self, repo: Repo, ref: str, tree: Tree, title: str) -> str:
        """A new commit of these files, to which ``ref`` moves."""
        parent = repo["refs"].get(ref)
        body = json.dumps([parent, sorted((path, file["oid"]) for path, file in tree.items()), title, time.time_ns()])
        commit = hashlib.sha1(body.encode()).hexdigest()
        repo["commits"][commit] = {"parent": parent, "tree": tree, "title": title}
        repo["refs"][ref] = commit
        return commit

    def apply(self, repo: Repo, revision: str, lines: list[dict[str, Any]], xet: dict[str, str | None]) -> str:
        """One commit from the client's operations; all of it or nothing. ``xet`` has the Xet hashes by sha256."""
        with self.lock:
            parent = self.resolve(repo, revision)
            tree, title = dict(repo["commits"][parent]["tree"]), ""
            for line in lines:
                key, value = line["key"], line["value"]
                if key == "header":
                    title = value["summary"]
                    if value.get("parentCommit") not in (None, parent):
                        raise HubError(412, "A commit has happened since. Please refresh and try again.")
                elif key == "file":
                    tree[checked(value["path"])] = self.record(base64.b64decode(value["content"]))
                elif key == "lfsFile":
                    tree[checked(value["path"])] = self.large_record(value["oid"], xet.get(value["oid"]))
                elif key == "deletedFile" and tree.pop(value["path"], None) is None:
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            if f"refs/heads/{revision}" not in repo["refs"]:
                raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return self.commit(repo, f"refs/heads/{revision}", tree, title)

    def resolve(self, repo: Repo, revision: str) -> str:
        """The commit behind a branch, tag or commit."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in repo["refs"]:
                return repo["refs"][name]
        if revision in repo["commits"]:
            return revision
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, repo_id: str, revision: str = "main") -> list[str]:
        """Titles of the commits, newest first."""
        return [commit["title"] for commit in self.commits(self.repos[repo_id], revision)]

    def commits(self, repo: Repo, revision: str) -> list[dict[str, Any]]:
        """The commits of a branch as the Hub lists them, newest first."""
        commit: str | None = self.resolve(repo, revision)
        found: list[dict[str, Any]] = []
        while commit:
            title = repo["commits"][commit]["title"]
            found.append({"id": commit, "title": title, "message": "", "date": now(), "authors": []})
            commit = repo["commits"][commit]["parent"]
        return found

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Contents by path."""
        repo = self.repos[repo_id]
        tree = repo["commits"][self.resolve(repo, revision)]["tree"]
        return {path: self.blob(file["sha256"]).read_bytes() for path, file in tree.items()}
