"""What the Hub keeps: repositories whose commits are dicts of path to file record, and blobs by their sha256."""

import base64
import hashlib
import json
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

LARGE = (".safetensors", ".bin", ".pt", ".png")
ATTRIBUTES = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LARGE).encode()
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"


class HubError(Exception):
    """An answer that is not 2xx; ``code`` is the Hub's X-Error-Code, by which the client picks its exception."""

    def __init__(self, status, message, code=None, headers=None, **more):
        super().__init__(message)
        self.status, self.message, self.code, self.headers, self.more = status, message, code, dict(headers or {}), more


def now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer(sha256, size):
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def checked(path):
    if "\\" in path or "\0" in path or any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise HubError(400, f"Invalid path: {path}")
    return path


class Store:
    """Users by token, repositories and blobs below ``root``.

    Args:
        root: folder of the blobs.
        tokens: token to (user, role), role read or write.
    """

    def __init__(self, root, tokens):
        self.root, self.tokens, self.repos, self.lock = Path(root), dict(tokens), {}, threading.RLock()
        for part in ("blobs", "parts", "xet"):
            (self.root / part).mkdir(parents=True, exist_ok=True)

    def user(self, headers):
        """Name and role behind a request's token, (None, None) without one."""
        token = (headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        if not token:
            return None, None
        if token not in self.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def repo(self, repo_id, user, role=None):
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

    def create(self, name, user, role, private):
        repo_id = f"{user}/{name.split('/')[-1]}"
        if not re.fullmatch(f"{NAME}/{NAME}", repo_id):
            raise HubError(400, f"Invalid repo name: {repo_id}")
        if role != "write":
            raise HubError(403, "You don't have the rights to create a repo: use a token with write access")
        with self.lock:
            if repo_id in self.repos:
                raise HubError(409, "You already created this model repo", url=repo_id)
            repo = {"id": repo_id, "private": private, "refs": {}, "commits": {}, "created": now()}
            self.repos[repo_id] = repo
            self.commit(repo, "refs/heads/main", {".gitattributes": self.record(ATTRIBUTES)}, "initial commit")
        return repo_id

    def blob(self, sha256):
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise HubError(400, "bad oid")
        return self.root / "blobs" / sha256

    def keep(self, data):
        sha256 = hashlib.sha256(data).hexdigest()
        self.blob(sha256).write_bytes(data)
        return sha256

    def record(self, data):
        """A small file's record."""
        return {"sha256": self.keep(data), "size": len(data), "oid": git_oid(data), "lfs": False}

    def large_record(self, sha256, xet):
        """The record of an uploaded large file; ``xet`` is its Xet hash, if it came that way."""
        if not self.blob(sha256).is_file():
            raise HubError(400, f"object {sha256} was not uploaded")
        size = self.blob(sha256).stat().st_size
        return {"sha256": sha256, "size": size, "oid": git_oid(pointer(sha256, size)), "lfs": True, "xet": xet}

    def commit(self, repo, ref, tree, title):
        parent = repo["refs"].get(ref)
        body = json.dumps([parent, sorted((path, file["oid"]) for path, file in tree.items()), title, time.time_ns()])
        commit = hashlib.sha1(body.encode()).hexdigest()
        repo["commits"][commit] = {"parent": parent, "tree": tree, "title": title}
        repo["refs"][ref] = commit
        return commit

    def apply(self, repo, revision, lines, xet):
        """One commit from the client's operations; all of it or nothing."""
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

    def resolve(self, repo, revision):
        """The commit behind a branch, tag or commit."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in repo["refs"]:
                return repo["refs"][name]
        if revision in repo["commits"]:
            return revision
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, repo_id, revision="main"):
        """Titles of the commits, newest first."""
        repo = self.repos[repo_id]
        commit, titles = self.resolve(repo, revision), []
        while commit:
            titles.append(repo["commits"][commit]["title"])
            commit = repo["commits"][commit]["parent"]
        return titles

    def files(self, repo_id, revision="main"):
        """Contents by path."""
        repo = self.repos[repo_id]
        tree = repo["commits"][self.resolve(repo, revision)]["tree"]
        return {path: self.blob(file["sha256"]).read_bytes() for path, file in tree.items()}
