"""What every test shares: one thread, since tests run beside each other, and no network."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # read at import; Xet has a process of its own

from hypothesis import settings  # noqa: E402 - the environment above comes first

# A test asserts order and outcome, not seconds: a busy machine fails none.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

# Where tensors pass from room to room, their shapes are checked in every test, and only there.
from jaxtyping import install_import_hook  # noqa: E402

SHAPED = (
    "cgankd.curation.density_ratio.model",
    "cgankd.curation.policies.subsampling",
    "cgankd.generator.game",
    "cgankd.generator.residual",
    "cgankd.student.methods.hinton",
)
install_import_hook(SHAPED, "beartype.beartype")
