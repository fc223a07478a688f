"""The random numbers of a key are its own: any sub-range, any order, the published generator."""

import hashlib
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgankd.shardset.errors import BadInput
from cgankd.shardset.identity import key_text, latents, pool_id, uniforms

WORD = (1 << 64) - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 as Salmon et al. print it, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, 1 << 64)
        high1, low1 = divmod(0xCA5A826395121157 * c2, 1 << 64)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & WORD, (k1 + 0xBB67AE8584CAA73B) & WORD
    return [c0, c1, c2, c3]


def draws(seed: int, key: int, count: int, purpose: str) -> list[float]:
    """The uniform numbers of one key, one by one."""
    top = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    blocks = (count + 3) // 4
    words = [
        word
        for block in range(blocks)
        for word in philox((key * blocks + block + 1, 0, 0, top), (seed, 0))
    ]
    return [((word >> 12) + 0.5) / 2**52 for word in words[:count]]


@pytest.mark.parametrize(("seed", "key", "dim"), [(0, 0, 1), (7, 12345, 6), (2**64 - 1, 999, 8)])
def test_latents_equal_an_independent_philox_and_inverse_cdf(seed, key, dim):
    """A key's latent can be computed from the papers alone."""
    normal = NormalDist()
    expected = [[normal.inv_cdf(u) for u in draws(seed, k, dim, "latent")] for k in (key, key + 1)]

    np.testing.assert_allclose(latents(seed, key, 2, dim), expected, rtol=1e-6, atol=1e-7)


def test_uniforms_equal_an_independent_philox():
    """One uniform number for each key, from the first word of the key's own block."""
    expected = [draws(3, key, 1, "accept")[0] for key in range(40, 50)]

    assert expected == uniforms(3, 40, 10, "accept").tolist()


@given(
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(0, 10**9 - 100),
    count=st.integers(1, 60),
    dim=st.integers(1, 11),
    data=st.data(),
)
def test_any_sub_range_gives_the_same_numbers(seed, first, count, dim, data):
    """Where a batch begins and how long it is changes no number."""
    start = data.draw(st.integers(0, count - 1))
    length = data.draw(st.integers(1, count - start))
    part = slice(start, start + length)

    whole = latents(seed, first, count, dim)
    assert np.array_equal(whole[part], latents(seed, first + start, length, dim))
    whole = uniforms(seed, first, count, "accept")
    assert np.array_equal(whole[part], uniforms(seed, first + start, length, "accept"))


def test_latents_are_finite_float32_and_standard_normal():
    """A million numbers have the moments of the normal distribution and no infinity."""
    z = latents(1, 0, 10_000, 100)

    assert np.float32 == z.dtype
    assert np.isfinite(z).all()
    assert abs(z.mean()) < 0.005
    assert abs(z.std() - 1) < 0.005


def test_purposes_and_seeds_are_independent_streams():
    """The same key has other numbers for another purpose or seed."""
    streams = [uniforms(s, 0, 1000, p) for s, p in ((0, "a"), (0, "b"), (1, "a"))]

    assert np.abs(np.corrcoef(streams) - np.eye(3)).max() < 0.15


def test_extreme_words_stay_inside_the_open_interval(monkeypatch):
    """The smallest and largest word give finite normals."""

    class Extremes:
        def __init__(self, key, counter):
            pass

        def random_raw(self, count):
            return np.array([0, WORD] * (count // 2), dtype=np.uint64)

    monkeypatch.setattr(np.random, "Philox", Extremes)

    assert np.isfinite(latents(0, 0, 1, 4)).all()


def test_key_text_has_nine_digits_or_refuses():
    """Keys sort as text as they do as numbers."""
    assert key_text(42) == "000000042"
    with pytest.raises(BadInput, match="1000000000 has no nine digits"):
        key_text(10**9)
    with pytest.raises(BadInput, match="seed -1"):
        latents(-1, 0, 1, 1)


def test_pool_id_depends_on_weights_seed_and_version():
    """Sixteen hex digits, others for anything that changes the samples."""
    ids = {pool_id("a" * 64, 0, 1), pool_id("b" * 64, 0, 1), pool_id("a" * 64, 1, 1)}
    ids.add(pool_id("a" * 64, 0, 2))

    assert len(ids) == 4
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in ids)
