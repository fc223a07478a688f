"""Metrics against the numbers that well-known libraries give on the same features."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cgankd.curation.metrics.fidelity import frechet_distance, kernel_distance, overlap
from cgankd.curation.metrics.metrics import confidence_gap, confidences, vendi_score

REFERENCE = json.loads((Path(__file__).parent / "reference_metrics.json").read_text("utf-8"))


def reference_arrays() -> dict[str, np.ndarray]:
    """The arrays that the stored numbers were computed from."""
    random = np.random.default_rng(20240)
    mix = random.normal(size=(16, 16)) / 4
    real = (random.normal(size=(400, 16)) @ mix).astype(np.float32)
    generated = (1.1 * random.normal(size=(300, 16)) @ mix + 0.1).astype(np.float32)
    logits = (3 * random.normal(size=(500, 10))).astype(np.float32)
    drawn = random.random(500) < 0.7
    labels = np.where(drawn, logits.argmax(1), random.integers(0, 10, 500))
    return {"real": real, "generated": generated, "logits": logits, "labels": labels}


def measured() -> dict[str, float]:
    """The same numbers by our functions."""
    arrays = reference_arrays()
    generated, real = arrays["generated"], arrays["real"]
    return {
        **asdict(overlap(generated, real, k=5)),
        "vendi": vendi_score(generated),
        "kid": kernel_distance(generated, real[:300]),
        "fid": frechet_distance(generated, real),
        "calibration_error": confidence_gap(*confidences(arrays["logits"], arrays["labels"])),
    }


@pytest.mark.parametrize("name", sorted(set(REFERENCE) - {"how"}))
def test_metric_agrees_with_its_reference_library(name):
    """To a thousandth: prdc, vendi-score, torch-fidelity and torchmetrics, as the file says."""
    assert measured()[name] == pytest.approx(REFERENCE[name], rel=1e-3)


def test_kept_numbers_belong_to_these_features():
    """A change of NumPy's stream would show here first, not as a wrong metric."""
    arrays = reference_arrays()
    # Sums noted when the libraries were run.
    assert arrays["real"].sum(dtype=np.float64) == pytest.approx(9.3296, rel=1e-5)
    assert arrays["generated"].sum(dtype=np.float64) == pytest.approx(540.7088, rel=1e-5)
    assert int(arrays["labels"].sum()) == 2306
