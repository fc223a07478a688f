"""Scores one pool shard: what the teacher says of each sample, and its density ratio."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from cgankd.curation.density_ratio.model import RatioModel, load_ratio
from cgankd.nets.device import threads
from cgankd.nets.feature_nets import padded_images
from cgankd.shardset.errors import CorruptShard
from cgankd.shardset.files import read_json, sha256_file, write_json
from cgankd.shardset.images import BadImage, decode_pngs
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.pool.shards import is_done, marker_name, marker_of, tar_name
from cgankd.shardset.tables import read_table, table_name, write_table

Teacher = Callable[[torch.Tensor], torch.Tensor]
LARGEST_LOGIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class ScoreJob:
    """One shard to score: plain values and picklable loaders, so that it travels to any worker."""

    pool_folder: Path
    scores_folder: Path
    index: int
    fingerprint: str  # covers the weights of teacher and ratio: a worker loads each of them once
    load_teacher: Callable[[], Teacher]
    ratio_folder: Path | None  # None: there is no ratio to trust; every density ratio is 1
    device: str
    batch: int
    space: LabelSpace
    threads: int = 1


def score_shard(job: ScoreJob) -> str:
    """The sha256 of the shard's score table; one whose marker matches is not made again.

    Each network sees each image once, in batches padded to one size, without augmentation.
    """
    path = job.scores_folder / table_name(job.index)
    marker = job.scores_folder / marker_name(job.index)
    pool = marker_of(job.pool_folder, job.index)
    origin = {"fingerprint": job.fingerprint, "pool_tar": pool and pool["tar"]["sha256"]}
    if marker.is_file() and path.is_file():
        done = read_json(marker)
        if {name: done.get(name) for name in origin} == origin:
            return done["sha256"]
    if pool is None or not is_done(job.pool_folder, job.index, pool["fingerprint"]):
        raise CorruptShard(
            f"shard {job.index:06d} in {job.pool_folder} is not whole; run produce again"
        )
    marker.unlink(missing_ok=True)
    rows = read_table(job.pool_folder / table_name(job.index))
    with threads(job.threads):
        outputs, ratio = _forward(job, rows)
    write_table(path, score_table(rows, outputs, ratio, job.space))
    digest = sha256_file(path)
    write_json(marker, {**origin, "sha256": digest})
    return digest


def score_table(
    rows: pa.Table, outputs: np.ndarray, ratio: np.ndarray, space: LabelSpace
) -> pa.Table:
    """The score table of a shard's rows, teacher outputs float32 `[n, outputs]` and ratios `[n]`.

    Scores are null, and the status says why, where a sample has no image or no finite score.
    """
    status = np.array(rows["status"].to_pylist(), dtype=object)
    finite = np.isfinite(outputs).all(1) & np.isfinite(ratio)
    status[(status == "ok") & ~finite] = "not finite"
    missing = status != "ok"
    outputs, labels = np.where(np.isfinite(outputs), outputs, 0.0), rows["label"].to_numpy()
    if isinstance(space, ContinuousLabels):
        columns = _valued(outputs, labels, space, missing)
    else:
        columns = _classified(outputs, labels, missing)
    return pa.table(
        {
            "key": rows["key"],
            "label": rows["label"],
            "density_ratio": pa.array(ratio.astype(np.float32), mask=missing),
            **columns,
            "status": pa.array(status.tolist(), pa.string()),
        }
    )


def _classified(logits: np.ndarray, labels: np.ndarray, missing: np.ndarray) -> dict[str, pa.Array]:
    """What a teacher of classes says: cross-entropy is its error, in nats."""
    logits = logits.clip(-LARGEST_LOGIT, LARGEST_LOGIT)
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    error = -log_probability[np.arange(len(labels)), labels]
    entropy = -(np.exp(log_probability) * log_probability).sum(1)
    flat = pa.array(logits.astype(np.float16).ravel())
    return {
        "teacher_label": pa.array(logits.argmax(1), pa.int64(), mask=missing),
        "teacher_error": pa.array(error.astype(np.float32), mask=missing),
        "teacher_entropy": pa.array(entropy.astype(np.float32), mask=missing),
        "teacher_logits": pa.FixedSizeListArray.from_arrays(flat, logits.shape[1]).cast(
            pa.list_(pa.float16())
        ),
    }


def _valued(
    outputs: np.ndarray, labels: np.ndarray, space: ContinuousLabels, missing: np.ndarray
) -> dict[str, pa.Array]:
    """What a teacher of continuous labels says, in their unit: the difference is its error."""
    value = space.unscaled(outputs[:, 0])
    return {
        "teacher_value": pa.array(value, pa.float64(), mask=missing),
        "teacher_error": pa.array(np.abs(value - labels).astype(np.float32), mask=missing),
    }


def _forward(job: ScoreJob, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Teacher outputs float32 `[n, outputs]` and density ratios float32 `[n]`."""
    teacher, model = _networks(job)
    device = torch.device(job.device)
    labels = torch.from_numpy(rows["label"].to_numpy().copy())
    outputs, ratios = [], []
    with ThreadPoolExecutor(1) as decoder, torch.inference_mode():
        # The next batch is decoded while the networks work on this one.
        batches = _image_batches(job, rows)
        coming = decoder.submit(next, batches, None)
        start = 0
        while (batch := coming.result()) is not None:
            coming = decoder.submit(next, batches, None)
            images, count = batch[0].to(device), batch[1]
            outputs.append(teacher(images)[:count].float())
            if model is not None:
                padded = torch.zeros(job.batch, dtype=labels.dtype)
                padded[:count] = labels[start : start + count]
                ratios.append(model.ratios(images, padded)[:count])
            start += count
        teacher_outputs = torch.cat(outputs).cpu().numpy()
        ratio = torch.cat(ratios).cpu().numpy() if ratios else np.ones(start, dtype=np.float32)
    return teacher_outputs, ratio


def _image_batches(job: ScoreJob, rows: pa.Table) -> Iterator[tuple[torch.Tensor, int]]:
    """Images `[batch, c, h, w]` in [−1, 1] and how many of them count; failed ones are grey."""
    data = memoryview((job.pool_folder / tar_name(job.index)).read_bytes())
    keys, offsets, lengths = (rows[name].to_numpy() for name in ("key", "png_offset", "png_length"))

    def decoded(which: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
        pngs = [bytes(data[offsets[row] : offsets[row] + lengths[row]]) for row in which]
        try:
            return decode_pngs(pngs, into)
        except BadImage as error:
            raise CorruptShard(
                f"shard {job.index:06d} in {job.pool_folder}: key {keys[which[error.row]]} "
                f"{error}; run produce again to rebuild it"
            ) from error

    present = np.flatnonzero(lengths)
    if not present.size:
        raise CorruptShard(
            f"shard {job.index:06d} in {job.pool_folder}: no sample has an image; train the "
            "generator anew"
        )
    shape = decoded(present[:1]).shape[1:]
    for start in range(0, len(rows), job.batch):
        stop = min(start + job.batch, len(rows))
        pixels = np.full((stop - start, *shape), 127, np.uint8)
        here = np.flatnonzero(lengths[start:stop])
        pixels[here] = decoded(here + start, np.empty((len(here), *shape), np.uint8))
        yield padded_images(pixels, job.batch)


_loaded: dict[tuple[str, str, Path | None], tuple[Teacher, RatioModel | None]] = {}


def _networks(job: ScoreJob) -> tuple[Teacher, RatioModel | None]:
    """Teacher and density ratio, kept from shard to shard: loading can take as long as scoring."""
    name = (job.fingerprint, job.device, job.ratio_folder)
    if name not in _loaded:
        _loaded.clear()
        ratio = None
        if job.ratio_folder is not None:
            ratio = load_ratio(job.ratio_folder, torch.device(job.device))
        _loaded[name] = (job.load_teacher(), ratio)
    return _loaded[name]
