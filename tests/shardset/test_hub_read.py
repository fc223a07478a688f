"""What is read from the Hub is one commit's release, byte for byte, or nothing."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from cgankd.shardset.errors import BadInput, CorruptShard, HubError, ReleaseError
from cgankd.shardset.hub.ids import pin_path
from cgankd.shardset.hub.read import copy_release, opened
from cgankd.shardset.release.manifest import MANIFEST, read_manifest
from cgankd.shardset.testing import tiny_facts, tiny_plan, write_tiny_release
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub
from tests.shardset.hubs import REPO, TOKEN, hub_and_client, published, tags, use_hub

ACCEPTED = "data/accepted/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two versions of a release."""
    out = tmp_path_factory.mktemp("built")
    first = write_tiny_release(out / "a").folder
    second = write_tiny_release(out / "b", "v1.1.0", plan=tiny_plan(9)).folder
    return first, second


@pytest.fixture
def hub(built, tmp_path, monkeypatch):
    """A Hub that has v1.0.0, and a client that has read nothing."""
    with hub_and_client(tmp_path, monkeypatch) as hub:
        published(built[0])
        hub.requests.clear()
        yield hub


def contents(folder):
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def committed(*operations, tag=None, message="by hand"):
    """A commit made without any of our checks, and a tag on it."""
    commit = HfApi().create_commit(
        REPO, list(operations), commit_message=message, repo_type="dataset"
    )
    if tag:
        HfApi().create_tag(REPO, tag=tag, revision=commit.oid, repo_type="dataset")
    return commit.oid


def moved(tag, commit):
    HfApi().delete_tag(REPO, tag=tag, repo_type="dataset")
    HfApi().create_tag(REPO, tag=tag, revision=commit, repo_type="dataset")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def refused(error=ReleaseError, spec=f"{REPO}@v1.0.0", **how):
    """The one line that reading is refused with."""
    with pytest.raises(error) as raised:
        opened(spec, **how)
    assert len(str(raised.value).splitlines()) == 1
    assert TOKEN not in str(raised.value)
    return str(raised.value)


def test_every_way_to_name_a_version_gives_its_files(hub, built):
    """The version, its commit, no version at all: the highest."""
    commit = tags()["v1.0.0"]
    for spec in (f"{REPO}@v1.0.0", f"{REPO}@{commit}", REPO):
        found = opened(spec)

        assert (found.repo_id, found.version, found.commit) == (REPO, "v1.0.0", commit)
        assert contents(found.folder) == contents(built[0])
        assert found.manifest == read_manifest(built[0])


def test_the_highest_version_is_by_number_and_the_older_stays(hub, built):
    """v1.1.0 is read without a version; v1.0.0 is what it was."""
    published(built[1])

    assert opened(REPO).version == "v1.1.0"
    assert contents(opened(f"{REPO}@v1.0.0").folder) == contents(built[0])
    assert contents(opened(f"{REPO}@v1.1.0").folder) == contents(built[1])


def test_a_local_folder_is_opened_without_the_hub(hub, built):
    """Verified like any other."""
    hub.stop()
    found = opened(str(built[0]))

    assert (found.folder, found.repo_id, found.commit) == (built[0], None, None)
    assert found.version == "v1.0.0"


def test_a_damaged_local_folder_is_refused(built, tmp_path):
    """Whole, or for the part that is wanted."""
    copy_release(opened(str(built[0])), tmp_path / "copy")
    flip(tmp_path / "copy" / ACCEPTED)

    assert ACCEPTED in refused(spec=str(tmp_path / "copy"))
    assert ACCEPTED in refused(spec=str(tmp_path / "copy"), only=["data/*"])
    opened(str(tmp_path / "copy"), only=["scores/*"])


def test_only_what_is_wanted_is_downloaded(hub):
    """And the manifest."""
    found = opened(REPO, only=["scores/*", "metadata/*"])

    assert set(contents(found.folder)) == {
        MANIFEST,
        "metadata/curation.json",
        "scores/train-00000-of-00001.parquet",
    }


def test_a_second_reading_downloads_nothing(hub):
    """It asks for the commit and the listing again."""
    opened(REPO)
    hub.requests.clear()
    opened(REPO)

    assert not [path for _, path in hub.requests if "/resolve/" in path]
    assert [path for _, path in hub.requests if "/revision/v1.0.0" in path]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("user/none@v1.0.0", "no such dataset"),
        (f"{REPO}@v2.0.0", "there is no version v2.0.0; it has v1.0.0"),
        (f"{REPO}@{'0' * 40}", "no such revision"),
    ],
)
def test_what_does_not_exist_is_bad_input(hub, spec, reason):
    """With what there is."""
    assert reason in refused(BadInput, spec)


def test_a_repository_without_versions_is_no_release(hub):
    """A branch is not read in its place."""
    HfApi().create_repo("user/other", repo_type="dataset")

    assert "has no version" in refused(BadInput, "user/other")


def test_nothing_is_served_from_the_cache_when_the_hub_is_down(hub):
    """Although all of it is there, verified before."""
    opened(REPO)
    hub.stop()

    for spec in (REPO, f"{REPO}@v1.0.0", f"{REPO}@{tags_before_down(hub)}"):
        assert "does not answer" in refused(HubError, spec)


def tags_before_down(hub):
    hub.start()
    commit = tags()["v1.0.0"]
    hub.stop()
    return commit


@pytest.mark.parametrize(
    ("status", "headers", "error", "reason"),
    [
        (401, {}, BadInput, "does not accept the token"),
        (403, {}, BadInput, "the token may not do this"),
        (429, {"Retry-After": "7"}, HubError, "run again in 7 s"),
        (500, {}, HubError, "failed with status 500"),
    ],
)
def test_a_hub_that_fails_is_explained(hub, status, headers, error, reason):
    """Each by what to do about it."""
    hub.faults.append(Fault("/revision/", status=status, headers=headers))

    assert reason in refused(error)


def test_a_server_that_repeats_the_token_does_not_get_it_shown(hub):
    """Nor is it in what the error came from."""
    told = {"X-Error-Message": f"token {TOKEN} is bad"}
    hub.faults.append(Fault("/refs", status=500, headers=told))
    with pytest.raises(HubError) as raised:
        opened(REPO)

    assert "token *** is bad" in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_a_moved_tag_is_refused_until_its_pin_is_removed(hub, built):
    """With both commits; the first one can still be read by its name."""
    first = opened(f"{REPO}@v1.0.0").commit
    card = CommitOperationAdd("README.md", b"other")
    moved("v1.0.0", committed(card))
    other = tags()["v1.0.0"]
    line = refused()

    assert f"moved from {first} to {other}" in line
    assert contents(opened(f"{REPO}@{first}").folder) == contents(built[0])
    pin = pin_path(hub.endpoint, REPO, "v1.0.0")
    assert str(pin) in line
    pin.unlink()
    assert "README.md" in refused()  # not because it moved, but because of what it moved to


def test_a_version_of_another_hub_is_not_one_that_moved(hub, built, tmp_path, monkeypatch):
    """The same id at another endpoint is another data set."""
    opened(REPO)
    with LoopbackHub(tmp_path / "other", token=TOKEN) as other:
        use_hub(other, tmp_path / "home", monkeypatch)
        renamed = {**tiny_facts(), "name": "renamed"}
        folder = write_tiny_release(tmp_path / "renamed", facts=renamed).folder
        published(folder)

        assert contents(opened(REPO).folder) == contents(folder)


def test_a_damaged_pin_is_named(hub):
    """It is never taken for a missing one."""
    opened(REPO)
    pin = pin_path(hub.endpoint, REPO, "v1.0.0")
    pin.write_bytes(pin.read_bytes()[:50])

    assert str(pin) in refused(CorruptShard)
    assert str(pin) in refused(CorruptShard, offline=True)


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("data/accepted/more.parquet", b"x", "more.parquet was added"),
        ("train.py", b"print()", "train.py was added"),
        (ACCEPTED, None, f"{ACCEPTED} is missing"),
        (ACCEPTED, b"x", f"{ACCEPTED} has 1 bytes"),
        (MANIFEST, None, "is not a release: it has no metadata/manifest.json"),
    ],
)
def test_another_listing_is_refused_before_any_data_is_read(hub, path, data, reason):
    """Added, missing and other files, each by name."""
    gone = data is None
    commit = committed(CommitOperationDelete(path) if gone else CommitOperationAdd(path, data))
    hub.requests.clear()

    assert reason in refused(spec=f"{REPO}@{commit}")
    assert not [path for _, path in hub.requests if "/resolve/" in path and "/data/" in path]


def test_other_bytes_of_the_same_size_are_refused_before_they_are_read(hub, built):
    """By the Hub's own hash of a large file."""
    size = (built[0] / ACCEPTED).stat().st_size
    commit = committed(CommitOperationAdd(ACCEPTED, bytes(size)))
    hub.requests.clear()

    assert f"{ACCEPTED} has another sha256" in refused(spec=f"{REPO}@{commit}")
    assert not [path for _, path in hub.requests if "/resolve/" in path and "/data/" in path]


def test_other_bytes_of_a_small_file_are_refused_when_they_are_read(hub, built):
    """Of which the Hub tells no sha256."""
    size = (built[0] / "README.md").stat().st_size
    commit = committed(CommitOperationAdd("README.md", b" " * size))

    assert "README.md has other bytes" in refused(spec=f"{REPO}@{commit}")


def test_a_tag_on_another_versions_commit_is_refused(hub):
    """The manifest says which version it is."""
    HfApi().create_tag(REPO, tag="v3.0.0", revision=tags()["v1.0.0"], repo_type="dataset")

    assert "its manifest says v1.0.0" in refused(spec=REPO)


def test_a_version_that_is_also_a_branch_is_refused(hub):
    """A branch moves, and which of the two is meant is the Hub's guess."""
    HfApi().create_branch(REPO, branch="v1.0.0", repo_type="dataset")

    assert "is a tag and a branch" in refused(spec=f"{REPO}@v1.0.0")


@pytest.mark.parametrize("name", [ACCEPTED, "README.md", MANIFEST])
@pytest.mark.parametrize("offline", [False, True])
def test_a_corrupted_cache_is_refused_and_says_what_to_remove(hub, built, name, offline):
    """A removed file is fetched again."""
    folder = opened(REPO).folder
    stored = (folder / name).resolve()
    flip(stored)
    line = refused(offline=offline)

    assert str(stored) in line
    assert name in line
    stored.unlink()
    assert contents(opened(REPO).folder) == contents(built[0])


def test_a_file_added_to_the_cached_copy_is_refused(hub):
    """A folder that is read by pattern must hold nothing else."""
    folder = opened(REPO).folder
    (folder / "data/accepted/more.parquet").write_bytes(b"x")

    assert "more.parquet was added" in refused()
    assert "more.parquet was added" in refused(offline=True)


def test_a_download_that_arrives_with_other_bytes_is_refused(hub):
    """Of the right size, so the client takes it for good."""
    hub.faults.append(Fault(f"/resolve/.*{ACCEPTED}", method="GET", corrupt=True))

    assert f"{ACCEPTED} has other bytes" in refused()
    assert not pin_path(hub.endpoint, REPO, "v1.0.0").exists()


def test_a_download_that_is_cut_short_is_completed(hub, built):
    """By the client, which asks for the rest."""
    hub.faults.append(Fault(f"/resolve/.*{ACCEPTED}", method="GET", truncate=100))

    assert contents(opened(REPO).folder) == contents(built[0])


def test_offline_reads_the_pinned_copy_and_asks_nobody(hub, built):
    """Of a version or a commit."""
    commit = opened(f"{REPO}@v1.0.0").commit
    opened(f"{REPO}@{commit}")
    hub.requests.clear()
    for revision in ("v1.0.0", commit):
        found = opened(f"{REPO}@{revision}", offline=True)

        assert (found.version, found.commit) == ("v1.0.0", commit)
        assert contents(found.folder) == contents(built[0])
    assert hub.requests == []


def test_offline_refuses_what_was_never_read_here(hub):
    """A version, one without a number, and one of which a part was read."""
    assert "never read here" in refused(BadInput, offline=True)

    opened(f"{REPO}@v1.0.0", only=["scores/*"])

    assert "needs a version; read here before: v1.0.0" in refused(BadInput, REPO, offline=True)
    assert "is not in the cache" in refused(BadInput, offline=True)
    opened(f"{REPO}@v1.0.0", only=["scores/*"], offline=True)


def test_an_environment_that_forbids_the_hub_is_named(hub, monkeypatch):
    """And what to do instead."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert "--offline" in refused(BadInput)


def test_a_copy_is_plain_files_whole_or_not_at_all(hub, built, tmp_path):
    """Nothing is left of one that failed, and nothing is overwritten."""
    found = opened(REPO)
    out = tmp_path / "copies" / "one"
    copy_release(found, out)

    assert contents(out) == contents(built[0])
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    with pytest.raises(BadInput, match="exists; give a new folder"):
        copy_release(found, out)
    flip((found.folder / ACCEPTED).resolve())
    with pytest.raises(ReleaseError, match=ACCEPTED):
        copy_release(found, tmp_path / "copies" / "two")
    assert [path.name for path in out.parent.iterdir()] == ["one"]
