"""The loopback Hub's repositories as wholes: making them, what they are, branches and tags."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.hub.http import Answer, Hub, Request
from tests.hub.objects import Refused
from tests.hub.storage import MAIN, Repo, StoredFile, check_path

FRONT_MATTER = re.compile(r"---\n(.*?\n)---", re.S)


def create(hub: Hub, request: Request) -> Answer:
    wanted = request.json()
    kind = wanted.get("type", "model") + "s"
    name = f"{wanted.get('organization') or hub.user}/{wanted['name']}"
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    repo = hub.storage.place(kind, name)
    url = f"{hub.endpoint}/{repo.address}"
    with hub.storage.lock:
        if repo.exists:
            raise Refused(409, f"You already created this repository: {name}", more={"url": url})
        repo.begin(private, hub.storage.objects)
    return Answer.of_json({"url": url, "name": name, "private": private})


def validate_card(hub: Hub, request: Request) -> Answer:
    errors = []
    if front := FRONT_MATTER.match(request.json()["content"]):
        try:
            if not isinstance(yaml.safe_load(front[1]), dict):
                errors = [{"message": "the front matter is not a mapping"}]
        except yaml.YAMLError as error:
            errors = [{"message": f"the front matter is not YAML: {error}"}]
    return Answer.of_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def whoami(hub: Hub, request: Request) -> Answer:
    if hub.token is not None and request.token is None:
        raise Refused(401, "Invalid username or password.")
    role = "write" if request.token == hub.token or hub.token is None else "read"
    token = {"displayName": "loopback", "role": role}
    auth = {"type": "access_token", "accessToken": token}
    return Answer.of_json({"type": "user", "name": hub.user, "orgs": [], "auth": auth})


def yes(hub: Hub, request: Request, repo: Repo) -> Answer:
    return Answer.of_json({})


def info(hub: Hub, request: Request, repo: Repo, revision: str = MAIN) -> Answer:
    commit = repo.commit(revision)
    facts = {
        "id": repo.name,
        "author": repo.name.partition("/")[0],
        "sha": commit.id,
        "lastModified": commit.date,
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [
            _sibling(path, file, request.flag("blobs")) for path, file in commit.files.items()
        ],
    }
    return Answer.of_json(facts)


def _sibling(path: str, file: StoredFile, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    lfs = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    blob = {"rfilename": path, "size": file.size, "blobId": file.blob}
    return {**blob, "lfs": lfs} if file.lfs else blob


def refs(hub: Hub, request: Request, repo: Repo) -> Answer:
    refs = repo.refs
    return Answer.of_json(
        {
            "branches": _ref_list("refs/heads/", refs.branches),
            "converts": [],
            "pullRequests": [],
            "tags": _ref_list("refs/tags/", refs.tags),
        }
    )


def _ref_list(prefix: str, refs: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": prefix + name, "targetCommit": commit}
        for name, commit in refs.items()
    ]


def add_tag(hub: Hub, request: Request, repo: Repo, revision: str) -> Answer:
    tag = check_path(request.json()["tag"])
    with hub.storage.lock:
        repo.add_tag(tag, revision)
    return Answer.of_json({})


def delete_tag(hub: Hub, request: Request, repo: Repo, revision: str) -> Answer:
    with hub.storage.lock:
        repo.delete_tag(revision)
    return Answer.of_json({})


def add_branch(hub: Hub, request: Request, repo: Repo, revision: str) -> Answer:
    start = request.json().get("startingPoint", MAIN)
    with hub.storage.lock:
        repo.add_branch(check_path(revision), start)
    return Answer.of_json({})


def commits(hub: Hub, request: Request, repo: Repo, revision: str) -> Answer:
    history = [
        {
            "id": commit.id,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": hub.user}],
            "date": commit.date,
        }
        for commit in repo.history(revision)
    ]
    return Answer.of_json(history)
