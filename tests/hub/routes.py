"""Which function answers which request of the Hub's protocol, and who may ask."""

import re
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import unquote

from tests.hub import files, repos, uploads
from tests.hub.http import Answer, Hub, Request
from tests.hub.objects import Refused

Access = Literal["open", "read", "write"]
API = r"/api/(?P<kind>datasets|models)/(?P<name>[^/]+/[^/]+)"
FILES = r"/(?:(?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)"
REVISION = r"/(?P<revision>[^/]+)"
OBJECT = r"/lfs/(?P<oid>[^/]+)"
# An upload's address is open, as where the Hub keeps its objects: what is sent has to have the
# sha256 that is in the address.
ROUTES: tuple[tuple[str, str, Access, Callable[..., Answer]], ...] = (
    ("POST", "/api/repos/create", "write", repos.create),
    ("POST", "/api/validate-yaml", "open", repos.validate_card),
    ("GET", "/api/whoami-v2", "read", repos.whoami),
    ("GET", API, "read", repos.info),
    ("GET", API + "/revision" + REVISION, "read", repos.info),
    ("GET", API + "/auth-check", "read", repos.yes),
    ("GET", API + "/auth-check/write", "write", repos.yes),
    ("GET", API + "/refs", "read", repos.refs),
    ("POST", API + "/tag" + REVISION, "write", repos.add_tag),
    ("DELETE", API + "/tag" + REVISION, "write", repos.delete_tag),
    ("POST", API + "/branch" + REVISION, "write", repos.add_branch),
    ("GET", API + "/commits" + REVISION, "read", repos.commits),
    ("GET", API + "/tree" + REVISION + "(?:/(?P<path>.*))?", "read", files.tree),
    ("POST", API + "/paths-info" + REVISION, "read", files.paths_info),
    ("POST", API + "/preupload" + REVISION, "write", uploads.preupload),
    ("POST", API + "/commit" + REVISION, "write", uploads.commit),
    ("GET", API + "/xet-write-token" + REVISION, "write", uploads.xet_token),
    ("POST", FILES + r"\.git/info/lfs/objects/batch", "write", uploads.lfs_batch),
    ("PUT", OBJECT, "open", uploads.put_object),
    ("PUT", OBJECT + "/(?P<number>[0-9]+)", "open", uploads.put_part),
    ("POST", OBJECT + "/complete", "open", uploads.complete),
    ("POST", OBJECT + "/verify", "open", uploads.verify),
    ("GET HEAD", FILES + "/resolve" + REVISION + "/(?P<path>.+)", "read", files.resolve),
)


def answer(hub: Hub, request: Request) -> Answer:
    """What a request gets; `Refused` where it is refused."""
    for method, pattern, access, reply in ROUTES:
        match = re.fullmatch(pattern, request.path)
        if match is None or request.method not in method.split():
            continue
        _check_token(hub, request, access)
        place: dict[str, Any] = {k: unquote(text or "") for k, text in match.groupdict().items()}
        if "kind" in place:
            repo = hub.storage.repo(place.pop("kind") or "models", place.pop("name"))
            if repo.private and hub.token is not None and request.token is None:
                raise Refused(401, "Repository not found", "RepoNotFound")
            place["repo"] = repo
        try:
            return reply(hub, request, **place)
        except (KeyError, TypeError, ValueError) as error:  # of what the request's body holds
            raise Refused(400, f"the request cannot be read: {error!r}") from error
    raise Refused(404, f"no such address: {request.method} {request.path}")


def _check_token(hub: Hub, request: Request, access: Access) -> None:
    if hub.token is None or access == "open":
        return
    if request.token not in (None, hub.token, hub.read_token):
        raise Refused(401, "Invalid credentials in Authorization header")
    if access == "write" and request.token is None:
        raise Refused(401, "Invalid username or password.")
    if access == "write" and request.token != hub.token:
        raise Refused(403, "Your token has no write permission")
