"""Two selections side by side: two versions, or two policies on one pool."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cgankd.app.review.data import SCORES, Subject
from cgankd.app.review.filters import Counts, Histogram, counted, histogram
from cgankd.app.review.policy import changed
from cgankd.curation.difference import changes_per_group, why
from cgankd.shardset.errors import BadInput


@dataclass(frozen=True)
class Comparison:
    """What differs between two selections; of different pools, only how many and how spread."""

    counts: tuple[Counts, Counts]
    histograms: tuple[tuple[Histogram, Histogram], ...]  # a pair a score, on the same bins
    same_pool: bool
    changes: pa.Table | None  # a row for each key that differs, as `curation.difference` tells it
    why: pa.Table | None
    labels: pa.Table | None  # how many came, went and were relabelled in each group
    only_first: np.ndarray  # keys int64 that the first alone keeps; empty for different pools
    only_second: np.ndarray


def compare(first: Subject, second: Subject) -> Comparison:
    """Two selections compared; `BadInput` where their labels are not the same."""
    if first.space != second.space:
        raise BadInput(f"{first.path} and {second.path} have different labels; compare equal ones")
    pairs = []
    for score in SCORES:
        one = histogram(first, score)
        other = one and histogram(second, score, edges=one.edges)
        if one and other:
            pairs.append((one, other))
    same = first.pool_id == second.pool_id and np.array_equal(first.key, second.key)
    changes = changed(first, second) if same else None
    none = np.empty(0, np.int64)
    return Comparison(
        counts=(counted(first), counted(second)),
        histograms=tuple(pairs),
        same_pool=same,
        changes=changes,
        why=None if changes is None else why(changes),
        labels=None if changes is None else changes_per_group(changes, first.space),
        only_first=first.key[first.kept & ~second.kept] if same else none,
        only_second=second.key[second.kept & ~first.kept] if same else none,
    )
