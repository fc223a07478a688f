"""`digits`: scikit-learn's 1,797 scanned digits, 8 × 8 px, which need no download."""

import numpy as np

from shardset.listing import Listing


def list_digits() -> Listing:
    """The digits, without a test split of their own; grey levels 0 … 16 become 0 … 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Listing(
        ids=tuple(map(str, range(len(pixels)))),
        labels=digits.target.astype(np.int64),
        names=tuple(map(str, digits.target_names)),
        picture=pixels.__getitem__,
    )
