"""The density ratio where the truth is known, and where it must be refused."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from cgankd.curation.density_ratio import PUBLISHED
from cgankd.curation.density_ratio.fit import (
    Described,
    RatioConfig,
    fit_on_features,
    fit_ratio,
    folds_of,
    joined_groups,
    near_a_real,
    split_generated,
)
from cgankd.curation.density_ratio.model import FeatureRatio, load_ratio
from cgankd.nets.feature_nets import Small
from cgankd.shardset.errors import BadInput, CheckpointError, TrainingDiverged
from cgankd.shardset.files import canonical_json, derive_seed, sha256_file
from cgankd.shardset.labels import ClassLabels, ContinuousLabels

FOUR = ClassLabels(names=("0", "1", "2", "3"))
RANGE = ContinuousLabels(unit="bar", low=0, high=12)
CPU = torch.device("cpu")
FEATURES = Small(width=16, dim=32, steps=150, batch=64)
QUICK = RatioConfig(features=FEATURES, steps=300, batch=64)
# As published, but for the time it takes.
OLD = PUBLISHED.model_copy(
    update={
        "features": FEATURES,
        "network": "MLP3",
        "steps": 400,
        "batch": 64,
        "learning_rate": 1e-3,
    }
)


def fit(arrays, folder, config=QUICK, seed=0, **options):
    return fit_ratio(
        *arrays,
        config,
        space=FOUR,
        folder=folder,
        seed=seed,
        device=CPU,
        precision="float32",
        **options,
    ).model_dump(mode="json")


def refusal(problems, words):
    return any(words in line for line in problems)


@pytest.fixture(scope="module")
def data(known_ratio):
    return known_ratio(30, 300)


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ratio")
    calls = []
    facts = fit(data.arrays(), folder, progress=lambda *call: calls.append(call))
    return folder, facts, calls


@pytest.fixture(scope="module")
def scored(data, fitted):
    return load_ratio(fitted[0], CPU).score(data.fake_pixels, data.fake_labels)


def test_ratio_ranks_samples_as_the_true_ratio_does(data, fitted, scored):
    """Thirty real images a class are enough for a rank correlation of 0.8 within each class."""
    assert fitted[1]["problems"] == []
    for label in range(4):
        own = data.fake_labels == label
        assert spearmanr(scored[own], data.log_ratio[own]).statistic > 0.8


def test_ratio_has_mean_one_over_generated_samples(data, fitted, scored):
    """Of every class, and on samples made after the fit as well."""
    for label in range(4):
        assert scored[data.fake_labels == label].mean() == pytest.approx(1, abs=0.2)
    for row in fitted[1]["per_label"]:
        assert row["mean_generated"] == pytest.approx(1, abs=0.3)


def test_kept_samples_lie_nearer_to_the_reals_than_a_random_subset(data, scored):
    """Places of kept samples have more of the reals' mean (0.8) than places of all (0)."""
    random = np.random.default_rng(0)
    kept = random.random(len(scored)) < 0.3 * scored
    assert kept.sum() > 200
    for label in range(4):
        own = data.fake_labels == label
        gap = abs(data.fake_places[own & kept].mean() - 0.8)
        assert gap < 0.6 * abs(data.fake_places[own].mean() - 0.8)


def test_diagnostics_have_a_row_for_every_label(fitted):
    """With all that the report shows; everything can be stored as JSON."""
    facts = fitted[1]
    assert [row["label"] for row in facts["per_label"]] == [0, 1, 2, 3]
    assert [row["real_images"] for row in facts["per_label"]] == [30] * 4
    wanted = {
        "held_out_loss",
        "mean_generated",
        "mean_real",
        "effective_sample",
        "largest",
        "acceptance",
    }
    assert wanted < set(facts["per_label"][0])
    assert wanted < set(facts["overall"])
    assert json.loads(canonical_json(facts)) == facts
    assert facts["sha256"] == sha256_file(fitted[0] / "model.safetensors")


def test_progress_counts_every_step_to_the_end(fitted):
    """Feature net and members are one bar that only grows."""
    calls = fitted[2]
    total = 150 + 5 * 300
    assert calls[-1][:2] == (total, total)
    assert all(first[0] < second[0] for first, second in itertools.pairwise(calls))
    assert all(math.isfinite(values["loss"]) for _, _, values in calls)


def test_same_seed_gives_the_same_bytes(data, fitted, tmp_path):
    """And another seed other ones."""
    assert fit(data.arrays(), tmp_path / "again") == fitted[1]
    other = fit(data.arrays(), tmp_path / "other", seed=1)
    assert other["sha256"] != fitted[1]["sha256"]


def test_a_loaded_ratio_scores_alike_in_any_company(data, fitted, scored):
    """A sample's ratio does not depend on the samples beside it."""
    model = load_ratio(fitted[0], CPU)
    some = slice(7, 20)
    assert np.array_equal(scored[some], model.score(data.fake_pixels[some], data.fake_labels[some]))


def test_equal_distributions_give_no_ratio(known_ratio, tmp_path):
    """Where real and generated are alike, the ratio is refused or next to constant."""
    data = known_ratio(30, 300, mean=0.0, std=1.0, seed=3)
    facts = fit(data.arrays(), tmp_path)
    assert refusal(facts["problems"], "no better than a constant")
    assert facts["overall"]["effective_sample"] > 0.9


def blurred(pixels):
    """Neighbours mixed in: a trait that all of a generator's images have and no real one."""
    wide = pixels.astype(np.float64)
    mixed = (2 * wide + np.roll(wide, 1, -1) + np.roll(wide, 1, -2)) / 4
    return mixed.round().astype(np.uint8)


def test_published_fit_on_few_images_is_refused(known_ratio, tmp_path):
    """λ 0.01, wide nets, no calibration: the mean is far from 1 and a label loses every sample."""
    data = known_ratio(16, 300)
    arrays = (*data.arrays()[:2], blurred(data.fake_pixels), data.fake_labels)
    facts = fit(arrays, tmp_path, OLD)
    assert facts["raw_mean"] < 0.4
    assert refusal(facts["problems"], "the mean ratio over held-out generated images is 0.")
    assert refusal(facts["problems"], "the ratio is 0 for every generated image")
    assert refusal(facts["problems"], "effective sample size")


def test_default_fit_on_the_same_images_passes(known_ratio, tmp_path):
    """Calibrated, and still ranking samples by the true ratio beside the blur."""
    data = known_ratio(16, 300)
    fakes = blurred(data.fake_pixels), data.fake_labels
    facts = fit((*data.arrays()[:2], *fakes), tmp_path)
    assert facts["problems"] == []
    ratio = load_ratio(tmp_path, CPU).score(*fakes)
    assert ratio.mean() == pytest.approx(1, abs=0.15)
    assert spearmanr(ratio, data.log_ratio).statistic > 0.3


def test_features_that_know_the_reals_are_refused(known_ratio, tmp_path):
    """Reals that the feature net learnt from stand out; on others the ratio says nothing."""
    data = known_ratio(16, 300)
    features = FEATURES.model_copy(update={"steps": 400, "weight_decay": 0.0, "shift": 0.0})
    facts = fit(
        data.arrays(), tmp_path, OLD.model_copy(update={"features": features, "steps": 1000})
    )
    known = load_ratio(tmp_path, CPU).score(data.real_pixels, data.real_labels).mean()
    assert known > 1.5 * facts["overall"]["mean_real"]
    assert refusal(facts["problems"], "no better than a constant")


def test_augmented_reals_against_plain_fakes_are_refused(data, tmp_path):
    """Cutting a quarter out of the real images alone sets them apart from everything generated."""
    cut = data.real_pixels.copy()
    cut[:, :, 2:6, 2:6] = 0
    facts = fit((cut, *data.arrays()[1:]), tmp_path)
    assert refusal(facts["problems"], "told apart by something that no sample has")


def test_diverged_training_stops(data, tmp_path):
    """A learning rate beyond reason ends in a message that names it, not in a table of NaN."""
    with pytest.raises(TrainingDiverged, match=r"lower ratio\.learning_rate"):
        fit(data.arrays(), tmp_path, QUICK.model_copy(update={"learning_rate": 1e30}))


def test_a_published_net_that_ran_away_is_refused(data, tmp_path):
    """Without the penalty and with too high a learning rate its ratios mean nothing."""
    config = OLD.model_copy(update={"learning_rate": 1.0, "penalty": 0.0})

    assert fit(data.arrays(), tmp_path, config)["problems"]


def test_bfloat16_features_are_scored_as_they_were_fitted(data, tmp_path):
    """The precision travels with the weights."""
    facts = fit_ratio(
        *data.arrays(),
        QUICK,
        space=FOUR,
        folder=tmp_path,
        seed=0,
        device=CPU,
        precision="bfloat16",
    ).model_dump(mode="json")
    ratio = load_ratio(tmp_path, CPU).score(data.fake_pixels, data.fake_labels)
    assert facts["problems"] == []
    assert spearmanr(ratio, data.log_ratio).statistic > 0.7


def test_label_without_images_is_named(data, tmp_path):
    """Too few real or generated images of a class: the class, the numbers and what to raise."""
    pixels, labels, fake_pixels, fake_labels = data.arrays()
    few = (labels != 2) | (np.cumsum(labels == 2) <= 1)
    with pytest.raises(BadInput, match=r"label 2 has 1 real images, at least 2 .* label budget"):
        fit((pixels[few], labels[few], fake_pixels, fake_labels), tmp_path)
    none = fake_labels != 3
    with pytest.raises(BadInput, match=r"label 3 has 0 generated images.*pool\.per_label"):
        fit((pixels, labels, fake_pixels[none], fake_labels[none]), tmp_path)
    with pytest.raises(BadInput, match="not one of the 4 classes"):
        fit((pixels, labels + 1, fake_pixels, fake_labels), tmp_path)
    assert not list(tmp_path.iterdir())


def test_fewest_images_still_end_in_a_verdict(known_ratio, tmp_path):
    """Two real and ten generated images a class: judged and usable, whatever the verdict.

    Which one it is hangs on last bits, and so on the processor.
    """
    data = known_ratio(2, 10).arrays()
    facts = fit(data, tmp_path)
    scores = load_ratio(tmp_path, CPU).score(*data[2:])

    assert all(isinstance(problem, str) for problem in facts["problems"])
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()


def test_other_images_than_fitted_are_refused(fitted):
    """A ratio for 8 px grey images does not score 16 px ones."""
    model = load_ratio(fitted[0], CPU)
    with pytest.raises(BadInput, match=r"expected \[n, 1, 8, 8\]"):
        model.score(np.zeros((2, 1, 16, 16), np.uint8), np.zeros(2, np.int64))


def test_ratio_of_another_format_is_refused(data, fitted, tmp_path):
    """A model.safetensors with a foreign config.json is named."""
    (tmp_path / "config.json").write_text('{"format_version": 99}')
    (tmp_path / "model.safetensors").write_bytes((fitted[0] / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="format 99"):
        load_ratio(tmp_path, CPU)


def test_generated_samples_are_split_into_disjoint_parts():
    """40, 40 and 20 percent of each label, at most so many in all, the same for the same seed."""
    labels = np.repeat(np.arange(3), [50, 100, 2000])
    parts = split_generated(labels, 600, seed=1)
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    counts = [np.bincount(labels[part]).tolist() for part in parts]
    assert counts == [[20, 40, 80], [20, 40, 80], [10, 20, 40]]
    again = split_generated(labels, 600, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_folds_are_of_one_size_and_spread_every_label():
    """Seven images of each of three labels over five folds: 4 or 5 a fold, 1 or 2 of a label."""
    labels = np.repeat(np.arange(3), 7)
    fold = folds_of(labels, 5, seed=0)
    assert set(np.bincount(fold)) <= {4, 5}
    for label in range(3):
        assert set(np.bincount(fold[labels == label], minlength=5)) <= {1, 2}


def test_folds_are_the_same_where_no_origin_is_shared():
    """Dealt in turn from each group's own permutation, as a plain loop deals them."""
    groups = np.random.default_rng(0).integers(0, 4, 103)
    expected, dealt = np.empty(103, np.int64), 0
    for group in range(4):
        random = np.random.default_rng(derive_seed(7, "folds", group))
        for row in random.permutation(np.flatnonzero(groups == group)):
            expected[row] = dealt % 5
            dealt += 1
    assert np.array_equal(folds_of(groups, 5, seed=7), expected)
    alone = [f"scan {row}" for row in range(103)]
    assert np.array_equal(folds_of(groups, 5, seed=7, origins=alone), expected)


def test_images_of_one_origin_share_a_fold():
    """Forty scans with four turns each, of any label: folds of 32 images, whole scans only."""
    groups = np.random.default_rng(0).integers(0, 4, 160)
    scans = np.tile(np.arange(40), 4)
    fold = folds_of(groups, 5, seed=0, origins=[f"scan {scan}" for scan in scans])
    assert all(len(set(fold[scans == scan])) == 1 for scan in range(40))
    assert np.bincount(fold).tolist() == [32] * 5


def test_origins_reach_the_fit(data, tmp_path):
    """Own origins change nothing, shared ones the folds; one for all of them cannot be left out."""
    config = QUICK.model_copy(
        update={"features": FEATURES.model_copy(update={"steps": 5}), "steps": 5}
    )
    plain = fit(data.arrays(), tmp_path / "plain", config)
    alone = [str(row) for row in range(120)]
    assert fit(data.arrays(), tmp_path / "alone", config, origins=alone) == plain
    pairs = [str(row // 2) for row in range(120)]
    assert fit(data.arrays(), tmp_path / "pairs", config, origins=pairs) != plain
    for origins in (["one scan"] * 120, alone[1:]):
        with pytest.raises(BadInput, match=r"density ratio: .* origins given for .* real images"):
            fit(data.arrays(), tmp_path / "none", config, origins=origins)


def test_generated_labels_are_near_by_part_or_by_a_vicinity_within_half_a_part():
    """Reals at 0.1 … 0.9 of 12 with a gap of 0.1: up to one gap on, though not across a hole."""
    real = np.arange(1, 10) / 10
    fake = np.array([0.0, 0.95, 0.99, 1.01, 1.1, 6.0, 11.4, 11.6])
    near = near_a_real(real, fake, QUICK, RANGE)
    assert near.tolist() == [True, True, True, False, False, False, False, False]
    wide = QUICK.model_copy(update={"vicinity": 3.0})
    assert near_a_real(real, fake, wide, RANGE).tolist() == [True] * 5 + [False] * 3
    # The largest gap is now 11, and the vicinity half a part.
    far = near_a_real(np.append(real, 11.9), fake, QUICK, RANGE)
    assert far.tolist() == [True] * 5 + [False, True, True]


def test_parts_with_one_real_sample_are_joined_with_neighbours():
    """Twelve reals one a part make six pairs; a last one without a neighbour joins the pair."""
    fake = np.repeat(np.arange(12) + 0.5, 10)
    one_each = np.arange(12) + 0.5
    assert (
        joined_groups(one_each, fake, RANGE).tolist() == np.repeat([0, 2, 4, 6, 8, 10], 2).tolist()
    )
    assert joined_groups(one_each[:3], fake, RANGE).tolist() == [0] * 12
    with pytest.raises(BadInput, match=r"has 9 generated images.*or lower label\.groups"):
        joined_groups(one_each[:2], fake[:9], RANGE)


def points_fit(real, real_labels, fake, fake_labels, groups, near):
    """A ratio fitted to points in place of features."""
    config = RatioConfig(steps=100, components=2, members=2, folds=2)
    shape = {"features": {"dim": 2}, "space": RANGE.model_dump(), "network": "small"}
    model = FeatureRatio(shape | {"components": 2, "members": 2, "strength": 1.0, "reach": None})
    own = np.where(near, groups[RANGE.group_of(fake_labels)], -1)
    half = np.arange(len(fake)) % 2 == 0
    facts = fit_on_features(
        model,
        Described(real, real_labels, groups[RANGE.group_of(real_labels)]),
        np.arange(len(real)) % 2,
        Described(fake[half], fake_labels[half], own[half]),
        Described(fake[~half], fake_labels[~half], own[~half]),
        config,
        seed=0,
        device=CPU,
    )
    return model, facts


def test_generated_samples_far_from_every_real_do_not_count():
    """Reals in the first of 12 parts: whatever the pool holds elsewhere, the verdict is on that
    part, and the others have its scale.
    """
    random = np.random.default_rng(0)
    real_labels, fake_labels = random.uniform(0, 1, 200), random.uniform(0, 12, 6000)
    real = random.normal(0.7, 0.7, (200, 2)).astype(np.float32)
    fake = random.normal(size=(6000, 2)).astype(np.float32)
    near = near_a_real(real_labels, fake_labels, QUICK, RANGE)
    groups = joined_groups(real_labels, fake_labels[near], RANGE)
    model, facts = points_fit(real, real_labels, fake, fake_labels, groups, near)
    assert facts.problems == ()
    assert facts.raw_mean == pytest.approx(1, abs=0.25)
    assert [row["label"] for row in facts.per_label] == [0]
    inside = fake_labels < 1
    ratio = model.ratios_of(torch.from_numpy(fake[inside]), torch.from_numpy(fake_labels[inside]))
    assert ratio.mean() == pytest.approx(1, abs=0.2)
    assert groups.tolist() == [0] * 12


def test_a_ratio_of_one_where_the_reals_are_is_not_refused_for_the_rest(monkeypatch):
    """1 in the first of 12 parts, 0.4 from 1.5 on: mean 1, but 0.475 over the whole pool."""
    monkeypatch.setattr(
        "cgankd.curation.density_ratio.training.log_ratio",
        lambda net, values, targets: torch.where(targets < 1.5 / 12, 1.0, 0.4).log(),
    )
    random = np.random.default_rng(0)
    real_labels, fake_labels = random.uniform(0, 1, 50), np.arange(1200) / 100
    points = random.normal(size=(1200, 2)).astype(np.float32)
    groups = np.zeros(12, np.int64)
    for near, mean in (
        (near_a_real(real_labels, fake_labels, QUICK, RANGE), 1.0),
        (np.ones(1200, bool), 0.4 + 0.6 / 8),
    ):
        _, facts = points_fit(points[:50], real_labels, points, fake_labels, groups, near)
        assert facts.raw_mean == pytest.approx(mean, abs=1e-3)
        assert refusal(facts.problems, "the mean ratio over held-out") == (mean < 0.75)


def test_range_wider_than_the_labels_ends_in_a_verdict_on_what_is_near(known_ratio, tmp_path):
    """Real labels up to 1 of 3: rows and numbers for that third, finite ratios for all labels."""
    data = known_ratio(40, 100, continuous=True)
    space = ContinuousLabels(unit="bar", low=0, high=3, groups=6)
    pixels, labels, *fakes = data.arrays()
    some = labels < 1
    config = QUICK.model_copy(
        update={"features": FEATURES.model_copy(update={"steps": 20}), "steps": 20}
    )
    facts = fit_ratio(
        pixels[some],
        labels[some],
        *fakes,
        config,
        space=space,
        folder=tmp_path,
        seed=0,
        device=CPU,
        precision="float32",
    ).model_dump(mode="json")
    assert [row["label"] for row in facts["per_label"]] == [0, 1]
    model = load_ratio(tmp_path, CPU)
    assert (model.log_scale[1:] == model.log_scale[1]).all()
    assert np.isfinite(model.score(*fakes)).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"members": 6}, "more than folds"),
        ({"features_from": "reals"}, "fewer members than folds"),
        ({"strengths": (0.0, 1.0)}, "must be above 0"),
    ],
)
def test_impossible_settings_are_refused(fields, words):
    """Each with a word on why."""
    with pytest.raises(ValueError, match=words):
        RatioConfig(**fields)


def test_configuration_survives_a_recipe():
    """What YAML gives back, lists and whole numbers included, is the same configuration."""
    fields = json.loads(json.dumps(PUBLISHED.model_dump(mode="json")))
    assert RatioConfig(**fields | {"penalty": 1}) == PUBLISHED.model_copy(update={"penalty": 1.0})
