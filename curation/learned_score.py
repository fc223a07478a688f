"""What can be learned from generated samples alone (classification accuracy score)."""

from collections.abc import Callable

import numpy as np

from shardset.errors import BadInput

# Trains a fresh network on pixels and labels; what it returns predicts the labels of pixels.
Learner = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def learned_predictions(
    learn: Learner, pixels: np.ndarray, labels: np.ndarray, real_pixels: np.ndarray
) -> np.ndarray:
    """The labels `[m]` that a network trained on generated uint8 pixels `[n, c, h, w]` and labels
    `[n]` alone gives to real validation ones `[m, c, h, w]`.

    Their `agreement` with the true labels is the classification accuracy score (Ravuri & Vinyals,
    2019, arXiv 1905.10887); for continuous labels their `label_score` is the like. `BadInput` for
    unequal numbers or a learner that does not answer with a label an image.
    """
    if len(pixels) != len(labels) or len(pixels) == 0 or len(real_pixels) == 0:
        raise BadInput(
            f"classification accuracy score: {len(pixels):,} images, {len(labels):,} labels and "
            f"{len(real_pixels):,} validation images; each image needs a label, and neither set "
            "may be empty"
        )
    predicted = np.asarray(learn(pixels, labels)(real_pixels))
    if predicted.shape != (len(real_pixels),):
        raise BadInput(
            f"classification accuracy score: the learner answered {list(predicted.shape)} for "
            f"{len(real_pixels):,} images, expected one label for each"
        )
    return predicted
