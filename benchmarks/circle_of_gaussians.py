"""Is the fitted density ratio the true one? `python -m benchmarks.circle_of_gaussians`

The two-dimensional set of the CcGAN papers (Ding et al., arXiv 2011.07379, section 4.1): for each
label a narrow Gaussian on the unit circle. The generator's density is given too, so the true ratio
is known everywhere. It is fitted at 120 labels and judged at those halfway between.
"""

from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from cgankd.curation.density_ratio import RatioConfig
from cgankd.curation.density_ratio.fit import (
    Described,
    fit_on_features,
    folds_of,
    joined_groups,
    split_generated,
)
from cgankd.curation.density_ratio.model import FeatureRatio
from cgankd.curation.policies import Policy
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import select
from cgankd.shardset.labels import ContinuousLabels

SPACE = ContinuousLabels(unit="turns", low=0, high=1)
LABELS = np.arange(120) / 120  # ten real samples each, as published
BETWEEN = LABELS + 1 / 240
REAL_PER_LABEL, GENERATED_PER_LABEL, JUDGED_PER_LABEL = 10, 100, 200
STD = 0.02  # of the real samples around their mean
OUTLIERS, OUTLIER_STD = 0.1, 0.08  # a tenth of what is generated lies anywhere near the mean


@dataclass(frozen=True)
class Verdict:
    """What was found over the held-out labels."""

    rank_correlation: float  # of fitted with true ratios, mean over labels
    pooled_rank_correlation: float  # over the samples of all labels
    raw_distance: float  # 2-Wasserstein distance to the true conditional, mean over labels
    kept_distance: float  # of as many samples that the shipped policy keeps
    oracle_distance: float  # of those that it keeps by the true ratio
    problems: list[str]


def main() -> None:
    """Prints a row for each of three seeds, and one for a ratio of the bare features."""
    print("| seed | rank correlation | pooled | raw W2 | kept W2 | lower by | by the true ratio |")
    print("|---|---|---|---|---|---|---|")
    settings = [*((str(seed), RatioConfig(), seed) for seed in range(3))]
    settings.append(("0, features as they are", RatioConfig(components=None), 0))
    refused = []
    for name, config, seed in settings:
        found = measure(config, seed)
        gain, best = (
            100 * (1 - distance / found.raw_distance)
            for distance in (found.kept_distance, found.oracle_distance)
        )
        print(
            f"| {name} | {found.rank_correlation:.3f} | {found.pooled_rank_correlation:.3f} | "
            f"{found.raw_distance:.4f} | {found.kept_distance:.4f} | {gain:.0f} % | {best:.0f} % |"
        )
        refused += [f"{name}: refused: {problem}" for problem in found.problems]
    print("\n".join(["", *refused]))


def measure(config: RatioConfig, seed: int, judged: np.ndarray = BETWEEN) -> Verdict:
    """The verdict, at some held-out labels, on a ratio fitted with this configuration."""
    random = np.random.default_rng(seed)
    model, problems = fitted_ratio(config, random, seed)
    labels = np.repeat(judged, JUDGED_PER_LABEL)
    points = generated(labels, random)
    truth = true_log_ratio(points, labels)
    found = model.ratios_of(torch.from_numpy(points), torch.from_numpy(labels)).double().numpy()
    own = [labels == label for label in judged]
    uniforms = random.random(len(labels))
    by_fitted, by_truth = (_kept(ratio, labels, uniforms) for ratio in (found, np.exp(truth)))
    distances = []
    for rows in own:
        count = min(int((rows & by_fitted).sum()), int((rows & by_truth).sum()))
        reference = real(labels[rows][:count], random)
        distances.append(
            [
                wasserstein(points[rows & some][:count], reference)
                for some in (rows, by_fitted, by_truth)
            ]
        )
    raw, kept, oracle = np.mean(distances, 0).tolist()
    return Verdict(
        fmean(spearmanr(found[rows], truth[rows]).statistic for rows in own),
        float(spearmanr(found, truth).statistic),
        raw,
        kept,
        oracle,
        problems,
    )


def fitted_ratio(
    config: RatioConfig, random: np.random.Generator, seed: int
) -> tuple[FeatureRatio, list[str]]:
    """A ratio fitted to points themselves in place of features, and what is wrong with it."""
    real_labels = np.repeat(LABELS, REAL_PER_LABEL)
    fake_labels = np.repeat(LABELS, GENERATED_PER_LABEL)
    joined = joined_groups(real_labels, fake_labels, SPACE)

    def described(points: np.ndarray, labels: np.ndarray) -> Described:
        return Described(points, labels, joined[SPACE.group_of(labels)])

    reals = described(real(real_labels, random), real_labels)
    pool = described(generated(fake_labels, random), fake_labels)
    first, second, held_out = split_generated(pool.groups, config.most_generated, seed)
    model = FeatureRatio(
        {
            "features": {"dim": 2},
            "space": SPACE.model_dump(),
            "network": config.network,
            "components": config.components and min(config.components, 2),
            "members": config.members,
            "strength": 1.0,
            "reach": None,
        }
    )
    fit_rows = np.concatenate([first, second])
    facts = fit_on_features(
        model,
        reals,
        folds_of(reals.groups, config.folds, seed),
        described(pool.features[fit_rows], pool.labels[fit_rows]),
        described(pool.features[held_out], pool.labels[held_out]),
        config,
        seed=seed,
        device=torch.device("cpu"),
    )
    return model, list(facts.problems)


def real(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Real points float32 `[n, 2]`."""
    return (_on_circle(labels) + STD * random.normal(size=(len(labels), 2))).astype(np.float32)


def generated(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Generated points float32 `[n, 2]`: off by up to a standard deviation, too wide, and with
    outliers.
    """
    mean, std = _generator(labels)
    out = random.random(len(labels)) < OUTLIERS
    std = np.where(out, OUTLIER_STD, std)
    return (mean + std[:, None] * random.normal(size=mean.shape)).astype(np.float32)


def true_log_ratio(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log r float64 `[n]` of points `[n, 2]` given their labels."""
    mean, std = _generator(labels)
    narrow = np.log(1 - OUTLIERS) + _log_density(points, mean, std)
    wide = np.log(OUTLIERS) + _log_density(points, mean, np.full(len(labels), OUTLIER_STD))
    truth = _log_density(points, _on_circle(labels), np.full(len(labels), STD))
    return truth - np.logaddexp(narrow, wide)


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """The exact 2-Wasserstein distance of two equally large samples `[n, 2]`."""
    costs = cdist(first, second, "sqeuclidean")
    return float(np.sqrt(costs[linear_sum_assignment(costs)].mean()))


def _kept(ratio: np.ndarray, labels: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """What the shipped subsampling keeps, bool `[n]`."""
    count = len(labels)
    scores = Scores(
        key=np.arange(count),
        label=labels,
        group=SPACE.group_of(labels),
        ratio=ratio,
        teacher_label=labels,
        teacher_error=np.zeros(count),
        scored=np.ones(count, bool),
    )
    return select(scores, Policy(filter=None), uniforms, np.ones(count, bool)).kept


def _generator(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[n, 2]` and standard deviation `[n]` of the generator's main part."""
    turn = 2 * np.pi * labels
    mean = (1 + 0.02 * np.sin(2 * turn)[:, None]) * _on_circle(labels + 0.003 * np.cos(3 * turn))
    return mean, 0.03 + 0.005 * np.sin(turn)


def _on_circle(labels: np.ndarray) -> np.ndarray:
    turn = 2 * np.pi * labels
    return np.stack([np.sin(turn), np.cos(turn)], 1)


def _log_density(points: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    squares = ((points - mean) ** 2).sum(1) / std**2
    return -squares / 2 - 2 * np.log(std) - np.log(2 * np.pi)


if __name__ == "__main__":
    main()
