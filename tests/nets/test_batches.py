"""Batches: the mix of real and generated images, the order, and the teacher's logits."""

import numpy as np
import pytest
import torch

from cgankd.nets.batches import Batches, TrainingData
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.release.decoded import Rows
from cgankd.shardset.testing import tiny_space

CPU = torch.device("cpu")
ANGLES = ContinuousLabels(unit="degrees", low=-60.0, high=60.0)


def marked(first, count, size=8):
    """Images whose every pixel is their number."""
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (count, 1, size, size)).copy()


def some_data(reals=10, generated=30, **more):
    return TrainingData(
        marked(0, reals),
        np.arange(reals, dtype=np.int64) % 3,
        marked(100, generated) if generated else None,
        np.arange(generated, dtype=np.int64) % 3 if generated else None,
        **more,
    )


def batches(
    data, *, batch=8, fraction=0.5, augment="none", distil=False, teacher=None, seed=0, space=None
):
    return Batches(
        data,
        space=space or tiny_space(3),
        batch=batch,
        generated_fraction=fraction,
        augment=augment,
        distil=distil,
        teacher=teacher,
        seed=seed,
        device=CPU,
    )


def numbers_of(batch):
    """The numbers of a batch's images, found from their grey."""
    return ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize(
    ("fraction", "generated"), [(0.5, 4), (0.25, 2), (0.01, 1), (0.99, 7), (0.0, 0), (None, 6)]
)
def test_every_batch_holds_the_stated_share_of_generated_images(fraction, generated):
    """None means in proportion to the sets: 30 of 40 here."""
    for batch in batches(some_data(), fraction=fraction).of(7):
        assert len(batch.images) == 8
        assert sum(number >= 100 for number in numbers_of(batch)) == generated


def test_without_generated_images_a_batch_is_all_real():
    """The same settings serve the arms that use reals only."""
    for batch in batches(some_data(generated=0)).of(3):
        assert all(number < 10 for number in numbers_of(batch))


def test_each_set_is_gone_through_once_an_epoch_in_changing_order():
    """Ten reals, five a batch: two batches are an epoch; batches may cross into the next."""
    seen = [
        number
        for batch in batches(some_data(), batch=10).of(20)
        for number in numbers_of(batch)
        if number < 100
    ]
    epochs = [seen[start : start + 10] for start in range(0, 100, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 8


def test_labels_stay_with_their_images():
    """Labels were made as the image's number modulo three."""
    for batch in batches(some_data()).of(9):
        assert [number % 100 % 3 for number in numbers_of(batch)] == batch.targets.tolist()


def test_a_step_does_not_depend_on_how_many_follow():
    """Steps are prepared in blocks, which nobody may notice."""
    large = TrainingData(
        np.random.default_rng(0).integers(0, 256, (9, 3, 64, 64), dtype=np.uint8),
        np.zeros(9, np.int64),
    )
    short = list(batches(large, batch=16, augment="shift-flip").of(9))
    long = list(batches(large, batch=16, augment="shift-flip").of(30))
    assert all(torch.equal(a.images, b.images) for a, b in zip(short, long[:9], strict=True))


def test_seed_decides_order_and_augmentation():
    """Equal seeds give equal batches, other seeds others."""
    first, again, other = (
        list(batches(some_data(), augment="shift", seed=seed).of(3)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.images, b.images) for a, b in zip(first, other, strict=True))


def test_stored_logits_stay_with_their_images():
    """Half precision from a score table or float; each row holds its image's number."""
    data = some_data(
        real_logits=np.repeat(np.arange(10, dtype=np.float32)[:, None], 3, 1),
        generated_logits=np.repeat(np.arange(100, 130, dtype=np.float16)[:, None], 3, 1),
    )
    for batch in batches(data, distil=True).of(9):
        assert batch.teacher_logits.shape == (8, 3)
        assert batch.teacher_logits[:, 1].int().tolist() == numbers_of(batch)


def test_stored_logits_are_preferred_while_they_hold():
    """A teacher beside complete stored logits is asked for augmented images only."""
    stored = {"real_logits": np.zeros((10, 3)), "generated_logits": np.zeros((30, 3))}
    options = {"distil": True, "teacher": lambda images: torch.ones(len(images), 3)}
    for data, augment, expected in (
        (some_data(**stored), "none", 0),
        (some_data(**stored), "flip", 1),
        (some_data(real_logits=stored["real_logits"]), "none", 1),
    ):
        batch = next(batches(data, augment=augment, **options).of(1))
        assert (batch.teacher_logits == expected).all()


def test_teacher_sees_the_augmented_images():
    """What the student is shown is what the teacher judges."""
    data = some_data()
    for batch in batches(
        data, augment="shift", distil=True, teacher=lambda images: images.flatten(1)[:, :3] * 2
    ).of(4):
        torch.testing.assert_close(batch.teacher_logits, batch.images.flatten(1)[:, :3] * 2)


def test_without_distillation_nobody_asks_the_teacher():
    """The logits are then empty."""

    def teacher(images):
        raise AssertionError("asked")

    for batch in batches(some_data(), teacher=teacher).of(2):
        assert batch.teacher_logits.shape == (8, 0)


def test_read_only_arrays_are_taken():
    """Arrow hands out such arrays."""
    data = some_data(generated=0)
    data.real_pixels.setflags(write=False)
    data.real_labels.setflags(write=False)
    assert len(list(batches(data).of(2))) == 2


def test_continuous_labels_reach_the_network_scaled():
    """Image i has the label −60 + 12 i degrees: a tenth of the range each."""
    data = TrainingData(marked(0, 11), np.arange(11) * 12.0 - 60)
    for batch in batches(data, space=ANGLES).of(5):
        assert batch.targets.dtype == torch.float32
        expected = torch.tensor(numbers_of(batch)) / 10
        torch.testing.assert_close(batch.targets, expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 61.0]), "real labels: label 61 of sample 1 is not within"),
        (np.array([np.nan, 0.0]), "label nan of sample 0"),
        (np.zeros(2, np.int64), "int64, expected float64"),
        (np.zeros((2, 3)), "several numbers for each image"),
        (np.zeros(3), "one for each of 2 images"),
    ],
)
def test_continuous_labels_that_do_not_fit_are_refused(labels, message):
    """By the label space, which names the images they came with."""
    with pytest.raises(BadInput, match=message):
        batches(TrainingData(marked(0, 2), labels), space=ANGLES)


def test_continuous_labels_are_not_distilled():
    """There are no logits to follow; replaced labels are the way."""
    with pytest.raises(BadInput, match=r"distillation needs a teacher's logits.* replaced"):
        batches(TrainingData(marked(0, 2), np.zeros(2)), space=ANGLES, distil=True)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (some_data(), {"augment": "flip", "distil": True}, "stored teacher logits do not hold"),
        (some_data(), {"distil": True}, r"logits \[10, 3\] of the real images, got none"),
        (
            some_data(real_logits=np.zeros((10, 3)), generated_logits=np.zeros((30, 2))),
            {"distil": True},
            r"logits \[30, 3\] of the generated images, got \[30, 2\]",
        ),
        (
            TrainingData(marked(0, 4), np.array([0, 1, 2, 3])),
            {},
            "real labels: label 3 of sample 3 is not one of the 3 classes",
        ),
        (TrainingData(marked(0, 4), np.array([0, 1])), {}, "one for each of 4 images"),
        (TrainingData(marked(0, 0), np.array([], np.int64)), {}, "8 real images in every batch"),
        (TrainingData(np.zeros((4, 8, 8)), np.zeros(4, np.int64)), {}, "must be uint8"),
        (
            TrainingData(
                marked(0, 4), np.zeros(4, np.int64), marked(0, 4, 16), np.zeros(4, np.int64)
            ),
            {},
            "differ in shape",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(data, options, message):
    """Before the first step, in one line that says which images."""
    with pytest.raises(BadInput, match=message):
        batches(data, **options)


@pytest.mark.parametrize("augment", ["none", "shift-flip"])
@pytest.mark.parametrize("first", [1, 7, 40, 799])
def test_batches_from_a_later_step_are_those_that_would_have_come(augment, first):
    """Whatever part of a block they begin in."""
    every = [batch.images for batch in batches(some_data(), augment=augment).of(800)]
    rest = [batch.images for batch in batches(some_data(), augment=augment).of(800, first)]

    assert len(rest) == 800 - first
    assert torch.equal(torch.stack(rest), torch.stack(every[first:]))


class Numbered:
    """A stream whose images at position p are p, its label p modulo 3, over epochs of 30."""

    image_shape = (1, 8, 8)

    def __len__(self):
        return 30

    def rows(self, start, stop):
        places = np.arange(start, stop)
        pixels = np.broadcast_to((places % 250)[:, None, None, None], (stop - start, 1, 8, 8))
        logits = np.repeat(places[:, None], 3, axis=1).astype(np.float32)
        return pixels.astype(np.uint8), Rows(places % 3, logits)


def test_a_stream_is_taken_in_its_own_order():
    """Without real images it fills every batch."""
    found = list(batches(TrainingData(generated_stream=Numbered()), distil=True).of(6))

    numbers = [number for batch in found for number in numbers_of(batch)]
    assert numbers == list(range(48))
    assert torch.cat([batch.targets for batch in found]).tolist() == [n % 3 for n in numbers]
    assert torch.cat([batch.teacher_logits for batch in found])[:, 1].tolist() == numbers


@pytest.mark.parametrize(("fraction", "generated"), [(0.5, 4), (None, 6)])
def test_a_stream_is_mixed_with_real_images_as_arrays_are(fraction, generated):
    """By the stated share, or in proportion: 30 of 40 here."""
    data = TrainingData(marked(240, 10), np.arange(10) % 3, generated_stream=Numbered())
    for batch in batches(data, fraction=fraction).of(5):
        assert sum(number < 240 for number in numbers_of(batch)) == generated


def test_training_without_any_image_is_refused():
    """Neither real, nor generated, nor a stream."""
    with pytest.raises(BadInput, match="none are given"):
        _ = TrainingData().image_shape
    with pytest.raises(BadInput, match="none is given"):
        batches(TrainingData())


def test_a_set_that_does_not_fit_a_gpu_stays_where_it_is(monkeypatch):
    """Its batches are sent one by one; the meta device stands for the GPU."""
    monkeypatch.setattr("cgankd.nets.batches._fits", lambda device, size: False)
    meta = torch.device("meta")
    data = some_data()
    found = Batches(
        data, space=tiny_space(3), batch=8, generated_fraction=0.5, augment="none", distil=False,
        teacher=None, seed=0, device=meta,
    )  # fmt: skip

    batch = next(found.of(1))
    assert (batch.images.device, batch.images.shape) == (meta, (8, 1, 8, 8))
    assert batch.targets.device == meta
