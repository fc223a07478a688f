"""Score tables of tiny pools: what they say, and what happens when work is cut short."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
import torch

from cgankd.curation.density_ratio.fit import RatioConfig, fit_ratio
from cgankd.curation.density_ratio.model import load_ratio
from cgankd.curation.policies.rule import Scores
from cgankd.curation.scoring import ScoreJob, score_shard, score_table
from cgankd.nets.feature_nets import Small
from cgankd.shardset.errors import CorruptShard
from cgankd.shardset.pool.shards import PoolShardWriter, read_shard
from cgankd.shardset.tables import read_numbered, read_table
from cgankd.shardset.testing import (
    tiny_continuous_plan,
    tiny_continuous_space,
    tiny_plan,
    tiny_space,
    write_tiny_pool,
)

CPU = torch.device("cpu")
COLUMNS = [
    "key", "label", "density_ratio", "teacher_label", "teacher_error", "teacher_entropy",
    "teacher_logits", "status",
]  # fmt: skip


def teacher():
    """A teacher that reads the tiny pool: the bright row's number is the class."""
    return lambda images: 3 * images.mean((1, 3))[:, :3]


def nan_teacher():
    """A teacher that fails on images whose first row is bright."""

    def predict(images):
        logits = images.mean((1, 3))[:, :3]
        logits[logits[:, 0] > logits[:, 1]] = float("nan")
        return logits

    return predict


def shy_teacher():
    raise AssertionError("the teacher was loaded although nothing was to score")


def job(folder, index=0, **changes):
    options = {
        "pool_folder": folder / "pool",
        "scores_folder": folder / "scores",
        "index": index,
        "fingerprint": str(folder),
        "load_teacher": teacher,
        "ratio_folder": None,
        "device": "cpu",
        "batch": 4,
        "space": tiny_space(),
    }
    return ScoreJob(**options | changes)


@pytest.fixture
def pool(tmp_path):
    write_tiny_pool(tmp_path / "pool", tiny_plan(per_label=8, shard_size=10))
    return tmp_path


def test_scores_are_the_teachers_words(pool):
    """Label, cross-entropy of the assigned label, entropy and logits, computed sample by sample."""
    score_shard(job(pool))
    table = read_table(pool / "scores/000000.parquet")
    pixels, rows = read_shard(pool / "pool", 0)
    assert table.column_names == COLUMNS
    assert table["key"].to_pylist() == list(range(10))
    for index, row in enumerate(table.to_pylist()):
        image = pixels[index, 0] / 127.5 - 1
        logits = 3 * image.mean(1)[:3]
        chances = np.exp(logits) / np.exp(logits).sum()
        assert row["status"] == "ok"
        assert row["label"] == rows["label"][index].as_py()
        assert row["density_ratio"] == 1.0
        assert row["teacher_label"] == logits.argmax()
        assert row["teacher_error"] == pytest.approx(-np.log(chances[row["label"]]), rel=1e-4)
        assert row["teacher_entropy"] == pytest.approx(-chances @ np.log(chances), rel=1e-4)
        assert row["teacher_logits"] == pytest.approx(logits, abs=2e-3)
    assert table.schema.field("teacher_logits").type == pa.list_(pa.float16())


def test_ratio_is_the_models(pool):
    """The column holds what `RatioModel.score` says of the decoded images."""
    parts = [read_shard(pool / "pool", index) for index in range(3)]
    pixels = np.concatenate([pixels for pixels, _ in parts])
    labels = np.concatenate([rows["label"].to_numpy() for _, rows in parts])
    config = RatioConfig(features=Small(width=8, dim=8, steps=5, batch=8), steps=20)
    fit_ratio(
        pixels[::4],
        labels[::4],
        np.concatenate([pixels] * 2),
        np.concatenate([labels] * 2),
        config,
        space=tiny_space(),
        folder=pool / "ratio",
        seed=0,
        device=CPU,
        precision="float32",
    )
    score_shard(job(pool, ratio_folder=pool / "ratio"))
    expected = load_ratio(pool / "ratio", CPU).score(pixels[:10], labels[:10], batch=4)
    found = read_table(pool / "scores/000000.parquet", ["density_ratio"])["density_ratio"]
    assert np.array_equal(found.to_numpy(), expected)


def test_scores_do_not_depend_on_what_was_scored_before(pool):
    """Any order, and a second time from nothing, gives the same bytes."""
    forward = [score_shard(job(pool, index)) for index in range(3)]
    other = [
        score_shard(job(pool, index, scores_folder=pool / "again", fingerprint="other"))
        for index in (2, 0, 1)
    ]
    assert forward == [other[1], other[2], other[0]]


def test_threads_of_the_caller_stay_as_they_were(pool):
    """Scoring in this very process does not change how later training computes."""
    before = torch.get_num_threads()
    score_shard(job(pool, threads=before + 1))
    assert torch.get_num_threads() == before


def test_finished_shard_is_not_scored_again(pool):
    """Its marker is enough: the teacher is not even loaded."""
    digest = score_shard(job(pool))
    assert score_shard(job(pool, load_teacher=shy_teacher)) == digest


def test_other_settings_or_another_shard_are_scored_again(pool):
    """A marker with another fingerprint, or of a pool shard since replaced, does not count."""
    first = score_shard(job(pool))
    again = score_shard(job(pool, fingerprint="other", load_teacher=nan_teacher))
    assert again != first
    marker = json.loads((pool / "scores/000000.json").read_text())
    assert marker["fingerprint"] == "other"
    write_tiny_pool(pool / "pool", tiny_plan(per_label=8, shard_size=10, seed=5))
    assert score_shard(job(pool, fingerprint="other", load_teacher=nan_teacher)) != again


def test_scores_that_are_no_numbers_become_a_status(pool):
    """Such samples have nulls, keep their row and their logits' place, and are never kept."""
    score_shard(job(pool, load_teacher=nan_teacher, fingerprint="nan"))
    table = read_table(pool / "scores/000000.parquet")
    broken = [row for row in table.to_pylist() if row["status"] == "not finite"]
    assert [row["label"] for row in broken] == [0] * len(broken)
    assert len(broken) == 8
    assert all(row["teacher_error"] is None and row["density_ratio"] is None for row in broken)
    assert {len(row["teacher_logits"]) for row in broken} == {3}
    assert Scores.from_table(table, tiny_space()).scored.sum() == 2


def test_samples_without_an_image_keep_their_status(pool, tmp_path):
    """What production could not make is a row without scores; the others are scored."""
    _, rows = read_shard(pool / "pool", 0)
    png = (pool / "pool/000000.tar").read_bytes()
    place = slice(rows["png_offset"][0].as_py(), None)
    image = png[place][: rows["png_length"][0].as_py()]
    with PoolShardWriter(tmp_path / "holes/pool", 0, "f" * 64) as writer:
        writer.add(0, None, 0, 0, None, 0, "p", status="not finite")
        writer.add(1, image, 0, 0, "digest", 0, "p")
    score_shard(job(tmp_path / "holes"))
    table = read_table(tmp_path / "holes/scores/000000.parquet").to_pylist()
    assert [row["status"] for row in table] == ["not finite", "ok"]
    assert table[0]["teacher_label"] is None
    assert table[1]["teacher_label"] == 0


def test_shard_without_any_image_is_named(tmp_path):
    """Nothing to score is a fault of production, said as such."""
    with PoolShardWriter(tmp_path / "pool", 0, "f" * 64) as writer:
        writer.add(0, None, 0, 0, None, 0, "p", status="not finite")
    with pytest.raises(CorruptShard, match="no sample has an image"):
        score_shard(job(tmp_path))


def test_cut_pool_shard_is_refused(pool):
    """A truncated tar is seen by its size, before any network runs."""
    path = pool / "pool/000000.tar"
    path.write_bytes(path.read_bytes()[:-2048])
    with pytest.raises(CorruptShard, match="not whole; run produce again"):
        score_shard(job(pool, load_teacher=shy_teacher))
    with pytest.raises(CorruptShard, match="not whole"):
        score_shard(job(pool, index=99))


def test_damaged_image_is_named_by_its_key(pool):
    """Bytes flipped inside a PNG: the shard and the key, and nothing is written."""
    path = pool / "pool/000000.tar"
    rows = read_table(pool / "pool/000000.parquet")
    data = bytearray(path.read_bytes())
    start = rows["png_offset"][5].as_py()
    data[start : start + 60] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(CorruptShard, match="key 5 "):
        score_shard(job(pool))
    assert not list(pool.glob("scores/*.json"))


def test_killed_scoring_leaves_what_a_rerun_completes(pool):
    """SIGKILL while the second shard is scored: the first stays, the rest is as undisturbed."""
    expected = [score_shard(job(pool, index, scores_folder=pool / "calm")) for index in range(3)]
    script = (
        "import sys, time, torch; from pathlib import Path\n"
        "from cgankd.curation.scoring import ScoreJob, score_shard\n"
        "from cgankd.shardset.testing import tiny_space\n"
        "def slow(images):\n"
        "    time.sleep(0.2)\n"
        "    return 3 * images.mean((1, 3))[:, :3]\n"
        "root = Path(sys.argv[1])\n"
        "for index in range(3):\n"
        "    score_shard(ScoreJob(root / 'pool', root / 'scores', index, str(root),\n"
        "        lambda: slow, None, 'cpu', 4, tiny_space()))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(pool)], env=dict(os.environ))
    while not (pool / "scores/000000.json").is_file():
        assert child.poll() is None, "scoring ended before it could be killed"
        time.sleep(0.02)
    time.sleep(0.2)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (pool / "scores/000002.json").exists()
    assert [score_shard(job(pool, index)) for index in range(3)] == expected
    assert read_numbered(pool / "scores", ["key"])["key"].to_pylist() == list(range(24))
    assert not list(pool.glob("scores/*.partial"))


def test_huge_logits_are_stored_as_the_largest_half_number():
    """float16 ends at 65,504: a logit beyond is cut, and so stays finite."""
    rows = pa.table({"key": [0], "label": [1], "status": ["ok"]})
    table = score_table(
        rows, np.array([[1e9, 0.0]], np.float32), np.ones(1, np.float32), tiny_space(2)
    )
    assert table["teacher_logits"][0].as_py() == [65504.0, 0.0]
    assert table["teacher_label"][0].as_py() == 0
    assert np.isfinite(table["teacher_error"][0].as_py())


def test_continuous_scores_are_values_in_the_unit(tmp_path):
    """The teacher's output 0 … 1 becomes degrees, is clipped, and its distance is the error."""
    plan = write_tiny_pool(tmp_path / "pool", tiny_continuous_plan())

    def shout():
        return lambda images: 3 * images.mean((1, 2, 3))[:, None] + 1.5

    space = tiny_continuous_space()
    score_shard(job(tmp_path, load_teacher=shout, space=space))
    table = read_table(tmp_path / "scores/000000.parquet")
    pixels, _ = read_shard(tmp_path / "pool", 0)
    assert table.column_names == [
        "key", "label", "density_ratio", "teacher_value", "teacher_error", "status",
    ]  # fmt: skip
    outputs = 3 * (pixels / 127.5 - 1).mean((1, 2, 3)) + 1.5
    values = np.clip(-60 + 120 * outputs, -60, 60)
    labels = plan.labels(plan.shards[0])
    assert table["teacher_value"].type == pa.float64()
    assert table["teacher_value"].to_numpy() == pytest.approx(values, abs=1e-3)
    assert table["teacher_error"].to_numpy() == pytest.approx(np.abs(values - labels), abs=1e-3)
    read = Scores.from_table(table, space)
    assert np.array_equal(read.label, labels)
    assert np.array_equal(read.group, np.minimum((labels + 60) // 30, 3))
    assert np.array_equal(read.teacher_label, table["teacher_value"].to_numpy())


def test_continuous_scores_that_are_no_numbers_become_a_status(tmp_path):
    """A NaN of the teacher is a null with a reason."""
    rows = pa.table({"key": [0, 1], "label": [0.0, 30.0], "status": ["ok", "ok"]})
    outputs = np.array([[np.nan], [0.5]], np.float32)
    table = score_table(rows, outputs, np.ones(2, np.float32), tiny_continuous_space())
    assert table["status"].to_pylist() == ["not finite", "ok"]
    assert table["teacher_value"].to_pylist() == [None, 0.0]
    assert table["teacher_error"].to_pylist() == [None, 30.0]
    read = Scores.from_table(table, tiny_continuous_space())
    assert read.scored.tolist() == [False, True]
