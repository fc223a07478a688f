"""How files come to the loopback Hub: upload modes, LFS, Xet, and the commit that holds them."""

import base64
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cgankd.shardset.files import CHUNK
from tests.hub.http import Answer, Hub, Request
from tests.hub.objects import Refused
from tests.hub.storage import Change, Repo, StoredFile, check_path, git_hash, is_lfs, lfs_file
from tests.hub.xet import FAR_FUTURE, fetch_from_xet, xet_address, xet_hashes


def preupload(hub: Hub, request: Request, repo: Repo, revision: str) -> Answer:
    _refuse_pull_requests(request)
    known = repo.commit(revision).files
    modes = []
    for wanted in request.json()["files"]:
        path = check_path(wanted["path"])
        mode = {
            "path": path,
            "uploadMode": "lfs" if is_lfs(path, wanted["size"]) else "regular",
            "shouldIgnore": False,
        }
        if (file := known.get(path)) is not None:
            mode["oid"] = file.sha256 if file.lfs else file.blob
        modes.append(mode)
    return Answer.of_json({"files": modes})


def _refuse_pull_requests(request: Request) -> None:
    if request.flag("create_pr"):
        raise Refused(400, "this Hub has no pull requests")


def lfs_batch(hub: Hub, request: Request, repo: Repo) -> Answer:
    wanted = request.json()
    if wanted["operation"] != "upload":
        raise Refused(400, "this Hub's LFS takes uploads alone")
    objects = [_lfs_upload(hub, item["oid"], item["size"]) for item in wanted["objects"]]
    return Answer.of_json({"transfer": "basic", "objects": objects})


def _lfs_upload(hub: Hub, oid: str, size: int) -> dict[str, Any]:
    """Where an object is to be sent; nowhere, if it is here."""
    if hub.storage.objects.path(oid).is_file():
        return {"oid": oid, "size": size}
    url = f"{hub.endpoint}/lfs/{oid}"
    upload: dict[str, Any] = {"href": url}
    if size > hub.part_bytes:
        parts = range(1, -(-size // hub.part_bytes) + 1)
        urls = {str(number): f"{url}/{number}" for number in parts}
        upload = {
            "href": f"{url}/complete",
            "header": {"chunk_size": str(hub.part_bytes), **urls},
        }
    return {
        "oid": oid,
        "size": size,
        "actions": {"upload": upload, "verify": {"href": f"{url}/verify"}},
    }


def put_object(hub: Hub, request: Request, oid: str) -> Answer:
    hub.storage.objects.receive(request.body, oid)
    return Answer()


def put_part(hub: Hub, request: Request, oid: str, number: str) -> Answer:
    tag = hub.storage.objects.receive_part(oid, int(number), request.body)
    return Answer(headers={"ETag": f'"{tag}"'})


def complete(hub: Hub, request: Request, oid: str) -> Answer:
    tags = {part["partNumber"]: part["etag"].strip('"') for part in request.json()["parts"]}
    if not hub.storage.objects.path(oid).is_file():  # it is, where the first answer was lost
        hub.storage.objects.join(oid, tags)
    return Answer.of_json({})


def verify(hub: Hub, request: Request, oid: str) -> Answer:
    path = hub.storage.objects.path(oid)
    if not path.is_file() or path.stat().st_size != request.json()["size"]:
        raise Refused(404, f"no object {oid} of this size")
    return Answer.of_json({})


def xet_token(hub: Hub, request: Request, repo: Repo, revision: str) -> Answer:
    return Answer.of_json(
        {
            "casUrl": xet_address(hub.storage.xet),
            "exp": FAR_FUTURE,
            "accessToken": "loopback",
        }
    )


def commit(hub: Hub, request: Request, repo: Repo, revision: str) -> Answer:
    _refuse_pull_requests(request)
    lines = [json.loads(line) for line in b"".join(request.body).split(b"\n") if line]
    values = [(line["key"], line["value"]) for line in lines]
    header = dict(values)["header"]
    written = {}
    for key, value in values:
        if key == "file":
            written[check_path(value["path"])] = _regular_file(hub, value)
        elif key == "lfsFile":
            written[check_path(value["path"])] = _lfs_file(hub, value)
    change = Change(
        written,
        tuple(value["path"] for key, value in values if key == "deletedFile"),
        tuple(value["path"] for key, value in values if key == "deletedFolder"),
    )
    with hub.storage.lock:
        commit = repo.add_commit(
            revision, change, header["summary"], header["description"], header.get("parentCommit")
        )
    url = f"{hub.endpoint}/{repo.address}/commit/{commit.id}"
    return Answer.of_json({"success": True, "commitOid": commit.id, "commitUrl": url})


def _regular_file(hub: Hub, value: Mapping[str, Any]) -> StoredFile:
    data = base64.b64decode(value["content"], validate=True)
    sha256 = hub.storage.objects.receive([data])
    return StoredFile(sha256=sha256, size=len(data), blob=git_hash(data), lfs=False)


def _lfs_file(hub: Hub, value: Mapping[str, Any]) -> StoredFile:
    path = hub.storage.objects.path(value["oid"])
    if not path.is_file() and not _came_through_xet(hub, value["oid"]):
        raise Refused(400, f"LFS object {value['oid']} of {value['path']} was not uploaded")
    size = path.stat().st_size
    if value.get("size", size) != size:
        raise Refused(400, f"{value['path']} has {size} bytes, not {value['size']}")
    return lfs_file(value["oid"], size)


def _came_through_xet(hub: Hub, sha256: str) -> bool:
    """Whether the Xet store has this file; then it is an object like others from now on."""
    xet_hash = xet_hashes(hub.storage.xet).get(sha256)
    if xet_hash is None:
        return False
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "file"
        fetch_from_xet(hub.storage.xet, xet_hash, whole)
        with open(whole, "rb") as file:
            hub.storage.objects.receive(iter(partial(file.read, CHUNK), b""), sha256)
    return True
