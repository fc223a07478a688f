"""Nearest images, near-duplicates and outliers, against plain loops over all pairs."""

import sys

import numpy as np
import pytest

from cgankd.curation.neighbours import (
    Neighbours,
    Thresholds,
    all_but_best,
    components,
    spanning_pairs,
)
from cgankd.curation.neighbours.find import NeighbourConfig, RealFeatures, find_neighbours
from cgankd.curation.neighbours.search import (
    ONE,
    ROUNDING,
    FeatureSpace,
    as_vectors,
    lower_quantile,
    near_pairs,
    nearest,
    nearest_others,
    similarities,
    upper_quantile,
)
from cgankd.curation.policies import Policy
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import REASONS, select
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ClassLabels, ContinuousLabels

SPACE = ClassLabels(names=("a", "b", "c"))
DEGREES = ContinuousLabels(unit="degrees", low=0, high=60, groups=6)
OFF = {"subsample": None, "filter": None}
NOTHING = Policy.model_validate(OFF)
ALL = Policy.model_validate({**OFF, "copies": {}, "outliers": {}, "duplicates": {}})


def pool(count=900, reals=600, seed=0, dim=16):
    """Features and labels of a pool and of real images, a third of each label, half training."""
    random = np.random.default_rng(seed)
    middle = 3 * random.normal(size=(3, dim))
    labels, real_labels = np.arange(count) % 3, np.arange(reals) % 3
    features = middle[labels] + random.normal(size=(count, dim))
    real = middle[real_labels] + random.normal(size=(reals, dim))
    return features, labels, RealFeatures(real.astype(np.float16), real_labels, reals // 2)


def found(features, labels, real, space=SPACE, **fields):
    key = 10 * np.arange(len(labels))
    config = NeighbourConfig(**fields)
    return find_neighbours(key, labels, features.astype(np.float16), real, config, space=space)


def scores_of(neighbours, labels, error=None, space=SPACE):
    count = len(labels)
    return Scores(
        key=neighbours.key,
        label=labels,
        group=space.group_of(labels),
        ratio=np.ones(count),
        teacher_label=labels,
        teacher_error=np.zeros(count) if error is None else error,
        scored=np.ones(count, bool),
    )


def reasons(selection):
    return np.array([*REASONS, "kept"])[selection.reason]


def decided(scores, policy, neighbours, first=None):
    ones = np.ones(len(scores.key))
    return select(scores, policy, ones, ones > 0 if first is None else first, neighbours)


def test_nearest_images_are_those_of_a_loop_over_the_label():
    """Largest cosine in whitened features about the label's centre, training and validation."""
    features, labels, real = pool()
    result = found(features, labels, real)
    space = FeatureSpace.fitted(real.features[:300], real.labels[:300])
    for row in range(0, 900, 7):
        own = np.flatnonzero(real.labels == labels[row])
        about = space.about(real.features[own[own < 300]])
        place = about.coordinates(features[row : row + 1].astype(np.float16))[0]
        others = about.coordinates(real.features[own])
        cosine = others @ place / np.linalg.norm(others, axis=1) / np.linalg.norm(place)
        for name, some in (("nearest_real", own < 300), ("nearest_validation", own >= 300)):
            best = cosine[some].max()
            assert getattr(result, f"{name}_similarity")[row] == pytest.approx(best, abs=1e-3)
            at = own == getattr(result, f"{name}_id")[row]
            assert some[at].all()
            assert cosine[at][0] > best - 1e-3


def test_pooled_covariance_becomes_the_identity():
    """Inside labels whitened features have unit covariance, by NumPy."""
    _, _, real = pool(reals=3000)
    space = FeatureSpace.fitted(real.features, real.labels)
    parts = [space.coordinates(real.features[real.labels == g]) for g in range(3)]
    inside = np.concatenate([part - part.mean(0) for part in parts])
    assert np.allclose(inside.T @ inside / len(inside), np.eye(16), atol=0.03)


def test_products_of_vectors_are_exact_in_any_order():
    """Float32 sums of whole numbers equal those of integers, so no FAISS can differ."""
    vectors = as_vectors(np.random.default_rng(0).normal(size=(200, 512)))
    whole = vectors.astype(np.int64)
    exact = whole @ whole.T
    assert np.array_equal((vectors @ vectors.T).astype(np.int64), exact)
    assert np.array_equal((vectors[:, ::-1] @ vectors[:, ::-1].T).astype(np.int64), exact)
    assert (np.diag(similarities(exact)) > 1 - ROUNDING).all()


@pytest.mark.parametrize("exact_up_to", [10, 1000])
def test_equal_neighbours_are_decided_by_the_lowest_row(exact_up_to):
    """The same image many times over: its first row is the nearest, exactly or by lists."""
    vectors = as_vectors(np.random.default_rng(0).normal(size=(40, 8)))
    base = np.concatenate([vectors, vectors, vectors])
    rows, product = nearest(vectors, base, exact_up_to)
    assert rows.tolist() == list(range(40))
    assert np.array_equal(product, (vectors**2).sum(1))
    assert np.array_equal(nearest_others(base, 40, exact_up_to), product)


def test_a_gpu_that_breaks_ties_otherwise_decides_the_same(monkeypatch):
    """FAISS on a GPU returns equal neighbours in another order and the range by its k nearest."""
    import faiss
    import faiss.contrib.exhaustive_search as exhaustive

    features, labels, real = pool()
    features[300:360] = features[0]
    labels[300:360] = labels[0]
    before = found(features, labels, real)

    def backwards(_, queries, base, count, metric):
        assert metric == faiss.METRIC_INNER_PRODUCT
        order = np.argsort(-(queries @ base.T)[:, ::-1], axis=1, kind="stable")[:, :count]
        rows = len(base) - 1 - order
        return np.take_along_axis(queries @ base.T, rows, 1), rows

    def by_range(queries, least, index, base):
        hits = queries @ base.T > least
        rows, columns = np.nonzero(hits)
        return np.r_[0, hits.sum(1).cumsum()], (queries @ base.T)[rows, columns], columns

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "knn_gpu", backwards)
    monkeypatch.setattr(
        faiss, "GpuIndexFlatIP", lambda _, dim: faiss.IndexFlatIP(dim), raising=False
    )
    monkeypatch.setattr(exhaustive, "range_search_gpu", by_range)
    after = found(features, labels, real)
    for name, value in vars(before).items():
        if name != "thresholds":
            assert np.array_equal(value, getattr(after, name), equal_nan=value.dtype != np.int64)
    assert before.thresholds == after.thresholds


def test_near_pairs_are_all_pairs_at_least_so_similar():
    """Equality counts; later rows than the queried ones appear on the right alone."""
    vectors = as_vectors(np.random.default_rng(0).normal(size=(300, 4)))
    exact = vectors @ vectors.T
    threshold = float(exact[3, 17]) / ONE
    blocks = list(near_pairs(vectors, 200, threshold, 1000))
    pairs = {(int(a), int(b)) for block in blocks for a, b in zip(*block[:2], strict=True)}
    rows = np.argwhere(np.triu(exact >= exact[3, 17], 1))
    assert pairs == {(a, b) for a, b in rows.tolist() if a < 200}
    assert (3, 17) in pairs


def test_spanning_pairs_connect_the_same_rows_at_every_threshold():
    """Fewer pairs than rows, whatever the blocks; components equal those of all pairs."""
    random = np.random.default_rng(0)
    a, b = np.triu_indices(60, 1)
    similarity = random.integers(0, 40, len(a)).astype(np.float32) / 40
    halves = np.array_split(random.permutation(len(a)), 3)
    some = spanning_pairs(((a[h], b[h], similarity[h]) for h in halves), 60)
    assert len(some[0]) == 59
    whole = spanning_pairs([(a, b, similarity)], 60)
    assert all(np.array_equal(x, y) for x, y in zip(some, whole, strict=True))
    for threshold in (0.9, 0.95, 0.975):
        own, all_ = whole[2] >= threshold, similarity >= threshold
        labels = components(whole[0][own], whole[1][own], 60)
        assert np.array_equal(labels, components(a[all_], b[all_], 60))


def test_of_each_component_the_lowest_rank_stays():
    """By hand: rank first, the row where ranks are equal."""
    dropped = all_but_best(np.array([0, 0, 0, 1, 2, 2]), np.array([2.0, 1.0, 1.0, 9.0, 0.0, 0.0]))
    assert dropped.tolist() == [True, False, True, False, False, True]


def test_quantiles_beyond_the_sample_follow_a_power_tail():
    """Of u^½ with u uniform, the p-quantile is p^½ far below one in the sample's size."""
    values = np.sqrt((np.arange(5000) + 0.5) / 5000)
    asked = np.array([0.3, 1e-2, 1e-5, 1e-7])
    assert lower_quantile(values, asked) == pytest.approx(np.sqrt(asked), rel=0.1)
    assert upper_quantile(1 / values, asked) == pytest.approx(1 / np.sqrt(asked), rel=0.1)


def test_planted_copies_outliers_and_duplicates_are_named():
    """Copies of training images, far samples and a collapsed part each get their reason."""
    features, labels, real = pool()
    features[:9] = real.features[:9]
    features[9:18] *= 20
    features[30:90:3] = features[30]
    error = np.ones(900)
    error[60] = 0.5
    neighbours = found(features, labels, real)
    scores = scores_of(neighbours, labels, error)
    told = reasons(decided(scores, ALL, neighbours))
    assert set(told[:9]) == {"memorised"}
    assert neighbours.nearest_real_id[:9].tolist() == list(range(9))
    assert set(told[9:18]) == {"outlier"}
    kept = told[30:90:3] == "kept"
    assert set(told[30:90:3]) == {"duplicate", "kept"}
    assert np.flatnonzero(kept).tolist() == [10]  # the one with the least teacher error, row 60
    rest = np.r_[told[18:30], told[90:]]
    assert np.mean(rest == "kept") > 0.99


def test_duplicates_keep_the_best_of_what_the_others_left():
    """The best member is dropped by the filter; then the next best stays, by error, then key."""
    features, labels, real = pool()
    features[0:30:3] = features[0]
    neighbours = found(features, labels, real)
    error = np.zeros(900)
    error[0:30:3] = [9, 8, 7, 6, 5, 5, 6, 7, 8, 9]
    scores = scores_of(neighbours, labels, error)
    policy = Policy.model_validate({**OFF, "duplicates": 0.999})
    assert np.flatnonzero(reasons(decided(scores, policy, neighbours)) == "duplicate").tolist() == [
        row for row in range(0, 30, 3) if row != 12
    ]
    late = np.ones(900, bool)
    late[12] = False  # a later round revokes nothing: the best of the first round stays
    kept = decided(scores, policy, neighbours, late).kept
    assert np.flatnonzero(kept[0:30:3]).tolist() == [5]


def test_continuous_labels_are_compared_with_the_next_part_of_the_range():
    """A copy on the other side of a limit is a duplicate, one two parts away is not."""
    random = np.random.default_rng(0)
    labels = random.uniform(0, 60, 600)
    labels[:3] = 9.9, 10.1, 35.0
    features = random.normal(size=(600, 8))
    features[1:3] = features[0]
    real = RealFeatures(random.normal(size=(400, 8)), random.uniform(0, 60, 400), 300)
    neighbours = found(features, labels, real, DEGREES)
    policy = Policy.model_validate({**OFF, "duplicates": "calibrated"})
    scores = scores_of(neighbours, labels, space=DEGREES)
    assert reasons(decided(scores, policy, neighbours))[:3].tolist() == [
        "kept",
        "duplicate",
        "kept",
    ]
    assert (np.abs(real.labels[neighbours.nearest_real_id] - labels) < 20).all()


def test_tables_hold_what_a_policy_needs():
    """Written and read again, neighbours give the same selection; pairs have one partner each."""
    features, labels, real = pool()
    features[0:30:3] = features[0]
    features[31] = real.features[1]
    neighbours = found(features, labels, real)
    table = neighbours.table(labels)
    assert table.column_names == ["key_a", "key_b", "real_id", "split", "similarity"]
    rows = table.to_pylist()
    assert all((row["key_b"] is None) == (row["real_id"] is not None) for row in rows)
    assert {"key_a": 310, "key_b": None, "real_id": 1, "split": "train"}.items() <= next(
        row.items() for row in rows if row["key_a"] == 310 and row["split"] == "train"
    )
    stored = Thresholds.model_validate(neighbours.thresholds.model_dump(mode="json"))
    again = Neighbours.from_tables(neighbours.columns(), table, stored)
    scores = scores_of(neighbours, labels)
    before, after = (decided(scores, ALL, some) for some in (neighbours, again))
    assert np.array_equal(before.reason, after.reason)
    assert (
        before.fitted
        == after.fitted
        == {
            name: stored.model_dump(mode="json")[name]
            for name in ("memorised", "outliers", "duplicates")
        }
    )


def test_one_sample_of_a_label_has_neighbours_but_no_pair():
    """Nothing to be a duplicate of; its nearest real image is there."""
    features, labels, real = pool(7)
    neighbours = found(features[:1], labels[:1], real)
    assert len(neighbours.key_a) == 0
    assert real.labels[neighbours.nearest_real_id[0]] == labels[0]


def test_unusable_features_are_refused_in_one_line():
    """Equal or NaN features, a label without real images, a misfit of lengths."""
    features, labels, real = pool()
    same = RealFeatures(np.ones((600, 16)), real.labels, 300)
    with pytest.raises(BadInput, match="all 300 real images of a label are equal"):
        found(features, labels, same)
    broken = real.features.copy()
    broken[7, 3] = np.nan
    with pytest.raises(BadInput, match="1 of 300 rows, first in row 7"):
        found(features, labels, RealFeatures(broken, real.labels, 300))
    features[5] = np.nan
    with pytest.raises(BadInput, match="features of key 50 and 0 more"):
        found(features, labels, real)
    with pytest.raises(BadInput, match="label c has generated but no real"):
        found(features, labels, RealFeatures(real.features, np.arange(600) % 2, 300))
    alone = RealFeatures(real.features[[0, 1, 2]], np.array([0, 1, 2]), 3)
    with pytest.raises(BadInput, match=r"collapsed|no label has two"):
        found(features, labels, alone)
    with pytest.raises(BadInput, match="899 labels"):
        find_neighbours(np.arange(900), labels[1:], features, real, NeighbourConfig(), space=SPACE)


def test_a_pool_of_one_image_leaves_one_of_each_label():
    """A generator that collapsed altogether: all equal features are one group of each label."""
    features, labels, real = pool()
    neighbours = found(np.ones_like(features), labels, real)
    policy = Policy.model_validate({**OFF, "duplicates": "calibrated"})
    kept = decided(scores_of(neighbours, labels), policy, neighbours).kept
    assert np.flatnonzero(kept).tolist() == [0, 1, 2]
    assert len(neighbours.key_a) == 900 - 3


def test_a_part_of_the_range_without_real_images_is_named():
    """Real angles end at 20 degrees: from 30 on there is nothing to compare with."""
    random = np.random.default_rng(0)
    labels = random.uniform(0, 60, 300)
    real = RealFeatures(random.normal(size=(200, 8)), random.uniform(0, 20, 200), 150)
    with pytest.raises(BadInput, match="label 30 … 40 has generated but no real"):
        found(random.normal(size=(300, 8)), labels, real, DEGREES)


def test_policies_without_their_neighbours_are_refused():
    """No neighbours, those of another pool, too few, or pairs stored from a higher similarity."""
    features, labels, real = pool()
    neighbours = found(features, labels, real)
    scores = scores_of(neighbours, labels)
    with pytest.raises(BadInput, match="need neighbours"):
        decided(scores, ALL, None)
    fewer = found(features[:500], labels[:500], real)
    with pytest.raises(BadInput, match="lack key 5000 and 399 more"):
        decided(scores, ALL, fewer)
    with pytest.raises(BadInput, match="not of this pool"):
        decided(scores_of(fewer, labels[:500]), ALL, neighbours)
    with pytest.raises(BadInput, match=r"duplicates\.threshold 0\.1: pairs are stored"):
        decided(scores, Policy.model_validate({**OFF, "duplicates": 0.1}), neighbours)


def test_without_faiss_the_extra_is_named(monkeypatch):
    """Said before anything is computed."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BadInput, match="extra `cpu`"):
        found(*pool())
