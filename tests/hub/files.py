"""What the loopback Hub's commits hold: listings, hashes and bytes."""

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlencode

from tests.hub.http import Answer, Hub, Request
from tests.hub.objects import Refused
from tests.hub.storage import Commit, Repo, git_hash

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def tree(hub: Hub, request: Request, repo: Repo, revision: str, path: str = "") -> Answer:
    commit = repo.commit(revision)
    rows = _listing(commit, path.strip("/"), request.flag("recursive"))
    begin = int(request.query.get("cursor", ["0"])[-1])
    size = min(int(request.query.get("limit", [str(hub.page_size)])[-1]), hub.page_size)
    headers = {}
    if begin + size < len(rows):
        query = {name: values[-1] for name, values in request.query.items()}
        query["cursor"] = str(begin + size)
        url = f"{hub.endpoint}{request.path}?{urlencode(query)}"
        headers["Link"] = f'<{url}>; rel="next"'
    return Answer.of_json(rows[begin : begin + size], headers=headers)


def _listing(commit: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Files and folders below a folder, by path; 404 where nothing is."""
    prefix = folder + "/" if folder else ""
    inside = [path for path in commit.files if path.startswith(prefix)]
    if folder and not inside:
        raise _no_entry(commit, folder)
    found = set(inside)
    for path in inside:
        for parent in PurePosixPath(path).parents:
            if str(parent).startswith(prefix) and str(parent) != ".":
                found.add(str(parent))
    if not recursive:
        found = {path for path in found if "/" not in path.removeprefix(prefix)}
    return [_row(commit, path) for path in sorted(found)]


def _row(commit: Commit, path: str) -> dict[str, Any]:
    """A file or folder of a commit, as listings tell it."""
    if (file := commit.files.get(path)) is None:
        inside = "".join(f"{p}\0{f.blob}\0" for p, f in commit.files.items() if p.startswith(path))
        return {"type": "directory", "path": path, "oid": git_hash(inside.encode()), "size": 0}
    row = {"type": "file", "path": path, "size": file.size, "oid": file.blob}
    lfs = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return {**row, "lfs": lfs} if file.lfs else row


def paths_info(hub: Hub, request: Request, repo: Repo, revision: str) -> Answer:
    commit = repo.commit(revision)
    form = parse_qs(b"".join(request.body).decode())
    known = {row["path"]: row for row in _listing(commit, "", recursive=True)}
    return Answer.of_json([known[path] for path in form.get("paths", []) if path in known])


def resolve(hub: Hub, request: Request, repo: Repo, revision: str, path: str) -> Answer:
    commit = repo.commit(revision)
    if (file := commit.files.get(path)) is None:
        raise _no_entry(commit, path)
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "X-Repo-Commit": commit.id,
        "ETag": f'"{file.sha256 if file.lfs else file.blob}"',
    }
    start, stop, status = 0, file.size, 200
    if span := RANGE.fullmatch(request.headers.get("Range", "")):
        first, last = span.groups()
        start = int(first) if first else max(0, file.size - int(last))
        stop = min(int(last) + 1, file.size) if first and last else file.size
        if start >= stop:
            size = {"Content-Range": f"bytes */{file.size}"}
            raise Refused(416, f"no such bytes in a file of {file.size}", headers=size)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    stored = hub.storage.objects.path(file.sha256)
    return Answer(status, headers, file=stored, start=start, length=stop - start)


def _no_entry(commit: Commit, path: str) -> Refused:
    at = {"X-Repo-Commit": commit.id}
    return Refused(404, f"{path} does not exist at {commit.id}", "EntryNotFound", headers=at)
