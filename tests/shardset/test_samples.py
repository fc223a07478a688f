"""A run, a release and the release's copy of the same samples open in one way."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import write_json
from cgankd.shardset.images import decode_png
from cgankd.shardset.places import stored_pictures
from cgankd.shardset.pool.run_folder import is_run
from cgankd.shardset.samples import Samples, open_samples
from cgankd.shardset.testing import tiny_pixels, tiny_plan, tiny_space, write_tiny_release

PLAN = tiny_plan()


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """A run folder, and a release that was made of it."""
    release = write_tiny_release(tmp_path).folder
    run = tmp_path / "run"
    write_json(run / "run.json", {"source": {"space": tiny_space().model_dump(mode="json")}})
    return run, release


def decisions(samples: Samples) -> list[dict[str, object]]:
    """What was decided on each key."""
    name = samples.selected(None)
    assert name is not None
    return samples.decisions(name).to_pylist()


def test_a_run_and_its_release_open_with_the_same_columns(both: tuple[Path, Path]) -> None:
    """Decisions, scores and identity; only the selection has another name."""
    run, release = map(open_samples, both)

    assert (run.kind, release.kind) == ("run", "release")
    assert (run.pool_id, run.seed, run.space) == (release.pool_id, release.seed, release.space)
    assert decisions(run) == decisions(release)
    columns = ("key", "density_ratio")
    assert run.scores(columns).to_pylist() == release.scores(columns).to_pylist()
    assert run.produced(("key", "condition")).to_pylist() == (
        release.produced(("key", "condition")).to_pylist()
    )
    assert (run.selections, release.selections) == (("cgan-kd",), ("v1.0.0",))
    assert run.curation("cgan-kd")["policy"] == release.curation("v1.0.0")["policy"]


def test_images_are_read_by_row_from_either(both: tuple[Path, Path]) -> None:
    """From a tar by offset, from Parquet by row group: the same pixels."""
    rows = [23, 0, 7]
    for samples in map(open_samples, both):
        key = samples.scores(("key",))["key"].to_numpy()
        for row, picture in zip(rows, stored_pictures(samples.places(key), rows), strict=True):
            assert picture.png is not None
            expected = tiny_pixels(PLAN, row, row // 8)
            assert np.array_equal(decode_png(picture.png), expected)


def test_a_run_is_known_by_its_recipe_or_by_what_its_first_stage_recorded(tmp_path: Path) -> None:
    """One opinion for every command."""
    assert not is_run(tmp_path)
    (tmp_path / "recipe.yaml").write_text("name: tiny\n")
    assert is_run(tmp_path)
    with pytest.raises(BadInput, match="has no label space; continue the run first"):
        open_samples(tmp_path)
    (tmp_path / "recipe.yaml").rename(tmp_path / "run.json")
    assert is_run(tmp_path)


def test_what_is_not_there_is_named(both: tuple[Path, Path], tmp_path: Path) -> None:
    """Another selection, a folder that is neither, a release where a run is asked for."""
    run, release = map(open_samples, both)
    with pytest.raises(BadInput, match="no selection 'best'; it has cgan-kd"):
        run.decisions("best")
    with pytest.raises(BadInput, match="is a release, which holds one selection; give no name"):
        release.selected("best")
    with pytest.raises(BadInput, match="is a release; give the run folder"):
        _ = release.run
    with pytest.raises(BadInput, match="is a run folder; give one of its releases"):
        _ = run.release
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(BadInput, match="is neither a run nor a release folder, nor an id"):
            open_samples(nothing)


def test_without_images_a_release_is_compared_with_its_manifest(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    """A changed score table is found; images that are not wanted need not be there."""
    copy = shutil.copytree(both[1], tmp_path / "copy")
    shutil.rmtree(copy / "data")
    assert decisions(open_samples(copy, images=False)) == decisions(open_samples(both[1]))
    table = next((copy / "scores").glob("*.parquet"))
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    with pytest.raises(ReleaseError, match=r"scores/train-00000-of-00001\.parquet"):
        open_samples(copy, images=False)
