"""Tiny images whose true density ratio is known: bars whose angle is the class and whose place
and width are normal latents, drawn from another distribution for real than for generated ones.
"""

from dataclasses import dataclass

import numpy as np
import pytest

CLASSES = 4
SIZE = 8


@dataclass(frozen=True)
class KnownRatio:
    """Real and generated images, and log r of every generated one."""

    real_pixels: np.ndarray
    real_labels: np.ndarray
    fake_pixels: np.ndarray
    fake_labels: np.ndarray
    fake_places: np.ndarray
    log_ratio: np.ndarray

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The first four arguments of `fit_ratio`."""
        return self.real_pixels, self.real_labels, self.fake_pixels, self.fake_labels


def known_ratio(
    reals: int,
    generated: int,
    *,
    mean: float = 0.8,
    std: float = 0.8,
    seed: int = 0,
    continuous: bool = False,
) -> KnownRatio:
    """So many images a class; real places are N(mean, std²), generated ones N(0, 1).

    Continuous labels lie anywhere from 0 to 3, generated ones at 61 places.
    """
    random = np.random.default_rng(seed)
    real_labels = np.repeat(np.arange(CLASSES), reals)
    fake_labels = np.repeat(np.arange(CLASSES), generated)
    if continuous:
        real_labels = random.uniform(0, CLASSES - 1, len(real_labels))
        fake_labels = np.linspace(0, CLASSES - 1, 61)[np.arange(len(fake_labels)) % 61]
    real_places = mean + std * random.normal(size=len(real_labels))
    fake_places = random.normal(size=len(fake_labels))
    return KnownRatio(
        bars(real_places, real_labels, random),
        real_labels,
        bars(fake_places, fake_labels, random),
        fake_labels,
        fake_places,
        fake_places**2 / 2 - ((fake_places - mean) / std) ** 2 / 2 - np.log(std),
    )


def bars(places: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Pixels uint8 `[n, 1, 8, 8]` of bars."""
    axis = np.linspace(-1, 1, SIZE)
    down, across = np.meshgrid(axis, axis, indexing="ij")
    angle = (np.pi * labels / CLASSES)[:, None, None]
    width = 0.25 * np.exp(0.25 * random.normal(size=len(labels)))[:, None, None]
    distance = np.cos(angle) * across + np.sin(angle) * down - 0.35 * places[:, None, None]
    bright = 10 + 220 * np.exp(-((distance / width) ** 2) / 2)
    bright += 8 * random.normal(size=bright.shape)
    return bright.clip(0, 255).round().astype(np.uint8)[:, None]


@pytest.fixture(scope="session", name="known_ratio")
def _known_ratio():
    """The function `known_ratio`: tests cannot import from here."""
    return known_ratio
