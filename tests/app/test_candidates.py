"""How candidates of a generator's training are scored."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from cgankd.app.stages.candidates import SAMPLES, validation_score
from cgankd.generator.keep_best import MERIT
from cgankd.shardset.testing import tiny_space


def halves(labels: np.ndarray, seed: int, noise: int = 40) -> np.ndarray:
    """8 × 8 images, white on the left (0) or at the top (1), with some noise."""
    draws = np.random.default_rng(seed)
    top = np.repeat([215, 40], 32).reshape(8, 8)
    clean = np.where(labels[:, None, None] == 1, top, top.T)[:, None]
    noisy = clean + draws.integers(-noise, noise, clean.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def context(validation: int = 40, seed: int = 0) -> Any:
    """What a score needs of a run; whoever looks at other images than these fails."""
    labels, validation_labels = np.arange(160) % 2, np.arange(validation) % 2
    return SimpleNamespace(
        data=SimpleNamespace(
            train_pixels=halves(labels, seed=1),
            train_labels=labels,
            validation_pixels=halves(validation_labels, seed=2),
            validation_labels=validation_labels,
        ),
        recipe=SimpleNamespace(seed=seed),
        space=tiny_space(2),
        image_shape=(1, 8, 8),
        device=torch.device("cpu"),
        threads=1,
    )


def test_the_nearer_to_the_validation_images_the_higher_the_merit() -> None:
    """Fresh images of the same kind, then noisier ones, then ones with each other's labels."""
    score = validation_score(context())
    assert score is not None
    candidates = (
        halves(score.labels, seed=3),
        halves(score.labels, seed=3, noise=120),
        halves(1 - score.labels, seed=3),
    )

    merits = [score.of(pixels)[MERIT] for pixels in candidates]

    assert merits == sorted(merits, reverse=True)
    assert abs(merits[0]) < 0.2 * abs(merits[1])


def test_a_score_is_the_same_whenever_it_is_made() -> None:
    """It hangs on the recipe's seed, not on the state of the global random numbers."""
    pixels = halves(np.resize([0, 1], SAMPLES), seed=3, noise=90)
    made = [validation_score(context()), validation_score(context())]

    first, second = (score.of(pixels) for score in made if score is not None)

    assert first == second
    assert first["kid"] == -first[MERIT]


def test_samples_have_the_validation_images_labels() -> None:
    """Each as often as the others, but for one."""
    ctx = context(validation=30)
    score = validation_score(ctx)
    assert score is not None

    counts = np.bincount(score.labels) / np.bincount(ctx.data.validation_labels)

    assert len(score.labels) == SAMPLES
    np.testing.assert_allclose(counts, SAMPLES / 30, rtol=0.05)


def test_one_validation_image_a_label_is_too_few_to_score_by() -> None:
    """Then the last step is kept."""
    assert validation_score(context(validation=2)) is None
