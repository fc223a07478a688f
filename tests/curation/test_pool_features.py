"""Stored features: read by row, and never longer than 512 numbers."""

import numpy as np
import pytest
import torch

from cgankd.curation.neighbours.pool_features import StoredFeatures, array_name, short_features
from cgankd.nets.feature_nets import Small
from cgankd.shardset.errors import CorruptShard


def described(dim, pixels):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Small(width=8, dim=dim).net(outputs=2, channels=1, size=8).eval()
    device = torch.device("cpu")
    found = short_features(net, pixels, device=device, precision="float32", batch=20)
    with torch.inference_mode():
        images = torch.from_numpy(pixels / np.float32(127.5) - 1)
        return found, net.features(images).numpy()


def test_long_features_are_mixed_to_512_that_keep_distances():
    """2,000 features of 50 images: distances stay within a fifth, and the bytes the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), np.uint8)
    found, whole = described(2000, pixels)
    short = found.astype(np.float64)
    distance = np.linalg.norm(whole[:, None] - whole, axis=2)
    rows = np.triu_indices(50, 1)
    ratio = np.linalg.norm(short[:, None] - short, axis=2)[rows] / distance[rows]

    assert found.shape == (50, 512)
    assert found.dtype == np.float16
    assert ratio.min() > 0.8
    assert ratio.max() < 1.2
    assert found.tobytes() == described(2000, pixels)[0].tobytes()


def test_short_features_are_stored_as_they_are():
    """At half precision."""
    pixels = np.random.default_rng(1).integers(0, 256, (50, 1, 8, 8), np.uint8)
    found, whole = described(32, pixels)

    np.testing.assert_allclose(found, whole, rtol=2e-3, atol=2e-3)


def test_rows_are_read_across_shards_in_the_order_asked_for(tmp_path):
    """Some rows of three shards, one of them repeated, against the joined array."""
    everything = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float16)
    for index, part in enumerate(np.split(everything, [2, 6])):
        np.save(tmp_path / array_name(index), part)
    meant = np.array([0, 1, 3, 5, 6, 8])
    stored = StoredFeatures(tmp_path, [2, 4, 3], meant)
    asked = np.array([5, 0, 2, 2, 4])

    assert len(stored) == 6
    np.testing.assert_array_equal(stored[asked], everything[meant[asked]])


def test_a_missing_or_foreign_file_of_features_is_named(tmp_path):
    """The file, and the command that makes it."""
    with pytest.raises(CorruptShard, match=r"000000.npy is missing; run find-neighbours"):
        StoredFeatures(tmp_path, [2], np.arange(2))
    np.save(tmp_path / array_name(0), np.zeros((3, 4), np.float16))
    with pytest.raises(CorruptShard, match="holds 3 rows, its shard 2 samples"):
        StoredFeatures(tmp_path, [2], np.arange(2))
