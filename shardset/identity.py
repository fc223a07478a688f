"""Who a sample is, and the random numbers that belong to it.

A sample is (`pool_id`, `key`). Every random number of a key comes from one counter-based stream,
Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) with the seed
as its key. The counter's top word names the purpose and its lowest word counts blocks of four
64-bit words, a fixed number of blocks for each key, so batch size, workers, order and resume
change nothing, and contiguous keys are drawn in one call.
"""

import hashlib

import numpy as np

from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import fingerprint

KEYS = 10**9
WORDS_PER_BLOCK = 4


def key_text(key: int) -> str:
    """A key as its nine digits."""
    if not 0 <= key < KEYS:
        raise BadInput(f"key {key} has no nine digits; a pool holds at most {KEYS} samples")
    return f"{key:09d}"


def pool_id(generator_sha256: str, seed: int, plan_version: int) -> str:
    """The 16 hex digits that name a pool: what was drawn from, with which numbers."""
    return fingerprint(
        {"generator_sha256": generator_sha256, "seed": seed, "plan_version": plan_version}
    )[:16]


def latents(seed: int, first_key: int, count: int, dim: int) -> np.ndarray:
    """The standard normal latents float32 `[count, dim]` of `count` keys from `first_key` on."""
    import torch  # SciPy's inverse CDF gives the same float32 and is a module more to import

    uniform = torch.from_numpy(_open_uniforms(seed, first_key, count, dim, "latent"))
    return torch.special.ndtri(uniform).float().numpy()


def uniforms(seed: int, first_key: int, count: int, purpose: str) -> np.ndarray:
    """One uniform number in (0, 1) per key, float64 `[count]`, other ones for each purpose."""
    return _open_uniforms(seed, first_key, count, 1, purpose)[:, 0]


def _open_uniforms(seed: int, first_key: int, count: int, draws: int, purpose: str) -> np.ndarray:
    """Float64 `[count, draws]` in (0, 1), both ends excluded: the inverse CDF stays finite."""
    if not 0 <= seed < 2**64:
        raise BadInput(f"seed {seed} is not in 0 … 2^64 − 1")
    blocks = -(-draws // WORDS_PER_BLOCK)
    stream = np.random.Philox(
        key=np.array([seed, 0], dtype=np.uint64),
        # NumPy counts up before it draws, so block b is made from the counter b + 1.
        counter=np.array([first_key * blocks, 0, 0, _purpose_word(purpose)], dtype=np.uint64),
    )
    words = stream.random_raw(count * blocks * WORDS_PER_BLOCK)
    words = words.reshape(count, blocks * WORDS_PER_BLOCK)[:, :draws]
    # 52 bits and a half: with 53 the largest word would round up to 1 and its normal to infinity.
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _purpose_word(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
