"""A training step: small nets alone and in packs, and bfloat16 channels-last against float32."""

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from cgankd.nets.batches import TrainingData
from cgankd.nets.device import placed, precise
from cgankd.nets.network import pooled
from cgankd.nets.networks import NetworkName, build_network
from cgankd.nets.pack import MEMBERS
from cgankd.nets.pack_training import Member, train_pack
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.labels import ClassLabels

CPU = torch.device("cpu")
DIGITS = ClassLabels(names=tuple("0123456789"))
RANDOM = np.random.default_rng(0)


def milliseconds(run: Callable[[], object], times: int, repeats: int = 5) -> float:
    """The least mean processor time of `times` calls."""
    run()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(times):
            run()
        best = min(best, time.process_time() - start)
    return best / times * 1e3


def alone_and_packed(
    network: NetworkName, size: int, batch: int, steps: int
) -> tuple[float, float]:
    """Milliseconds of a step and network, batches and averaging included: one by one by
    `train_network`, and in a full pack; two learning rates for each of four sets of images.
    """
    several = []
    for seed in range(MEMBERS // 2):
        pixels = RANDOM.integers(0, 256, (2, 500, 1, size, size), dtype=np.uint8)
        labels = np.arange(500) % 10
        data = TrainingData(pixels[0], labels, pixels[1], labels)
        for lr in (0.1, 0.3):
            config = StudentTraining(network=network, batch=batch, steps=steps, lr=lr)
            several.append(Member(data, config, seed))

    def alone() -> None:
        for member in several:
            train_network(member.data, member.config, space=DIGITS, seed=member.seed, device=CPU)

    def packed() -> None:
        train_pack(several, space=DIGITS, device=CPU)

    # In turns, so that what else the machine does falls on both.
    turns = [(milliseconds(alone, 1, 1), milliseconds(packed, 1, 1)) for _ in range(3)]
    one_by_one, together = (min(side) / steps / MEMBERS for side in zip(*turns, strict=True))
    return one_by_one, together


def bare_step(network: str, size: int, batch: int, *, fast: bool) -> float:
    """Forward and backward alone, in float32 and the usual layout or in the fast way."""
    module = build_network(network, outputs=10, channels=1, size=size)
    images = torch.randn(batch, 1, size, size)
    if fast:
        module = placed(module, CPU)
        images = torch.empty_like(images, memory_format=torch.channels_last).copy_(images)
    labels = torch.randint(10, (batch,))

    def step() -> None:
        module.zero_grad()
        with precise(CPU, "bfloat16" if fast else "float32"):
            logits = module(images)
        F.cross_entropy(logits.float(), labels).backward()

    return milliseconds(step, 5)


def pooling(function: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Global pooling of 256 channels-last maps of 8 × 8 after a ReLU, forward and backward."""
    maps = torch.randn(64, 256, 8, 8).contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()
    return milliseconds(lambda: function(F.relu(maps)).sum().backward(), 10)


def main() -> None:
    """Prints one line per measurement, both sides of a claim in the same line."""
    torch.set_num_threads(1)
    for size in (8, 16):
        alone, packed = alone_and_packed("convnet-1k", size, 64, 200)
        print(
            f"convnet-1k, {size} px, batch 64: alone {alone * 1e3:.0f} µs a step, in packs of "
            f"{MEMBERS} {packed * 1e3:.0f} µs a step and network, ratio {alone / packed:.2f}"
        )
    for network in ("convnet-80k", "convnet-700k"):
        plain, fast = (bare_step(network, 28, 128, fast=fast) for fast in (False, True))
        print(
            f"{network}, 28 px, batch 128: float32 {plain:.1f} ms, bfloat16 channels-last "
            f"{fast:.1f} ms, ratio {plain / fast:.2f}"
        )
    usual, ours = pooling(lambda maps: maps.mean((2, 3))), pooling(pooled)
    print(f"global pooling: mean {usual:.2f} ms, pooled {ours:.2f} ms, ratio {usual / ours:.2f}")


if __name__ == "__main__":
    main()
