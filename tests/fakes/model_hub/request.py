"""What the routes ask of the server's request handler."""

from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tests.fakes.model_hub.server import ModelHub


class Request(Protocol):
    """One request, and the ways to answer it."""

    hub: "ModelHub"
    headers: Message
    user: str | None
    role: str | None

    def read_body(self) -> bytes: ...

    def reply(self, status: int, body: Any = b"", headers: dict[str, Any] | None = None) -> None: ...

    def send_file(self, path: Path, headers: dict[str, Any] | None = None) -> None: ...
