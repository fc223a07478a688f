"""Seeds and labels in, shards out: one job makes one shard, anywhere and in any order."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgankd.generator import Generator, load_generator
from cgankd.nets.device import threads
from cgankd.shardset.errors import BadInput
from cgankd.shardset.images import encode_pngs, pixel_sha256s, to_pixels
from cgankd.shardset.pool.plan import Plan, ShardSpec, read_plan
from cgankd.shardset.pool.shards import PoolShardWriter, is_done, marker_of

PIXEL_LIBRARIES = ("torch", "numpy")  # whose versions, with the device, a sample's pixels rest on


@dataclass(frozen=True)
class ProduceJob:
    """One shard to make: plain values, so that it travels to any worker."""

    generator_folder: Path
    pool_folder: Path
    index: int
    fingerprint: str  # covers the generator's weights: a worker loads them once
    device: str = "cpu"


def produce_shard(job: ProduceJob) -> dict[str, Any]:
    """The marker of a shard of the pool's plan; a shard that is done is not made again."""
    if not is_done(job.pool_folder, job.index, job.fingerprint):
        plan = read_plan(job.pool_folder / "plan.json")
        with (
            threads(plan.threads),
            PoolShardWriter(job.pool_folder, job.index, job.fingerprint) as writer,
        ):
            _fill(writer, plan, plan.shards[job.index], job)
    marker = marker_of(job.pool_folder, job.index)
    assert marker is not None
    return marker


def made_again(
    generator_folder: Path, plan: Plan, keys: Sequence[int], device: torch.device
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Some keys of a plan, ascending and each once, with their pixels uint8 `[n, c, h, w]`, batch
    by batch as they were produced.

    Whole batches are made and the keys taken out of them: a sample's last bits depend on the size
    of its batch and its place in it. `BadInput` for a key that the plan does not hold.
    """
    wanted = np.unique(np.asarray(keys, np.int64))
    for key in (wanted[0], wanted[-1]) if wanted.size else ():
        if not 0 <= key < plan.count:
            raise BadInput(f"key {key} is not in the plan, which holds 0 to {plan.count - 1}")
    network = load_generator(generator_folder, device)
    for spec in plan.shards:
        if not _within(wanted, spec.first_key, spec.count).size:
            continue
        for batch, labels in _batches(plan, spec):
            here = _within(wanted, batch.start, len(batch))
            if here.size:
                draws = network.draws(plan.seed, batch)
                with threads(plan.threads):
                    pixels = to_pixels(generate(network, draws, labels, plan, device))
                yield here.tolist(), pixels[here - batch.start]


@torch.inference_mode()
def generate(
    network: Generator,
    draws: np.ndarray,
    labels: np.ndarray,
    plan: Plan,
    device: torch.device,
) -> torch.Tensor:
    """Images float32 `[n, c, h, w]` in [−1, 1], from a batch padded to the plan's size.

    labels are raw, `[n]`; the network's label space scales them. The size of a batch changes the
    last bits of its floats, so every batch has the same.
    """
    targets = network.space.targets(labels)
    count = len(targets)
    padded_draws = np.zeros((plan.batch, *draws.shape[1:]), dtype=np.float32)
    padded_targets = np.zeros(plan.batch, dtype=targets.dtype)
    padded_draws[:count], padded_targets[:count] = draws, targets
    dtype = torch.bfloat16 if plan.precision == "bfloat16" else torch.float32
    images = network.sample(
        torch.from_numpy(padded_draws).to(device, dtype),
        torch.from_numpy(padded_targets).to(device),
    )
    return images[:count]


def _fill(writer: PoolShardWriter, plan: Plan, spec: ShardSpec, job: ProduceJob) -> None:
    """Adds every sample of a shard. Beside the network the next latents are drawn and the last PNGs
    are written.
    """
    device = torch.device(job.device)
    network = _network(job)
    batches = _batches(plan, spec)
    with _beside(device) as beside:
        drawn, added = beside.submit(network.draws, plan.seed, batches[0][0]), None
        for (keys, labels), following in zip_longest(batches, batches[1:]):
            draws = drawn.result()
            if following is not None:
                drawn = beside.submit(network.draws, plan.seed, following[0])
            pixels = to_pixels(generate(network, draws, labels, plan, device))
            if added is not None:
                added.result()  # no more than one batch waits, however slow the disk is
            added = beside.submit(_add, writer, plan, keys, labels, pixels)
        if added is not None:
            added.result()


class _AtOnce(Executor):
    """Has done what is submitted when it returns."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


def _beside(device: torch.device) -> Executor:
    """What works beside a network on `device`: one thread, so that the order is kept; beside a
    CPU's none, as every core has a worker and threads that wait for each other cost time.
    """
    return _AtOnce() if device.type == "cpu" else ThreadPoolExecutor(1)


_loaded: dict[tuple[str, str, Path], Generator] = {}


def _network(job: ProduceJob) -> Generator:
    """The generator, kept from shard to shard: loading one takes as long as dozens of images."""
    name = (job.fingerprint, job.device, job.generator_folder)
    if name not in _loaded:
        _loaded.clear()
        _loaded[name] = load_generator(job.generator_folder, torch.device(job.device))
    return _loaded[name]


def _add(
    writer: PoolShardWriter, plan: Plan, keys: range, labels: np.ndarray, pixels: np.ndarray
) -> None:
    given = labels.tolist()  # the generator was given the label itself
    hashes = pixel_sha256s(pixels)
    writer.add_all(keys, encode_pngs(pixels), given, given, hashes, plan.seed, plan.pool_id)


def _batches(plan: Plan, spec: ShardSpec) -> list[tuple[range, np.ndarray]]:
    """Keys of a shard that go through the network together, with their labels: always the same
    ones, for the same bytes. The last batch may be short.
    """
    keys, labels = range(spec.first_key, spec.first_key + spec.count), plan.labels(spec)
    starts = range(0, spec.count, plan.batch)
    return [(keys[i : i + plan.batch], labels[i : i + plan.batch]) for i in starts]


def _within(keys: np.ndarray, first: int, count: int) -> np.ndarray:
    """Those of ascending keys that are among `count` from `first` on."""
    start, stop = np.searchsorted(keys, (first, first + count))
    return keys[start:stop]
