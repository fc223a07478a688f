"""The Hub by its own client: what a repository holds, and each error as one line to act on."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cgankd.shardset.errors import BadInput, CgankdError, HubError
from cgankd.shardset.release.manifest import VERSION_PATTERN
from cgankd.shardset.release.versions import numbers_of

RepoType = Literal["dataset", "model"]
HUBS_OWN = ".gitattributes"  # the Hub adds it to every repository


@dataclass(frozen=True)
class HubFile:
    """A file as the Hub lists it: `sha256` of large files alone, `blob` is git's hash of others."""

    bytes: int
    sha256: str | None
    blob: str

    def holds(self, path: Path, sha256: str) -> bool:
        """Whether the Hub's file has the content of a local one, whose sha256 is known."""
        if self.bytes != path.stat().st_size:
            return False
        if self.sha256 is not None:
            return self.sha256 == sha256
        return self.blob == git_blob(path.read_bytes())


@dataclass(frozen=True)
class Repo:
    """One repository's state: `versions` {tag: commit} from low to high, `head` of `main`, and the
    names of all its branches.
    """

    head: str | None
    versions: dict[str, str]
    branches: frozenset[str]


class Hub:
    """A Hub at an endpoint, `HF_ENDPOINT` if not given, with a token or the client's own login."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        from huggingface_hub import HfApi, get_token

        with self.explained("login"):
            self.token = token or get_token()
        self.api = HfApi(endpoint=endpoint and endpoint.rstrip("/"), token=self.token)
        self.endpoint = self.api.endpoint

    def repo(self, repo_id: str, repo_type: RepoType = "dataset") -> Repo | None:
        """The state of a repository; None where there is none that this token may read."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        with self.explained(repo_id):
            try:
                refs = self.api.list_repo_refs(repo_id, repo_type=repo_type)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                return None
        heads = [ref.target_commit for ref in refs.branches if ref.name == "main"]
        tags = [tag for tag in refs.tags if re.fullmatch(VERSION_PATTERN, tag.name)]
        tags.sort(key=lambda tag: numbers_of(tag.name))
        return Repo(
            head=heads[0] if heads else None,
            versions={tag.name: tag.target_commit for tag in tags},
            branches=frozenset(ref.name for ref in refs.branches),
        )

    def is_private(self, repo_id: str, repo_type: RepoType) -> bool:
        """Whether a repository that exists is hidden from others."""
        with self.explained(repo_id):
            return bool(self.api.repo_info(repo_id, repo_type=repo_type).private)

    def files(
        self, repo_id: str, commit: str, repo_type: RepoType = "dataset"
    ) -> dict[str, HubFile]:
        """Every file of a commit by its path, as the Hub itself lists them."""
        from huggingface_hub.hf_api import RepoFile

        with self.explained(repo_id):
            entries = self.api.list_repo_tree(
                repo_id, recursive=True, revision=commit, repo_type=repo_type
            )
            return {
                entry.path: HubFile(
                    bytes=entry.size,
                    sha256=entry.lfs.sha256 if entry.lfs else None,
                    blob=entry.blob_id,
                )
                for entry in entries
                if isinstance(entry, RepoFile)
            }

    def check_may_write(self, repo_id: str, repo_type: RepoType, repo: Repo | None) -> None:
        """`BadInput` unless the token may write to a repository, or make it where there is none."""
        if self.token is None:
            raise BadInput(
                f"{repo_id}: publishing needs a token that may write; set HF_TOKEN, or log in with "
                "`hf auth login`"
            )
        with self.explained(repo_id):
            who = self.api.whoami()
            if repo is not None:
                self.api.auth_check(repo_id, repo_type=repo_type, write=True)
                return
        role = who.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise BadInput(f"{repo_id}: the token may only read; use one that may write")
        owner = repo_id.partition("/")[0]
        owners = [who["name"], *(org["name"] for org in who.get("orgs", []))]
        # A fine-grained token may not see the organisations that it may write to.
        if owner not in owners and role != "fineGrained":
            raise BadInput(
                f"{repo_id}: the token may write for {', '.join(owners)}, not for {owner}"
            )

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Turns the client's errors, met while `what` is read or written, into one line.

        The line never holds the token, even where a server repeats it, and the client's own error
        is not chained to it for the same reason.
        """
        from huggingface_hub.errors import HTTPError, OIDCError

        try:
            yield
        # The client raises its own errors, the HTTP library's, and plain ones around either.
        except (HTTPError, OSError, ValueError, RuntimeError, OIDCError) as error:
            explained = _explanation(what, getattr(self, "endpoint", "the Hub"), error)
            line = " ".join(str(explained).split())
            raise type(explained)(without_token(line, getattr(self, "token", None))) from None


def git_blob(data: bytes) -> str:
    """The hash by which git, and the Hub's listing, knows a small file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def without_token(text: str, token: str | None) -> str:
    """The text with the token, and whatever looks like one, left out."""
    if token:
        text = text.replace(token, "***")
    return re.sub(r"\bhf_\w{8,}", "***", text)


def _explanation(what: str, endpoint: str, error: BaseException) -> CgankdError:
    from huggingface_hub import errors

    chain = [error]
    while reason := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(reason)
    for kind in (errors.OfflineModeIsEnabled, errors.HfHubHTTPError, errors.HTTPError):
        reason = next((link for link in chain if isinstance(link, kind)), None)
        if isinstance(reason, errors.OfflineModeIsEnabled):
            return BadInput(
                f"{what}: HF_HUB_OFFLINE forbids asking the Hub; unset it, or read a cached "
                "version with --offline"
            )
        if isinstance(reason, errors.HfHubHTTPError):
            return _refusal(what, endpoint, reason)
        if isinstance(reason, errors.HTTPError):
            return HubError(
                f"{what}: {endpoint} does not answer ({reason or type(reason).__name__}); "
                "try again when it can be reached"
            )
    if isinstance(error, errors.HFValidationError):
        return BadInput(f"{what} is not a name that the Hub allows: {error}")
    return HubError(f"{what}: {error or type(error).__name__}")


def _refusal(what: str, endpoint: str, error: Exception) -> CgankdError:
    """What an answer of the Hub means for the user."""
    from huggingface_hub import errors

    assert isinstance(error, errors.HfHubHTTPError)
    said = f" ({error.server_message})" if error.server_message else ""
    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return BadInput(f"{what} is gated: ask for access on its page at {endpoint}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return BadInput(
            f"{what}: {endpoint} has no such repository, or none that you may read; check the id, "
            "or log in with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return BadInput(f"{what}: there is no such revision at {endpoint}")
    if status == 401:
        return BadInput(f"{what}: {endpoint} does not accept the token; log in: `hf auth login`")
    if status == 403:
        return BadInput(f"{what}: the token may not do this{said}; use one that may write there")
    if status == 409:
        return HubError(f"{what}: it exists already or is being changed{said}; run again")
    if status == 412:
        return HubError(
            f"{what}: somebody else committed there meanwhile, so nothing was changed; run again "
            "to publish on top of it"
        )
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        when = f"in {wait} s" if wait else "later"
        return HubError(f"{what}: {endpoint} has had too many requests; run again {when}")
    if status >= 500:
        return HubError(f"{what}: {endpoint} failed with status {status}{said}; run again later")
    return HubError(f"{what}: {endpoint} answered with status {status}{said}")
