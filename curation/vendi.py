"""How many different samples a set is worth (Vendi score)."""

import numpy as np

from curation.fidelity import check_features
from shardset.errors import BadInput


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
