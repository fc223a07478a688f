"""What a dry run times, and what it leaves alone."""

import pytest
import torch

from cgankd.app.console import Console
from cgankd.app.estimate import dry_run, other_processor, side_by_side
from cgankd.app.recipe import load_recipe
from cgankd.generator import label_embedding
from tests.app.tiny import CONTINUOUS


def test_a_dry_run_times_the_label_embedding_and_never_trains_it_to_its_end(tmp_path, monkeypatch):
    """With a million steps of each network it ends after a few, and the estimate counts all."""
    million = [f"generator.training.embedding.{name}_steps=1000000" for name in ("image", "label")]
    recipe = load_recipe("rotated-digits", [*CONTINUOUS, *million])
    steps = 0
    h2y = label_embedding.ImageToLabel.h2y

    def counted(net, features):
        nonlocal steps
        steps += torch.is_grad_enabled()
        return h2y(net, features)

    monkeypatch.setattr(label_embedding.ImageToLabel, "h2y", counted)
    facts = dry_run(recipe, tmp_path / "run", device="cpu", workers=1, console=Console(json=True))

    assert 0 < steps <= 2 * 10  # ten of each of its two networks
    assert facts["seconds"]["generator"] > 60
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("generator", "on_reals", "expected"),
    [
        (100.0, 30.0, 100 + 20 + 40),  # 10 + 2 · 30 on one core, meanwhile
        (20.0, 100.0, (20 + 20 + 10 + 2 * 100) / 2 + 40),  # both cores to the end
    ],
)
def test_what_runs_beside_the_rest_adds_time_only_where_it_takes_longer(
    generator: float, on_reals: float, expected: float
) -> None:
    """Seconds of students count two cores at work."""
    seconds = {"teacher": 10.0, "generator": generator, "pool, ratio and scores": 20.0}
    students = {"students on real images": on_reals, "students": 40.0}

    assert side_by_side({**seconds, **students}, workers=2) == pytest.approx(expected)


def test_what_a_processor_of_the_other_kind_takes_goes_both_ways():
    """There and back the time lies within the bounds, whichever kind this one is."""
    least, most = other_processor(60.0, amx=True)

    assert 60 < least < most
    assert other_processor(least, amx=False)[1] == pytest.approx(60)
    assert other_processor(most, amx=False)[0] == pytest.approx(60)
