"""Differentiable augmentation, each kind against a plain computation per image."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cgankd.generator.config import Augmentation
from cgankd.generator.game import UNIFORMS, augment

unit = st.floats(0, 0.999)


def images(channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def uniforms(**places: float) -> torch.Tensor:
    """The same random numbers for every image, ½ where nothing is said."""
    row = torch.full((UNIFORMS,), 0.5)
    for place, value in places.items():
        row[int(place[1:])] = value
    return row.expand(4, UNIFORMS)


def test_without_kinds_nothing_changes() -> None:
    """An empty list of kinds hands the images on."""
    assert torch.equal(images(), augment(images(), torch.rand(4, UNIFORMS), ()))


def test_colour_at_one_half_changes_nothing() -> None:
    """½ is the middle of every range: no brightness, saturation and contrast as they were."""
    torch.testing.assert_close(augment(images(), uniforms(), ("colour",)), images())


@given(unit, unit, unit)
@settings(max_examples=20, deadline=None)
def test_colour_is_brightness_then_saturation_then_contrast(a: float, b: float, c: float) -> None:
    """Each step computed image by image in numpy."""
    x = images().double().numpy() + (a - 0.5)
    grey = x.mean(1, keepdims=True)
    x = grey + (x - grey) * 2 * b
    mean = x.mean((1, 2, 3), keepdims=True)
    expected = mean + (x - mean) * (c + 0.5)

    augmented = augment(images(), uniforms(_0=a, _1=b, _2=c), ("colour",))

    np.testing.assert_allclose(augmented, expected, atol=1e-5)


def test_grey_images_have_no_saturation() -> None:
    """With one channel the number for saturation has no effect."""
    grey = images(channels=1)

    assert torch.equal(
        augment(grey, uniforms(_1=0.1), ("colour",)), augment(grey, uniforms(_1=0.9), ("colour",))
    )


@given(unit, unit)
@settings(max_examples=25, deadline=None)
def test_translation_moves_whole_pixels_and_fills_with_zero(a: float, b: float) -> None:
    """16 px move by −2 … 2 px on each axis, equally often."""
    down, right = int(a * 5) - 2, int(b * 5) - 2
    padded = np.pad(images().numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    expected = padded[:, :, 2 - down : 18 - down, 2 - right : 18 - right]

    moved = augment(images(), uniforms(_3=a, _4=b), ("translation",))

    assert np.array_equal(moved.numpy(), expected)


@given(unit, unit)
@settings(max_examples=25, deadline=None)
def test_cutout_clears_a_square_of_half_the_size_around_a_place(a: float, b: float) -> None:
    """Up to 8 × 8 of 16 × 16 px become 0, the others stay."""
    row, column = int(a * 17), int(b * 17)
    expected = images().numpy().copy()
    expected[:, :, max(row - 4, 0) : row + 4, max(column - 4, 0) : column + 4] = 0

    cut = augment(images(), uniforms(_5=a, _6=b), ("cutout",))

    assert np.array_equal(cut.numpy(), expected)


def test_gradients_reach_every_pixel_that_is_seen() -> None:
    """What a shift moves out of sight gets no gradient, everything else gets 1."""
    x = images().requires_grad_()

    augment(x, uniforms(_3=0.0, _4=0.5), ("translation",)).sum().backward()

    assert x.grad is not None
    assert torch.equal(x.grad[:, :, :2], torch.zeros(4, 3, 2, 16))
    assert torch.equal(x.grad[:, :, 2:], torch.ones(4, 3, 14, 16))


def test_every_image_has_its_own_random_numbers() -> None:
    """The rows of `uniforms` belong to the images one by one."""
    draws = torch.rand(4, UNIFORMS, generator=torch.Generator().manual_seed(3))
    kinds: tuple[Augmentation, ...] = ("colour", "translation", "cutout")

    together = augment(images(), draws, kinds)
    alone = torch.cat([augment(images()[i : i + 1], draws[i : i + 1], kinds) for i in range(4)])

    torch.testing.assert_close(together, alone)
