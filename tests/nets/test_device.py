"""Threads and pixels: what every room asks of the device."""

import os

import numpy as np
import pytest
import torch

from cgankd.nets.device import as_images, threads, training_threads


def test_threads_hold_within_the_context_and_are_given_back_after_an_error():
    """Whoever fixes the number of threads leaves no trace of it, also when the work fails."""
    before, seen = torch.get_num_threads(), []

    def work() -> None:
        with threads(before + 1):
            seen.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_the_threads_of_a_training_are_the_same_on_every_machine(monkeypatch):
    """They change bytes, so neither cores nor the setting of this process may decide."""
    for cores in (1, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        with threads(cores):
            assert [training_threads(size) for size in (8, 32, 33, 64)] == [1, 1, 2, 2]


def test_both_layouts_hold_the_same_images():
    """The layout decides where a value lies, never what it is; the pixels stay as they were."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), np.uint8))
    kept, last = as_images(pixels), as_images(pixels, torch.channels_last)
    assert kept.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(kept, last)
    assert pixels.dtype == torch.uint8
