"""A version is one commit and one tag, whatever is lost on the way there."""

from dataclasses import replace

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from cgankd.shardset.errors import BadInput, HubError, ReleaseError
from cgankd.shardset.hub.client import Hub
from cgankd.shardset.hub.publish import local_file, plan_publication, publish, release_files
from cgankd.shardset.hub.read import opened
from cgankd.shardset.release.manifest import read_manifest
from cgankd.shardset.testing import tiny_facts, tiny_plan, write_tiny_release
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub
from tests.shardset.hubs import (
    REPO,
    TOKEN,
    hub_and_client,
    published,
    sent,
    tags,
    titles,
    use_hub,
)

FIRST = "initial commit"  # the Hub's own


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """v1.0.0, v1.0.1 with the same data, v1.1.0 with others and without rejected images, and
    another v1.0.0.
    """
    out = tmp_path_factory.mktemp("built")
    named = {**tiny_facts(), "name": "renamed"}
    return {
        "v1.0.0": write_tiny_release(out / "a").folder,
        "v1.0.1": write_tiny_release(out / "b", "v1.0.1", facts=named).folder,
        "v1.1.0": write_tiny_release(
            out / "c", "v1.1.0", plan=tiny_plan(9), include_rejected=False
        ).folder,
        "other v1.0.0": write_tiny_release(out / "d", facts=named).folder,
    }


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hub."""
    with hub_and_client(tmp_path, monkeypatch) as hub:
        yield hub


def planned(folder, repo_id=REPO, **how):
    manifest = read_manifest(folder)
    files = release_files(folder, manifest)
    return plan_publication(Hub(), repo_id, manifest.version, files, **how)


def kinds(plan):
    """The paths of each kind of change."""
    found = {}
    for change in plan.changes:
        found.setdefault(change.kind, []).append(change.path)
    return found


def by_hand(path="notes.txt", data=b"notes", repo_id=REPO):
    """Somebody else's commit."""
    operation = CommitOperationAdd(path, data)
    HfApi().create_commit(repo_id, [operation], commit_message="by hand", repo_type="dataset")


def test_a_version_is_one_commit_with_its_tag(hub, built):
    """And what is read there is the release."""
    commit = published(built["v1.0.0"])

    assert titles() == [FIRST, "Release v1.0.0"]
    assert tags() == {"v1.0.0": commit}
    assert opened(REPO).commit == commit


def test_publishing_again_sends_nothing(hub, built):
    """Nothing at all."""
    commit = published(built["v1.0.0"])
    sent(hub)

    assert published(built["v1.0.0"]) == commit
    assert sent(hub) == []


def test_a_plan_sends_nothing_and_says_what_would_be(hub, built):
    """Paths and bytes, before there is a repository and after."""
    plan = planned(built["v1.0.0"])
    entries = read_manifest(built["v1.0.0"]).files
    manifest = built["v1.0.0"] / "metadata/manifest.json"

    assert not plan.exists
    assert sum(c.bytes for c in plan.changes) == (
        sum(entry.bytes for entry in entries) + manifest.stat().st_size
    )
    assert {change.kind for change in plan.changes} == {"added"}
    assert sent(hub) == []


def test_unchanged_files_are_not_sent_again(hub, built):
    """A version that changes the card alone uploads no data."""
    published(built["v1.0.0"])
    plan = planned(built["v1.0.1"])
    sent(hub)
    published(built["v1.0.1"])
    requests = sent(hub)

    assert kinds(plan)["replaced"] == ["README.md", "metadata/manifest.json"]
    assert "data/accepted/train-00000-of-00001.parquet" in kinds(plan)["unchanged"]
    assert not [request for request in requests if request.startswith("PUT")]
    assert opened(REPO).version == "v1.0.1"


def test_files_the_new_version_no_longer_has_are_deleted_in_its_commit(hub, built):
    """The rejected images, and what somebody put there; the older version keeps its own."""
    published(built["v1.0.0"])
    by_hand()
    plan = planned(built["v1.1.0"])
    published(built["v1.1.0"])

    gone = ["data/rejected/train-00000-of-00001.parquet", "notes.txt"]
    assert kinds(plan)["deleted"] == gone
    assert titles() == [FIRST, "Release v1.0.0", "by hand", "Release v1.1.0"]
    for version in ("v1.0.0", "v1.1.0"):
        there = HfApi().list_repo_files(REPO, repo_type="dataset", revision=version)
        paths = {
            path.relative_to(built[version]).as_posix() for path in built[version].rglob("*.*")
        }
        assert set(there) - {".gitattributes"} == paths


@pytest.mark.parametrize("lost", [{"status": 503}, {"drop": True}])
@pytest.mark.parametrize("step", ["/commit/main", "/tag/"])
def test_a_lost_answer_is_found_to_have_been_applied(hub, built, step, lost):
    """In the same run: one commit, tagged."""
    hub.faults.append(Fault(step, method="POST", after=True, **lost))
    commit = published(built["v1.0.0"])

    assert hub.faults[0].times == 0
    assert titles() == [FIRST, "Release v1.0.0"]
    assert tags() == {"v1.0.0": commit}


@pytest.mark.parametrize("lost", [{"status": 503}, {"drop": True}])
@pytest.mark.parametrize("step", ["/repos/create", "/preupload/", "/lfs/", "/commit/main", "/tag/"])
def test_a_step_that_failed_is_completed_by_running_again(hub, built, step, lost, monkeypatch):
    """The error says so; one commit is the outcome."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # of the client between its tries
    hub.faults.append(Fault(step, times=100, **lost))
    with pytest.raises(HubError, match="again") as raised:
        published(built["v1.0.0"])
    assert len(str(raised.value).splitlines()) == 1
    hub.faults.clear()

    commit = published(built["v1.0.0"])

    assert titles() == [FIRST, "Release v1.0.0"]
    assert tags() == {"v1.0.0": commit}
    assert opened(REPO).commit == commit


def test_a_stale_parent_is_explained_and_changes_nothing(hub, built):
    """Running again publishes on top of it."""
    published(built["v1.0.0"])
    client, plan = Hub(), planned(built["v1.1.0"])
    by_hand()
    with pytest.raises(HubError, match="somebody else committed there meanwhile"):
        publish(client, plan, private=False, message="stale")

    assert titles() == [FIRST, "Release v1.0.0", "by hand"]
    published(built["v1.1.0"])
    assert titles() == [FIRST, "Release v1.0.0", "by hand", "Release v1.1.0"]
    assert opened(REPO).version == "v1.1.0"


def test_a_repository_filled_since_the_plan_is_planned_again(hub, built):
    """Two first publications of different files never mix."""
    plan = planned(built["other v1.0.0"])
    commit = published(built["v1.0.0"])

    with pytest.raises(BadInput, match=f"another v1.0.0 already .commit {commit}"):
        publish(Hub(), plan, private=False, message="late")
    assert titles() == [FIRST, "Release v1.0.0"]


def test_a_taken_version_is_explained(hub, built):
    """By the commit that has it; nothing is sent."""
    commit = published(built["v1.0.0"])
    sent(hub)
    with pytest.raises(BadInput, match=f"another v1.0.0 already .commit {commit}"):
        published(built["other v1.0.0"])

    assert sent(hub) == []


def test_a_tag_taken_while_publishing_is_explained(hub, built):
    """It stays where it is."""
    published(built["v1.0.0"])
    first = tags()["v1.0.0"]

    def take():
        HfApi().create_tag(REPO, tag="v1.1.0", revision=first, repo_type="dataset")

    hub.faults.append(Fault("/commit/main", method="POST", call=take))
    with pytest.raises(BadInput, match=f"another v1.1.0 already .commit {first}"):
        published(built["v1.1.0"])
    assert tags()["v1.1.0"] == first


def test_a_version_below_the_highest_is_refused(hub, built):
    """The head of the repository is its newest version."""
    published(built["v1.1.0"])

    with pytest.raises(BadInput, match=r"has v1.1.0 already; choose a version above it"):
        published(built["v1.0.0"])


def test_a_repository_of_something_else_is_not_emptied(hub, built):
    """Its files are somebody's work."""
    HfApi().create_repo(REPO, repo_type="dataset")
    by_hand("train.csv")

    with pytest.raises(BadInput, match=r"holds other files and no release \(train.csv\)"):
        published(built["v1.0.0"])


def test_a_card_alone_does_not_stand_in_the_way(hub, built):
    """Of a repository made on the web site."""
    HfApi().create_repo(REPO, repo_type="dataset")
    by_hand("README.md")
    published(built["v1.0.0"])

    assert opened(REPO).version == "v1.0.0"


def test_private_is_made_private_and_never_found_public(hub, built):
    """Asked for on a public repository it is refused before anything is sent."""
    plan = planned(built["v1.0.0"], private=True)
    publish(Hub(), plan, private=True, message="hidden")
    published(built["v1.0.0"], "user/open")

    assert Hub().is_private(REPO, "dataset")
    planned(built["v1.1.0"], private=True)
    with pytest.raises(BadInput, match="is public already"):
        planned(built["v1.1.0"], "user/open", private=True)


def test_files_that_the_hub_left_out_are_not_tagged(hub, built):
    """What is tagged is what the listing says, not what was sent."""
    published(built["v1.0.0"])
    plan = planned(built["v1.0.1"])
    fewer = [change for change in plan.changes if change.path != "README.md"]
    lacking = replace(plan, changes=tuple(fewer))

    with pytest.raises(ReleaseError, match=r"does not hold the files of v1\.0\.1 alone"):
        publish(Hub(), lacking, private=False, message="lacking")
    assert list(tags()) == ["v1.0.0"]


def test_a_model_repository_keeps_its_other_files(hub, tmp_path):
    """And a second version of the same weights is a second tag on their commit."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_bytes(b"{}")
    files = {path.name: local_file(path) for path in tmp_path.glob("*.*")}
    api = HfApi()
    api.create_repo("user/generator")
    api.create_commit(
        "user/generator", [CommitOperationAdd("README.md", b"card")], commit_message="card"
    )
    for version in ("v1.0.0", "v1.1.0"):
        plan = plan_publication(Hub(), "user/generator", version, files, repo_type="model")
        publish(Hub(), plan, private=False, message=version)

    assert titles("user/generator", "model") == [FIRST, "card", "v1.0.0"]
    assert len(set(tags("user/generator", "model").values())) == 1
    there = set(api.list_repo_files("user/generator"))
    assert there == {".gitattributes", "README.md", "model.safetensors", "config.json"}


def test_a_token_is_asked_for_before_anything_is_sent(hub, built, monkeypatch):
    """With where to get it."""
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BadInput, match="set HF_TOKEN, or log in with `hf auth login`"):
        published(built["v1.0.0"])

    assert sent(hub) == []


def test_a_login_of_the_clients_own_is_used(hub, built, monkeypatch, tmp_path):
    """As `hf auth login` leaves it."""
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text(TOKEN)
    published(built["v1.0.0"])

    assert titles() == [FIRST, "Release v1.0.0"]


@pytest.mark.parametrize(
    ("repo_id", "token", "reason"),
    [
        (REPO, "hf_wrong", "does not accept the token"),
        (REPO, "hf_reader", "the token may only read"),
        ("other/tiny", TOKEN, "the token may write for user, not for other"),
    ],
)
def test_a_token_that_may_not_write_there_is_refused(
    built, tmp_path, monkeypatch, repo_id, token, reason
):
    """Before anything is sent."""
    with LoopbackHub(tmp_path / "hub", token=TOKEN, read_token="hf_reader") as hub:
        use_hub(hub, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(BadInput, match=reason) as raised:
            published(built["v1.0.0"], repo_id)

        assert sent(hub) == []
        assert token not in str(raised.value)


def test_a_token_that_may_only_read_an_existing_repository_is_refused(built, tmp_path, monkeypatch):
    """The Hub is asked about this very repository."""
    with LoopbackHub(tmp_path / "hub", token=TOKEN, read_token="hf_reader") as hub:
        use_hub(hub, tmp_path / "home", monkeypatch)
        published(built["v1.0.0"])
        sent(hub)
        monkeypatch.setenv("HF_TOKEN", "hf_reader")
        with pytest.raises(BadInput, match="use one that may write"):
            published(built["v1.1.0"])

        assert sent(hub) == []


def test_another_model_is_not_replaced(hub, tmp_path):
    """A repository without a version of ours that holds weights of its own."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    files = {"model.safetensors": local_file(tmp_path / "model.safetensors")}
    api = HfApi()
    api.create_repo("user/theirs")
    api.create_commit(
        "user/theirs", [CommitOperationAdd("model.safetensors", b"others")], commit_message="own"
    )

    with pytest.raises(BadInput, match=r"another model .*\(model\.safetensors\)"):
        plan_publication(Hub(), "user/theirs", "v1.0.0", files, repo_type="model")
