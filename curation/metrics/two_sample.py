"""Can a fresh classifier tell real samples from kept ones? (classifier two-sample test)"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cgankd.curation.metrics.fidelity import check_features
from cgankd.shardset.errors import BadInput

FOLDS = 5
LEAST = 10  # samples a side in a test; below, folds are too small to learn from


@dataclass(frozen=True)
class TwoSample:
    """How well real and other samples are told apart on samples the classifier has not seen."""

    auc: float  # how often a real sample is the one taken for real; ½: cannot be told apart
    auc_error: float  # its standard error
    accuracy: float  # the share told right, both sides counted the same
    reals: int
    others: int


@dataclass(frozen=True)
class TwoSampleByLabel:
    """A row for each group of labels that can be tested, and their mean by real samples."""

    overall: TwoSample
    per_label: Mapping[int, TwoSample]


def two_sample_test(real: np.ndarray, other: np.ndarray, seed: int = 0) -> TwoSample:
    """What a cross-fitted logistic classifier says of features `[n, d]` and `[m, d]`.

    Each fold is judged by a classifier fitted on the others (Lopez-Paz & Oquab, 2017, arXiv
    1610.06545, with every sample held out once). The AUC's standard error is DeLong's
    (1988), widened for the overlap of the folds' classifiers (Nadeau & Bengio, 2003).
    `BadInput` for fewer than `LEAST` samples on a side or features that are not finite.
    """
    check_features("two-sample check", real, other, least=LEAST)
    random = np.random.default_rng(seed)
    real_folds, other_folds = (
        np.array_split(random.permutation(len(side)), FOLDS) for side in (real, other)
    )
    real_wins, other_wins = np.empty(len(real)), np.empty(len(other))
    right = np.zeros(2)
    for real_out, other_out in zip(real_folds, other_folds, strict=True):
        real_score, other_score = _scores(
            np.delete(real, real_out, 0),
            np.delete(other, other_out, 0),
            real[real_out],
            other[other_out],
        )
        # Scores of different classifiers are not compared: a sample's rank is within its fold.
        real_wins[real_out] = _share_below(real_score, other_score)
        other_wins[other_out] = 1 - _share_below(other_score, real_score)
        right += np.sum(real_score > 0), np.sum(other_score <= 0)
    variance = real_wins.var(ddof=1) / len(real) + other_wins.var(ddof=1) / len(other)
    # Classifiers that share most of their samples err together: DeLong's variance alone would be
    # that of one classifier known beforehand.
    variance *= 1 + FOLDS / (FOLDS - 1)
    return TwoSample(
        auc=float(real_wins.mean()),
        auc_error=float(np.sqrt(variance)),
        accuracy=float((right / (len(real), len(other))).mean()),
        reals=len(real),
        others=len(other),
    )


def two_sample_by_label(
    real: np.ndarray,
    real_groups: np.ndarray,
    sets: Mapping[str, tuple[np.ndarray, np.ndarray]],
    seed: int = 0,
) -> dict[str, TwoSampleByLabel]:
    """The check of each named set of features `[m, d]` with groups int64 `[m]`, by group.

    Every set is thinned at random to the size of the smallest one of that group, since a classifier
    told more samples tells more apart. Groups with fewer than `LEAST` samples in any set, or of the
    reals, are left out; `BadInput` where no group is left.
    """
    rows: dict[str, dict[int, TwoSample]] = {name: {} for name in sets}
    for group in np.unique(real_groups).tolist():
        reals = real[real_groups == group]
        members = {name: np.flatnonzero(groups == group) for name, (_, groups) in sets.items()}
        size = min(len(candidates) for candidates in members.values())
        if min(size, len(reals)) < LEAST:
            continue
        for name, candidates in members.items():
            random = np.random.default_rng([seed, group])
            thinned = np.sort(random.choice(candidates, size, replace=False))
            rows[name][group] = two_sample_test(reals, sets[name][0][thinned], seed=seed)
    if not all(rows.values()) or not rows:
        raise BadInput(
            f"two-sample check: no label has {LEAST} samples among the reals and in each of "
            f"{', '.join(sets) or 'no sets'}; keep more samples or leave a set out"
        )
    return {name: TwoSampleByLabel(_mean(list(by.values())), by) for name, by in rows.items()}


def _scores(
    real: np.ndarray, other: np.ndarray, real_out: np.ndarray, other_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How real held-out samples look, above 0 for real, to a classifier fitted on the others."""
    from sklearn.linear_model import LogisticRegression

    known = np.concatenate([real, other]).astype(np.float64)
    centre, spread = known.mean(0), known.std(0)
    spread[spread == 0] = 1.0  # a feature that is always the same tells nothing

    def scaled(features: np.ndarray) -> np.ndarray:
        return (features - centre) / spread

    classifier = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2_000)
    classifier.fit(scaled(known), np.repeat([1, 0], [len(real), len(other)]))
    return classifier.decision_function(scaled(real_out)), classifier.decision_function(
        scaled(other_out)
    )


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of `others` below each value, ties counted half."""
    order = np.sort(others)
    below = np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")
    return below / 2 / len(order)


def _mean(rows: list[TwoSample]) -> TwoSample:
    """The mean over groups, weighted by their real samples."""
    weights = np.array([row.reals for row in rows], np.float64)
    weights /= weights.sum()
    errors = np.array([row.auc_error for row in rows])
    return TwoSample(
        auc=float(weights @ [row.auc for row in rows]),
        auc_error=float(np.sqrt(np.sum((weights * errors) ** 2))),
        accuracy=float(weights @ [row.accuracy for row in rows]),
        reals=sum(row.reals for row in rows),
        others=sum(row.others for row in rows),
    )
