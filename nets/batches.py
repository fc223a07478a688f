"""Training data and the mix of real and generated images in every batch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from cgankd.nets.device import as_images
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.release.streamed import Stream

Augmentation = Literal["none", "flip", "shift", "shift-flip"]
# Steps are prepared in blocks of about this size: indices, pixels and augmentation of many small
# batches at once cost little more than those of one, and a block stays within the cache.
BLOCK_BYTES = 4 << 20
CPU = torch.device("cpu")

Teacher = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TrainingData:
    """Pixels uint8 `[n, c, h, w]`, raw labels `[n]`, and the teacher's stored logits `[n, C]`.

    Real or generated images are enough. `generated_stream` stands in for the generated arrays.
    """

    real_pixels: np.ndarray | None = None
    real_labels: np.ndarray | None = None
    generated_pixels: np.ndarray | None = None
    generated_labels: np.ndarray | None = None
    real_logits: np.ndarray | None = None
    generated_logits: np.ndarray | None = None
    generated_stream: Stream | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width; `BadInput` where there are no images."""
        if self.generated_stream is not None and self.real_pixels is None:
            return self.generated_stream.image_shape
        pixels = self.generated_pixels if self.real_pixels is None else self.real_pixels
        if pixels is None:
            raise BadInput("training needs images, and none are given")
        return tuple(pixels.shape[1:])

    @property
    def generated(self) -> int:
        """The number of generated images."""
        if self.generated_stream is not None:
            return len(self.generated_stream)
        return 0 if self.generated_pixels is None else len(self.generated_pixels)


@dataclass(frozen=True)
class Batch:
    """Images float `[b, c, h, w]` in [−1, 1], targets `[b]`, the teacher's logits `[b, C]`.

    Targets are int64 classes or float32 labels scaled to [0, 1]. Without distillation the
    teacher's logits are `[b, 0]`.
    """

    images: torch.Tensor
    targets: torch.Tensor
    teacher_logits: torch.Tensor


class Batches:
    """The batches of a training run: step t holds the same images whatever else is asked for.

    `generated_fraction` of every batch is generated; None mixes in proportion to the two sets.
    Each set is gone through in a new order every epoch. With `distil`, the teacher's logits are
    those stored; where images are augmented, or none are stored, `teacher` is asked.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        space: LabelSpace,
        batch: int,
        generated_fraction: float | None,
        augment: Augmentation,
        distil: bool,
        teacher: Teacher | None,
        seed: int,
        device: torch.device,
    ) -> None:
        if distil and space.task == "regression":
            raise BadInput(
                "distillation needs a teacher's logits, which continuous labels do not have; leave "
                "distillation out, or train on labels the teacher replaced"
            )
        asks = distil and teacher is not None and (augment != "none" or not _stores_logits(data))
        if distil and not asks and augment != "none":
            raise BadInput(
                f"stored teacher logits do not hold for images augmented by {augment!r}; give the "
                "teacher, or set augment: none"
            )
        stored = distil and not asks
        generated = _generated_per_batch(data, batch, generated_fraction)
        self._sets: list[_Set | _Streamed] = []
        set_of = partial(_Set, space=space, stored=stored, seed=seed, device=device)
        if real := batch - generated:
            columns = (data.real_pixels, data.real_labels, data.real_logits)
            self._sets.append(set_of("real", *columns, batch=real))
        if generated and data.generated_stream is not None:
            self._sets.append(_Streamed(data.generated_stream, generated, space, stored, device))
        elif generated:
            columns = (data.generated_pixels, data.generated_labels, data.generated_logits)
            self._sets.append(set_of("generated", *columns, batch=generated))
        shapes = {part.image_shape for part in self._sets}
        if len(shapes) > 1:
            raise BadInput(f"real and generated images differ in shape [c, h, w]: {sorted(shapes)}")
        self._batch = batch
        self._augment = augment
        self._teacher = teacher if asks else None
        self._seed = seed
        self._block = max(1, BLOCK_BYTES // (4 * batch * math.prod(shapes.pop())))

    def of(self, steps: int, first: int = 0) -> Iterator[Batch]:
        """The batches of steps first … steps − 1, one by one."""
        for start in range(first - first % self._block, steps, self._block):
            # Always a whole block, or the augmentation of its steps would depend on its length.
            yield from islice(self._prepared(start), max(first - start, 0), steps - start)

    def _prepared(self, start: int) -> Iterator[Batch]:
        rows = [part.rows(start, self._block) for part in self._sets]
        joined = (torch.cat(column, 1).flatten(0, 1) for column in zip(*rows, strict=True))
        pixels, *given = joined
        pixels = augmented(pixels, self._augment, derive_seed(self._seed, "augment", start))
        columns = (
            column.split(self._batch) for column in (as_images(pixels, torch.channels_last), *given)
        )
        for images, targets, stored in zip(*columns, strict=True):
            yield Batch(images, targets, self._teacher(images) if self._teacher else stored)


class _Set:
    """One set of images and how much of every batch it fills."""

    def __init__(
        self,
        name: str,
        pixels: np.ndarray | None,
        labels: np.ndarray | None,
        logits: np.ndarray | None,
        *,
        space: LabelSpace,
        stored: bool,
        batch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        if pixels is None or labels is None or len(pixels) == 0:
            raise BadInput(
                f"training takes {batch} {name} images in every batch, but none is given"
            )
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise BadInput(
                f"{name} pixels must be uint8 [n, c, h, w], got {pixels.dtype} {list(pixels.shape)}"
            )
        space.check(labels, f"{name} labels")
        if labels.shape != pixels.shape[:1]:
            raise BadInput(
                f"{name} labels {list(labels.shape)} must be one for each of {len(pixels)} images"
            )
        if stored and (logits is None or logits.shape != (len(pixels), space.outputs)):
            given = "none" if logits is None else list(logits.shape)
            raise BadInput(
                f"distillation needs stored teacher logits [{len(pixels)}, {space.outputs}] of the "
                f"{name} images, got {given}"
            )
        if logits is None or not stored:
            logits = np.empty((len(pixels), 0), np.float32)
        columns = (pixels, space.targets(labels), logits)
        # On a GPU the set lies in its memory, so that no batch crosses the bus; a large one stays.
        home = device if _fits(device, sum(column.nbytes for column in columns)) else CPU
        self._columns = [_tensor(column).to(home) for column in columns]
        self._device = device
        self._batch = batch
        self._order = (name, seed)
        self._epoch = (-1, torch.empty(0, dtype=torch.int64))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return tuple(self._columns[0].shape[1:])

    def rows(self, start: int, steps: int) -> list[torch.Tensor]:
        """Pixels `[steps, batch, c, h, w]`, targets `[steps, batch]` and logits of these steps."""
        indices = self._indices(start * self._batch, (start + steps) * self._batch)
        indices = indices.to(self._columns[0].device)
        return [
            column[indices].to(self._device).unflatten(0, (steps, self._batch))
            for column in self._columns
        ]

    def _indices(self, start: int, stop: int) -> torch.Tensor:
        count = len(self._columns[0])
        epochs = [self._permutation(epoch) for epoch in range(start // count, -(-stop // count))]
        first = start // count * count
        return torch.cat(epochs)[start - first : stop - first]

    def _permutation(self, epoch: int) -> torch.Tensor:
        if self._epoch[0] != epoch:
            random = torch.Generator().manual_seed(derive_seed(*self._order, epoch))
            self._epoch = (epoch, torch.randperm(len(self._columns[0]), generator=random))
        return self._epoch[1]


@dataclass(frozen=True)
class _Streamed:
    """A stream and how much of every batch it fills."""

    stream: Stream
    batch: int
    space: LabelSpace
    stored: bool  # whether the teacher's stored logits are asked for
    device: torch.device

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return self.stream.image_shape

    def rows(self, start: int, steps: int) -> list[torch.Tensor]:
        """Pixels `[steps, batch, c, h, w]`, targets `[steps, batch]` and logits of these steps."""
        pixels, rows = self.stream.rows(start * self.batch, (start + steps) * self.batch)
        logits = rows.logits if self.stored else np.empty((len(pixels), 0), np.float32)
        if logits is None:
            raise BadInput("distillation needs stored teacher logits, and the stream has none")
        return [
            _tensor(column).to(self.device).unflatten(0, (steps, self.batch))
            for column in (pixels, self.space.targets(rows.labels), logits)
        ]


def _generated_per_batch(data: TrainingData, batch: int, fraction: float | None) -> int:
    if data.real_pixels is None:
        return batch
    if not data.generated:
        return 0
    if fraction is None:
        fraction = data.generated / (data.generated + len(data.real_pixels))
    if fraction == 0:
        return 0
    return min(max(round(batch * fraction), 1), batch - 1)  # rounding must not drop either set


def _stores_logits(data: TrainingData) -> bool:
    real = data.real_pixels is None or data.real_logits is not None
    generated = data.generated_pixels is None or data.generated_logits is not None
    return real and generated  # a stream says itself that it has none


def _fits(device: torch.device, size: int) -> bool:
    """Whether so many bytes leave half of what is free on a GPU to training."""
    return device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] // 2


def _tensor(column: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(column, requirements=["C", "W"]))  # torch refuses read-only


def augmented(pixels: torch.Tensor, how: Augmentation, seed: int) -> torch.Tensor:
    """The uint8 batch `[n, c, h, w]` with each image shifted, mirrored or both, at random.

    `shift` moves by up to an eighth of the width each way (4 px of 32, as is usual for CIFAR),
    and what enters is black; `flip` mirrors half of the images.

    >>> pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    >>> augmented(pixels, "shift-flip", seed=0).shape
    torch.Size([4, 1, 8, 8])
    """
    if how == "none":
        return pixels
    random = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on every device
    if how != "flip":
        pixels = _shifted(pixels, random)
    if how != "shift":
        mirrored = torch.rand(len(pixels), generator=random) < 0.5
        mirrored = mirrored.to(pixels.device)[:, None, None, None]
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    return pixels


def _shifted(pixels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    count, _, height, width = pixels.shape
    reach = max(1, width // 8)
    offsets = torch.randint(2 * reach + 1, (2, count), generator=random).to(pixels.device)
    # Every crop of the padded batch as a view; indexing it copies just the crops asked for.
    crops = F.pad(pixels, (reach,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    samples = torch.arange(count, device=pixels.device)
    return crops[samples, :, offsets[0], offsets[1]]
