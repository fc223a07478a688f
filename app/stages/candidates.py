"""How a generator in training is scored, so that the best of its candidates can be kept.

Samples are compared with the budget's validation images by the kernel distance within each group of
labels, so that a sample must fit its label, in the features of a small net that was trained on the
budget's training images: the same for every candidate. The distance is unbiased however few images
there are; precision and recall against 40 images did not rank candidates at all. No image of
another split is looked at.
"""

from collections.abc import Mapping
from statistics import fmean

import numpy as np

from cgankd.app.context import Context
from cgankd.curation.metrics.fidelity import kernel_distance
from cgankd.generator.keep_best import MERIT, Score
from cgankd.nets.device import threads
from cgankd.nets.feature_nets import Small, features_of, train_feature_net
from cgankd.shardset.files import derive_seed

SAMPLES = 1000  # of a candidate at least, with the validation images' labels
BATCH = 250
NETWORK = Small(steps=300)


def validation_score(ctx: Context) -> Score | None:
    """The score of candidates; None where no label has two validation images to compare with."""
    space, pixels, labels = ctx.space, ctx.data.validation_pixels, ctx.data.validation_labels
    groups = space.group_of(labels)
    compared = [group for group in np.unique(groups) if np.sum(groups == group) > 1]
    if not compared:
        return None
    samples = np.resize(labels, max(SAMPLES, len(labels)))
    groups_of_samples = space.group_of(samples)
    with threads(ctx.threads):
        net = train_feature_net(
            ctx.data.train_pixels,
            ctx.data.train_labels,
            NETWORK,
            space=space,
            seed=derive_seed(ctx.recipe.seed, "candidates"),
            device=ctx.device,
            precision="float32",
        )

    def features(pixels: np.ndarray) -> np.ndarray:
        return features_of(net, pixels, device=ctx.device, precision="float32", batch=BATCH)

    with threads(ctx.threads):
        real = features(pixels)

    def figures(pixels: np.ndarray) -> Mapping[str, float]:
        generated = features(pixels)
        distance = fmean(
            kernel_distance(generated[groups_of_samples == group], real[groups == group])
            for group in compared
        )
        return {MERIT: -distance, "kid": distance}

    return Score(samples, figures)
