"""A request to the loopback Hub and its answer."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hub.objects import Refused
from tests.hub.storage import HubStorage


@dataclass(frozen=True)
class Hub:
    """What the answers depend on."""

    storage: HubStorage
    endpoint: str
    token: str | None
    read_token: str | None
    user: str
    part_bytes: int
    page_size: int


@dataclass(frozen=True)
class Request:
    """One request; `path` is as it was sent, quoted."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Any
    body: Iterator[bytes]
    token: str | None

    def json(self) -> Any:
        """The body's value."""
        return json.loads(b"".join(self.body))

    def flag(self, name: str) -> bool:
        """Whether a query parameter is set to yes."""
        return self.query.get(name, [""])[-1].lower() in ("1", "true")


@dataclass(frozen=True)
class Answer:
    """A status, headers and a body: bytes, or a span of a file."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: Path | None = None
    start: int = 0
    length: int = 0

    @classmethod
    def of_json(
        cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> "Answer":
        body = json.dumps(value).encode()
        named = {"Content-Type": "application/json", **(headers or {})}
        return cls(status, named, body, length=len(body))

    @classmethod
    def of_error(cls, error: Refused, headers: Mapping[str, str] | None = None) -> "Answer":
        """An error as the Hub tells it: in JSON, and in headers for its client."""
        message = str(error).encode("ascii", "replace").decode()
        named = {"X-Error-Message": message, **error.headers, **(headers or {})}
        if error.code is not None:
            named["X-Error-Code"] = error.code
        return cls.of_json({"error": str(error), **error.more}, error.status, named)

    def chunks(self, size: int) -> Iterator[bytes]:
        """The body in pieces of at most `size` bytes."""
        if self.file is None:
            yield from (self.body[at : at + size] for at in range(0, len(self.body), size))
            return
        with open(self.file, "rb") as file:
            file.seek(self.start)
            left = self.length
            while left and (chunk := file.read(min(size, left))):
                left -= len(chunk)
                yield chunk
