"""How many samples a set is worth: where copies are counted once, and by density ratios."""

import numpy as np

from shardset.errors import BadInput


def duplicate_rate(keys: np.ndarray, key_a: np.ndarray, key_b: np.ndarray) -> float:
    """The share in [0, 1) of keys int64 `[n]` that could go without losing a picture.

    Pairs (key_a, key_b) int64 `[p]` are near-duplicates; those with a key that is not in the set
    do not count. Of each connected group of pairs one sample is needed. `BadInput` for no keys or
    for the same key twice.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known = np.unique(keys)
    if len(known) != len(keys) or len(keys) == 0:
        raise BadInput(
            f"duplicate rate: {len(keys):,} keys of which {len(known):,} differ, expected at least "
            "one, each once"
        )
    inside = np.isin(key_a, known) & np.isin(key_b, known)
    ends = np.searchsorted(known, key_a[inside]), np.searchsorted(known, key_b[inside])
    pairs = coo_array((np.ones(inside.sum(), np.int8), ends), shape=(len(known), len(known)))
    needed, _ = connected_components(pairs, directed=False)
    return 1 - int(needed) / len(known)


def effective_sample_size(ratios: np.ndarray) -> float:
    """(Σr)²/Σr² of density ratios `[n]` ≥ 0: from 1 (one dominates) to n (all equal), 0 where all
    are 0 (Kish, 1965). `BadInput` for ratios that are not finite or below 0.
    """
    if not np.isfinite(ratios).all() or (ratios < 0).any():
        raise BadInput(
            "effective sample size: ratios must be finite and ≥ 0; leave out samples that failed"
        )
    largest = ratios.max(initial=0.0)
    if largest == 0:
        return 0.0
    weights = ratios / largest  # squares of huge or tiny ratios would leave the floats
    return float(weights.sum() ** 2 / (weights**2).sum())
