"""The loopback Hub's objects: bytes by their sha256, whole or absent."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

from cgankd.shardset.files import PARTIAL, atomic_path, sync_file

SHA256 = re.compile(r"[0-9a-f]{64}")


class Refused(Exception):
    """A request that the Hub answers with `status` and a message; `code` is one of the Hub's own,
    such as `EntryNotFound`, `more` goes into the answer's JSON, `headers` beside it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        more: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.more = more or {}
        self.headers = headers or {}


def _write_chunks(path: Path, chunks: Iterable[bytes]) -> str:
    """The sha256 of what was written."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


class Objects:
    """Bytes by their sha256, and the parts of uploads that are not complete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "objects"
        self.incoming = folder / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)
        for partial in self.incoming.rglob(f"*{PARTIAL}"):
            partial.unlink()

    def path(self, sha256: str) -> Path:
        """Where an object lies, or would; 400 for what is not a sha256."""
        if not SHA256.fullmatch(sha256):
            raise Refused(400, f"{sha256!r} is not a sha256")
        return self.folder / sha256[:2] / sha256

    def receive(self, chunks: Iterable[bytes], expected: str | None = None) -> str:
        """The sha256 of the object that the chunks were stored as; 400 if another was expected."""
        partial = self.incoming / f"{uuid4().hex}{PARTIAL}"
        try:
            sha256 = _write_chunks(partial, chunks)
            if expected not in (None, sha256):
                raise Refused(400, f"the bytes have sha256 {sha256}, not {expected}")
            path = self.path(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            sync_file(partial)
            partial.replace(path)
            sync_file(path.parent)
        finally:
            partial.unlink(missing_ok=True)
        return sha256

    def receive_part(self, sha256: str, number: int, chunks: Iterable[bytes]) -> str:
        """The tag of one part of an object, kept until `join`."""
        self.path(sha256)  # refuses what would not be a folder's name
        with atomic_path(self.incoming / sha256 / str(number)) as partial:
            return _write_chunks(partial, chunks)

    def join(self, sha256: str, tags: Mapping[int, str]) -> None:
        """Makes an object of its parts, each as it was tagged; 400 where one differs."""
        self.path(sha256)
        folder = self.incoming / sha256
        parts = [folder / str(number) for number in sorted(tags)]

        def chunks() -> Iterator[bytes]:
            for part, tag in zip(parts, (tags[n] for n in sorted(tags)), strict=True):
                data = part.read_bytes() if part.is_file() else b""
                if hashlib.sha256(data).hexdigest() != tag:
                    raise Refused(400, f"part {part.name} of {sha256} is not what was uploaded")
                yield data

        self.receive(chunks(), sha256)
        for part in folder.iterdir():
            part.unlink()
        folder.rmdir()
