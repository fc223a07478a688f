"""How wide a label's vicinity is, by the rules of CcGAN (Ding et al. 2021, arXiv 2011.07379, §4).

Labels are scaled to [0, 1]. Few images have exactly one continuous label, so the discriminator is
trained on those around it: within κ (hard), or weighted by exp(−κ d²) of the distance (soft).
"""

import math
from typing import Literal

import numpy as np

Vicinity = Literal["hard", "soft"]

LEAST_WEIGHT = 1e-3  # of the soft vicinity: what weighs less is not drawn


def kernel_sigma(scaled: np.ndarray) -> float:
    """σ = 1.06 · std · N^(−1/5) of the noise on a target label; labels float `[n]` in [0, 1]."""
    return float(1.06 * np.std(scaled) * len(scaled) ** -0.2)


def vicinity_kappa(scaled: np.ndarray, kappa: float, kind: Vicinity) -> float:
    """κ of a vicinity: `kappa` itself where positive; −m is m times the labels' largest gap.

    The gap is that between consecutive unique labels of float `[n]` in [0, 1]; a soft vicinity
    takes one over its square.
    """
    if kappa > 0:
        return kappa
    width = -kappa * float(np.diff(np.unique(scaled)).max())
    return width if kind == "hard" else width**-2


def reach(kappa: float, kind: Vicinity) -> float:
    """How far from a label its vicinity reaches: κ, or where the weight has fallen to 0.001."""
    return kappa if kind == "hard" else math.sqrt(-math.log(LEAST_WEIGHT) / kappa)
