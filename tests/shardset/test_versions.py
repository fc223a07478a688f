"""A version says how much changed since the one before it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import sha256_file
from cgankd.shardset.release import tables as release_tables
from cgankd.shardset.release.build import Sources, build_release, propose_version
from cgankd.shardset.release.manifest import MANIFEST, Changes, read_manifest
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.release.versions import next_version, parent_of, released_versions, understated
from cgankd.shardset.tables import read_table, write_table
from cgankd.shardset.testing import (
    described,
    tiny_facts,
    tiny_plan,
    write_tiny_pool,
    write_tiny_release,
    write_tiny_scores,
    write_tiny_selection,
)


@pytest.fixture
def out(tmp_path):
    write_tiny_release(tmp_path)
    return tmp_path


def given(out, **changes):
    """What the release of `out` was built from, with changes."""
    run = out / "run"
    space, lineage = described(changes.pop("facts", tiny_facts()))
    sources = {
        "pool": run / "pool",
        "scores": run / "scores",
        "selection": run / "selections" / "cgan-kd.parquet",
        "space": space,
        "lineage": lineage,
        "include_rejected": True,
        **changes,
    }
    return Sources(**sources)


def selected(out, change):
    """Rewrites the selection with other columns."""
    path = out / "run/selections/cgan-kd.parquet"
    table = read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    change(columns)
    write_table(path, pa.table(columns), {"policy": {"filter": "agreement"}})


def digests(folder):
    """The sha256 of every data file of a release."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*.parquet"))
    }


def test_the_first_version_is_proposed_where_there_is_none(tmp_path):
    """Nothing is read for it."""
    proposal = propose_version(tmp_path, given(tmp_path))

    assert (proposal.version, proposal.parent) == ("v1.0.0", None)
    assert proposal.reason == "the first version"


def test_where_nothing_changed_nothing_is_proposed(out):
    """The reason is empty, the version the one that is there."""
    proposal = propose_version(out, given(out))

    assert (proposal.version, proposal.parent, proposal.reason) == ("v1.0.0", "v1.0.0", "")


def test_other_facts_or_a_report_are_a_patch_of_the_same_data_files(out):
    """Byte for byte, also where another version of the writer would write them otherwise."""
    table = read_table(out / "v1.0.0/scores/train-00000-of-00001.parquet")
    pq.write_table(table, out / "v1.0.0/scores/train-00000-of-00001.parquet", compression="gzip")
    report = tiny_report()
    facts = {**tiny_facts(), "license": "mit"}
    with pytest.raises(ReleaseError, match="is not as its manifest says, so no version can follow"):
        build_release(out, "v1.0.1", given(out, facts=facts))
    assert released_versions(out) == ["v1.0.0"]

    write_again(out)
    proposal = propose_version(out, given(out, facts=facts, report=report))
    assert proposal.version == "v1.0.1"
    assert proposal.reason == (
        "patch change: the facts are others: license; the metadata are others: metadata/report.json"
    )
    built = build_release(out, "v1.0.1", given(out, facts=facts, report=report))
    assert digests(built.folder) == digests(out / "v1.0.0")
    assert len(digests(built.folder)) == 3
    assert "| cgan-kd | 83.5 ± 0.25 | 2 |" in (built.folder / "README.md").read_text()
    assert verify_release(built.folder) == []


def write_again(out):
    """Restores the first version as it was built."""
    for path in sorted((out / "v1.0.0").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (out / "v1.0.0").rmdir()
    build_release(out, "v1.0.0", given(out))


def tiny_report():
    """What a report says of two arms."""
    arm = {"mean": 83.5, "std": 0.25, "values": [83.25, 83.75]}
    return {
        "metric": "accuracy",
        "unit": "%",
        "summary": "cgan-kd reaches 83.5 % accuracy.",
        "arm_order": ["no-kd", "cgan-kd"],
        "arms": {"no-kd": {**arm, "mean": 80.0}, "cgan-kd": arm},
        "teacher": {"name": "convnet-80k", "test": 90.5},
    }


def test_other_samples_are_minor(out):
    """What came, went and has another label is counted by key."""

    def change(columns):
        first, second = [key for key in columns["key"] if columns["kept"][key]][:2]
        dropped = next(key for key in columns["key"] if not columns["kept"][key])
        columns["kept"][first], columns["reason"][first] = False, "reviewer"
        columns["kept"][dropped], columns["reason"][dropped] = True, None
        columns["label"][second] = (columns["label"][second] + 1) % 3

    selected(out, change)
    proposal = propose_version(out, given(out))
    assert proposal.version == "v1.1.0"
    assert proposal.reason == (
        "minor change: the samples are others: 1 came, 1 went, 1 have another label"
    )
    facts = {**tiny_facts(), "policy": {"filter": "quantile", "rho": 0.9}}
    built = build_release(out, "v1.1.0", given(out, facts=facts))
    manifest = read_manifest(built.folder)
    assert manifest.parent_version == "v1.0.0"
    assert manifest.parent_manifest_sha256 == sha256_file(out / "v1.0.0" / MANIFEST)
    assert manifest.changes == Changes(
        level="minor",
        reasons=("the samples are others: 1 came, 1 went, 1 have another label",),
        accepted_before=21,
        came=1,
        went=1,
        relabelled=1,
        policy={"filter": ("agreement", "quantile"), "rho": (None, 0.9)},
    )
    text = (built.folder / "README.md").read_text()
    assert "## Changes since v1.0.0" in text
    assert "- policy filter: agreement before, quantile now" in text
    assert "- policy rho: – before, 0.9 now" in text


def test_a_parents_policy_by_old_names_is_compared_by_those_of_today(tmp_path):
    """What is only called otherwise is no change; nor is the fact another."""
    write_tiny_release(tmp_path, facts={**tiny_facts(), "policy": {"rho": 0.9, "quota": None}})

    def current_policy(policy):
        return {"filter": {"rho": policy["rho"]}, "quota": None} if "rho" in policy else policy

    facts = {**tiny_facts(), "policy": {"filter": {"rho": 0.9}, "quota": None}}
    same = propose_version(tmp_path, given(tmp_path, facts=facts, current_policy=current_policy))
    assert "facts" not in same.reason
    facts = {**facts, "policy": {"filter": {"rho": 0.7}, "quota": None}, "license": "mit"}
    built = build_release(
        tmp_path, "v1.0.1", given(tmp_path, facts=facts, current_policy=current_policy)
    )
    changes = read_manifest(built.folder).changes
    assert changes.policy == {"filter.rho": (0.9, 0.7)}
    assert changes.reasons[0] == "the facts are others: license, policy"


def test_other_scores_reasons_or_rejected_images_are_minor(out):
    """They are data as well."""
    without = propose_version(out, given(out, include_rejected=False))
    assert without.reason == "minor change: the rejected images are left out"

    def rename(columns):
        columns["reason"] = [reason and "reviewer" for reason in columns["reason"]]

    selected(out, rename)
    renamed = propose_version(out, given(out))
    assert (renamed.version, renamed.reason) == (
        "v1.1.0",
        "minor change: the scores or decisions are others",
    )


def test_another_pool_is_minor(out):
    """Its keys are those of other samples."""
    run = out / "other"
    plan = write_tiny_pool(run / "pool", tiny_plan(seed=4))
    write_tiny_scores(run / "scores", plan)
    write_tiny_selection(run / "cgan-kd.parquet", run / "scores")
    changes = {
        "pool": run / "pool",
        "scores": run / "scores",
        "selection": run / "cgan-kd.parquet",
    }

    proposal = propose_version(out, given(out, **changes))
    assert proposal.version == "v1.1.0"
    assert proposal.reason == "minor change: the samples are of another pool"


def test_another_label_space_is_major(out):
    """Even if the samples are the same."""
    facts = tiny_facts()
    facts["space"]["names"] = ["zero", "one", "two"]

    proposal = propose_version(out, given(out, facts=facts))
    assert proposal.version == "v2.0.0"
    assert proposal.reason == "major change: the label space is another: names"


def test_other_columns_are_major(out):
    """An earlier version of the tool may have had fewer."""
    path = out / "v1.0.0/scores/train-00000-of-00001.parquet"
    pq.write_table(read_table(path).drop_columns(["teacher_entropy"]), path)

    proposal = propose_version(out, given(out))
    assert proposal.version == "v2.0.0"
    assert proposal.reason == "major change: the columns are others: teacher_entropy"


def test_versions_compare_as_numbers(tmp_path):
    """v1.10.0 follows v1.9.0, and a version between others follows the one below it."""
    for version in ("v1.9.0", "v1.10.0", "v2.0.0", "v1.10.0-wds", "vx"):
        (tmp_path / version / "metadata").mkdir(parents=True)
        (tmp_path / version / MANIFEST).touch()

    assert released_versions(tmp_path) == ["v1.9.0", "v1.10.0", "v2.0.0"]
    assert parent_of(tmp_path, None) == "v2.0.0"
    assert parent_of(tmp_path, "v1.10.1") == "v1.10.0"
    assert parent_of(tmp_path, "v1.0.0") is None


@pytest.mark.parametrize(
    ("level", "version"), [("major", "v2.0.0"), ("minor", "v1.3.0"), ("patch", "v1.2.4")]
)
def test_the_number_of_the_level_is_raised(level, version):
    """Those after it start again."""
    assert next_version("v1.2.3", level) == version


@pytest.mark.parametrize(
    ("version", "level", "hidden"),
    [
        ("v1.0.1", "minor", True),
        ("v1.1.0", "minor", False),
        ("v2.0.0", "patch", False),
        ("v1.4.0", "major", True),
        ("v1.0.7", "patch", False),
    ],
)
def test_a_version_that_understates_is_told(version, level, hidden):
    """The user decides, knowing."""
    changes = Changes(
        level=level,
        reasons=("x",),
        accepted_before=1,
        came=0,
        went=0,
        relabelled=0,
        policy={},
    )
    told = understated("v1.0.0", version, changes)

    assert (told is not None) == hidden
    if told:
        assert told.startswith(f"{version} understates a {level} change (x); v")


def test_a_used_version_is_refused(out):
    """Whatever it would hold."""
    with pytest.raises(BadInput, match=r"v1\.0\.0 exists and a release never changes"):
        build_release(out, "v1.0.0", given(out))


def test_the_number_of_workers_changes_no_byte(tmp_path, monkeypatch):
    """With many files to write at once."""
    monkeypatch.setattr(release_tables, "FILE_BYTES", 1_000)
    out = tmp_path
    built = write_tiny_release(out / "one")
    for workers in (2, 5):
        again = build_release(out / str(workers), "v1.0.0", given(out / "one"), workers=workers)
        assert again.manifest_sha256 == built.manifest_sha256
        assert len(digests(again.folder)) == 10
        assert digests(again.folder) == digests(built.folder)


def test_a_damaged_parent_is_named(out):
    """Nothing is compared with it."""
    (path,) = (out / "v1.0.0" / "data/accepted").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(ReleaseError, match=r"v1\.0\.0 is damaged, so no version can follow it"):
        propose_version(out, given(out))
