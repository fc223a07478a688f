"""Verifying finds every file that is not what the manifest says."""

import json
import os
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgankd.shardset.files import sha256_file
from cgankd.shardset.images import encode_png
from cgankd.shardset.release import manifest as manifest_module
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.testing import write_tiny_release

DATA = "data/accepted/train-00000-of-00001.parquet"
MANIFEST = "metadata/manifest.json"
HUGE_SPACE = {"task": "regression", "unit": "m", "low": 0, "high": 1, "groups": 10**12}


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


def adjusted(folder, *paths):
    """Makes the manifest agree with files that were replaced, as whoever wrote both would."""

    def adjust(manifest):
        for path in paths:
            entry = entry_of(manifest, path)
            entry["sha256"] = sha256_file(folder / path)
            entry["bytes"] = (folder / path).stat().st_size

    edit_manifest(folder, adjust)
    return verify_release(folder)


def rewritten(folder, change, path=DATA):
    """The problems of a release whose table was changed, with its note on features and hash."""
    table = pq.read_table(folder / path)
    changed = change(table)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), folder / path)
    return adjusted(folder, path)


def with_image(table, row, png):
    """The table with another picture in one row."""
    images = table["image"].to_pylist()
    images[row] = {**images[row], "bytes": png}
    return table.set_column(0, "image", pa.array(images, table.schema.field("image").type))


def test_other_rows_are_found_even_if_the_hash_was_adjusted(folder):
    """The manifest must agree with the tables and with itself."""
    (problem,) = rewritten(folder, lambda table: table.slice(1))
    assert problem.startswith(f"{DATA}: has 20 rows, the manifest says 21")

    edit_manifest(folder, lambda manifest: entry_of(manifest, DATA).update(rows=20))
    problems = verify_release(folder)
    assert problems[0].startswith("data/accepted: its files have 20 rows, the manifest counts 21")
    assert problems[1].startswith("data/accepted: its keys are not those that scores says are kept")

    (folder / DATA).write_bytes(b"not Parquet")
    assert f"{DATA}: not Parquet, the manifest says 20 rows" in adjusted(folder, DATA)


def test_other_labels_than_counted_are_found(folder):
    """Counts are by label, so labels cannot be exchanged."""

    def exchanged(table):
        labels = pa.array([0] * len(table), pa.int64())
        return table.set_column(table.column_names.index("label"), "label", labels)

    problems = rewritten(folder, exchanged)
    assert problems[0] == "data/accepted: its labels are not those that the manifest counts"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.append_column("payload", pa.array([b"x"] * len(t))), "payload"),
        (lambda t: t.drop_columns(["reason"]), "reason"),
        (lambda t: t.set_column(4, "key", t["key"].cast(pa.int32())), "key"),
        (lambda t: t.rename_columns(["image", "target", *t.column_names[2:]]), "label, target"),
    ],
)
def test_a_table_with_other_columns_is_refused(folder, change, named):
    """Neither more nor fewer, nor of another type, than the label space says."""
    assert rewritten(folder, change) == [f"{DATA}: other columns than a release has: {named}"]


def test_text_that_is_not_utf_8_is_refused(folder):
    """Parquet does not look at it."""

    def change(table):
        place = table.column_names.index("pixel_sha256")
        offsets, data = np.arange(len(table) + 1, dtype=np.int32), b"\xff" * len(table)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        text = pa.Array.from_buffers(pa.string(), len(table), buffers)
        return table.set_column(place, "pixel_sha256", text)

    assert rewritten(folder, change) == [f"{DATA}: not Parquet, the manifest says 21 rows"]


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("key", None, "key is missing in 1 rows"),
        ("label", None, "label is missing in 1 rows"),
        ("key", 10**9, "its keys are not numbers of nine digits, each once"),
        ("key", -1, "its keys are not numbers of nine digits, each once"),
        ("key", 3, "its keys are not numbers of nine digits, each once"),
    ],
)
def test_a_row_without_label_or_key_is_refused(folder, column, value, named):
    """Keys are names of files and places in arrays."""

    def change(table):
        place = table.column_names.index(column)
        values = [*table[column].to_pylist()[:-1], value]
        return table.set_column(place, column, pa.array(values, pa.int64()))

    assert rewritten(folder, change) == [f"{DATA}: {named}"]


def test_a_table_that_tells_datasets_of_other_features_is_refused(folder):
    """`datasets` believes the note in the file: class names could be exchanged there."""
    table = pq.read_table(folder / DATA)
    note = table.schema.metadata[b"huggingface"].replace(b"class 0", b"class 1", 1)
    pq.write_table(table.replace_schema_metadata({b"huggingface": note}), folder / DATA)

    (problem,) = adjusted(folder, DATA)
    assert problem == f"{DATA}: its note on features, or the order of columns, is another"


def huge_png(side):
    """A PNG of 8 × 8 px whose header promises more."""
    png = encode_png(np.zeros((1, 8, 8), np.uint8))
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize(
    ("png", "reason"),
    [
        (huge_png(100_000), "is 100000×100000 px, expected at most 4096×4096"),
        (huge_png(16), "does not decode"),
        (b"\x80\x04pickle", "is not a PNG"),
        (encode_png(np.zeros((1, 8, 8), np.uint8))[:-20], "is a truncated PNG"),
        (encode_png(np.zeros((1, 9, 9), np.uint8)), "is (1, 9, 9), others are (1, 8, 8)"),
        (encode_png(np.zeros((1, 8, 8), np.uint8)), "has other pixels than its row says"),
    ],
)
def test_a_picture_that_is_huge_malformed_or_another_is_refused(folder, png, reason):
    """Before it is decoded, where its header tells."""
    (problem,) = rewritten(folder, lambda table: with_image(table, 3, png))

    assert problem.startswith(f"{DATA}: the picture of key ")
    assert reason in problem


def test_a_picture_of_another_name_is_refused(folder):
    """The name says which key it is; nothing may be written by it elsewhere."""

    def renamed(table):
        images = [{**row, "path": "../../x.png"} for row in table["image"].to_pylist()]
        return table.set_column(0, "image", pa.array(images, table.schema.field("image").type))

    (problem,) = rewritten(folder, renamed)
    assert problem.endswith("has a picture named '../../x.png'")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("data/accepted/train-*.parquet", "https://example.org/*.parquet", "configs"),
        ("config_name: curated\n", "config_name: other\n", "configs"),
        ("- config_name: pool\n", "- config_name: pool\n  trust: yes\n", "configs"),
        ("num_examples: 21", "num_examples: 20", "dataset_info"),
        ("'0': class 0", "'0': class 9", "dataset_info"),
    ],
)
def test_a_card_that_claims_other_files_or_columns_is_refused(folder, old, new, named):
    """`datasets` reads what the card says."""
    card = folder / "README.md"
    card.write_text(card.read_text().replace(old, new, 1))

    problems = adjusted(folder, "README.md")
    assert f"README.md: its {named} are not those of the files of this release" in problems


@pytest.mark.parametrize(
    "text",
    [
        "# no head",
        "---\n- a\n---\n",
        "---\n!!python/name:os\n---\n",
        "---\na: !!bool foo\n---\n",
        "---\na: !!int ''\n---\n",
        "---\na: !!timestamp foo\n---\n",
    ],
)
def test_a_card_without_a_head_is_refused(folder, text):
    """It is read as plain YAML."""
    (folder / "README.md").write_text(text)

    assert adjusted(folder, "README.md") == [
        "README.md: has no head of YAML between two lines of ---"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/etc/hostname",
        "data/../README.md",
        "./README.md",
        "metadata/manifest.json",
        "metadata/weights.pkl",
        "data/accepted/train-00000-of-00001.parquet.pickle",
        "loader.py",
    ],
)
def test_a_manifest_names_files_of_a_release_alone(folder, path):
    """Whatever else it names is neither opened nor believed: above all nothing outside."""
    edit_manifest(folder, lambda manifest: entry_of(manifest, "README.md").update(path=path))

    (problem,) = verify_release(folder)
    assert "is not a manifest of format 1 or 2 (files." in problem
    assert f"{path!r} is not the name of a file that a release holds" in problem


def test_a_manifest_lists_a_file_once(folder):
    """Otherwise one of two entries could be a lie."""
    edit_manifest(folder, lambda m: m["files"].append(entry_of(m, "README.md")))

    (problem,) = verify_release(folder)
    assert "README.md is listed twice" in problem


def test_a_huge_manifest_is_not_read(folder, monkeypatch):
    """Its size is looked at first."""
    monkeypatch.setattr(manifest_module, "MAX_BYTES", 100)

    (problem,) = verify_release(folder)
    assert "expected at most 100: not read" in problem


@pytest.mark.parametrize(
    "name", [DATA, "README.md", MANIFEST, ".gitattributes", "data", "metadata"]
)
def test_links_are_refused(folder, tmp_path, name):
    """Also those that lead to the very same bytes."""
    outside = tmp_path / "outside"
    if name == ".gitattributes":
        outside.touch()
    else:
        (folder / name).rename(outside)
    (folder / name).symlink_to(outside)

    problems = verify_release(folder)
    assert problems
    assert "is a link" in problems[0]


@pytest.mark.parametrize("name", ["model.pkl", "data/x.pt", "tool.py", ".huggingface.yaml"])
def test_unlisted_files_of_any_kind_are_found(folder, name):
    """Pickles and scripts cannot be listed, so they are always among these."""
    (folder / name).write_bytes(b"\x80\x04.")

    assert verify_release(folder) == [f"{name}: not in the manifest, it was added"]


def test_a_pool_of_another_generator_is_found(folder):
    """The pool's name is a hash of generator, seed and plan version."""
    production = {
        "batch": 4,
        "threads": 1,
        "precision": "float32",
        "device": "cpu",
        "plan_version": 1,
        "shard_size": 10,
        "rounds": [24],
    }
    edit_manifest(folder, lambda m: m["lineage"].update(production=production))
    assert verify_release(folder) == []

    edit_manifest(folder, lambda m: m["lineage"]["weights"].update(generator="3" * 64))
    (problem,) = verify_release(folder)
    assert "is not of the generator, seed and plan it names" in problem

    edit_manifest(folder, lambda m: m["lineage"]["production"].update(batch="4"))
    (problem,) = verify_release(folder)
    assert "production.batch: Input should be a valid integer" in problem


def test_curation_that_counts_otherwise_is_found(folder):
    """What was kept is counted in four places, and all agree."""
    path = folder / "metadata/curation.json"
    told = json.loads(path.read_text())
    told["labels"]["class 0"]["kept"] += 1
    path.write_text(json.dumps(told))
    assert adjusted(folder, "metadata/curation.json") == [
        "metadata/curation.json: counts 22 kept images, there are 21"
    ]
    path.write_text("[]")
    assert adjusted(folder, "metadata/curation.json") == [
        "metadata/curation.json: is not what a release says of its curation"
    ]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda m: m.update(format_version=3), "format_version"),
        (lambda m: m.update(version="1.0"), "version"),
        (lambda m: m.pop("files"), "files"),
        (lambda m: m["files"][0].update(bytes="3"), "files.0.bytes"),
        (lambda m: m["files"][0].update(rows=3), "the file"),
        (lambda m: m.update(layout="webdataset"), "the file"),
        (lambda m: m.update(space=HUGE_SPACE), "space.regression.groups"),
    ],
)
def test_a_manifest_of_another_form_is_refused(folder, change, place):
    """A newer format is not half understood."""
    edit_manifest(folder, change)

    (problem,) = verify_release(folder)
    assert f"is not a manifest of format 1 or 2 ({place}: " in problem


def test_a_cut_or_missing_manifest_is_found(folder):
    """Nothing can be said without it."""
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-10])
    (problem,) = verify_release(folder)
    assert "is not a manifest of format 1 or 2 (the file: " in problem
    (folder / MANIFEST).unlink()
    assert [f"{folder} is not a release: {MANIFEST} is missing"] == verify_release(folder)
