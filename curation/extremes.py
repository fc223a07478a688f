"""Thresholds for what the real images are too few to show: quantiles out in the tail."""

import numpy as np

from shardset.errors import BadInput

TAIL = 0.1  # the share of the values from which the tail is read
LEAST = 5  # values, however few there are
TINY = 1e-4  # copies among the values, at 0, would make any tail endless


def lower_quantile(values: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The values float64 that positive `values` `[n]` fall below with these probabilities.

    Inside the sample it is the quantile. Beyond the lowest tenth the tail is taken to fall as a
    power, its exponent fitted to that tenth (Hill, Annals of Statistics 1975): the nearest of
    many neighbours comes closer than the nearest of few ever did. `BadInput` without values.
    """
    if not len(values):
        raise BadInput(
            "neighbours: no label has two real training images, so nothing says how alike "
            "different images are; raise the label budget"
        )
    probability = np.asarray(probability, np.float64)
    ordered = np.sort(np.maximum(values, TINY))
    count = min(len(ordered), max(int(np.ceil(TAIL * len(ordered))), LEAST))
    share, edge = count / len(ordered), ordered[count - 1]
    inverse = np.log(edge / ordered[:count]).mean()
    beyond = edge * (np.minimum(probability, share) / share) ** inverse
    inside = np.quantile(ordered, np.clip(probability, 0, 1))
    return np.where(probability < share, beyond, inside)


def upper_quantile(values: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The values that positive `values` `[n]` exceed with these probabilities."""
    return 1 / lower_quantile(1 / np.maximum(values, TINY), probability)
