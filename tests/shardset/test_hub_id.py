"""A spec is a release folder or a Hub id, and never quietly the other of the two."""

import os

import pytest

from cgankd.shardset.errors import BadInput
from cgankd.shardset.hub.ids import HubId, hub_id, release_at
from cgankd.shardset.release.manifest import MANIFEST

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("spec", "repo_id", "revision"),
    [
        ("user/name", "user/name", None),
        ("user/name@v1.10.0", "user/name", "v1.10.0"),
        (f"u-1/a.b_c@{COMMIT}", "u-1/a.b_c", COMMIT),
    ],
)
def test_an_id_has_a_repository_and_perhaps_a_revision(spec, repo_id, revision):
    """Written the same way again."""
    found = hub_id(spec)

    assert found == HubId(repo_id, revision)
    assert str(found) == spec
    assert found.is_commit == (revision == COMMIT)


@pytest.mark.parametrize(
    "spec",
    ["name", "user/", "user/name@", "user/name@main", "user/name@v1", "user/name@v1.0.0 ", "-/x",
     "user/name@v1.0.0\n", "a/b/c", f"user/name@{COMMIT}0", "https://hub/user/name", ""],
)  # fmt: skip
def test_what_is_no_id_is_refused_in_one_line(spec):
    """A branch among them, since it moves."""
    with pytest.raises(BadInput) as refused:
        hub_id(spec)

    assert len(str(refused.value).splitlines()) == 1


def test_a_folder_counts_only_with_a_manifest(tmp_path, monkeypatch):
    """Also one whose path looks like an id, and then only that."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("user/name")
    with pytest.raises(BadInput, match=r"user/name exists here and holds no metadata/manifest"):
        release_at("user/name")

    (tmp_path / "user/name" / MANIFEST).parent.mkdir()
    (tmp_path / "user/name" / MANIFEST).write_text("{}")

    assert str(release_at("user/name")) == "user/name"
    assert release_at("user/name@v1.0.0") == HubId("user/name", "v1.0.0")


@pytest.mark.parametrize("spec", ["./user/name", "/user/name", "~/name", "a/b/c", "../name"])
def test_a_mistyped_path_never_becomes_an_id(spec, tmp_path, monkeypatch):
    """It is said that it does not exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(BadInput, match="does not exist"):
        release_at(spec)
