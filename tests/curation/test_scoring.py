"""Scores: computed as SciPy does, the same bytes however they are made, and nothing made twice."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from curation.scoring import ScoreJob, score_shard, score_table
from shardset.errors import CorruptShard
from shardset.images import to_images
from shardset.shards import read_shard
from shardset.tables import read_table
from shardset.testing import tiny_plan, write_tiny_pool

CLASSES = 3


def linear_teacher():
    """A teacher whose logits are fixed sums of pixels."""
    weights = torch.linspace(-1, 1, 64 * CLASSES).view(64, CLASSES).sin()

    return lambda images: images.flatten(1) @ weights


def nan_teacher():
    """A teacher that breaks down on bright images."""
    teacher = linear_teacher()

    def broken(images):
        logits = teacher(images)
        logits[images.flatten(1).mean(1) > -0.4] = float("nan")
        return logits

    return broken


@pytest.fixture
def job(tmp_path):
    """Scoring the first shard of a tiny pool, without a density ratio."""
    write_tiny_pool(tmp_path / "pool", tiny_plan(shard_size=10))

    return ScoreJob(
        pool_folder=tmp_path / "pool",
        scores_folder=tmp_path / "scores",
        index=0,
        fingerprint="a",
        load_teacher=linear_teacher,
        ratio_folder=None,
        device="cpu",
        batch=4,
    )


def test_scores_are_those_of_scipy(job):
    """Cross-entropy of the assigned label, entropy, arg max and logits of every sample."""
    score_shard(job)
    table = read_table(job.scores_folder / "000000.parquet")
    pixels, rows = read_shard(job.pool_folder, 0)
    logits = linear_teacher()(to_images(pixels)).double().numpy()
    labels = rows["label"].to_numpy()

    assert table["key"].equals(rows["key"])
    assert table["teacher_label"].to_pylist() == logits.argmax(1).tolist()
    error = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(table["teacher_error"].to_numpy(), error, rtol=1e-4, atol=1e-6)
    uncertain = entropy(softmax(logits, axis=1), axis=1)
    np.testing.assert_allclose(table["teacher_entropy"].to_numpy(), uncertain, rtol=1e-3, atol=1e-5)
    stored = np.array(table["teacher_logits"].to_pylist())
    np.testing.assert_allclose(stored, logits, rtol=2e-3, atol=1e-3)
    assert table["density_ratio"].to_pylist() == [1.0] * len(labels)


def test_scoring_twice_writes_the_same_bytes_and_does_nothing_the_second_time(job, tmp_path):
    """A marker that matches is believed; another folder gets equal bytes."""
    first = score_shard(job)
    stamp = (job.scores_folder / "000000.parquet").stat().st_mtime_ns
    again = score_shard(job)
    elsewhere = score_shard(replace(job, scores_folder=tmp_path / "elsewhere"))

    assert first == again == elsewhere
    assert stamp == (job.scores_folder / "000000.parquet").stat().st_mtime_ns


def test_other_networks_score_again(job):
    """The fingerprint covers teacher and ratio."""
    score_shard(job)
    stamp = (job.scores_folder / "000000.parquet").stat().st_mtime_ns
    score_shard(replace(job, fingerprint="b"))

    assert stamp != (job.scores_folder / "000000.parquet").stat().st_mtime_ns


def test_an_interrupted_table_is_made_again(job):
    """Without its marker a table may be of another attempt."""
    digest = score_shard(job)
    (job.scores_folder / "000000.json").unlink()
    (job.scores_folder / "000000.parquet").write_bytes(b"half a table")

    assert digest == score_shard(job)
    assert len(read_table(job.scores_folder / "000000.parquet")) == 10


def test_a_sample_without_finite_logits_is_a_row_with_a_status(job):
    """Its scores are null, and the others are as before."""
    score_shard(job)
    whole = read_table(job.scores_folder / "000000.parquet").to_pylist()
    score_shard(replace(job, fingerprint="nan", load_teacher=nan_teacher))
    rows = read_table(job.scores_folder / "000000.parquet").to_pylist()
    broken = [row for row in rows if row["status"] != "ok"]

    assert 0 < len(broken) < len(rows)
    assert all(row["teacher_error"] is None for row in broken)
    assert [r for r in rows if r["status"] == "ok"] == [
        w for w, r in zip(whole, rows, strict=True) if r["status"] == "ok"
    ]


def test_a_sample_without_an_image_keeps_its_status():
    """Production's word on it is passed on."""
    rows = pa.table({"key": [0, 1], "label": [0, 1], "status": ["ok", "not finite"]})
    table = score_table(rows, np.zeros((2, 2), np.float32), np.ones(2, np.float32))

    assert table["status"].to_pylist() == ["ok", "not finite"]
    assert table["density_ratio"].to_pylist() == [1.0, None]


def test_a_cut_shard_stops_the_run(job):
    """A bad shard is not a bad sample."""
    tar = job.pool_folder / "000000.tar"
    tar.write_bytes(tar.read_bytes()[:-512])

    with pytest.raises(CorruptShard, match="000000"):
        score_shard(job)
