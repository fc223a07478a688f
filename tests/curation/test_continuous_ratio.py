"""The density ratio of continuous labels: images, vicinities, empty parts of the range."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from cgankd.curation.density_ratio import RatioConfig
from cgankd.curation.density_ratio.fit import fit_ratio, joined_groups
from cgankd.curation.density_ratio.model import Projection, load_ratio
from cgankd.curation.density_ratio.training import Vicinity
from cgankd.nets.feature_nets import Small
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ClassLabels, ContinuousLabels

CPU = torch.device("cpu")
BAR = ContinuousLabels(unit="bar", low=0, high=3, groups=4)
QUICK = RatioConfig(features=Small(width=16, dim=32, steps=150, batch=64), steps=200, batch=64)


def fit(arrays, folder, config=QUICK, space=BAR):
    return fit_ratio(
        *arrays, config, space=space, folder=folder, seed=0, device=CPU, precision="float32"
    ).model_dump(mode="json")


@pytest.fixture(scope="module")
def data(known_ratio):
    return known_ratio(40, 300, continuous=True)


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ratio")
    return folder, fit(data.arrays(), folder)


def test_ratio_ranks_samples_as_the_true_ratio_does(data, fitted):
    """In every part of the range, with mean 1 there, and as one row of diagnostics each."""
    folder, facts = fitted
    assert facts["problems"] == []
    assert [row["label"] for row in facts["per_label"]] == [0, 1, 2, 3]
    ratio = load_ratio(folder, CPU).score(data.fake_pixels, data.fake_labels)
    for group in range(4):
        own = BAR.group_of(data.fake_labels) == group
        assert spearmanr(ratio[own], data.log_ratio[own]).statistic > 0.7
        assert ratio[own].mean() == pytest.approx(1, abs=0.2)


def test_same_seed_gives_the_same_bytes(data, fitted, tmp_path):
    """Continuous labels draw from the same streams as classes."""
    assert fit(data.arrays(), tmp_path) == fitted[1]


def test_a_loaded_ratio_scores_alike_in_any_company(data, fitted):
    """Batches are padded, with labels too."""
    model = load_ratio(fitted[0], CPU)
    together = model.score(data.fake_pixels[:20], data.fake_labels[:20])
    assert np.array_equal(together[7:], model.score(data.fake_pixels[7:20], data.fake_labels[7:20]))


def test_empty_parts_of_the_range_are_fitted_with_their_neighbours(data, tmp_path):
    """No real images below 1 bar: no crash, a verdict, and numbers for labels there as well."""
    pixels, labels, *fakes = data.arrays()
    some = labels > 1
    facts = fit((pixels[some], labels[some], *fakes), tmp_path)
    assert [row["label"] for row in facts["per_label"]] == [1, 2, 3]
    assert sum(row["real_images"] for row in facts["per_label"]) == some.sum()
    model = load_ratio(tmp_path, CPU)
    assert model.log_scale[0] == model.log_scale[1]
    assert np.isfinite(model.score(*fakes)).all()


def test_nearest_part_with_enough_samples_is_taken():
    """Two real and ten generated samples are enough; a class without them is refused instead."""
    real = np.array([0.1, 0.2, 2.3, 2.4, 2.9])
    fake = np.repeat([0.1, 1.6, 2.3, 2.9], [10, 10, 10, 10])
    assert joined_groups(real, fake, BAR).tolist() == [0, 0, 3, 3]
    with pytest.raises(BadInput, match=r"label 0 … 0.75 has 1 real images"):
        joined_groups(real[1:2], fake, BAR)
    three = ClassLabels(names=("cat", "dog", "elk"))
    with pytest.raises(BadInput, match="label dog has 0 real images"):
        joined_groups(np.array([0, 0, 2, 2]), np.repeat([0, 1, 2], 10), three)


def test_images_of_another_label_are_drawn_again_and_have_no_ratio(data, tmp_path):
    """A tenth of the pool has labels from the other end: with rounds they get the ratio 0."""
    arrays = [array.copy() for array in data.arrays()]
    wrong = (np.arange(len(arrays[3])) % 10 == 0) & (np.abs(arrays[3] - 1.5) > 0.9)
    arrays[3][wrong] = 3 - arrays[3][wrong]
    facts = fit(arrays, tmp_path, QUICK.model_copy(update={"rounds": 20, "tolerance": 0.3}))
    assert facts["problems"] == []
    ratio = load_ratio(tmp_path, CPU).score(*arrays[2:])
    assert (ratio[wrong] == 0).mean() > 0.6
    assert (ratio[~wrong] == 0).mean() < 0.1
    assert spearmanr(ratio[~wrong], data.log_ratio[~wrong]).statistic > 0.6


def test_label_balanced_batches_fit_as_well(data, tmp_path):
    """Half of the reals crowd at one label; drawing labels evenly still gives a ratio."""
    pixels, labels, *fakes = data.arrays()
    facts = fit((pixels, labels, *fakes), tmp_path, QUICK.model_copy(update={"balance": True}))
    assert facts["problems"] == []


def test_vicinity_is_all_labels_within_zeta_else_the_nearest():
    """Against plain loops; each generated sample in a vicinity is drawn about equally often."""
    random = np.random.default_rng(0)
    real, fake = random.random(30), np.round(random.random(50), 1)
    draws = torch.Generator().manual_seed(0)
    for zeta in (0.0, 0.02, 0.3):
        vicinity = Vicinity.around(torch.from_numpy(real), torch.from_numpy(fake), zeta)
        for row, label in enumerate(real):
            distance = np.abs(fake - label)
            expected = np.flatnonzero(distance <= max(zeta, distance.min() + 1e-12))
            drawn = vicinity.draw(torch.full((2000,), row), draws).numpy()
            assert set(drawn) == set(expected)
            assert np.bincount(drawn).max() < 2 * 2000 / len(expected) + 30


def test_projection_takes_off_what_features_do_along_the_label():
    """Features that run along a curve with noise: the coordinates are the noise, on one scale."""
    random = np.random.default_rng(0)
    labels = random.uniform(0, 3, 4000)
    noise = random.normal(size=(4000, 2)) * 0.05
    features = np.stack([np.sin(2 * labels), labels**2 / 3], 1) + noise
    found = Projection.fitted(features.astype(np.float32), labels, 2, BAR)
    targets = torch.from_numpy(BAR.targets(labels))
    with torch.inference_mode():
        coordinates = found(torch.from_numpy(features).float(), targets).numpy()
    assert np.abs(np.corrcoef(coordinates.T, noise.T)[:2, 2:]).max(1) == pytest.approx(1, abs=0.3)
    assert (coordinates**2).mean() == pytest.approx(1, abs=0.05)
    explained = np.linalg.lstsq(noise, coordinates, rcond=None)[1] / (coordinates**2).sum(0)
    assert explained == pytest.approx(0, abs=0.02)
