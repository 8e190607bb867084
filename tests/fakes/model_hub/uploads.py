"""How files come without Xet: small ones in the commit, large ones by Git LFS, whole or in parts."""

import hashlib
import json
from typing import Any

from tests.fakes.model_hub.request import Request
from tests.fakes.model_hub.store import LARGE, HubError, Tree, checked


class Uploads:
    """Routes of a request handler."""

    def preupload(self: Request, tree: Tree) -> None:
        """Say of each file how it is to come, and what is there already."""
        files = []
        for file in json.loads(self.read_body())["files"]:
            path, have = checked(file["path"]), tree.get(file["path"])
            row = {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
            files.append(row | ({"oid": have["sha256"] if have["lfs"] else have["oid"]} if have else {}))
        self.reply(200, {"files": files})

    def plan_large(self: Request, repo_id: str) -> None:
        """Say where to send each large file that is not here yet."""
        hub = self.hub
        hub.repo(repo_id, self.user, self.role or "none")
        rows = []
        for wanted in json.loads(self.read_body())["objects"]:
            row: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            size = wanted["size"]
            place = f"{wanted['oid']}/{size}"
            if not hub.blob(wanted["oid"]).is_file():
                upload: dict[str, Any] = {"href": f"{hub.url}/_lfs/put/{place}"}
                if size > hub.part_size:
                    parts = {
                        str(k + 1): f"{hub.url}/_lfs/part/{wanted['oid']}/{k + 1}"
                        for k in range(-(-size // hub.part_size))
                    }
                    upload = {
                        "href": f"{hub.url}/_lfs/done/{place}",
                        "header": {"chunk_size": str(hub.part_size), **parts},
                    }
                row["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/_lfs/verify/{place}"}}
            rows.append(row)
        self.reply(200, {"transfer": "basic", "objects": rows})

    def take_large(self: Request, what: str, oid: str, arg: str) -> None:
        """Signed URLs: as on S3 they carry no token. ``arg`` is the size, or the number of a part."""
        hub, parts = self.hub, self.hub.root / "parts"
        target, body = hub.blob(oid), self.read_body()
        if what == "verify":
            if not target.is_file() or target.stat().st_size != int(arg):
                raise HubError(404, "object not found or of another size")
            return self.reply(200, {})
        if what == "part":
            (parts / f"{oid}.{int(arg)}").write_bytes(body)
            return self.reply(200, b"", {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'})
        if what == "done":
            numbers = sorted(part["partNumber"] for part in json.loads(body)["parts"])
            body = b"".join((parts / f"{oid}.{number}").read_bytes() for number in numbers)
        if hashlib.sha256(body).hexdigest() != oid or len(body) != int(arg):
            raise HubError(400, "the content does not have the announced sha256 and size")
        target.write_bytes(body)
        self.reply(200, {})
