"""What a report shows along a continuous label, by a judge that selected nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from cgankd.app.context import Context
from cgankd.app.pages.report_facts import Along, LabelFacts
from cgankd.curation.metrics.fidelity import (
    frechet_distance,
    label_score,
    sliding_frechet,
    sliding_label_score,
)
from cgankd.nets.feature_nets import FeatureConfig, features_of, train_feature_net
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import ContinuousLabels
from cgankd.student.evaluate import predictions

# Wide enough to regress by; small enough to train in seconds.
JUDGE = FeatureConfig(width=16, dim=32, steps=400, shift=0.0)
WINDOWS = 25


def along_the_label(
    ctx: Context,
    selection: pa.Table,
    test_labels: np.ndarray,
    answers: Mapping[str, Sequence[np.ndarray]],
) -> LabelFacts | None:
    """The facts along the label, None for classes; `answers` are each arm's test outputs per seed.

    The judge is a net of its own, trained on every real image that is no test image; fidelity is
    against the same images, in its features.
    """
    space, data = ctx.space, ctx.data
    if not isinstance(space, ContinuousLabels):
        return None
    pool = np.load(ctx.run.students / "arrays" / "pool_pixels.npy", mmap_mode="r")
    was_kept = selection["kept"].to_numpy()
    asked, final = (selection[name].to_numpy() for name in ("original_label", "label"))
    real_pixels = np.concatenate([data.all_train_pixels, data.validation_pixels])
    real_labels = np.concatenate([data.all_train_labels, data.validation_labels])
    with ctx.console.task("judge") as progress:
        judge = train_feature_net(
            real_pixels,
            real_labels,
            JUDGE,
            space=space,
            seed=derive_seed(ctx.recipe.seed, "judge"),
            device=ctx.device,
            precision=ctx.precision,
            progress=progress,
        )

    def features(pixels: np.ndarray) -> np.ndarray:
        return features_of(judge, pixels, device=ctx.device, precision=ctx.precision, batch=500)

    real, generated = features(real_pixels), features(pool)
    with torch.inference_mode():
        answered = judge.head(torch.from_numpy(generated).to(ctx.device)).cpu().numpy()
    guesses = predictions(answered, space)
    centres = np.linspace(space.low, space.high, WINDOWS).tolist()
    width = 1.5 * space.span / space.groups
    windows = f"in windows of {width:.3g} {space.unit}"

    def distances(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        found = sliding_frechet(real, real_labels, generated[rows], labels, centres, width)
        by_centre = {row.label: row.distance for row in found}
        return np.array([by_centre.get(centre, np.nan) for centre in centres])

    def scores(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        found = sliding_label_score(guesses[rows], labels, centres, width)
        by_centre = {row.label: row.score for row in found}
        return np.array([by_centre.get(centre, np.nan) for centre in centres])

    everything = np.ones(len(asked), bool)
    sizes = f"{len(real):,} real, {len(asked):,} raw, {int(was_kept.sum()):,} kept"
    return LabelFacts(
        real=data.train_labels,
        pool=asked,
        kept=final[was_kept],
        mae={name: _by_group(space, test_labels, found) for name, found in answers.items()},
        fidelity=Along(
            centre=np.array(centres),
            raw=distances(everything, asked),
            kept=distances(was_kept, final[was_kept]),
            overall=(
                frechet_distance(real, generated),
                frechet_distance(real, generated[was_kept]),
            ),
            caption=f"Fréchet distance to the real images that are no test images, {windows} "
            f"({sizes}), in the features of a net trained on them",
        ),
        score=Along(
            centre=np.array(centres),
            raw=scores(everything, asked),
            kept=scores(was_kept, final[was_kept]),
            overall=(label_score(guesses, asked), label_score(guesses[was_kept], final[was_kept])),
            caption=f"mean |prediction of the same net − label| in {space.unit}, {windows}",
        ),
    )


def _by_group(
    space: ContinuousLabels, labels: np.ndarray, outputs: Sequence[np.ndarray]
) -> np.ndarray:
    """The mean error float `[groups]` over seeds, NaN for a part of the range without images."""
    error = np.mean([np.abs(predictions(o, space) - labels) for o in outputs], axis=0)
    group = space.group_of(labels)
    sums, counts = (np.bincount(group, w, minlength=space.groups) for w in (error, None))
    return np.divide(sums, counts, out=np.full(space.groups, np.nan), where=counts > 0)
