"""Runs and releases that the tests of the review app share."""

import shutil

import pytest

from cgankd.app.review.subject import open_subject
from cgankd.shardset.testing import (
    tiny_continuous_plan,
    tiny_continuous_space,
    tiny_plan,
    tiny_space,
    write_tiny_release,
)
from tests.app.review.tiny_reviews import write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of classes."""
    folder = tmp_path_factory.mktemp("runs") / "classes"
    return write_run(folder, tiny_plan(per_label=20), tiny_space())


@pytest.fixture
def run(made, tmp_path):
    """One to change."""
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def subject(made):
    return open_subject(made)


@pytest.fixture(scope="module")
def angles(tmp_path_factory):
    """A run of continuous labels."""
    folder = tmp_path_factory.mktemp("runs") / "angles"
    return open_subject(write_run(folder, tiny_continuous_plan(), tiny_continuous_space()))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_tiny_release(tmp_path_factory.mktemp("released"))
