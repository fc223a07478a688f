"""Seeds and labels in, shards out: one job makes one shard, anywhere and in any order."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generator.biggan import BigGANGenerator
from generator.train import build_generator
from shardset.errors import CheckpointError
from shardset.identity import latents
from shardset.images import encode_png, pixel_sha256, to_pixels
from shardset.plan import Plan, ShardSpec, read_plan
from shardset.shards import PoolShardWriter, is_done, marker_of
from shardset.weights import load_weights


@dataclass(frozen=True)
class ProduceJob:
    """One shard to make: plain values, so that it travels to any worker."""

    generator_folder: Path
    pool_folder: Path
    index: int
    fingerprint: str
    device: str = "cpu"


def produce_shard(job: ProduceJob) -> dict[str, Any]:
    """The marker of a shard of the pool's plan; a shard that is done is not made again."""
    if is_done(job.pool_folder, job.index, job.fingerprint):
        marker = marker_of(job.pool_folder, job.index)
        assert marker is not None
        return marker
    plan = read_plan(job.pool_folder / "plan.json")
    device = torch.device(job.device)
    if device.type == "cpu":
        torch.set_num_threads(plan.threads)
    network, config = load_generator(job.generator_folder, device)
    spec = plan.shards[job.index]
    labels = plan.labels(spec).tolist()
    # PNG and tar work goes on beside the network's: one thread, so that order is kept.
    with (
        PoolShardWriter(job.pool_folder, job.index, job.fingerprint) as writer,
        ThreadPoolExecutor(1) as encoder,
    ):
        waiting = None
        for start, pixels in _batches(network, config["latent_dim"], plan, spec, device):
            if waiting is not None:
                waiting.result()
            waiting = encoder.submit(_add, writer, plan, spec.first_key, start, pixels, labels)
        if waiting is not None:
            waiting.result()
    marker = marker_of(job.pool_folder, job.index)
    assert marker is not None
    return marker


def _add(
    writer: PoolShardWriter,
    plan: Plan,
    first_key: int,
    start: int,
    pixels: np.ndarray,
    labels: list[int],
) -> None:
    for place, image in enumerate(pixels, start):
        label = labels[place]
        writer.add(
            first_key + place,
            encode_png(image),
            label,
            label,
            pixel_sha256(image),
            plan.seed,
            plan.pool_id,
        )


def _batches(
    network: BigGANGenerator, latent_dim: int, plan: Plan, spec: ShardSpec, device: torch.device
) -> Iterator[tuple[int, np.ndarray]]:
    """The place of each batch in the shard, and its pixels uint8 `[n, c, h, w]`."""
    labels = plan.labels(spec)
    for start in range(0, spec.count, plan.batch):
        count = min(plan.batch, spec.count - start)
        first = spec.first_key + start
        z = latents(plan.seed, first, count, latent_dim)
        images = generate(network, z, labels[start : start + count], plan, device)
        yield start, to_pixels(images)


@torch.inference_mode()
def generate(
    network: BigGANGenerator,
    z: np.ndarray,
    labels: np.ndarray,
    plan: Plan,
    device: torch.device,
) -> torch.Tensor:
    """Images float32 `[n, c, h, w]` in [−1, 1], from a batch padded to the plan's size.

    The size of a batch changes the last bits of its floats, so every batch has the same.
    """
    count = len(labels)
    padded_z = np.zeros((plan.batch, z.shape[1]), dtype=np.float32)
    padded_labels = np.zeros(plan.batch, dtype=np.int64)
    padded_z[:count], padded_labels[:count] = z, labels
    dtype = torch.bfloat16 if plan.precision == "bfloat16" else torch.float32
    images = network(
        torch.from_numpy(padded_z).to(device, dtype), torch.from_numpy(padded_labels).to(device)
    )
    return images[:count].float().cpu()


def load_generator(folder: Path, device: torch.device) -> tuple[BigGANGenerator, dict[str, Any]]:
    """The generator of a folder in evaluation mode, and its config."""
    state, config = load_weights(folder)
    network = build_generator(config)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: the weights do not fit the network of config.json: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return network.to(device).eval(), config
