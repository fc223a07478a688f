"""How many samples a set is worth: where copies are counted once, and by density ratios."""

import numpy as np

from shardset.errors import BadInput


def duplicate_rate(components: np.ndarray) -> float:
    """The share in [0, 1) of samples that could go without losing a picture; near-duplicates have
    one of the `components` int64 `[n]` in common. `BadInput` for no samples.
    """
    if len(components) == 0:
        raise BadInput("duplicate rate: there are no samples")
    return 1 - len(np.unique(components)) / len(components)


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
