"""How many samples a set is worth: where copies are counted once, and by density ratios."""

import numpy as np

from cgankd.curation.metrics.fidelity import check_features
from cgankd.shardset.errors import BadInput


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


def vendi_score(features: np.ndarray) -> float:
    """The effective number of different samples among `[n, d]`, from 1 (all alike) to min(n, d).

    The exponential of the entropy of the eigenvalues of XᵀX/n, rows of X at unit length: the
    covariance form, which costs n·d² where the kernel form costs n³ (Friedman & Dieng, 2023, arXiv
    2210.02410). `BadInput` for features that are not finite or all 0.
    """
    check_features("Vendi score", features, features, least=1)
    rows = features.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not lengths.all():
        raise BadInput(
            f"Vendi score: the features of {int((lengths == 0).sum()):,} of {len(rows):,} samples "
            "are all 0 and point nowhere; take another feature net"
        )
    rows /= lengths
    weights = np.linalg.eigvalsh(rows.T @ rows / len(rows))
    weights = weights[weights > 0]
    return float(np.exp(-(weights * np.log(weights)).sum()))
