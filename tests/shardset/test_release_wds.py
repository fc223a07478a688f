"""The tar copy of a release: the same images for readers of WebDataset."""

import gc
import io
import json
import tarfile
import warnings

import numpy as np
import pytest
import webdataset
from datasets import ClassLabel, load_dataset
from PIL import Image

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import sha256_file
from cgankd.shardset.release import exports as release_wds
from cgankd.shardset.release.exports import build_wds
from cgankd.shardset.release.manifest import MANIFEST, read_manifest
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.tables import read_table
from cgankd.shardset.testing import tiny_continuous_plan, write_tiny_release

ACCEPTED = "data/accepted/train-00000-of-00001.parquet"
TAR = "data/train-000000.tar"


@pytest.fixture(params=[None, tiny_continuous_plan()], ids=["classes", "numbers"])
def built(request, tmp_path):
    return write_tiny_release(tmp_path, plan=request.param)


def rows_of(release):
    columns = ["image", "label", "original_label", "condition", "key", "pixel_sha256"]
    return read_table(release / ACCEPTED, columns).to_pylist()


def samples_of(path):
    """What plain webdataset reads."""
    with warnings.catch_warnings():  # it leaves closing its files to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        samples = list(webdataset.WebDataset(path, shardshuffle=False))
        gc.collect()
    return samples


def test_plain_webdataset_reads_the_accepted_samples(built):
    """In the release's order, PNG bytes as they are in Parquet, labels as class or JSON."""
    copy = build_wds(built.folder)
    rows = rows_of(built.folder)
    classes = isinstance(rows[0]["label"], int)
    path = str(copy.folder / "data" / "train-{000000..000000}.tar")
    samples = samples_of(path)

    assert copy.folder.name == "v1.0.0-wds"
    assert len(samples) == len(rows) == copy.accepted
    for sample, row in zip(samples, rows, strict=True):
        assert sample["__key__"].endswith(f"{row['key']:09d}")
        assert sample["png"] == row["image"]["bytes"]
        facts = json.loads(sample["json"])
        assert {name: facts[name] for name in ("label", "condition", "pixel_sha256")} == {
            name: row[name] for name in ("label", "condition", "pixel_sha256")
        }
        assert ("cls" in sample) == classes
        if classes:
            assert int(sample["cls"]) == row["label"]


def test_plain_load_dataset_reads_it_with_and_without_its_card(built, tmp_path):
    """By `webdataset` and data files, or by folder, where the card names the classes."""
    copy = build_wds(built.folder)
    rows = rows_of(built.folder)
    plain = load_dataset(
        "webdataset", data_files=str(copy.folder / "data/*.tar"), cache_dir=str(tmp_path / "a")
    )["train"]
    named = load_dataset(str(copy.folder), cache_dir=str(tmp_path / "b"))["train"]

    for loaded in (plain, named):
        assert [facts["label"] for facts in loaded["json"]] == [row["label"] for row in rows]
        with Image.open(io.BytesIO(rows[0]["image"]["bytes"])) as picture:
            assert np.array_equal(np.asarray(loaded[0]["png"]), np.asarray(picture))
    if isinstance(rows[0]["label"], int):
        assert named.features["cls"] == ClassLabel(names=["class 0", "class 1", "class 2"])


def test_the_same_release_gives_the_same_tars(built, tmp_path):
    """Bytes depend on nothing else; no time is in them."""
    copy = build_wds(built.folder)
    before = {p.name: p.read_bytes() for p in copy.folder.rglob("*.*")}
    copy.folder.rename(tmp_path / "elsewhere")
    again = build_wds(built.folder)

    assert before == {p.name: p.read_bytes() for p in again.folder.rglob("*.*")}
    with tarfile.open(again.folder / TAR) as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in tar} == {(0, 0, 0, 0o644)}


def test_large_sets_are_cut_into_numbered_tars(tmp_path, monkeypatch):
    """Whole samples, none lost, each tar with its count and hash."""
    monkeypatch.setattr(release_wds, "TAR_BYTES", 20_000)
    built = write_tiny_release(tmp_path)
    copy = build_wds(built.folder)
    tars = sorted(path.name for path in (copy.folder / "data").iterdir())
    entries = [e for e in read_manifest(copy.folder).files if e.path.endswith(".tar")]

    assert tars == [f"train-{n:06d}.tar" for n in range(len(tars))]
    assert len(tars) > 2
    path = str(copy.folder / "data" / f"train-{{000000..{len(tars) - 1:06d}}}.tar")
    samples = samples_of(path)
    keys = [int(sample["__key__"][-9:]) for sample in samples]
    assert keys == [row["key"] for row in rows_of(built.folder)]
    assert sum(entry.rows for entry in entries) == built.accepted
    assert all(sha256_file(copy.folder / entry.path) == entry.sha256 for entry in entries)
    assert f"{{000000..{len(tars) - 1:06d}}}" in (copy.folder / "README.md").read_text()


def test_the_copy_names_its_release_and_verifies(built):
    """By the hash of the release's manifest."""
    copy = build_wds(built.folder)
    manifest = read_manifest(copy.folder)
    digest = sha256_file(built.folder / MANIFEST)

    assert verify_release(copy.folder) == []
    assert (manifest.layout, manifest.version) == ("webdataset", "v1.0.0")
    assert manifest.lineage.parquet_manifest_sha256 == digest
    assert digest in (copy.folder / "README.md").read_text()


def test_a_damaged_release_is_not_copied(tmp_path):
    """And a copy is not written over."""
    built = write_tiny_release(tmp_path)
    whole = (built.folder / ACCEPTED).read_bytes()
    (built.folder / ACCEPTED).write_bytes(whole[:-1])
    with pytest.raises(ReleaseError, match="is not as its manifest says; no copy was made"):
        build_wds(built.folder)
    assert not (tmp_path / "v1.0.0-wds").exists()

    (built.folder / ACCEPTED).write_bytes(whole)
    build_wds(built.folder)
    with pytest.raises(BadInput, match=r"v1\.0\.0-wds exists"):
        build_wds(built.folder)


def member(name, data=b"x", type_=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), type_, link
    return info, data


def hostile_tar(path, members, where=0):
    """Writes a tar's own members again with others among them."""
    with tarfile.open(path) as tar:
        own = [(info, tar.extractfile(info).read()) for info in tar]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in own[:where] + members + own[where:]:
            tar.addfile(info, io.BytesIO(data if info.isreg() else b""))


@pytest.mark.parametrize(
    "members",
    [
        [member("../../outside.png")],
        [member("/etc/passwd.png")],
        [member("000000000.pkl")],
        [member("000000000.pyd")],
        [member("000000000.png", b"", tarfile.SYMTYPE, "/etc/passwd")],
        [member("000000000.png", b"", tarfile.LNKTYPE, "/etc/passwd")],
        [member("data", b"", tarfile.DIRTYPE)],
        [member("000000000.json")],
        [member("999999999.png")],
        [member("000000000.png")],
        [member("000000000.png", b"\x89PNG\r\n\x1a\n" + bytes(100))],
    ],
)
def test_a_hostile_member_is_found(tmp_path, members):
    """By whoever also wrote the manifest, so that every hash is right."""
    copy = build_wds(write_tiny_release(tmp_path).folder).folder
    hostile_tar(copy / TAR, members)
    manifest = json.loads((copy / MANIFEST).read_text())
    entry = next(e for e in manifest["files"] if e["path"] == TAR)
    entry.update(sha256=sha256_file(copy / TAR), bytes=(copy / TAR).stat().st_size)
    (copy / MANIFEST).write_text(json.dumps(manifest))

    (problem,) = verify_release(copy)
    assert problem.startswith(f"{TAR}: member {members[0][0].name!r} ") or "out of order" in problem


def test_a_member_whose_header_is_malformed_is_found(tmp_path):
    """Sparse files are a form of their own, with numbers that Python's reader takes on trust."""
    copy = build_wds(write_tiny_release(tmp_path).folder).folder
    info = tarfile.TarInfo("000000000.png")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}
    info.size = 512
    with tarfile.open(copy / TAR, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"no number\n".ljust(512, b"x")))
    manifest = json.loads((copy / MANIFEST).read_text())
    entry = next(e for e in manifest["files"] if e["path"] == TAR)
    entry.update(sha256=sha256_file(copy / TAR), bytes=(copy / TAR).stat().st_size)
    (copy / MANIFEST).write_text(json.dumps(manifest))

    assert verify_release(copy) == [f"{TAR}: not a tar, or a cut one"]


def test_a_card_of_the_copy_that_claims_other_files_is_found(tmp_path):
    """Its configuration is fixed."""
    copy = build_wds(write_tiny_release(tmp_path).folder).folder
    card = copy / "README.md"
    card.write_text(card.read_text().replace("data/train-*.tar", "hf://other/*.tar", 1))
    manifest = json.loads((copy / MANIFEST).read_text())
    entry = next(e for e in manifest["files"] if e["path"] == "README.md")
    entry.update(sha256=sha256_file(card), bytes=card.stat().st_size)
    (copy / MANIFEST).write_text(json.dumps(manifest))

    assert verify_release(copy) == [
        "README.md: its configs are not those of the files of this release"
    ]


def test_a_cut_tar_is_found(tmp_path):
    """Every reader opens it without an error; its size and hash tell."""
    copy = build_wds(write_tiny_release(tmp_path).folder).folder
    (copy / TAR).write_bytes((copy / TAR).read_bytes()[: 512 * 6])

    (problem,) = verify_release(copy)
    assert problem.startswith(f"{TAR}: cut to 3072 bytes")
