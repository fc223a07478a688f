"""A Hub on loopback with the real client in this process, and tiny releases on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants

from cgankd.shardset.hub.client import Hub
from cgankd.shardset.hub.publish import plan_publication, publish, release_files
from cgankd.shardset.release.manifest import read_manifest
from tests.hub.server import LoopbackHub

TOKEN = "hf_aLoopbackTokenThatMustNotLeak"
REPO = "user/tiny"


@contextmanager
def hub_and_client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub that needs a token and lists three paths a page, and a client that has the token, both
    keeping their files in `folder`.
    """
    with LoopbackHub(folder / "hub", token=TOKEN, page_size=3) as hub:
        use_hub(hub, folder / "home", monkeypatch)
        yield hub
    huggingface_hub.close_session()


def use_hub(hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points this process's client, which reads its environment when imported, to a Hub."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    place = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def published(folder: Path, repo_id: str = REPO) -> str:
    """The commit of a release folder that was published as `cgankd publish` does it."""
    hub, manifest = Hub(), read_manifest(folder)
    plan = plan_publication(hub, repo_id, manifest.version, release_files(folder, manifest))
    return publish(hub, plan, private=False, message=f"Release {manifest.version}")


def titles(repo_id: str = REPO, repo_type: str = "dataset") -> list[str]:
    """The titles of a repository's commits, oldest first."""
    commits = HfApi().list_repo_commits(repo_id, repo_type=repo_type)
    return [commit.title for commit in reversed(commits)]


def tags(repo_id: str = REPO, repo_type: str = "dataset") -> dict[str, str]:
    """The commit of each tag."""
    refs = HfApi().list_repo_refs(repo_id, repo_type=repo_type)
    return {tag.name: tag.target_commit for tag in refs.tags}


def sent(hub: LoopbackHub) -> list[str]:
    """The requests so far that change something, as `POST commit`; forgets them."""
    with hub.lock:
        requests = [f"{method} {path}" for method, path in hub.requests]
        hub.requests.clear()
    asked = ("GET ", "HEAD ", "POST /api/validate-yaml")
    return [request for request in requests if not request.startswith(asked)]
