"""Samples made again: the pixels that were produced, or an error that says what is wrong."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from huggingface_hub import HfApi
from typer.testing import CliRunner

from cgankd.app import publishing, regenerating
from cgankd.app.cli import app
from cgankd.app.console import Console
from cgankd.app.regenerating import key_ranges
from cgankd.shardset.errors import BadInput, CheckpointError, CorruptShard, HubError, ReleaseError
from cgankd.shardset.files import canonical_json, read_json, sha256_file, write_bytes
from cgankd.shardset.images import decode_png
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.pool.shards import read_shard
from cgankd.shardset.release.manifest import MANIFEST
from cgankd.shardset.samples import open_samples
from cgankd.shardset.tables import read_metadata, read_table, write_table
from tests.app.small_run import small_release, write_generator, write_small_run
from tests.hub.server import LoopbackHub
from tests.shardset.hubs import hub_and_client

QUIET = Console(json=True)


@pytest.fixture(scope="module", params=["classes", "numbers"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a pool of 35 samples."""
    return write_small_run(tmp_path_factory.mktemp("runs") / "small", request.param)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One with classes."""
    return write_small_run(tmp_path_factory.mktemp("runs") / "classes")


@pytest.fixture
def copy(classes: RunFolder, tmp_path: Path) -> RunFolder:
    """One to change."""
    return RunFolder.open(shutil.copytree(classes.path, tmp_path / "copy"))


def regenerate(where: Any, **more: Any) -> dict[str, Any]:
    return regenerating.regenerate(where, console=QUIET, **{"verify": True, **more})


def pixels_of(run: RunFolder) -> np.ndarray:
    """The pixels of every key, as they lie in the pool."""
    return np.concatenate([read_shard(run.pool, index)[0] for index in range(4)])


def change_row(path: Path, key: int, column: str, value: str) -> None:
    """Puts a value in the row of a key, leaving all else as it is."""
    table = read_table(path)
    values = table[column].to_pylist()
    values[table["key"].to_pylist().index(key)] = value
    changed = table.set_column(table.column_names.index(column), column, pa.array(values))
    write_table(path, changed.replace_schema_metadata(None), read_metadata(path))


def rewrite_manifest(folder: Path, **facts: Any) -> None:
    """A manifest with other facts and with the hashes of the files as they are now."""
    manifest = read_json(folder / MANIFEST)
    manifest["lineage"] |= facts
    for entry in manifest["files"]:
        path = folder / entry["path"]
        entry |= {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_bytes(folder / MANIFEST, canonical_json(manifest))


def test_every_sample_of_a_run_is_made_again_to_the_pixel(run: RunFolder, tmp_path: Path) -> None:
    """The short batches at the ends of shards and rounds included; PNG bytes are the pool's."""
    told = regenerate(run.path, keys="0-34", out=tmp_path / "again")

    assert told == {
        "made": 35,
        "equal": 35,
        "different": [],
        "device": "cpu",
        "folder": str(tmp_path / "again"),
    }
    stored = pixels_of(run)
    for key in range(35):
        path = tmp_path / "again" / f"{key:09d}.png"
        assert np.array_equal(decode_png(path.read_bytes()), stored[key])


def test_a_release_and_the_weights_are_enough(run: RunFolder, tmp_path: Path) -> None:
    """Its rows and its lineage give the very plan of the pool, whose folder may be gone."""
    moved = shutil.copytree(small_release(run), tmp_path / "release")

    told = regenerate(moved, keys="34,3,15-20", generator=run.generator, out=tmp_path / "again")

    assert open_samples(moved, images=False).production().plan == read_plan(run.pool / "plan.json")
    assert (told["made"], told["equal"]) == (8, 8)
    stored = pixels_of(run)
    made = {path.stem: path for path in (tmp_path / "again").iterdir()}
    assert sorted(made) == [f"{key:09d}" for key in (3, *range(15, 21), 34)]
    for name, path in made.items():
        assert np.array_equal(decode_png(path.read_bytes()), stored[int(name)])


def test_verify_alone_writes_nothing(classes: RunFolder) -> None:
    """And says on the command line how many it compared."""
    before = sorted(classes.path.rglob("*"))
    command = ["regenerate", str(classes.path), "--keys", "7", "--verify", "--json"]
    result = CliRunner().invoke(app, command)

    assert result.exit_code == 0
    assert json.loads(result.stdout)["equal"] == 1
    assert json.loads(result.stdout)["folder"] is None
    assert sorted(classes.path.rglob("*")) == before


def test_keys_are_lists_and_ranges_from_line_and_file(tmp_path: Path) -> None:
    """Both ends included, any white space, leading zeros as in file names."""
    file = tmp_path / "keys.txt"
    file.write_text("000000007\n8-9, 30\n\n", "utf-8")

    assert key_ranges("12,15-20") == [range(12, 13), range(15, 21)]
    assert key_ranges("3 , 4", file) == [
        range(3, 4),
        range(4, 5),
        range(7, 8),
        range(8, 10),
        range(30, 31),
    ]


def test_a_key_named_twice_is_made_once(classes: RunFolder) -> None:
    """Whether by itself or by a range."""
    assert regenerate(classes.path, keys="5,3-6,5,6")["made"] == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (None, "no key was given"),
        (" , ", "no key was given"),
        ("3,x", "--keys: 'x' is neither a key nor a range"),
        ("-3", "'-3' is neither a key nor a range"),
        ("0000000007", "neither a key nor a range"),
        ("20-15", "20-15 ends before it begins; write 15-20"),
        ("33-35", "has no key 000000035; it has 000000000 to 000000034"),
        ("0-999999999", "has no key 999999999"),
    ],
)
def test_keys_that_cannot_be_made_are_refused(
    classes: RunFolder, keys: str | None, message: str
) -> None:
    """In one line, before a network is loaded."""
    with pytest.raises(BadInput, match=message) as caught:
        regenerate(classes.path, keys=keys)

    assert "\n" not in str(caught.value)


def test_a_key_file_that_is_none_is_refused(classes: RunFolder, tmp_path: Path) -> None:
    """Missing, or not text."""
    binary = tmp_path / "keys.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "nowhere", binary):
        with pytest.raises(BadInput, match="cannot be read; give a text file of keys"):
            regenerate(classes.path, keys_file=path)


def test_asked_for_neither_images_nor_a_comparison(classes: RunFolder, tmp_path: Path) -> None:
    """There would be nothing to show for the work; a file is no folder for images."""
    with pytest.raises(BadInput, match="give --verify, --out FOLDER, or both"):
        regenerate(classes.path, keys="1", verify=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match="is a file; give a folder"):
        regenerate(classes.path, keys="1", out=tmp_path / "file")


def test_other_weights_are_refused(copy: RunFolder, tmp_path: Path) -> None:
    """Of a run and of a release, by their hash."""
    release = small_release(copy)
    write_generator(tmp_path / "other", seed=1)
    for where, given in ((release, tmp_path / "other"), (copy.path, tmp_path / "other")):
        with pytest.raises(CheckpointError, match=r"did not make .* its sha256 is"):
            regenerate(where, keys="1", generator=given)
    write_generator(copy.generator, seed=1)
    with pytest.raises(CheckpointError, match="did not make"):
        regenerate(copy.path, keys="1", out=tmp_path / "again")

    assert not (tmp_path / "again").exists()


def test_missing_weights_are_named(copy: RunFolder, tmp_path: Path) -> None:
    """A release without a linked repository asks for them; a folder without them is named."""
    release = small_release(copy)
    with pytest.raises(BadInput, match="names no repository with its generator's weights"):
        regenerate(release, keys="1")
    with pytest.raises(BadInput, match=r"nowhere/model\.safetensors is missing"):
        regenerate(release, keys="1", generator=tmp_path / "nowhere")
    (copy.generator / "config.json").unlink()
    with pytest.raises(BadInput, match=r"config\.json is missing"):
        regenerate(copy.path, keys="1")


def test_a_config_of_something_else_is_one_line(copy: RunFolder) -> None:
    """The weights' hash says nothing of the config beside them."""
    write_bytes(copy.generator / "config.json", b'{"network": "resnet8"}')
    with pytest.raises(CheckpointError, match=r"config\.json does not describe a generator") as e:
        regenerate(copy.path, keys="1")

    assert "\n" not in str(e.value)


def test_a_failed_sample_has_nothing_to_be_compared_with(copy: RunFolder) -> None:
    """It is named before anything is made."""
    change_row(copy.pool / "000001.parquet", 14, "status", "not finite")

    assert regenerate(copy.path, keys="13,15")["equal"] == 2
    with pytest.raises(BadInput, match=r"1 of the keys failed .*\(000000014\); leave them out"):
        regenerate(copy.path, keys="12-16")


def test_a_changed_hash_of_a_run_s_row_is_found(copy: RunFolder, tmp_path: Path) -> None:
    """The error names the key, and that this machine computes as the recorded one."""
    change_row(copy.pool / "000000.parquet", 5, "pixel_sha256", "0" * 64)
    with pytest.raises(
        ReleaseError, match=r"1 of 8 samples .*\(000000005\); .*not recorded of numpy"
    ) as caught:
        regenerate(copy.path, keys="0-7", out=tmp_path / "again")

    assert "\n" not in str(caught.value)
    assert len(list((tmp_path / "again").iterdir())) == 8
    without = regenerate(copy.path, keys="0-7", out=tmp_path / "again", verify=False)
    assert (without["equal"], without["different"]) == (7, [5])


def test_a_changed_hash_of_a_release_is_found_twice(copy: RunFolder) -> None:
    """By the manifest, and where that was changed too by the pixels."""
    release = small_release(copy)
    change_row(release / "scores/train-00000-of-00001.parquet", 20, "pixel_sha256", "0" * 64)
    with pytest.raises(ReleaseError, match=r"scores/train-00000-of-00001\.parquet"):
        regenerate(release, keys="20", generator=copy.generator)
    rewrite_manifest(release)
    with pytest.raises(ReleaseError, match=r"1 of 3 samples .*\(000000020\)"):
        regenerate(release, keys="19-21", generator=copy.generator)


def test_what_differs_from_the_recorded_machine_is_said(
    copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device type and library versions are what the promise of the same pixels rests on."""
    change_row(copy.pool / "000000.parquet", 5, "pixel_sha256", "0" * 64)
    marker = read_json(copy.pool / "stage.json")
    marker["fields"]["device"] = "cuda"
    marker["facts"]["libraries"] = {"torch": "1.0.0"}
    write_bytes(copy.pool / "stage.json", canonical_json(marker))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ReleaseError, match=r"device cuda \(here cpu\), torch 1\.0\.0 \(here "):
        regenerate(copy.path, keys="5")
    assert regenerate(copy.path, keys="4")["equal"] == 1


def test_a_release_that_does_not_say_how_is_refused(copy: RunFolder) -> None:
    """Whatever of it is missing, wrong, or does not fit the rows."""
    release = small_release(copy)
    production = read_json(release / MANIFEST)["lineage"]["production"]
    for changed, message in (
        ({k: v for k, v in production.items() if k != "batch"}, "production.batch: Field required"),
        ({**production, "batch": "8"}, "production.batch: Input should be a valid integer"),
        ({**production, "rounds": [30, 4]}, "35 samples, 34 were produced"),
        ({**production, "rounds": 35}, "production.rounds: Input should be a valid"),
        ({**production, "rounds": [35, 10**9]}, "1000000000 samples beyond the last row"),
        ({**production, "libraries": 5}, "production.libraries: Input should be"),
        ("as always", "production: Input should be an object"),
        (None, "no production"),
    ):
        rewrite_manifest(release, production=changed)
        with pytest.raises(ReleaseError, match=message) as caught:
            regenerate(release, keys="1", generator=copy.generator)
        assert "\n" not in str(caught.value)


def test_a_pool_that_is_not_finished_is_refused(copy: RunFolder) -> None:
    """Half a pool's rows do not tell."""
    (copy.pool / "000003.parquet").unlink()
    with pytest.raises(CorruptShard, match="30 rows, its plan 35 keys"):
        regenerate(copy.path, keys="1")
    (copy.pool / "stage.json").unlink()
    with pytest.raises(BadInput, match="pool is not finished"):
        regenerate(copy.path, keys="1")
    with pytest.raises(BadInput, match="is neither a run nor a release folder"):
        regenerate("./nowhere", keys="1")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with hub_and_client(tmp_path, monkeypatch) as hub:
        yield hub


def publish(release: Path, repo_id: str, run: RunFolder | None = None) -> None:
    """Publishes a release, with the generator of a run where one is given."""
    publishing.publish_release(
        release,
        repo_id,
        console=QUIET,
        allow_failures=True,
        generator=None if run is None else run.generator,
        generator_repo=None if run is None else f"{repo_id}-generator",
    )


def test_a_hub_id_is_enough_where_the_generator_is_linked(
    copy: RunFolder, hub: LoopbackHub, tmp_path: Path
) -> None:
    """Scores and weights come from the Hub, both at the version's tag; no image is fetched."""
    release = small_release(copy, generator_repo="user/small-generator")
    publish(release, "user/small", copy)
    stored = pixels_of(copy)
    shutil.rmtree(copy.path)
    hub.requests.clear()

    told = regenerate("user/small@v1.0.0", keys="2,30-34", out=tmp_path / "again")

    assert (told["made"], told["equal"]) == (6, 6)
    made = decode_png((tmp_path / "again" / "000000030.png").read_bytes())
    assert np.array_equal(made, stored[30])
    fetched = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert any("model.safetensors" in path for path in fetched)
    assert not any("/data/" in path for path in fetched)


def test_a_linked_repository_that_has_not_the_weights_is_named(
    copy: RunFolder, hub: LoopbackHub
) -> None:
    """None at all, none of this version, or others than the manifest's."""
    linked = {"generator_repo": "user/small-generator"}
    publish(small_release(copy, **linked), "user/small")
    with pytest.raises(BadInput, match=r"no such repository .* user/small-generator"):
        regenerate("user/small@v1.0.0", keys="1")
    HfApi().create_repo("user/small-generator")
    with pytest.raises(BadInput, match=r"no version v1\.0\.0 for its generator"):
        regenerate("user/small@v1.0.0", keys="1")
    write_generator(copy.generator, seed=1)
    HfApi().upload_folder(repo_id="user/small-generator", folder_path=copy.generator)
    HfApi().create_tag("user/small-generator", tag="v1.0.0")
    with pytest.raises(CheckpointError, match=r"model\.safetensors did not make user/small@v1"):
        regenerate("user/small@v1.0.0", keys="1")


def test_a_hub_that_does_not_answer_is_one_line(copy: RunFolder, hub: LoopbackHub) -> None:
    """Nothing of an earlier time is taken from the cache instead."""
    publish(small_release(copy, generator_repo="user/small-generator"), "user/small", copy)
    regenerate("user/small@v1.0.0", keys="1")
    hub.stop()
    with pytest.raises(HubError, match="does not answer") as caught:
        regenerate("user/small@v1.0.0", keys="1")

    assert "\n" not in str(caught.value)
