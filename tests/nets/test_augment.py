"""Augmentation: what may come out, and that the seed decides it."""

import numpy as np
import pytest
import torch

from cgankd.nets.batches import augmented

PIXELS = torch.tensor(np.random.default_rng(0).integers(1, 256, (40, 2, 16, 16), dtype=np.uint8))


def crops(image, reach):
    """Every crop of one image padded with black, by position."""
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)))
    size = image.shape[1]
    return {
        padded[:, y : y + size, x : x + size].tobytes()
        for y in range(2 * reach + 1)
        for x in range(2 * reach + 1)
    }


def test_none_changes_nothing():
    """The batch itself comes back."""
    assert augmented(PIXELS, "none", 1) is PIXELS


def test_shift_moves_each_image_by_at_most_an_eighth():
    """Every result is one of the 25 crops of its own image, and not always the same one."""
    shifted = augmented(PIXELS, "shift", 1).numpy()
    for before, after in zip(PIXELS.numpy(), shifted, strict=True):
        assert after.tobytes() in crops(before, 2)
    unmoved = sum(np.array_equal(*pair) for pair in zip(PIXELS.numpy(), shifted, strict=True))
    assert unmoved < 10


def test_smallest_images_move_by_one_pixel():
    """An eighth of 8 px."""
    pixels = PIXELS[:, :, :8, :8]
    for before, after in zip(pixels.numpy(), augmented(pixels, "shift", 1).numpy(), strict=True):
        assert after.tobytes() in crops(before, 1)


def test_flip_mirrors_about_half():
    """Every result is the image or its mirror image."""
    flipped = augmented(PIXELS, "flip", 1)
    mirrored = (flipped == PIXELS.flip(-1)).flatten(1).all(1)
    same = (flipped == PIXELS).flatten(1).all(1)
    assert (mirrored | same).all()
    assert 10 < mirrored.sum() < 30


def test_shift_flip_does_both():
    """Every result is a crop of the image, or the mirror image of one."""
    both = augmented(PIXELS, "shift-flip", 3).numpy()
    straight = [
        after.tobytes() in crops(before, 2)
        for before, after in zip(PIXELS.numpy(), both, strict=True)
    ]
    turned = [
        np.ascontiguousarray(after[..., ::-1]).tobytes() in crops(before, 2)
        for before, after in zip(PIXELS.numpy(), both, strict=True)
    ]
    assert all(one or other for one, other in zip(straight, turned, strict=True))
    assert 0 < sum(straight) < 40


@pytest.mark.parametrize("how", ["flip", "shift", "shift-flip"])
def test_the_seed_alone_decides(how):
    """The global generator plays no part."""
    torch.manual_seed(0)
    first = augmented(PIXELS, how, 5)
    torch.manual_seed(1)
    assert torch.equal(augmented(PIXELS, how, 5), first)
    assert not torch.equal(augmented(PIXELS, how, 6), first)
