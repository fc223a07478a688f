"""Verifying finds every file that is not what the manifest says."""

import json
import os

import pyarrow as pa
import pytest

from shardset.files import sha256_file
from shardset.tables import write_table
from shardset.testing import write_tiny_release
from shardset.verify import verify_release

DATA = "data/accepted/train-00000-of-00001.parquet"
MANIFEST = "metadata/manifest.json"


@pytest.fixture
def folder(tmp_path):
    return write_tiny_release(tmp_path).folder


def edit_manifest(folder, change):
    """Rewrites the manifest as an attacker or a bug might."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def entry_of(manifest, path):
    return next(entry for entry in manifest["files"] if entry["path"] == path)


def test_an_untouched_release_has_no_problems(folder):
    """Also with the file that the Hub adds to every repository."""
    assert verify_release(folder) == []
    (folder / ".gitattributes").write_text("*.parquet filter=lfs")
    assert verify_release(folder) == []


def test_a_changed_byte_is_found_in_every_file(folder):
    """Of the same length, so that only the hash can tell."""
    for path in sorted(path for path in folder.rglob("*.*") if path.name != "manifest.json"):
        whole = path.read_bytes()
        path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
        name = path.relative_to(folder).as_posix()
        assert [f"{name}: changed, its sha256 is not the manifest's"] == verify_release(folder)
        path.write_bytes(whole)


@pytest.mark.parametrize("left", [0, 4, 1000, -1])
def test_a_cut_file_is_found(folder, left):
    """At any place."""
    path = folder / DATA
    whole = path.read_bytes()
    path.write_bytes(whole[:left])

    assert [f"{DATA}: cut to {len(whole[:left])} bytes, the manifest says {len(whole)}"] == (
        verify_release(folder)
    )


def test_grown_missing_and_added_files_are_found_at_once(folder):
    """One line for each problem, all of them."""
    (folder / "README.md").write_bytes((folder / "README.md").read_bytes() + b" ")
    (folder / DATA).unlink()
    (folder / "data" / "accepted" / "train-00001-of-00001.parquet").touch()
    (folder / "extra.py").touch()
    os.symlink("/", folder / "data" / "root")

    problems = [line.split(" ")[:2] for line in verify_release(folder)]
    assert [
        ["README.md:", "grown"],
        [f"{DATA}:", "missing"],
        ["data/accepted/train-00001-of-00001.parquet:", "not"],
        ["data/root:", "not"],
        ["extra.py:", "not"],
    ] == problems


def test_other_rows_are_found_even_if_the_hash_was_adjusted(folder):
    """The manifest must agree with the tables and with itself."""
    write_table(folder / DATA, pa.table({"x": [1]}))

    def adjust(manifest):
        entry = entry_of(manifest, DATA)
        entry["sha256"] = sha256_file(folder / DATA)
        entry["bytes"] = (folder / DATA).stat().st_size

    edit_manifest(folder, adjust)
    (problem,) = verify_release(folder)
    assert problem.startswith(f"{DATA}: has 1 rows, the manifest says")

    edit_manifest(folder, lambda manifest: entry_of(manifest, DATA).update(rows=1))
    (problem,) = verify_release(folder)
    assert problem.startswith("data/accepted: its files have 1 rows, the manifest counts")

    (folder / DATA).write_bytes(b"not Parquet")
    edit_manifest(folder, adjust)
    assert f"{DATA}: not Parquet, the manifest says 1 rows" in verify_release(folder)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/hostname", "data/../README.md", "./README.md"]
)
def test_a_manifest_cannot_point_outside(folder, path):
    """Such a path is neither opened nor taken for a file of the release."""
    edit_manifest(folder, lambda manifest: entry_of(manifest, "README.md").update(path=path))

    assert [
        f"{path}: the manifest points outside the release",
        "README.md: not in the manifest, it was added",
    ] == verify_release(folder)


def test_a_manifest_lists_a_file_once_and_not_itself(folder):
    """Otherwise one of two entries could be a lie."""
    edit_manifest(folder, lambda m: m["files"].append(entry_of(m, "README.md")))
    assert verify_release(folder) == ["README.md: the manifest lists it twice or must not list it"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda m: m.update(format_version=2), "format_version"),
        (lambda m: m.update(version="1.0"), "version"),
        (lambda m: m.pop("files"), "files"),
        (lambda m: m["files"][0].update(bytes="3"), "files.0.bytes"),
    ],
)
def test_a_manifest_of_another_form_is_refused(folder, change, place):
    """A newer format is not half understood."""
    edit_manifest(folder, change)

    (problem,) = verify_release(folder)
    assert f"is not a manifest of format 1 ({place}: " in problem


def test_a_cut_or_missing_manifest_is_found(folder):
    """Nothing can be said without it."""
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-10])
    (problem,) = verify_release(folder)
    assert "is not a manifest of format 1 (the file: " in problem
    (folder / MANIFEST).unlink()
    assert [f"{folder} is not a release: {MANIFEST} is missing"] == verify_release(folder)
