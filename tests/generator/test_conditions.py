"""Who is paired with whom around a continuous label."""

import numpy as np
import pytest
import torch

from cgankd.generator.config import GeneratorTraining, Vicinity
from cgankd.generator.game import Pairs, VicinalConditions
from cgankd.shardset.labels import ContinuousLabels

SPACE = ContinuousLabels(unit="bar", low=0, high=10)
LABELS = np.array([9.0, 1, 2, 2, 2, 2, 4])


def drawn(labels: np.ndarray = LABELS, batch: int = 4000, **training: object) -> Pairs:
    """One step's pairs, of many samples."""
    conditions = VicinalConditions(
        labels, SPACE, GeneratorTraining.model_validate(training), torch.device("cpu")
    )
    return conditions.draw(torch.Generator().manual_seed(0), 1, batch)[0]


@pytest.mark.parametrize(("vicinity", "kappa"), [("hard", 0.15), ("soft", 300.0)])
def test_everything_shown_lies_in_the_target_s_vicinity(vicinity: Vicinity, kappa: float) -> None:
    """Real and generated images alike; the generator's labels stay within the range."""
    reach = 0.15 if vicinity == "hard" else (np.log(1000) / 300) ** 0.5

    pairs = drawn(vicinity=vicinity, kappa=kappa)
    targets = pairs.real_conditions.numpy()

    assert np.abs(LABELS[pairs.images] / 10 - targets).max() <= reach + 1e-6
    assert np.abs(pairs.generator_conditions.numpy() - targets).max() <= reach + 1e-6
    assert 0 <= pairs.generator_conditions.min() < 0.02
    assert 0.98 < pairs.generator_conditions.max() <= 1
    assert torch.equal(pairs.real_conditions, pairs.fake_conditions)


def test_an_image_is_drawn_uniformly_from_the_vicinity() -> None:
    """Of those within κ of 2, by counting: five of the seven images, none of the others."""
    pairs = drawn(sigma=0.0, vicinity="hard", kappa=0.15, prior="keep")
    near_two = np.isclose(pairs.real_conditions.numpy(), 0.2)

    counts = np.bincount(pairs.images[torch.from_numpy(near_two)], minlength=7)

    assert counts[[0, 6]].tolist() == [0, 0]
    np.testing.assert_allclose(counts[1:6] / counts.sum(), 1 / 5, atol=0.04)


def test_the_soft_weights_are_those_of_the_formula() -> None:
    """exp(−κ d²) of the distance between the label shown and the one given; hard ones are 1."""
    pairs = drawn(vicinity="soft", kappa=300.0)
    real = np.exp(-300 * (LABELS[pairs.images] / 10 - pairs.real_conditions.numpy()) ** 2)
    fake = np.exp(-300 * (pairs.generator_conditions - pairs.fake_conditions).numpy() ** 2)

    np.testing.assert_allclose(pairs.weight_real, real, atol=1e-5)
    np.testing.assert_allclose(pairs.weight_fake, fake, atol=1e-5)
    assert drawn(vicinity="hard").weight_real == 1


@pytest.mark.parametrize(("prior", "share"), [("keep", 4 / 7), ("balanced", 1 / 4)])
def test_targets_follow_the_prior(prior: str, share: float) -> None:
    """Without noise: each image's label, or each unique label as often."""
    pairs = drawn(sigma=0.0, vicinity="hard", kappa=0.01, prior=prior)

    assert np.isclose(pairs.real_conditions, 0.2).mean() == pytest.approx(share, abs=0.03)


def test_noise_has_the_deviation_asked_for() -> None:
    """Around one label in the middle, with a vicinity that holds every image."""
    pairs = drawn(np.array([5.0, 5, 5, 0]), sigma=0.05, vicinity="hard", kappa=2.0)
    targets = pairs.real_conditions.numpy()[pairs.real_conditions.numpy() > 0.25]

    assert np.std(targets) == pytest.approx(0.05, rel=0.1)


def test_a_target_without_images_around_it_is_drawn_again_and_at_last_its_label() -> None:
    """Noise a thousand times the vicinity: nothing is ever empty, and no loop goes on."""
    pairs = drawn(np.array([0.0, 5, 10]), sigma=100.0, vicinity="hard", kappa=1e-3)

    targets = pairs.real_conditions.numpy() * 10
    distances = np.abs(targets[:, None] - [0, 5, 10]).min(1)
    assert distances.max() <= 1e-2 + 1e-6
