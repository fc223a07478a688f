"""What the loopback Hub does wrong on demand, and what the real client makes of it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub, client_environment

ID = "user/set"
DATA = bytes(range(250)) * 20


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "hub", part_bytes=1000) as hub:
        yield hub


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    api = HfApi(endpoint=hub.endpoint, token="any")
    api.create_repo(ID, repo_type="dataset")
    return api


def commit(api: HfApi, data: bytes = DATA) -> str:
    operations = [CommitOperationAdd("data/a.parquet", data)]
    return api.create_commit(ID, operations, commit_message="v1", repo_type="dataset").oid


def titles(api: HfApi) -> list[str]:
    return [commit.title for commit in api.list_repo_commits(ID, repo_type="dataset")]


def download(api: HfApi, folder: Path) -> bytes:
    path = api.hf_hub_download(ID, "data/a.parquet", repo_type="dataset", cache_dir=folder)
    return Path(path).read_bytes()


@pytest.mark.parametrize("lost", [{"status": 503}, {"drop": True}], ids=["503", "hangs-up"])
def test_a_commit_whose_answer_is_lost_is_there_and_is_not_made_twice(
    hub: LoopbackHub, api: HfApi, lost: dict[str, Any]
) -> None:
    hub.faults.append(Fault("/commit/", "POST", after=True, **lost))

    with pytest.raises(HTTPError):
        commit(api)
    assert titles(api) == ["v1", "initial commit"]

    again = commit(api)
    assert titles(api) == ["v1", "initial commit"]
    assert again == api.dataset_info(ID).sha


@pytest.mark.parametrize("lost", [{"status": 409}, {"status": 503}, {"drop": True}])
def test_a_commit_that_failed_before_it_was_applied_is_not_there(
    hub: LoopbackHub, api: HfApi, lost: dict[str, Any]
) -> None:
    hub.faults.append(Fault("/commit/", "POST", **lost))

    with pytest.raises(HTTPError):
        commit(api)

    assert titles(api) == ["initial commit"]


def test_a_client_that_is_told_to_wait_waits_and_goes_on(
    hub: LoopbackHub, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.append(Fault("/preupload/", status=429, headers={"Retry-After": "1"}))
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)

    commit(api)

    assert waits == [2]  # the client adds a second; without the header it waits 1
    assert titles(api) == ["v1", "initial commit"]


def test_parts_and_their_completion_are_sent_again_after_errors(
    hub: LoopbackHub, api: HfApi, tmp_path: Path
) -> None:
    hub.faults.append(Fault(r"^/lfs/\w+/2", "PUT", status=500))
    hub.faults.append(Fault(r"^/lfs/\w+/complete", "POST", status=500, after=True))

    commit(api)

    assert download(api, tmp_path / "cache") == DATA


def test_a_truncated_download_is_noticed_and_resumed(
    hub: LoopbackHub, api: HfApi, tmp_path: Path
) -> None:
    commit(api)
    hub.faults.append(Fault("/resolve/", "GET", truncate=1234))

    assert download(api, tmp_path / "cache") == DATA
    gets = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert len(gets) == 2


def test_a_corrupted_download_passes_the_client_unnoticed(
    hub: LoopbackHub, api: HfApi, tmp_path: Path
) -> None:
    """Which is why a release is compared with its manifest after it came."""
    commit(api)
    hub.faults.append(Fault("/resolve/", "GET", corrupt=True))

    got = download(api, tmp_path / "cache")

    assert len(got) == len(DATA)
    assert got != DATA


def test_a_slow_body_comes_whole_and_late(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(api)
    hub.faults.append(Fault("/resolve/", "GET", seconds=0.5))
    waits: list[float] = []
    monkeypatch.setattr(hub.stopping, "wait", waits.append)

    assert download(api, tmp_path / "cache") == DATA
    assert sum(waits) == pytest.approx(0.5)


def test_a_hub_that_is_down_comes_back_at_the_same_address(hub: LoopbackHub, api: HfApi) -> None:
    sha, endpoint = commit(api), hub.endpoint

    hub.stop()
    with pytest.raises(HTTPError):
        api.dataset_info(ID)
    hub.start()

    assert hub.endpoint == endpoint
    assert api.dataset_info(ID).sha == sha


def test_the_first_fault_that_matches_strikes_as_often_as_it_says(
    hub: LoopbackHub, api: HfApi
) -> None:
    hub.faults.append(Fault("/refs$", "GET", times=2, status=418))

    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="418"):
            api.list_repo_refs(ID, repo_type="dataset")

    assert [branch.name for branch in api.list_repo_refs(ID, repo_type="dataset").branches] == [
        "main"
    ]
    assert hub.requests.count(("GET", f"/api/datasets/{ID}/refs")) == 3


CLIENT = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
operations = [CommitOperationAdd("data/a.parquet", bytes(range(250)) * 20)]
HfApi().create_commit("user/set", operations, commit_message="v1", repo_type="dataset")
"""


@pytest.mark.parametrize("step", ["/preupload/", "^/lfs/.*/2$", "/complete$", "/commit/"])
@pytest.mark.parametrize("after", [False, True])
def test_a_client_killed_at_any_step_leaves_the_old_state_or_the_new(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, step: str, after: bool
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    hub.faults.append(Fault(step, after=after, drop=True, call=lambda: started[0].kill()))
    environment = client_environment(hub, tmp_path / "home", token="any")

    started.append(subprocess.Popen([sys.executable, "-c", CLIENT], env=environment))

    assert started[0].wait() == -9
    applied = step == "/commit/" and after
    assert titles(api) == ["v1", "initial commit"][0 if applied else 1 :]
    commit(api)
    assert titles(api) == ["v1", "initial commit"]
    assert download(api, tmp_path / "cache") == DATA
    assert not list(hub.folder.rglob("*.partial"))
