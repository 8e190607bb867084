"""The four routes of Xet's content-addressed store that the client falls back to: chunks in xorbs, files in shards.

https://huggingface.co/docs/xet has the formats.
"""

import hashlib
import json
import re
import struct
import threading
import time
from pathlib import Path
from typing import Any

from tests.fakes.model_hub.request import Request
from tests.fakes.model_hub.store import HubError


class XetStore:
    """Xorbs and the terms of each file below a folder; ``url`` is where clients find it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def answer(self, path: str, handler: Request) -> None:
        """Answer a request below /_xet."""
        if handler.headers.get("Authorization") != "Bearer xet" and not path.startswith("/_xet/data/"):
            raise HubError(401, "bad xet token")
        if path == "/_xet/v1/shards":
            self._take_shard(handler.read_body())
            return handler.reply(200, {"result": 1})
        found = re.fullmatch(r"/_xet/(v1/xorbs/default|data|v1/reconstructions)/([0-9a-f]{64})", path)
        if not found:
            raise HubError(404, f"no such route: {path}")
        if found[1] == "v1/xorbs/default":
            target = self.folder / found[2]
            is_new, fresh = not target.exists(), target.with_suffix(f".{threading.get_ident()}")
            fresh.write_bytes(handler.read_body())
            fresh.replace(target)
            return handler.reply(200, {"was_inserted": is_new})
        if found[1] == "data":
            return handler.send_file(self.folder / found[2])
        return handler.reply(200, self._plan(found[2], handler.headers.get("Range")))

    def _take_shard(self, shard: bytes) -> None:
        """Note which chunks of which xorbs make up each file."""

        def words(at: int) -> str:
            return "".join(f"{word:016x}" for word in struct.unpack_from("<4Q", shard, at))

        at = 48
        while shard[at : at + 32] != b"\xff" * 32:
            file_hash, (flags, count), terms = words(at), struct.unpack_from("<II", shard, at + 32), []
            for _ in range(count):
                at += 48
                _, size, first, last = struct.unpack_from("<4I", shard, at + 32)
                terms.append([words(at), size, first, last])
            at += 48 + 48 * count * (flags >> 31 & 1)
            names = [file_hash]
            if flags >> 30 & 1:
                names.append(words(at))  # its sha256
                at += 48
            for name in names:
                (self.folder / f"{name}.json").write_text(json.dumps([file_hash, terms]))

    def _known(self, name: str) -> list[Any] | None:
        """A file's Xet hash and terms (xorb, size, first chunk, end), by that hash or its sha256."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def _plan(self, file_hash: str, wanted: str | None) -> dict[str, Any]:
        """Which bytes of which xorbs give the wanted range of a file."""
        known = self._known(file_hash)
        if known is None:
            raise HubError(404, "no such file")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "bytes=0-")
        assert found is not None, wanted
        start, end = int(found[1]), int(found[2]) + 1 if found[2] else 1 << 62
        at, terms = 0, []
        skip: int | None = None
        fetch: dict[str, list[dict[str, Any]]] = {}
        for xorb, size, first, last in known[1]:
            if at < end and at + size > start:
                skip = start - at if skip is None else skip
                data, offsets = (self.folder / xorb).read_bytes(), [0]
                while offsets[-1] + 8 <= len(data) and data[offsets[-1]] == 0:  # version, then 3 bytes of packed length
                    offsets.append(offsets[-1] + 8 + int.from_bytes(data[offsets[-1] + 1 : offsets[-1] + 4], "little"))
                chunks = {"start": first, "end": last}
                terms.append({"hash": xorb, "unpacked_length": size, "range": chunks})
                place = {"start": offsets[first], "end": offsets[last] - 1}
                source = {"range": chunks, "url": f"{self.url}/data/{xorb}", "url_range": place}
                fetch.setdefault(xorb, []).append(source)
            at += size
        if not terms:
            raise HubError(416, "range not satisfiable")
        return {"offset_into_first_range": skip, "terms": terms, "fetch_info": fetch}

    def collect(self, sha256: str, size: int, target: Path) -> str | None:
        """Put a file that came as xorbs to ``target``, so that it can be read plainly too; returns its Xet hash."""
        known = self._known(sha256)
        if known is None:
            return None
        if not target.exists():
            import hf_xet  # type: ignore[import-untyped]

            fresh = target.with_suffix(f".{threading.get_ident()}")
            access = {"endpoint": self.url, "token": "xet", "token_expiry_unix_secs": int(time.time()) + 3600}
            with hf_xet.XetSession().new_file_download_group(**access) as group:
                group.start_download_file(hf_xet.XetFileInfo(known[0], size), str(fresh))
            if hashlib.sha256(fresh.read_bytes()).hexdigest() != sha256:
                raise HubError(400, "the content does not have the announced sha256")
            fresh.replace(target)
        xet_hash: str = known[0]
        return xet_hash
