"""The fake Hub of data sets: on loopback, it serves folders to the real clients, read-only, with faults on request.

The fake Hub of models, which takes uploads too, is ``tests/fakes/model_hub/``.
"""

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class DatasetHub:
    """Serves ``folders`` {"owner/name": path}; those in ``private`` only with the token."""

    def __init__(self, folders: dict[str, Path], token: str = "hf_test", private: tuple[str, ...] = ()) -> None:
        self.folders, self.token, self.private = folders, token, private
        self.faults: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def fail(self, match: str, times: int = 1, skip: int = 0, **what: Any) -> None:
        """Let ``times`` requests whose "METHOD /path" ``match`` finds fail, after ``skip`` good ones.

        ``status`` answers so; ``drop`` closes the connection; ``cut`` closes it after so many bytes; ``delay`` waits.
        """
        self.faults.append({"match": match, "times": times, "skip": skip, **what})

    def fault(self, request: str) -> dict[str, Any]:
        """What shall happen to a request."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault["times"] and re.search(fault["match"], request):
                    if fault["skip"]:
                        fault["skip"] -= 1
                        continue
                    fault["times"] -= 1
                    return fault
        return {}

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that point the clients here and nowhere else."""
        return {
            "HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip

    def stop(self) -> None:
        """Close the server."""
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[DatasetHub]

    def log_message(self, *args: Any) -> None:
        """Be quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.fault = self.hub.fault(f"{self.command} {path}")
        time.sleep(self.fault.get("delay", 0))
        with contextlib.suppress(ConnectionError):
            if self.fault.get("drop"):
                self._drop()
            elif "status" in self.fault:
                self._reply(self.fault["status"], {"error": "injected"})
            else:
                self._route(path)

    def _route(self, path: str) -> None:
        if found := re.fullmatch(r"/_cdn/([^/]+/[^/]+)/(.*)", path):
            self._file(self.hub.folders[found[1]] / found[2])
        elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
            self._resolve(*found.groups())
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if self._visible(found[1], found[2]):
                files = [{"rfilename": name} for name in self._files(found[1])]
                self._reply(200, {"id": found[1], "sha": COMMIT, "private": False, "siblings": files, "tags": []})
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            if self._visible(found[1], found[2]):
                self._tree(found[1], found[3])
        else:
            self._reply(404, {"error": "no such route"}, {"X-Error-Code": "RepoNotFound"})

    def _visible(self, name: str, revision: str | None) -> bool:
        allowed = name not in self.hub.private or self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if name not in self.hub.folders or not allowed:
            self._reply(401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"})
            return False
        if revision not in (None, "main", COMMIT):
            self._reply(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
            return False
        return True

    def _files(self, name: str) -> dict[str, Path]:
        folder = self.hub.folders[name]
        return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}

    def _tree(self, name: str, prefix: str) -> None:
        recursive = "recursive=true" in self.path.lower()
        entries: dict[str, dict[str, Any]] = {}
        for path, file in self._files(name).items():
            inside = path.removeprefix(f"{prefix}/" if prefix else "")
            if prefix and inside == path:
                continue
            parts = inside.split("/")
            for depth in range(1, len(parts) + 1 if recursive else 2):
                full = "/".join(([prefix] if prefix else []) + parts[:depth])
                oid = hashlib.sha1(full.encode()).hexdigest()
                is_file = depth == len(parts)
                size = file.stat().st_size if is_file else 0
                entries[full] = {"type": "file" if is_file else "directory", "path": full, "size": size, "oid": oid}
        if entries:
            self._reply(200, list(entries.values()))
        else:
            self._reply(404, {"error": f"{prefix} does not exist"}, {"X-Error-Code": "EntryNotFound"})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        if not self._visible(name, revision):
            return
        file = self._files(name).get(path)
        common = {"X-Repo-Commit": COMMIT}
        if file is None:
            self._reply(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **common})
        elif path.endswith((".parquet", ".tar", ".png")):
            etag = hashlib.sha256(path.encode()).hexdigest()
            # another origin, as the Hub's: clients must not send their token there
            place = f"http://localhost:{self.hub.port}/_cdn/{name}/{path}"
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(file.stat().st_size), "Location": place}
            self._reply(302, b"", {**linked, **common})
        else:
            self._file(file, common)

    def _file(self, file: Path, headers: dict[str, str] | None = None) -> None:
        if not file.is_file():
            self._reply(404, {"error": "no such object"})
            return
        data = file.read_bytes()
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        etag = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes", **(headers or {})}
        if span:
            first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
            etag["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data = data[first : last + 1]
        self._reply(206 if span else 200, data, etag)

    def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if "cut" in self.fault:
            self.wfile.write(data[: self.fault["cut"]])
            self.wfile.flush()
            self._drop()
        else:
            self.wfile.write(data)

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
