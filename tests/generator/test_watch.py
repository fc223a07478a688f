"""When training is called off, and when it is not."""

import math

import pytest
import torch

from cgankd.generator.watch import PATIENCE, check_health, spread
from cgankd.shardset.errors import TrainingDiverged

Row = dict[str, float]


def rows(until: int, **values: float) -> list[Row]:
    """A healthy run's rows every 100 steps, but for the values given."""
    healthy = {"loss_d": 1.4, "loss_g": 0.4, "variety": 0.8}
    return [{"step": step, **healthy, **values} for step in range(100, until + 1, 100)]


def test_a_healthy_run_goes_on() -> None:
    """Also one whose losses are small and whose samples vary little, as on a few digits."""
    check_health(rows(5000))
    check_health(rows(5000, loss_d=0.3, loss_g=-0.9, variety=0.2))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it_at_once_and_names_the_step(value: float) -> None:
    """The first such row is enough."""
    with pytest.raises(TrainingDiverged, match=r"loss_g is (nan|inf) at step 300.*lr_g"):
        check_health([*rows(200), {"step": 300, "loss_d": 1.0, "loss_g": value, "variety": 1.0}])


@pytest.mark.parametrize(
    ("symptom", "advice"), [({"loss_d": 0.001}, "augmentation"), ({"variety": 0.01}, "lr_g")]
)
def test_a_symptom_must_last(symptom: Row, advice: str) -> None:
    """Early in training, or for a moment, it means nothing; after PATIENCE steps it does."""
    check_health(rows(PATIENCE - 100, **symptom))
    check_health(
        [*rows(3000), *({**row, "step": row["step"] + 3000} for row in rows(500, **symptom))]
    )

    with pytest.raises(TrainingDiverged, match=f"step 2000.*{advice}"):
        check_health(rows(2000, **symptom))


def test_spread_is_the_deviation_within_labels() -> None:
    """What differs between labels does not count; a label with one image is left out."""
    images = torch.tensor([0.0, 2.0, 10.0, 12.0, 99.0]).view(5, 1, 1, 1)
    labels = torch.tensor([0, 0, 1, 1, 2])

    assert spread(images, labels) == pytest.approx(math.sqrt(2))


def test_spread_of_single_images_is_unknown() -> None:
    """One image for each label has no deviation."""
    assert math.isnan(spread(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2])))
