"""Images, one sample with all that is known of it, and the blind test."""

import base64
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cgankd.app.review.sample import (
    Reals,
    blind_pairs,
    nearest_kept,
    probabilities,
    rows_by_label,
    sample,
    thumbnails,
    wilson,
)
from cgankd.app.review.subject import SCORES, open_subject
from cgankd.shardset.errors import BadInput
from cgankd.shardset.places import stored_pictures
from cgankd.shardset.pool.shards import PoolShardWriter, read_shard
from cgankd.shardset.tables import read_numbered
from cgankd.shardset.testing import tiny_plan, tiny_space
from tests.app.review.tiny_reviews import (
    pixels_in,
    write_run,
)


def test_images_are_those_of_the_shards_in_the_order_asked(subject, made):
    """By offset from several shards, twice where asked twice."""
    expected = np.concatenate([read_shard(made / "pool", index)[0] for index in range(6)])
    rows = [59, 0, 31, 0]
    found = stored_pictures(subject.places, rows)

    assert [pixels_in(p).tolist() for p in found] == [expected[row, 0].tolist() for row in rows]


def test_thumbnails_repeat_pixels_and_are_data_uris(subject):
    """8 × 8 shown at 24 is every pixel three by three; a URI decodes to the same PNG."""
    small, large = stored_pictures(subject.places, [7])[0], thumbnails(subject, [7], side=20)[0]
    expected = pixels_in(small).repeat(3, axis=0).repeat(3, axis=1)
    head, _, data = large.uri.partition(",")

    assert np.array_equal(pixels_in(large), expected)
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == large.png


def test_a_broken_shard_is_a_text_for_each_of_its_images(run):
    """Cut, gone or overwritten: the other images are there."""
    pool = run / "pool"
    (pool / "000001.tar").write_bytes((pool / "000001.tar").read_bytes()[:1024])
    (pool / "000002.tar").unlink()
    (pool / "000003.tar").write_bytes(bytes((pool / "000003.tar").stat().st_size))
    found = thumbnails(open_subject(run), [0, 15, 25, 35, 45])

    assert [picture.png is None for picture in found] == [False, True, True, True, False]
    assert "000001.tar is cut" in found[1].error
    assert "000002.tar: No such file" in found[2].error
    assert "is not a PNG" in found[3].error
    assert all(p.uri is None for p in found[1:4])


def test_a_failed_sample_has_a_text(tmp_path):
    """No image was made, so there is none to show, and it was dropped."""
    run = write_run(tmp_path / "run", tiny_plan(), tiny_space())
    plan = tiny_plan()
    with PoolShardWriter(run / "pool", 2, "f") as writer:
        for key in range(20, 24):
            writer.add(key, None, 2, 2, None, plan.seed, plan.pool_id, "not finite")
    found = thumbnails(open_subject(run), [23])[0]

    assert found.error == "the generator failed to make this image"


def test_a_release_shows_its_own_images_and_says_which_it_left_out(built, tmp_path):
    """Accepted and rejected alike, from the row group that holds each; else a text."""
    released = open_subject(built.folder)
    pool = built.folder.parent / "run" / "pool"
    expected = np.concatenate([read_shard(pool, index)[0] for index in range(3)])
    rows = list(range(23, -1, -1))
    copy = shutil.copytree(built.folder, tmp_path / "v1.0.0")
    shutil.rmtree(copy / "data" / "rejected")
    small = open_subject(copy)
    texts = [picture.error for picture in thumbnails(small, rows)]

    assert [pixels_in(p).tolist() for p in stored_pictures(released.places, rows)] == [
        expected[row, 0].tolist() for row in rows
    ]
    assert [text is None for text in texts] == small.kept[rows].tolist()
    assert {"this image is not part of the release", None} == set(texts)
    accepted = next((copy / "data" / "accepted").glob("*.parquet"))
    accepted.write_bytes(b"PAR1")
    assert "is cut" in stored_pictures(small.places, np.flatnonzero(small.kept)[:1])[0].error


def test_a_sample_tells_what_is_known_of_it(subject, made):
    """Scores, the teacher's classes from stored logits, neighbours, and how to make it again."""
    row = 14
    stored = read_numbered(made / "scores").slice(row, 1).to_pylist()[0]
    logits = np.array(stored["teacher_logits"], float)
    likeliest = np.exp(logits) / np.exp(logits).sum()
    seen = sample(subject, row)

    assert seen.key == 14
    assert set(seen.scores) == set(SCORES)
    assert seen.scores["teacher_error"] == pytest.approx(stored["teacher_error"])
    assert [name for name, _ in seen.teacher] == [
        f"class {label}" for label in np.argsort(-likeliest)
    ]
    assert [share for _, share in seen.teacher] == pytest.approx(sorted(likeliest, reverse=True))
    assert seen.nearest_real == 14 % 5
    assert seen.near == ()
    assert seen.origin == {
        "pool_id": tiny_plan().pool_id,
        "seed": 0,
        "key": "000000014",
        "label": 0,
        "condition": 0,
    }
    assert seen.regenerate == f"cgankd regenerate {made} --keys 14 --verify"


def test_the_nearest_kept_are_those_of_stored_pairs(subject):
    """The most alike first; a dropped one is left out."""
    kept = replace(subject, reason=np.full(60, -1, np.int8))
    dropped = replace(kept, reason=np.where(subject.key == 4, 0, -1).astype(np.int8))

    assert [(near.key, round(near.similarity, 2)) for near in nearest_kept(kept, 4)] == [(2, 0.99)]
    assert nearest_kept(dropped, 2) == ()


def test_a_sample_of_a_release_or_of_numbers_tells_what_there_is(built, angles):
    """A value with its unit instead of classes; no command where no generator is at hand."""
    released = sample(open_subject(built.folder), 3)
    angle = sample(angles, 3)

    assert len(released.teacher) == 3
    assert released.regenerate is None
    assert released.origin["condition"] == released.origin["label"] == 0
    assert angle.teacher == ()
    assert angle.teacher_value.endswith("degrees")
    assert probabilities([0.0, np.log(3)], tiny_space(2)) == (
        ("class 1", pytest.approx(0.75)),
        ("class 0", pytest.approx(0.25)),
    )


def some_reals(count=12):
    random = np.random.default_rng(1)
    pixels = random.integers(256, size=(count, 1, 8, 8), dtype=np.uint8)
    return Reals(pixels, np.arange(count) % 3, count - 3)


def test_blind_pairs_share_a_label_and_are_the_same_for_a_seed(subject):
    """A kept sample and a real image; no image twice before all of its label came."""
    reals = some_reals()
    pairs = blind_pairs(subject, reals, 12, seed=4)

    assert pairs == blind_pairs(subject, reals, 12, seed=4) != blind_pairs(subject, reals, 12, 5)
    assert all(subject.kept[pair.row] for pair in pairs)
    assert all(subject.group[pair.row] == reals.labels[pair.real] for pair in pairs)
    assert len({pair.real for pair in pairs}) == len({pair.row for pair in pairs}) == 12
    assert {pair.generated_first for pair in pairs} == {True, False}
    assert len(blind_pairs(subject, some_reals(1), 30, seed=0)) == 30
    nothing = replace(subject, reason=np.zeros(60, np.int8))
    with pytest.raises(BadInput, match="no label has both"):
        blind_pairs(nothing, reals, 5, seed=0)


def test_the_blind_score_has_wilsons_interval():
    """(p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n), inside [0, 1]."""
    z, n, p = 1.959964, 3, 2 / 3
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    ends = [(p + z**2 / (2 * n) + side * half) / (1 + z**2 / n) for side in (-1, 1)]

    assert wilson(2, 3) == pytest.approx(ends)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_random_rows_of_a_label_are_kept_ones_and_seeded(subject):
    """For grids of reals beside fakes."""
    rows = rows_by_label(subject, 1, 5, seed=3)

    assert rows.tolist() == rows_by_label(subject, 1, 5, seed=3).tolist()
    assert (subject.group[rows] == 1).all()
    assert subject.kept[rows].all()


def test_nothing_here_imports_streamlit_or_torch():
    """Opening, filtering, deciding and previewing start at once."""
    names = ["state", "subject", "sample", "policy"]
    code = f"import sys, {', '.join(f'cgankd.app.review.{name}' for name in names)}; "
    code += "print([n for n in ('streamlit', 'torch', 'faiss', 'datasets') if n in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert output.stdout.strip() == "[]"
