"""The loopback Hub as the real Hub client sees it: repositories, uploads, versions, downloads."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import get_session

from cgankd.shardset.errors import BadInput, RunBusy
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub

TOKEN = "write-token"
READ_TOKEN = "read-token"
ID = "user/set"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub(
        tmp_path / "hub", token=TOKEN, read_token=READ_TOKEN, part_bytes=1000, page_size=5
    ) as hub:
        yield hub


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    """A client that may write, of a Hub that has one empty dataset."""
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo(ID, repo_type="dataset")
    return api


def some_bytes(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def commit(
    api: HfApi, files: dict[str, bytes], *, parent: str | None = None, branch: str | None = None
) -> CommitInfo:
    return api.create_commit(
        ID,
        [CommitOperationAdd(path, data) for path, data in files.items()],
        commit_message="some files",
        repo_type="dataset",
        parent_commit=parent,
        revision=branch,
    )


def head(api: HfApi, revision: str = "main") -> str:
    sha = api.dataset_info(ID, revision=revision).sha
    assert sha is not None
    return sha


def puts(hub: LoopbackHub) -> int:
    return sum(method == "PUT" for method, _ in hub.requests)


@pytest.mark.parametrize("repo_type", ["dataset", "model"])
@pytest.mark.filterwarnings("ignore:It seems that you are about to commit a data file")
def test_files_of_every_kind_come_back_as_they_were_sent(
    hub: LoopbackHub, tmp_path: Path, repo_type: str
) -> None:
    files = {
        "README.md": b"---\nlicense: mit\n---\n# A set\n",
        "empty.txt": b"",
        "data/in one.parquet": some_bytes(900),
        "data/in-four-parts.parquet": some_bytes(3500),
        "data/in-two-full-parts.parquet": some_bytes(2000),
    }
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    made = api.create_repo(ID, repo_type=repo_type)
    again = api.create_repo(ID, repo_type=repo_type, exist_ok=True)
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    api.preupload_lfs_files(ID, operations, repo_type=repo_type, free_memory=False)
    sent = puts(hub)
    info = api.create_commit(ID, operations, commit_message="v1", repo_type=repo_type)
    api.create_tag(ID, tag="v1.0.0", revision=info.oid, repo_type=repo_type)

    copy = api.snapshot_download(
        ID, repo_type=repo_type, revision="v1.0.0", cache_dir=tmp_path / "cache"
    )

    assert made.repo_id == again.repo_id == ID
    assert sent == 1 + 4 + 2
    assert puts(hub) == sent
    assert copy.endswith(info.oid)
    assert {path: (Path(copy) / path).read_bytes() for path in files} == files


def test_listings_tell_sizes_and_the_hashes_of_git_and_lfs(api: HfApi) -> None:
    table, card = some_bytes(1500), b"# A set\n"
    pointer = (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:" + hashlib.sha256(table).hexdigest().encode() + b"\nsize 1500\n"
    )
    commit(api, {"data/a.parquet": table, "README.md": card})

    tree = {
        entry.path: entry for entry in api.list_repo_tree(ID, repo_type="dataset", recursive=True)
    }
    siblings = {
        sibling.rfilename: sibling
        for sibling in api.dataset_info(ID, files_metadata=True).siblings or []
    }
    asked = api.get_paths_info(ID, ["data", "data/a.parquet", "none"], repo_type="dataset")

    assert set(tree) == {".gitattributes", "README.md", "data", "data/a.parquet"}
    assert [entry.path for entry in asked] == ["data", "data/a.parquet"]
    for found in (tree["data/a.parquet"], asked[1]):
        assert isinstance(found, RepoFile)
        assert found.size == 1500
        assert found.blob_id == git_hash(pointer)
        assert found.lfs is not None
        assert found.lfs.sha256 == hashlib.sha256(table).hexdigest()
        assert found.lfs.pointer_size == len(pointer)
    assert tree["README.md"].blob_id == siblings["README.md"].blob_id == git_hash(card)
    assert siblings["README.md"].lfs is None
    assert siblings["data/a.parquet"].lfs is not None
    assert siblings["data/a.parquet"].lfs["sha256"] == hashlib.sha256(table).hexdigest()


def git_hash(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def test_a_listing_of_many_pages_is_complete(hub: LoopbackHub, api: HfApi) -> None:
    names = [f"notes/{number:02d}.txt" for number in range(12)]
    commit(api, {name: name.encode() for name in names})

    listed = [entry.path for entry in api.list_repo_tree(ID, "notes", repo_type="dataset")]

    assert listed == names
    assert hub.requests.count(("GET", f"/api/datasets/{ID}/tree/main/notes")) == 3


def test_files_that_did_not_change_are_neither_sent_nor_committed_again(
    hub: LoopbackHub, api: HfApi
) -> None:
    files = {"README.md": b"# A set\n", "data/a.parquet": some_bytes(1500)}
    first = commit(api, files)
    sent, requests = puts(hub), len(hub.requests)

    second = commit(api, files)
    assert second.oid == first.oid
    assert all("/commit/" not in path for _, path in hub.requests[requests:])

    third = commit(api, {**files, "data/b.parquet": some_bytes(1500)})  # the bytes are known
    assert third.oid != first.oid
    assert puts(hub) == sent


def test_a_commit_on_a_stale_parent_is_refused_and_changes_nothing(api: HfApi) -> None:
    old = head(api)
    new = commit(api, {"a.txt": b"a"}, parent=old).oid

    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        commit(api, {"b.txt": b"b"}, parent=old)

    assert refused.value.response.status_code == 412
    assert head(api) == new


def test_a_taken_tag_stays_where_it_is(api: HfApi) -> None:
    first = head(api)
    api.create_tag(ID, tag="v1.0.0", repo_type="dataset")
    second = commit(api, {"a.txt": b"a"}).oid

    with pytest.raises(HfHubHTTPError, match="already exists") as refused:
        api.create_tag(ID, tag="v1.0.0", revision=second, repo_type="dataset")
    api.create_tag(ID, tag="v1.0.0", revision=second, repo_type="dataset", exist_ok=True)

    assert refused.value.response.status_code == 409
    assert head(api, "v1.0.0") == first


def test_a_tag_is_moved_by_deleting_it(api: HfApi) -> None:
    api.create_tag(ID, tag="v1.0.0", repo_type="dataset")
    second = commit(api, {"a.txt": b"a"}).oid

    api.delete_tag(ID, tag="v1.0.0", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info(ID, revision="v1.0.0")
    api.create_tag(ID, tag="v1.0.0", revision=second, repo_type="dataset")

    refs = api.list_repo_refs(ID, repo_type="dataset")
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1.0.0", second)]


def test_a_branch_grows_beside_main(api: HfApi) -> None:
    first = head(api)
    api.create_branch(ID, branch="try/this", repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_branch(ID, branch="try/this", repo_type="dataset")
    commit(api, {"a.txt": b"a"}, branch="try/this")

    titles = [c.title for c in api.list_repo_commits(ID, repo_type="dataset", revision="try/this")]
    assert titles == ["some files", "initial commit"]
    assert head(api) == first
    assert {ref.name for ref in api.list_repo_refs(ID, repo_type="dataset").branches} == {
        "main",
        "try/this",
    }


def test_files_and_folders_are_deleted_in_the_commit_that_says_so(api: HfApi) -> None:
    commit(api, {"a.txt": b"a", "b.txt": b"b", "c/d.txt": b"d", "c/e/f.txt": b"f"})
    deletions = [CommitOperationDelete("a.txt"), CommitOperationDelete("c/")]

    api.create_commit(ID, deletions, commit_message="less", repo_type="dataset")

    assert api.list_repo_files(ID, repo_type="dataset") == [".gitattributes", "b.txt"]
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.create_commit(
            ID, [CommitOperationDelete("a.txt")], commit_message="less", repo_type="dataset"
        )


def test_a_commit_that_names_bytes_which_never_came_is_refused(
    hub: LoopbackHub, api: HfApi
) -> None:
    before = head(api)
    hub.faults.append(
        Fault("^/lfs/", times=2, status=200)
    )  # says yes to bytes and check, keeps none

    with pytest.raises(BadRequestError, match="was not uploaded"):
        commit(api, {"data/a.parquet": some_bytes(900)})

    assert head(api) == before


def test_a_part_that_was_garbled_on_the_way_makes_no_object(hub: LoopbackHub, api: HfApi) -> None:
    data = some_bytes(900)
    oid = hashlib.sha256(data).hexdigest()

    answer = get_session().put(f"{hub.endpoint}/lfs/{oid}", content=data[:-1] + b"?")

    assert answer.status_code == 400
    assert not [path for path in hub.folder.rglob("*") if path.name.startswith(oid)]


def test_what_is_not_there_is_told_apart(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("user/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info(ID, revision="v9.9.9")
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info(ID, revision="0" * 40)
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(ID, "none.txt", repo_type="dataset", cache_dir=tmp_path)
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(ID, "none", repo_type="dataset"))


def test_a_card_with_broken_metadata_is_refused_before_the_commit(api: HfApi) -> None:
    before = head(api)

    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        commit(api, {"README.md": b"---\nlicense: [mit\n---\n"})

    assert head(api) == before


def test_ranges_of_a_file_are_served(hub: LoopbackHub, api: HfApi) -> None:
    data = some_bytes(3000)
    sha = commit(api, {"data/a.parquet": data}).oid
    url = f"{hub.endpoint}/datasets/{ID}/resolve/main/data/a.parquet"

    def get(span: str) -> tuple[int, bytes, str | None]:
        answer = get_session().get(url, headers={"Range": f"bytes={span}"})
        return answer.status_code, answer.content, answer.headers.get("Content-Range")

    assert get("10-19") == (206, data[10:20], "bytes 10-19/3000")
    assert get("2990-4000") == (206, data[2990:], "bytes 2990-2999/3000")
    assert get("2500-") == (206, data[2500:], "bytes 2500-2999/3000")
    assert get("-7") == (206, data[-7:], "bytes 2993-2999/3000")
    assert get("3000-")[0] == 416
    whole = get_session().head(url)
    assert whole.headers["X-Repo-Commit"] == sha
    assert whole.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert whole.headers["Content-Length"] == "3000"


def test_repositories_are_there_after_a_restart(tmp_path: Path) -> None:
    with LoopbackHub(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token="any")
        api.create_repo(ID, repo_type="dataset")
        sha = commit(api, {"data/a.parquet": some_bytes(900)}).oid
        api.create_tag(ID, tag="v1.0.0", repo_type="dataset")

    with LoopbackHub(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token="any")
        assert head(api, "v1.0.0") == sha
        path = api.hf_hub_download(
            ID, "data/a.parquet", repo_type="dataset", cache_dir=tmp_path / "cache"
        )
        assert Path(path).read_bytes() == some_bytes(900)


def test_two_hubs_never_share_a_folder(hub: LoopbackHub) -> None:
    with pytest.raises(RunBusy, match="in use by process"), LoopbackHub(hub.folder):
        pass


def test_writing_needs_the_token(hub: LoopbackHub, api: HfApi) -> None:
    before = head(api)
    for token, status in ((False, 401), ("wrong", 401), (READ_TOKEN, 403)):
        stranger = HfApi(endpoint=hub.endpoint, token=token)
        with pytest.raises(HfHubHTTPError) as refused:
            commit(stranger, {"a.txt": b"a"})
        assert refused.value.response.status_code == status
        with pytest.raises(HfHubHTTPError):
            stranger.create_tag(ID, tag="v1.0.0", repo_type="dataset")
        with pytest.raises(HfHubHTTPError):
            stranger.create_repo("user/other", repo_type="dataset")

    assert head(api) == before
    assert api.list_repo_refs(ID, repo_type="dataset").tags == []
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    reader = HfApi(endpoint=hub.endpoint, token=READ_TOKEN)
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    reader.auth_check(ID, repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.auth_check(ID, repo_type="dataset", write=True)


def test_a_private_repository_is_not_there_for_strangers(hub: LoopbackHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo(ID, repo_type="dataset", private=True)
    commit(api, {"a.txt": b"a"})
    stranger = HfApi(endpoint=hub.endpoint, token=False)
    reader = HfApi(endpoint=hub.endpoint, token=READ_TOKEN)

    with pytest.raises(RepositoryNotFoundError):
        stranger.dataset_info(ID)
    with pytest.raises(RepositoryNotFoundError):
        stranger.hf_hub_download(ID, "a.txt", repo_type="dataset", cache_dir=tmp_path / "1")
    path = reader.hf_hub_download(ID, "a.txt", repo_type="dataset", cache_dir=tmp_path / "2")

    assert Path(path).read_bytes() == b"a"
    assert reader.dataset_info(ID).private is True


@pytest.mark.parametrize("path", ["../a.txt", "/a.txt", "a/../../b.txt", "a//b.txt", ".git/config"])
def test_paths_that_leave_the_repository_are_refused(
    hub: LoopbackHub, api: HfApi, path: str
) -> None:
    lines = (
        '{"key": "header", "value": {"summary": "s", "description": ""}}\n'
        f'{{"key": "file", "value": {{"path": "{path}", "content": "YQ=="}}}}\n'
    )

    answer = get_session().post(
        f"{hub.endpoint}/api/datasets/{ID}/commit/main",
        content=lines.encode(),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )

    assert answer.status_code == 400
    assert "not a path inside a repository" in answer.json()["error"]
    assert len(api.list_repo_commits(ID, repo_type="dataset")) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/lfs/..%2F..%2Fevil"),
        ("PUT", "/lfs/..%2Fevil/1"),
        ("GET", "/api/datasets/..%2F..%2Fetc/hosts"),
        ("GET", "/datasets/user/set/resolve/..%2Frepo/a.txt"),
        ("GET", "/datasets/user/set/resolve/main/..%2F..%2Frepo.json"),
    ],
)
def test_addresses_that_leave_the_folder_are_refused(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, method: str, path: str
) -> None:
    before = sorted(tmp_path.rglob("*"))

    answer = get_session().request(
        method, hub.endpoint + path, content=b"x", headers={"Authorization": f"Bearer {TOKEN}"}
    )

    assert answer.status_code in (400, 404)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_taken_port_is_named(hub: LoopbackHub, tmp_path: Path) -> None:
    other = LoopbackHub(tmp_path / "other", port=hub.port)

    with pytest.raises(BadInput, match=f"port {hub.port} cannot be served"), other:
        pass


def test_a_folder_is_uploaded_in_one_commit(api: HfApi, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "sub/notes.txt"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(name.encode())

    api.upload_folder(repo_id=ID, repo_type="dataset", folder_path=tmp_path / "files")

    assert len(api.list_repo_commits(ID, repo_type="dataset")) == 2
    assert set(api.list_repo_files(ID, repo_type="dataset")) == {
        ".gitattributes", "config.json", "model.safetensors", "sub/notes.txt",
    }  # fmt: skip
