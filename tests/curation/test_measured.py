"""Metrics overall, by label and in windows: the same numbers as on the rows taken by hand."""

import numpy as np
import pytest

from cgankd.curation.metrics import Judge, MeasureConfig, Metric, measure
from cgankd.curation.metrics.fidelity import frechet_distance, label_score
from cgankd.curation.metrics.metrics import (
    agreement,
    confidence_gap,
    confidences,
    duplicate_rate,
    effective_sample_share,
    feature_metrics,
    learned_predictions,
    vendi_score,
)
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ClassLabels, ContinuousLabels

CLASSES = ClassLabels(names=("a", "b", "c"))
ANGLES = ContinuousLabels(unit="degrees", low=-60, high=60, groups=4)
JUDGE = Judge("judge", "0" * 64, "validation")
PLAIN = MeasureConfig(resamples=0)


def test_metric_by_label_is_that_of_the_labels_rows():
    """Overall and for each class, with the sizes it rests on."""
    random = np.random.default_rng(0)
    generated, real = random.normal(size=(60, 3)), random.normal(size=(45, 3))
    labels, real_labels = np.arange(60) % 3, np.arange(45) % 3
    fid = feature_metrics(generated, real)[0]
    rows = measure(fid, labels, real_labels, CLASSES, JUDGE, PLAIN)
    assert [(r.kind, r.place, r.samples, r.references) for r in rows] == [
        ("all", "all", 60, 45),
        ("group", "a", 20, 15),
        ("group", "b", 20, 15),
        ("group", "c", 20, 15),
    ]
    assert rows[0].value == frechet_distance(generated, real)
    assert rows[2].value == frechet_distance(generated[1::3], real[1::3])
    assert rows[2].warning == "20 samples against 15 real ones; below 200 a value is uncertain"
    assert {r.judge for r in rows} == {JUDGE}


def test_windows_slide_along_a_continuous_label():
    """Parts of the range and overlapping windows, ends included."""
    labels = np.array([-60.0, -50, 0, 1, 2, 60])
    told = labels + np.array([1.0, 3, 0, 2, 4, 6])
    config = MeasureConfig(resamples=0, windows=3, window_width=2.0)
    rows = measure(
        Metric.alone("label_score", label_score, told, labels), labels, None, ANGLES, JUDGE, config
    )
    assert [r.kind for r in rows] == ["all"] + 4 * ["group"] + 3 * ["window"]
    windows = [r for r in rows if r.kind == "window"]
    assert [(r.label, r.place, r.samples, r.value) for r in windows] == [
        (-60, "−60 degrees", 2, 2),
        (0, "0 degrees", 3, 2),
        (60, "60 degrees", 1, 6),
    ]
    assert rows[0].references is None


def test_label_with_too_few_samples_has_no_value_and_says_why():
    """Instead of being left out, or of stopping the others."""
    features = np.random.default_rng(1).normal(size=(20, 2))
    labels = np.array([0] * 12 + [1] * 8)
    overlaps = feature_metrics(features, features + 1, k=9)[2]
    rows = {
        (r.metric, r.place): r for r in measure(overlaps, labels, labels, CLASSES, JUDGE, PLAIN)
    }
    assert np.isfinite(rows["recall", "a"].value)
    assert np.isnan(rows["recall", "b"].value)
    assert rows["recall", "b"].warning == "8 samples against 8 real ones; at least 10 are needed"
    assert np.isnan(rows["density", "c"].value)


def test_interval_of_a_mean_covers_it_as_often_as_it_says():
    """The half-samples' spread is the standard error: 95 % of 200 intervals hold the true ½."""
    labels = np.zeros(300, np.int64)
    config = MeasureConfig(resamples=60)
    held = 0
    for seed in range(200):
        told = np.random.default_rng(seed).integers(0, 2, 300)
        [row, *_] = measure(
            Metric.alone("agreement", agreement, told, labels),
            labels,
            None,
            CLASSES,
            JUDGE,
            config,
            seed,
        )
        assert row.interval is not None
        assert row.warning is None
        held += row.interval[0] <= 0.5 <= row.interval[1]
    assert 0.90 <= held / 200 <= 0.99


def test_same_seed_gives_the_same_numbers():
    """Intervals and thinned sides too; another seed gives others."""
    random = np.random.default_rng(2)
    generated, real = random.normal(size=(300, 3)), random.normal(size=(250, 3))
    labels, real_labels = np.zeros(300, np.int64), np.zeros(250, np.int64)
    kid = feature_metrics(generated, real)[1]
    config = MeasureConfig(resamples=5, most=120)

    def run(seed: int) -> tuple[float, tuple[float, float] | None, int, int | None]:
        row = measure(kid, labels, real_labels, CLASSES, JUDGE, config, seed)[0]
        return row.value, row.interval, row.samples, row.references

    assert run(0) == run(0)
    assert run(0) != run(1)
    assert run(0)[2:] == (120, 120)


def test_every_metric_can_be_measured():
    """All of them give finite numbers for a plain set; names are distinct."""
    random = np.random.default_rng(3)
    features, real = random.normal(size=(90, 4)), random.normal(size=(80, 4))
    labels, real_labels = np.arange(90) % 3, np.arange(80) % 3
    logits = random.normal(size=(90, 3))
    components = np.r_[0, 1, 2, 0, np.arange(4, 90)]
    alone = (
        Metric.alone("vendi", vendi_score, features, halves=False),
        Metric.alone("agreement", agreement, logits.argmax(1), labels),
        Metric.alone("calibration_error", confidence_gap, *confidences(logits, labels)),
        Metric.alone("duplicate_rate", duplicate_rate, components, halves=False),
        Metric.alone("effective_sample", effective_sample_share, random.random(90)),
    )
    config = MeasureConfig(resamples=3)
    rows = [r for m in alone for r in measure(m, labels, None, CLASSES, JUDGE, config)]
    for metric in feature_metrics(features, real):
        rows += measure(metric, labels, real_labels, CLASSES, JUDGE, config)
    assert len({(r.metric, r.place) for r in rows}) == len(rows) == 12 * 4
    assert all(np.isfinite(r.value) for r in rows)
    by_name = {(r.metric, r.place): r.value for r in rows}
    assert by_name["duplicate_rate", "a"] == pytest.approx(1 / 30)
    assert by_name["duplicate_rate", "b"] == 0
    assert {r.metric for r in rows if r.interval is None} == {"vendi", "duplicate_rate"}


def test_error_of_a_metric_names_the_label():
    """So that one bad label among many is found."""
    features = np.random.default_rng(4).normal(size=(20, 2))
    features[15] = np.nan
    labels = np.repeat([0, 1], 10)
    vendi = Metric.alone("vendi", vendi_score, features).of
    bad = Metric(("vendi",), lambda a, b: vendi(a, b) if a[0] >= 10 else [1.0])
    with pytest.raises(BadInput, match=r"^b: Vendi score: the first features are \[10, 2\]"):
        measure(bad, labels, None, CLASSES, JUDGE, PLAIN)


def test_empty_set_is_refused():
    """With what to look at."""
    none = np.zeros(0, np.int64)
    with pytest.raises(BadInput, match="why nothing was kept"):
        measure(Metric.alone("agreement", agreement, none, none), none, None, CLASSES, JUDGE, PLAIN)


def test_net_that_selected_may_not_judge():
    """Told by the hash of its weights."""
    JUDGE.check("1" * 64)
    with pytest.raises(BadInput, match="train another net"):
        JUDGE.check("0" * 64)


def test_learner_sees_generated_samples_and_answers_for_real_ones():
    """A learner that remembers the mean brightness of each class is right on three of four."""
    pixels = np.array([0, 10, 200, 210], np.uint8).reshape(4, 1, 1, 1)
    validation = np.array([5, 190, 20, 90], np.uint8).reshape(4, 1, 1, 1)

    def learn(images: np.ndarray, labels: np.ndarray):
        means = np.array([images[labels == c].mean() for c in (0, 1)])
        return lambda shown: np.abs(shown.reshape(-1, 1) - means).argmin(1)

    told = learned_predictions(learn, pixels, np.array([0, 0, 1, 1]), validation)
    truth = np.array([0, 1, 0, 1])
    [row, *_] = measure(
        Metric.alone("agreement", agreement, told, truth), truth, None, CLASSES, JUDGE, PLAIN
    )
    assert row.value == 0.75


def test_learner_that_does_not_answer_for_each_image_is_refused():
    """Logits in place of labels, or images without labels."""
    pixels = np.zeros((4, 1, 1, 1), np.uint8)
    with pytest.raises(BadInput, match="expected one label for each"):
        learned_predictions(lambda *_: lambda shown: np.zeros((4, 2)), pixels, np.zeros(4), pixels)
    with pytest.raises(BadInput, match="each image needs a label"):
        learned_predictions(lambda *_: lambda shown: shown, pixels, np.zeros(3), pixels)
