"""Stages of a tiny run, called as the tests of curation do."""

from cgankd.app import pipeline
from cgankd.app.console import Console

QUIET = Console(json=True)


DUPLICATES = "policy.duplicates=calibrated"


FIDELITY = {
    *("agreement", "fid", "kid", "precision", "recall", "density", "coverage"),
    *("vendi", "authenticity"),
}


def stage(name, run, **more):
    more = {"backend": "serial", **more}
    return pipeline.stage(name, run, console=QUIET, device="cpu", **more)


def files(run):
    """The bytes of features and neighbours."""
    found = [*(run / "features").rglob("*"), *(run / "neighbours").rglob("*")]
    found = [path for path in found if path.is_file()] + [run / "neighbours.parquet"]
    return {str(path.relative_to(run)): path.read_bytes() for path in found}
