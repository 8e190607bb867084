"""The Hub's routes, as huggingface_hub asks for them; loopback only."""

import contextlib
import json
import re
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import yaml

from tests.fakes.model_hub.store import HubError, Store, Tree
from tests.fakes.model_hub.uploads import Uploads
from tests.fakes.model_hub.xet import XetStore


class Drop(ConnectionError):
    """Close the connection without an answer."""


class ModelHub(Store):
    """A running Hub.

    Args:
        root: folder of what it keeps.
        tokens: token to (user, role).
        part_size: larger files are uploaded without Xet in parts of so many bytes.
    """

    def __init__(self, root: Path, tokens: dict[str, tuple[str, str]], part_size: int = 1 << 16) -> None:
        super().__init__(root, tokens)
        self.part_size = part_size
        self.faults: list[dict[str, Any]] = []
        # of each request: "METHOD /path", the status or "dropped", Host and Authorization
        self.log: list[tuple[str, int | str | None, str | None, str | None]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # another origin on the same socket: a client must not send it the token
        self.cdn = f"http://localhost:{self.port}/_cdn"
        self.xet = XetStore(self.root / "xet", f"{self.url}/_xet")
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fail(self, match: str, times: int = 1, **what: Any) -> None:
        """Let the next ``times`` requests whose "METHOD /path" ``match`` finds fail: ``status`` (with ``headers``),
        ``drop``, ``cut`` (closed after so many bytes sent or got), ``delay`` seconds; ``after`` the work is done."""
        self.faults.append({"match": match, "times": times, **what})

    def fault(self, request: str) -> dict[str, Any]:
        """What shall happen to a request."""
        with self.lock:
            for fault in self.faults:
                if fault["times"] and re.search(fault["match"], request):
                    fault["times"] -= 1
                    return fault
        return {}

    def environment(self, home: Path, token: str | None = None, xet: bool = True) -> dict[str, str]:
        """Variables that point the clients here and nowhere else, with short retries."""
        return {
            "HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": token or "", "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "0" if xet else "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
        }  # fmt: skip


class _Handler(Uploads, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ModelHub
    rule: dict[str, Any]  # the fault that is due
    sent: int | str | None
    user: str | None
    role: str | None

    def log_message(self, *args: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # a client that ended with a kept-alive connection open
            self.close_connection = True

    def answer(self) -> None:
        self.route = urlsplit(self.path).path
        self.body_read, self.sent = self.command in ("GET", "HEAD"), None
        self.rule = self.hub.fault(f"{self.command} {self.path}")
        try:
            time.sleep(self.rule.get("delay", 0))
            if not self.rule.get("after"):
                self._fail_by_rule()
            self._dispatch()
        except HubError as error:
            code = {"X-Error-Code": error.code} if error.code else {}
            if not self.body_read:
                self.read_body()
            self.rule = {}
            headers = {"X-Error-Message": error.message, **code, **error.headers}
            self.reply(error.status, {"error": error.message, **error.more}, headers)
        except (ConnectionError, TimeoutError):
            self._hang_up()
        except Exception:
            traceback.print_exc()  # a mistake in this file: the client sees a lost connection
            self._hang_up()
        with self.hub.lock:
            self.hub.log.append((f"{self.command} {self.path}", self.sent, self.headers.get("Host"),
                                 self.headers.get("Authorization")))  # fmt: skip

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def _fail_by_rule(self) -> None:
        if self.rule.get("drop"):
            raise Drop
        if status := self.rule.get("status"):
            raise HubError(status, self.rule.get("message", "a fault on request"), headers=self.rule.get("headers"))

    def _hang_up(self) -> None:
        self.sent, self.close_connection = self.sent or "dropped", True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _pieces(self) -> Iterator[bytes]:
        """The body, in pieces; a rule may cut it."""
        self.body_read, left = True, self.rule.get("cut")

        def piece(size: int) -> bytes:
            nonlocal left
            data = self.rfile.read(min(size, 1 << 14))
            if not data:
                raise Drop  # the client went away
            if left is not None and (left := left - len(data)) <= 0:
                raise Drop
            return data

        chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "").lower()
        size = int(self.rfile.readline().split(b";")[0], 16) if chunked else int(self.headers["Content-Length"] or 0)
        while size:
            data = piece(size)
            size -= len(data)
            yield data
            if chunked and not size:
                self.rfile.readline()
                size = int(self.rfile.readline().split(b";")[0], 16)
        if chunked:
            self.rfile.readline()

    def read_body(self) -> bytes:
        """The body, once; then nothing."""
        return b"" if self.body_read else b"".join(self._pieces())

    def reply(self, status: int, body: Any = b"", headers: dict[str, Any] | None = None) -> None:
        if self.rule.get("after"):
            self._fail_by_rule()
        if not self.body_read:
            self.read_body()  # the next request of this connection starts behind it
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.sent = status
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.rule.get("cut")])
            if "cut" in self.rule:  # an upload that is cut does not come so far
                raise Drop

    def send_file(self, path: Path, headers: dict[str, Any] | None = None) -> None:
        if not path.is_file():
            raise HubError(404, "no such object")
        data, status, headers = path.read_bytes(), 200, {"Accept-Ranges": "bytes", **(headers or {})}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if found:
            start, end = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
            if start > end:
                raise HubError(416, "range not satisfiable")
            headers["Content-Range"], status = f"bytes {start}-{end}/{len(data)}", 206
            data = data[start : end + 1]
        self.reply(status, data, {"Content-Type": "application/octet-stream", **headers})

    def _dispatch(self) -> None:
        hub, path = self.hub, unquote(self.route)
        if path.startswith("/_cdn/"):
            sha256 = path.rsplit("/", 1)[1]
            return self.send_file(hub.blob(sha256), {"ETag": f'"{sha256}"'})
        if path.startswith("/_lfs/"):
            return self.take_large(*path.split("/")[2:])
        if path.startswith("/_xet/"):
            return hub.xet.answer(path, self)
        self.user, self.role = hub.user(self.headers)
        if path == "/api/whoami-v2":
            if self.user is None:
                raise HubError(401, "Invalid username or password.")
            token = {"type": "access_token", "accessToken": {"displayName": "test", "role": self.role}}
            return self.reply(200, {"type": "user", "id": self.user, "name": self.user, "orgs": [], "auth": token})
        if path == "/api/validate-yaml":
            return self._validate()
        if path == "/api/repos/create":
            if self.user is None:
                raise HubError(401, "Invalid username or password.")
            body = json.loads(self.read_body())
            if body.get("organization", self.user) != self.user:
                raise HubError(403, f"You don't have the rights to create a model under {body['organization']}")
            private = bool(body.get("private")) or body.get("visibility") == "private"
            repo_id = hub.create(body["name"], self.user, self.role, private)
            return self.reply(200, {"url": f"{hub.url}/{repo_id}", "id": repo_id, "name": repo_id})
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.plan_large(found[1])
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.route):
            return self._resolve(*map(unquote, found.groups()))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(.*))?", self.route):
            return self._repo(found[1], [unquote(part) for part in (found[2] or "").split("/")])
        raise HubError(404, f"no route for {self.command} {path}")

    def _validate(self) -> None:
        """The part of the Hub's check of a card that is known: YAML, a mapping, and lists where it wants them."""
        found = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---", json.loads(self.read_body())["content"], re.S)
        errors = []
        try:
            card = yaml.safe_load(found[1]) if found else {}
            errors += [
                f'"{k}" must be an array' for k in ("tags", "model-index") if not isinstance(card.get(k, []), list)
            ]
        except (yaml.YAMLError, AttributeError) as error:
            errors.append(f"bad YAML: {error}")
        self.reply(400 if errors else 200, {"errors": [{"message": e} for e in errors], "warnings": []})

    def _repo(self, repo_id: str, rest: list[str]) -> None:
        """Routes of one repository; ``rest`` is the path below it."""
        hub, what, arg = self.hub, rest[0], rest[1] if len(rest) > 1 else "main"
        writes = what in ("preupload", "commit", "branch", "tag", "xet-write-token") or rest == ["auth-check", "write"]
        repo = hub.repo(repo_id, self.user, (self.role or "none") if writes else None)
        if what in ("", "revision"):
            commit = hub.resolve(repo, arg)
            files = [{"rfilename": path} for path in sorted(repo["commits"][commit]["tree"])]
            return self.reply(200, {"id": repo_id, "sha": commit, "private": repo["private"], "siblings": files,
                                    "createdAt": repo["created"], "tags": [], "downloads": 0, "likes": 0})  # fmt: skip
        if what in ("auth-check", "commits"):
            return self.reply(200, hub.commits(repo, arg) if what == "commits" else {})
        if what == "tree":
            return self.reply(200, self._listing(repo["commits"][hub.resolve(repo, arg)]["tree"]))
        if what in ("branch", "tag"):
            body = json.loads(self.read_body() or b"{}")
            kind, name = ("heads", arg) if what == "branch" else ("tags", body["tag"])
            if f"refs/{kind}/{name}" in repo["refs"]:
                raise HubError(409, f"Reference {name} already exists")
            start = body.get("startingPoint", "main") if what == "branch" else arg
            repo["refs"][f"refs/{kind}/{name}"] = hub.resolve(repo, start)
            return self.reply(200, {})
        if what == "preupload":
            return self.preupload(repo["commits"][hub.resolve(repo, arg)]["tree"])
        if what == "commit":
            lines = [json.loads(line) for line in self.read_body().splitlines() if line.strip()]
            large = [line["value"] for line in lines if line["key"] == "lfsFile"]
            xet = {o["oid"]: hub.xet.collect(o["oid"], o["size"], hub.blob(o["oid"])) for o in large}
            commit = hub.apply(repo, arg, lines, xet)
            url = f"{hub.url}/{repo_id}/commit/{commit}"
            return self.reply(200, {"success": True, "commitOid": commit, "commitUrl": url})
        if what in ("xet-read-token", "xet-write-token"):
            expires = int(time.time()) + 3600
            head = {"X-Xet-Cas-Url": hub.xet.url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": expires}
            return self.reply(200, {"accessToken": "xet", "exp": expires, "casUrl": hub.xet.url}, head)
        raise HubError(404, f"no route for {self.command} {self.route}")

    def _listing(self, tree: Tree) -> list[dict[str, Any]]:
        rows = []
        for path, file in sorted(tree.items()):
            row: dict[str, Any] = {"type": "file", "path": path, "size": file["size"], "oid": file["oid"]}
            if file["lfs"]:
                row["lfs"] = {"oid": file["sha256"], "size": file["size"], "pointerSize": 134}
            rows.append(row)
        return rows

    def _resolve(self, repo_id: str, revision: str, path: str) -> None:
        hub = self.hub
        repo = hub.repo(repo_id, self.user)
        commit = hub.resolve(repo, revision)
        file = repo["commits"][commit]["tree"].get(path)
        headers: dict[str, Any] = {"X-Repo-Commit": commit}
        if file is None:
            raise HubError(404, f"{path} does not exist on {revision}", "EntryNotFound", headers)
        headers["ETag"] = f'"{file["oid"]}"'
        if not file["lfs"]:
            return self.send_file(hub.blob(file["sha256"]), headers)
        headers |= {"X-Linked-Size": file["size"], "X-Linked-Etag": f'"{file["sha256"]}"',
                    "Location": f"{hub.cdn}/{quote(repo_id)}/{file['sha256']}"}  # fmt: skip
        if file["xet"]:
            access = f"{hub.url}/api/models/{repo_id}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": file["xet"], "Link": f'<{access}>; rel="xet-auth"'}
        self.reply(302, b"", headers)
