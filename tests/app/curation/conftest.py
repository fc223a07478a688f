"""A tiny run up to its scores and neighbours, which the tests here share."""

import shutil
from contextlib import suppress

import pytest

from cgankd.shardset.errors import RatioRefused
from tests.app.curation.tiny_stages import stage
from tests.app.tiny import OVERRIDES


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A tiny run up to its scores."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    stage("teacher", run, recipe="digits", overrides=OVERRIDES)
    for name in ("generator", "pool", "ratio", "scores"):
        with suppress(RatioRefused):
            stage(name, run)
    return run


@pytest.fixture(scope="module")
def found(scored, tmp_path_factory):
    """The same with neighbours."""
    run = tmp_path_factory.mktemp("runs") / "found"
    shutil.copytree(scored, run)
    stage("neighbours", run)
    return run


@pytest.fixture
def copy(found, tmp_path):
    """One to change."""
    return shutil.copytree(found, tmp_path / "copy")
