"""Features of a pool: one file a shard, made by the net that the density ratio stands on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from cgankd.curation.density_ratio.model import load_ratio
from cgankd.nets.device import Precision, threads
from cgankd.nets.feature_nets import FeatureNet, features_of
from cgankd.shardset.errors import CorruptShard
from cgankd.shardset.files import atomic_path, fingerprint, read_json, sha256_file, write_json
from cgankd.shardset.pool.shards import marker_name, marker_of, read_shard

MOST = 512  # numbers that are stored of an image; of longer features random mixtures


@dataclass(frozen=True)
class FeatureJob:
    """One shard to describe: plain values, so that it travels to any worker."""

    pool_folder: Path
    features_folder: Path
    ratio_folder: Path
    ratio_sha256: str
    index: int
    device: str
    batch: int
    threads: int = 1


def describe_shard(job: FeatureJob) -> str:
    """The sha256 of the shard's features, float16 `[n, d ≤ 512]` in key order, NaN for a sample
    that failed; a file whose marker matches is not made again.
    """
    import pyarrow.compute as pc

    path = job.features_folder / array_name(job.index)
    marker = job.features_folder / marker_name(job.index)
    pool = marker_of(job.pool_folder, job.index)
    origin = fingerprint(
        {
            "ratio": job.ratio_sha256,
            "pool_tar": pool and pool["tar"]["sha256"],
            "device": job.device,
            "batch": job.batch,
        }
    )
    if marker.is_file() and path.is_file() and read_json(marker)["fingerprint"] == origin:
        return read_json(marker)["sha256"]
    pixels, rows = read_shard(job.pool_folder, job.index)
    marker.unlink(missing_ok=True)
    device = torch.device(job.device)
    net, precision = selecting_net(job.ratio_folder, job.ratio_sha256, device)
    with threads(job.threads):
        features = short_features(net, pixels, device=device, precision=precision, batch=job.batch)
    features[~pc.equal(rows["status"], "ok").to_numpy()] = np.nan
    with atomic_path(path) as partial, open(partial, "wb") as file:
        np.save(file, features, allow_pickle=False)
    digest = sha256_file(path)
    write_json(marker, {"fingerprint": origin, "sha256": digest})
    return digest


@lru_cache(maxsize=1)  # a worker loads it once
def selecting_net(folder: Path, sha256: str, device: torch.device) -> tuple[FeatureNet, Precision]:
    """The feature net of the density ratio in `folder`, whose weights have this hash, and the
    precision that it computes in.
    """
    model = load_ratio(folder, device)
    return model.net, model.shape["precision"]


def short_features(
    net: FeatureNet, pixels: np.ndarray, *, device: torch.device, precision: Precision, batch: int
) -> np.ndarray:
    """Features float16 `[n, d ≤ 512]` of uint8 pixels `[n, c, h, w]`.

    Of longer ones, Gaussian mixtures that are the same each time: they keep distances (Johnson &
    Lindenstrauss, 1984).
    """
    features = features_of(net, pixels, device=device, precision=precision, batch=batch)
    if features.shape[1] > MOST:
        mixtures = np.random.default_rng(0).standard_normal((features.shape[1], MOST), np.float32)
        features = features @ (mixtures / np.float32(MOST**0.5))
    with np.errstate(over="ignore"):  # infinite ones are refused where they are read
        return features.astype(np.float16)


class StoredFeatures:
    """The features of some samples of a pool, read from the shards' files by row."""

    def __init__(self, folder: Path, counts: Sequence[int], rows: np.ndarray) -> None:
        """`counts` are the samples of each shard, `rows` int64 `[n]` those that are meant."""
        self._parts = []
        for index, count in enumerate(counts):
            path = folder / array_name(index)
            if not path.is_file():
                raise CorruptShard(f"{path} is missing; run find-neighbours again to make it")
            part = np.load(path, mmap_mode="r", allow_pickle=False)
            if len(part) != count:
                raise CorruptShard(
                    f"{path} holds {len(part)} rows, its shard {count} samples; remove it and run "
                    "find-neighbours again"
                )
            self._parts.append(part)
        self._starts = [0, *accumulate(counts)]
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Features float16 `[len(rows), d]`."""
        wanted = self._rows[rows]
        features = np.empty((len(wanted), self._parts[0].shape[1]), np.float16)
        part = np.searchsorted(self._starts, wanted, side="right") - 1
        for index in np.unique(part).tolist():
            of_part = part == index
            features[of_part] = self._parts[index][wanted[of_part] - self._starts[index]]
        return features


def array_name(index: int) -> str:
    """The file name of a shard's features: the shard's six digits."""
    return f"{index:06d}.npy"
