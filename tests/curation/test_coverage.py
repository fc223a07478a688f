"""The most diverse samples of a group, against plain loops and known clusters."""

import numpy as np
import pytest

from cgankd.curation.policies.quotas import BLOCK, most_diverse
from cgankd.shardset.errors import BadInput


def directions(features):
    features = features.astype(np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def gaussian(count, width=8, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float16)


def least_similar_in_turn(features, count):
    """Farthest-first as it is defined: all similarities looked at again for each choice."""
    points = directions(features)
    similarity = points @ points.T
    chosen = [int(np.argmax(points @ points.sum(axis=0)))]
    while len(chosen) < count:
        closest = similarity[:, chosen].max(axis=1)
        closest[chosen] = np.inf
        chosen.append(int(np.argmin(closest)))
    return sorted(chosen)


@pytest.mark.parametrize(("count", "width"), [(40, 3), (2 * BLOCK, 8), (3 * BLOCK, 3)])
def test_farthest_first_takes_the_least_similar_each_time(count, width):
    """Looking at blocks of rows chooses what a plain loop over all rows chooses."""
    features = gaussian(count, width)
    rows = most_diverse(features, count // 4, "farthest")
    assert rows.tolist() == least_similar_in_turn(features, count // 4)


def test_ties_go_to_the_lowest_rows():
    """Four directions, each many times over: the first of each stays, then the lowest rows."""
    features = np.tile(np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float16), (BLOCK, 1))
    features[0] = [2, 0.5]  # the mean is nearest to this one alone
    for method in ("farthest", "kmeans"):
        rows = most_diverse(features, 5, method)
        assert {0, 1, 2, 3} <= set(rows.tolist())
    assert most_diverse(features, 8, "farthest").tolist() == list(range(8))


@pytest.mark.parametrize("method", ["farthest", "kmeans"])
def test_the_order_of_summation_changes_nothing(method):
    """Columns in another order, and features twice as long, give the very same rows."""
    features = gaussian(700, 64)
    other = features[:, np.random.default_rng(1).permutation(64)] * np.float16(2)
    rows = most_diverse(features, 200, method)
    assert rows.tolist() == most_diverse(other, 200, method).tolist()
    assert np.array_equal(np.unique(rows), rows)
    assert len(rows) == 200


@pytest.mark.parametrize("method", ["farthest", "kmeans"])
def test_each_of_some_clusters_is_represented(method):
    """Twenty directions of unequal frequency: a quota of twenty keeps one of each."""
    random = np.random.default_rng(0)
    directions_of = np.linalg.qr(random.normal(size=(20, 20)))[0]
    cluster = np.r_[np.arange(20), random.integers(0, 4, 400)]
    features = (directions_of[cluster] + 0.02 * random.normal(size=(420, 20))).astype(np.float16)
    chosen = cluster[most_diverse(features, 20, method)]
    assert sorted(chosen.tolist()) == list(range(20))


def test_clusters_stand_for_the_rest_better_than_the_lowest_keys():
    """K-means lowers the mean distance to the nearest kept one, farthest-first the largest."""
    features = gaussian(2000, 4)
    points = directions(features)

    def distance(rows):
        return (1 - points @ points[rows].T).min(axis=1)

    lowest = distance(np.arange(100))
    assert distance(most_diverse(features, 100, "kmeans")).mean() < 0.8 * lowest.mean()
    assert distance(most_diverse(features, 100, "farthest")).max() < 0.5 * lowest.max()


def test_a_collapsed_part_is_thinned_first():
    """Half of the samples are one image: farthest-first keeps one of them, not half a quota."""
    features = gaussian(200)
    features[::2] = features[0]
    rows = most_diverse(features, 101, "farthest")
    assert (rows % 2 == 0).sum() == 1


def test_few_samples_are_all_kept():
    """A quota of the whole group, or of more, leaves nothing to choose."""
    features = gaussian(5)
    assert most_diverse(features, 5, "farthest").tolist() == [0, 1, 2, 3, 4]
    assert most_diverse(features, 9, "kmeans").tolist() == [0, 1, 2, 3, 4]


def test_features_that_tell_nothing_are_refused():
    """NaN, infinite and equal features end in one line that says what to do."""
    features = gaussian(10)
    features[3, 0], features[7, 1] = np.nan, np.inf
    with pytest.raises(BadInput, match=r"2 of 10 samples are not finite, first of sample 3"):
        most_diverse(features, 2, "farthest")
    with pytest.raises(BadInput, match=r"all 10 samples are equal.*lowest-keys"):
        most_diverse(np.ones((10, 4), np.float16), 2, "kmeans")
