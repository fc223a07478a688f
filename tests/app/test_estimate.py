"""What a dry run times, and what it leaves alone."""

import torch

from cgankd.app.console import Console
from cgankd.app.estimate import dry_run
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
