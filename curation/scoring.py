"""Scores one pool shard: what the teacher says of each sample, and its density ratio."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from curation.fit_ratio import load_ratio
from shardset.files import read_json, sha256_file, write_json
from shardset.images import to_images
from shardset.shards import marker_name, marker_of, read_shard
from shardset.tables import table_name, write_table

Teacher = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ScoreJob:
    """One shard to score: plain values and picklable loaders, so that it travels to any worker."""

    pool_folder: Path
    scores_folder: Path
    index: int
    fingerprint: str
    load_teacher: Callable[[], Teacher]
    ratio_folder: Path | None  # None: there is no ratio to trust; every density ratio is 1
    device: str
    precision: str
    batch: int
    threads: int = 1


def score_shard(job: ScoreJob) -> str:
    """The sha256 of the shard's score table; one whose marker matches is not made again."""
    path = job.scores_folder / table_name(job.index)
    marker = job.scores_folder / marker_name(job.index)
    pool = marker_of(job.pool_folder, job.index)
    origin = {"fingerprint": job.fingerprint, "pool_tar": pool and pool["tar"]["sha256"]}
    if marker.is_file() and path.is_file():
        done = read_json(marker)
        if {name: done[name] for name in origin} == origin:
            return done["sha256"]
    marker.unlink(missing_ok=True)
    device = torch.device(job.device)
    if device.type == "cpu":
        torch.set_num_threads(job.threads)
    pixels, rows = read_shard(job.pool_folder, job.index)
    labels = rows["label"].to_numpy()
    ok = np.array([status == "ok" for status in rows["status"].to_pylist()])
    teacher = job.load_teacher()
    logits = np.concatenate(
        [
            teacher(images)[:count].float().cpu().numpy()
            for images, count in _batches(pixels, job.batch, device)
        ]
    )
    ratio = np.ones(len(labels), dtype=np.float32)
    if job.ratio_folder is not None:
        ratio = load_ratio(job.ratio_folder, device).score(pixels, labels, batch=job.batch)
    write_table(path, score_table(rows["key"], labels, logits, ratio, rows["status"], ok))
    write_json(marker, {**origin, "sha256": sha256_file(path)})
    return sha256_file(path)


def score_table(
    key: pa.ChunkedArray,
    labels: np.ndarray,
    logits: np.ndarray,
    ratio: np.ndarray,
    status: pa.ChunkedArray,
    ok: np.ndarray,
) -> pa.Table:
    """The score table: one row per sample, null where a sample has no image."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    error = -log_probability[np.arange(len(labels)), labels]
    entropy = -(np.exp(log_probability) * log_probability).sum(1)
    finite = ok & np.isfinite(logits).all(1) & np.isfinite(ratio)
    missing = ~finite
    flat = pa.array(logits.astype(np.float16).ravel())
    states = np.where(ok & missing, "not finite", np.asarray(status.to_pylist()))
    return pa.table(
        {
            "key": key,
            "label": labels,
            "density_ratio": pa.array(ratio.astype(np.float32), mask=missing),
            "teacher_label": pa.array(logits.argmax(1), pa.int64(), mask=missing),
            "teacher_error": pa.array(error.astype(np.float32), mask=missing),
            "teacher_entropy": pa.array(entropy.astype(np.float32), mask=missing),
            "teacher_logits": pa.FixedSizeListArray.from_arrays(flat, logits.shape[1]).cast(
                pa.list_(pa.float16())
            ),
            "status": states,
        }
    )


def _batches(
    pixels: np.ndarray, batch: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, int]]:
    """Images padded to one size, which changes the last bits of a float, and how many count."""
    for start in range(0, len(pixels), batch):
        part = pixels[start : start + batch]
        if len(part) < batch:
            part = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
        yield to_images(part).to(device), min(batch, len(pixels) - start)
