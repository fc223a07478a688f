"""What every test shares: one thread, since tests run beside each other, and no network."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # read at import; Xet has a process of its own

import pytest
from hypothesis import settings

# A test asserts order and outcome, not seconds: a busy machine fails none.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

# Where tensors pass from room to room, their shapes are checked in every test, and only there.
from jaxtyping import install_import_hook  # noqa: E402

import tests.shapes  # noqa: E402, F401

SHAPED = (
    "cgankd.curation.density_ratio.model",
    "cgankd.curation.policies.subsampling",
    "cgankd.generator.game",
    "cgankd.generator.residual",
    "cgankd.student.methods.hinton",
)
install_import_hook(SHAPED, "tests.shapes.checked")


@pytest.fixture(autouse=True)
def same_main_module(monkeypatch):
    """Streamlit's page tests leave their script as `__main__`, which spawned workers would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
