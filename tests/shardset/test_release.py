"""A release is what any trainer can load, whole, and the same bytes from the same run."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from cgankd.shardset.errors import BadInput, CorruptShard, ReleaseError, RunBusy
from cgankd.shardset.files import read_json, sha256_file
from cgankd.shardset.images import encode_png, pixel_sha256
from cgankd.shardset.pool.shards import PoolShardWriter
from cgankd.shardset.release import build as release
from cgankd.shardset.release import tables as release_tables
from cgankd.shardset.release.build import Sources, build_release, release_facts, whole_folder
from cgankd.shardset.release.manifest import read_manifest, salted_hashes, write_pool_manifest
from cgankd.shardset.tables import read_numbered, read_table, write_table
from cgankd.shardset.testing import (
    described,
    tiny_facts,
    tiny_pixels,
    tiny_plan,
    tiny_space,
    write_tiny_pool,
    write_tiny_release,
    write_tiny_scores,
    write_tiny_selection,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_tiny_release(tmp_path_factory.mktemp("release"))


def rebuilt(out, version="v1.0.1", **changes):
    """A release of the run that `write_tiny_release` left in `out`."""
    run = out / "run"
    space, lineage = described(changes.pop("facts", tiny_facts()))
    given = {
        "pool": run / "pool",
        "scores": run / "scores",
        "selection": run / "selections" / "cgan-kd.parquet",
        "space": space,
        "lineage": lineage,
        "include_rejected": True,
        **changes,
    }
    return build_release(out, version, Sources(**given))


def load(folder, cache, config=None):
    from datasets import load_dataset

    return load_dataset(str(folder), config, cache_dir=str(cache))["train"]


def test_plain_load_dataset_gives_images_and_named_classes(built, tmp_path):
    """What a trainer expects of a data set, with nothing of ours installed."""
    from datasets import ClassLabel

    train = load(built.folder, tmp_path)

    assert train.column_names[:2] == ["image", "label"]
    assert ClassLabel(names=list(tiny_space().names)) == train.features["label"]
    assert built.accepted == len(train)
    plan = tiny_plan()
    for row in train:
        expected = tiny_pixels(plan, row["key"], row["original_label"])[0]
        assert np.array_equal(expected, np.asarray(row["image"]))


def test_pool_and_scores_are_configurations(built, tmp_path):
    """The rejected are there with their reason, and every score without an image."""
    pool = load(built.folder, tmp_path, "pool")
    scores = load(built.folder, tmp_path, "scores")

    assert 24 == len(pool) == len(scores) == built.accepted + built.rejected
    assert set(pool["reason"][built.accepted :]) == {"teacher"}
    assert "image" not in scores.features
    assert [reason is None for reason in scores["reason"]] == scores["kept"][:]
    logits = np.asarray(scores["teacher_logits"])
    assert list(logits.argmax(axis=1)) == list(scores["teacher_label"])


def test_png_bytes_pass_through_undecoded(built):
    """The bytes in Parquet are those of the tar."""
    table = read_table(built.folder / "data/accepted/train-00000-of-00001.parquet")
    plan = tiny_plan()

    for row in table.select(["image", "key", "label", "pixel_sha256"]).to_pylist():
        pixels = tiny_pixels(plan, row["key"], row["label"])
        assert encode_png(pixels) == row["image"]["bytes"]
        assert f"{row['key']:09d}.png" == row["image"]["path"]
        assert pixel_sha256(pixels) == row["pixel_sha256"]


def test_the_same_run_gives_the_same_release_anywhere(built, tmp_path):
    """Every byte, and so the hash of the manifest."""
    again = write_tiny_release(tmp_path)

    assert replace(built, folder=tmp_path / "v1.0.0") == again
    for path in built.folder.rglob("*.*"):
        twin = again.folder / path.relative_to(built.folder)
        assert path.read_bytes() == twin.read_bytes()


def test_the_layout_is_the_published_one(built):
    """These files and no others."""
    files = {path.relative_to(built.folder).as_posix() for path in built.folder.rglob("*.*")}

    assert {
        "README.md",
        "data/accepted/train-00000-of-00001.parquet",
        "data/rejected/train-00000-of-00001.parquet",
        "scores/train-00000-of-00001.parquet",
        "assets/samples.png",
        "metadata/manifest.json",
        "metadata/curation.json",
    } == files


def test_the_manifest_has_every_file_and_the_lineage(built):
    """Hash, bytes and rows of each; counts for each label; facts as they were given."""
    manifest = read_manifest(built.folder)
    files = {entry.path: entry for entry in manifest.files}

    assert len(files) == 6
    for path, entry in files.items():
        assert sha256_file(built.folder / path) == entry.sha256
        assert (built.folder / path).stat().st_size == entry.bytes
    accepted = read_table(built.folder / "data/accepted/train-00000-of-00001.parquet")
    assert len(accepted) == files["data/accepted/train-00000-of-00001.parquet"].rows
    assert np.bincount(accepted["label"]).tolist() == list(manifest.accepted)
    assert tiny_plan().pool_id == manifest.pool_id
    assert tiny_space() == manifest.space
    assert described(tiny_facts())[1] == manifest.lineage
    assert built == release_facts(built.folder)


def test_curation_counts_every_drop(built):
    """The policy as fitted, and for each label where its samples went."""
    curation = read_json(built.folder / "metadata/curation.json")

    assert curation["policy"] == {"filter": "agreement"}
    for row in curation["labels"].values():
        assert 8 == row["produced"] == row["kept"] + sum(row["dropped"].values())


def test_the_card_has_a_head_the_hub_understands(built):
    """YAML with configurations and counts, then text in which the facts appear."""
    _, head, body = (built.folder / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(head)

    assert [c["config_name"] for c in fields["configs"]] == ["curated", "pool", "scores"]
    assert [c.get("default") for c in fields["configs"]] == [True, None, None]
    counts = [i["splits"][0]["num_examples"] for i in fields["dataset_info"]]
    assert [built.accepted, 24, 24] == counts
    assert fields["license"] == "cc0-1.0"
    assert f"# tiny v1.0.0\n\n{built.accepted} generated images with labels of 3 classes" in body
    assert "1" * 64 in body
    assert "not used: mean ratio 0.2, expected 1." in body
    assert "None" not in body


def test_names_from_outside_cannot_break_the_card(tmp_path):
    """Class names come from folders and may hold anything."""
    facts = tiny_facts()
    facts["space"]["names"] = ["a|b", "<script>alert(1)</script>", "x\n# y `z`"]
    facts["name"] = "evil: --- [x](y)"
    built = write_tiny_release(tmp_path, facts=facts)

    card = (built.folder / "README.md").read_text()
    head, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert "a\\|b" in text
    assert "<script>" not in text
    assert "\n# y" not in text
    assert facts["name"] == yaml.safe_load(head)["pretty_name"]
    names = load(built.folder, tmp_path / "cache").features["label"].names
    assert facts["space"]["names"] == names


def test_without_rejected_images_the_pool_configuration_is_gone(tmp_path):
    """Their scores stay."""
    built = write_tiny_release(tmp_path, include_rejected=False)

    assert built.rejected == 0
    assert not (built.folder / "data/rejected").exists()
    head = yaml.safe_load((built.folder / "README.md").read_text().split("---\n", 2)[1])
    assert [config["config_name"] for config in head["configs"]] == ["curated", "scores"]
    assert len(load(built.folder, tmp_path / "cache", "scores")) == 24


def test_a_minimum_of_facts_is_enough(tmp_path):
    """Only the label space must be known; the object will do."""
    built = write_tiny_release(tmp_path, facts={"space": tiny_space()})

    assert "# pool " in (built.folder / "README.md").read_text()


def test_labels_are_mixed_and_lie_the_same_everywhere(tmp_path):
    """A pool lies label by label; the order is that of SplitMix64's mixing of the keys."""
    built = write_tiny_release(tmp_path, plan=tiny_plan(200))
    rows = read_table(built.folder / "data/accepted/train-00000-of-00001.parquet")

    def mixed(key, mask=2**64 - 1):
        value = key * 0x9E3779B97F4A7C15 & mask
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
        return value ^ value >> 31

    keys = rows["key"].to_pylist()
    assert keys == sorted(keys, key=mixed)
    labels = rows["label"].to_numpy()
    assert len(set(labels[:10])) == 3
    pages = np.array_split(labels, 4)
    assert max(abs(page.mean() - labels.mean()) for page in pages) < 0.2


def test_large_sets_are_cut_into_files_and_row_groups(tmp_path, monkeypatch):
    """Names say how many files there are; no row is lost."""
    monkeypatch.setattr(release_tables, "FILE_BYTES", 2_000)
    monkeypatch.setattr(release_tables, "GROUP_BYTES", 600)
    built = write_tiny_release(tmp_path)

    paths = sorted((built.folder / "data/accepted").iterdir())
    assert len(paths) > 2
    assert [f"train-{n:05d}-of-{len(paths):05d}.parquet" for n in range(len(paths))] == [
        path.name for path in paths
    ]
    assert pq.read_metadata(paths[0]).num_row_groups > 1
    keys = [key for path in paths for key in read_table(path, ["key"])["key"].to_pylist()]
    chosen = read_table(tmp_path / "run/selections/cgan-kd.parquet")
    assert sorted(keys) == chosen.filter(chosen["kept"])["key"].to_pylist()
    assert built.accepted == len(keys)
    assert keys == list(load(built.folder, tmp_path / "cache")["key"])


def test_replaced_labels_are_the_labels_and_the_asked_ones_remain(tmp_path):
    """A policy may take the teacher's class."""
    write_tiny_release(tmp_path)
    path = tmp_path / "run/selections/cgan-kd.parquet"
    chosen = read_table(path)
    teacher = read_numbered(tmp_path / "run/scores")["teacher_label"]
    columns = {"key": chosen["key"], "kept": [True] * 24, "reason": pa.nulls(24, pa.string())}
    write_table(path, pa.table({**columns, "label": teacher}))
    built = rebuilt(tmp_path)

    rows = read_table(built.folder / "data/accepted/train-00000-of-00001.parquet").sort_by("key")
    assert teacher.to_pylist() == rows["label"].to_pylist()
    assert chosen["label"].to_pylist() == rows["original_label"].to_pylist()
    assert tuple(np.bincount(teacher)) == read_manifest(built.folder).accepted


def test_a_failed_sample_is_rejected_without_an_image(tmp_path):
    """It is counted; it cannot be kept."""
    plan = tiny_plan(2, 2)
    with PoolShardWriter(tmp_path / "run/pool", 0, "f") as writer:
        for key in range(4):
            png = None if key == 2 else encode_png(tiny_pixels(plan, key, 0))
            status = "ok" if png else "not finite"
            writer.add(key, png, key // 2, key // 2, "", plan.seed, plan.pool_id, status)
    write_tiny_scores(tmp_path / "run/scores", plan)
    path = tmp_path / "run/selections/cgan-kd.parquet"
    for kept in (False, True):
        reason = [None, None, None if kept else "outlier", None]
        columns = {"key": [0, 1, 2, 3], "kept": [True, True, kept, True], "reason": reason}
        write_table(path, pa.table({**columns, "label": [0, 0, 1, 1]}))
        if kept:
            with pytest.raises(ReleaseError, match="keeps a sample without an image"):
                rebuilt(tmp_path, "v1.0.1", facts=tiny_facts(2))
        else:
            built = rebuilt(tmp_path, "v1.0.0", facts=tiny_facts(2))
            assert built.rejected == 1
            assert load(built.folder, tmp_path / "cache", "pool")["image"][3:] == [None]


@pytest.mark.parametrize(
    "version", ["1.0.0", "v1.0", "v01.0.0", "v1.0.0-rc1", "v1.0.0\n", "../v1.0.0"]
)
def test_a_version_is_three_numbers(tmp_path, version):
    """Tags on the Hub are compared as numbers."""
    with pytest.raises(BadInput, match=r"is not of the form v1\.0\.0"):
        rebuilt(tmp_path, version)


def test_a_release_never_changes(tmp_path):
    """The same version is refused and left alone."""
    built = write_tiny_release(tmp_path)

    with pytest.raises(BadInput, match=r"v1\.0\.0 exists and a release never changes"):
        rebuilt(tmp_path, "v1.0.0")
    assert built == release_facts(built.folder)


def test_what_does_not_belong_together_is_refused(tmp_path):
    """Scores or decisions of another pool, a damaged shard, nothing kept: no folder is left."""
    write_tiny_release(tmp_path)
    run = tmp_path / "run"
    write_tiny_scores(tmp_path / "other", tiny_plan(9))
    write_tiny_selection(tmp_path / "other.parquet", tmp_path / "other")
    with pytest.raises(ReleaseError, match="other has 27 keys that are not the 24"):
        rebuilt(tmp_path, scores=tmp_path / "other")
    with pytest.raises(ReleaseError, match=r"other\.parquet has 27 keys"):
        rebuilt(tmp_path, selection=tmp_path / "other.parquet")

    chosen = read_table(run / "selections/cgan-kd.parquet")
    none = chosen.set_column(chosen.column_names.index("kept"), "kept", pa.array([False] * 24))
    write_table(tmp_path / "none.parquet", none)
    with pytest.raises(ReleaseError, match="keeps no sample"):
        rebuilt(tmp_path, selection=tmp_path / "none.parquet")
    with pytest.raises(BadInput, match="label 2 of sample 16 is not one of the 2 classes"):
        rebuilt(tmp_path, facts=tiny_facts(2))

    write_tiny_pool(tmp_path / "pool", tiny_plan(seed=5))
    shutil.copy(tmp_path / "pool/000001.parquet", tmp_path / "000001.parquet")
    for name in ("000001.tar", "000001.parquet", "000001.json"):
        shutil.copy(tmp_path / "pool" / name, run / "pool" / name)
    with pytest.raises(ReleaseError, match=r"000001\.parquet belongs to another pool"):
        rebuilt(tmp_path)
    (run / "pool/000002.tar").write_bytes(b"")
    with pytest.raises((CorruptShard, ReleaseError), match=r"000002|000001"):
        rebuilt(tmp_path)
    assert {"v1.0.0"} == {path.name for path in tmp_path.glob("*v1*")}
    with pytest.raises(ReleaseError, match="holds no shards"):
        rebuilt(tmp_path, pool=tmp_path / "nowhere")


def test_an_interrupted_build_is_not_there(tmp_path, monkeypatch):
    """Ctrl-C leaves no folder; what a killed build left is replaced by the next."""
    write_tiny_release(tmp_path)

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(release, "render_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rebuilt(tmp_path)
    assert {"run", "v1.0.0"} == {path.name for path in tmp_path.iterdir()}

    (tmp_path / ".v1.0.1.partial" / "data").mkdir(parents=True)
    (tmp_path / ".v1.0.1.partial" / "data" / "rest").touch()
    built = rebuilt(tmp_path)
    assert not list(built.folder.rglob("rest"))


def test_the_pool_manifest_names_plan_and_shards(tmp_path):
    """Its hash is that of the pool's content; a shard that is not the plan's is refused."""
    plan = write_tiny_pool(tmp_path / "a")
    write_tiny_pool(tmp_path / "b")

    digest = write_pool_manifest(tmp_path / "a", plan)
    assert digest == sha256_file(tmp_path / "b" / "manifest.json")
    assert read_json(tmp_path / "a" / "manifest.json")["count"] == 24
    with pytest.raises(CorruptShard, match="holds 10 samples from key 0, the plan says 12"):
        write_pool_manifest(tmp_path / "a", tiny_plan(shard_size=12))
    with pytest.raises(CorruptShard, match=r"000003 .* has no marker"):
        write_pool_manifest(tmp_path / "a", plan.topped_up({0: 1}))


def test_the_pool_manifest_reads_again_what_was_not_made_just_now(tmp_path):
    """A shard from an earlier run is hashed; of one that its writer has just hashed sizes and
    marker are looked at, and the manifest is the same.
    """
    plan = write_tiny_pool(tmp_path)
    whole = (tmp_path / "manifest.json").read_bytes()
    tar = tmp_path / "000001.tar"
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1
    tar.write_bytes(data)

    write_pool_manifest(tmp_path, plan, made=[1])
    assert (tmp_path / "manifest.json").read_bytes() == whole
    with pytest.raises(CorruptShard, match=r"000001\.tar has other bytes than its marker says"):
        write_pool_manifest(tmp_path, plan, made=[0, 2])
    tar.write_bytes(data[:-1])
    with pytest.raises(CorruptShard, match=r"000001\.tar has \d+ bytes, its marker says"):
        write_pool_manifest(tmp_path, plan, made=[1])


def test_salted_hashes_answer_only_with_the_salt():
    """Sorted, short, and other ones for each salt."""
    hashes = ["a" * 64, "b" * 64]

    assert salted_hashes(hashes, "x") == salted_hashes(reversed(hashes), "x")
    assert not set(salted_hashes(hashes, "x")) & set(salted_hashes(hashes, "y"))
    assert {16} == {len(digest) for digest in salted_hashes(hashes, "x")}


def test_images_in_parquet_are_pngs_of_the_pools_size(built):
    """Any program that reads PNG reads them."""
    table = read_table(built.folder / "data/rejected/train-00000-of-00001.parquet")

    for image in table["image"].to_pylist():
        with Image.open(io.BytesIO(image["bytes"])) as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (8, 8), "L")


def test_two_writers_of_one_folder_do_not_meet(tmp_path):
    """The second is told; the first goes on, and a third may follow."""
    with whole_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("a")
        with (
            pytest.raises(RunBusy, match="another process is writing a release into"),
            whole_folder(tmp_path / "out"),
        ):
            pass
    assert (tmp_path / "out" / "a").read_text() == "a"
    with whole_folder(tmp_path / "next"):
        pass
