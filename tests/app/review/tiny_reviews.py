"""Tiny runs as the review app reads them, and what tests ask of them."""

import io

import numpy as np
from PIL import Image

from cgankd.app.console import Console
from cgankd.app.review.state import matching
from cgankd.curation.neighbours import Neighbours, Thresholds
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.reviews import NONE
from cgankd.shardset.tables import write_table
from cgankd.shardset.testing import write_tiny_pool, write_tiny_scores, write_tiny_selection

QUIET = Console(json=True)
ME = {"reviewer": "first"}


def write_neighbours(run, plan, space):
    """Samples 0 and 1, and 2 and 4, are alike; sample 3 is as near to a real image as can be."""
    count = plan.count
    near = np.full(count, 0.5, np.float32)
    near[3] = 0.999
    groups = range(len(space.group_names))
    labels = np.concatenate([plan.labels(spec) for spec in plan.shards])
    found = Neighbours(
        key=np.arange(count),
        nearest_real_id=np.arange(count) % 5,
        nearest_real_similarity=near,
        nearest_validation_id=np.full(count, -1),
        nearest_validation_similarity=np.full(count, np.nan, np.float32),
        outlier=np.linspace(0, 2, count).astype(np.float32),
        key_a=np.array([0, 2]),
        key_b=np.array([1, 4]),
        similarity=np.array([0.97, 0.99], np.float32),
        thresholds=Thresholds(
            memorised=dict.fromkeys(groups, 0.99),
            duplicates=dict.fromkeys(groups, 0.95),
            outliers=dict.fromkeys(groups, 3.0),
            loosest=dict.fromkeys(groups, 0.9),
            centre_distance=dict.fromkeys(groups, 1.0),
        ),
    )
    write_table(
        run / "neighbours.parquet",
        found.table(space.group_of(labels)),
        {"thresholds": found.thresholds.model_dump(mode="json")},
    )
    write_table(run / "neighbours" / "columns.parquet", found.columns())


def write_run(run, plan, space):
    """A run up to its selection, with what a page reads."""
    write_tiny_pool(run / "pool", plan)
    write_tiny_scores(run / "scores", plan)
    write_tiny_selection(run / "selections" / "cgan-kd.parquet", run / "scores")
    RunFolder(run).record(source={"spec": "none", "space": space.model_dump(mode="json")})
    write_neighbours(run, plan, space)
    return run


def rows_where(table, test):
    return [i for i, row in enumerate(table.to_pylist()) if test(row)]


def nothing_said(subject):
    return np.full(len(subject), NONE, np.int8)


def shown(subject, wanted, verdict=None):
    verdict = nothing_said(subject) if verdict is None else verdict
    return np.flatnonzero(matching(subject, verdict, wanted)).tolist()


def pixels_in(picture):
    return np.array(Image.open(io.BytesIO(picture.png)))
