"""How many generated samples are more than a real training image seen again."""

import numpy as np

from curation.distances import squared_distances, squared_radii
from curation.fidelity import check_features


def authenticity(generated: np.ndarray, real: np.ndarray) -> float:
    """The share in [0, 1] of generated `[n, d]` that lie farther from their nearest real one of
    `[m, d]` than this lies from its own nearest other (Alaa et al., 2022, arXiv 2102.08921).

    `real` are the generator's training images: about ½ for fresh samples of their distribution, 0
    for copies. `BadInput` for fewer than 2 samples or features that are not finite.
    """
    check_features("authenticity", generated, real, least=2)
    own = squared_radii(real, 1)
    authentic = 0
    for _, found in squared_distances(generated, real):
        authentic += int((found.min(1) > own[found.argmin(1)]).sum())
    return authentic / len(generated)
