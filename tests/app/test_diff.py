"""What `diff` tells of two releases: counts by hand, and all that changed with its reason."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console as RichConsole
from typer.testing import CliRunner

from cgankd.app import diff
from cgankd.app.cli import app
from cgankd.app.console import Console
from cgankd.app.diff import field_changes
from cgankd.shardset.errors import BadInput
from cgankd.shardset.release.build import Sources, build_release
from cgankd.shardset.release.manifest import read_manifest
from cgankd.shardset.tables import write_table
from cgankd.shardset.testing import (
    described,
    tiny_continuous_plan,
    tiny_continuous_space,
    tiny_facts,
    tiny_plan,
    tiny_space,
    write_tiny_release,
)
from tests.shardset.hubs import hub_and_client, published

QUIET = Console(json=True)
# Four samples of each of three classes; by hand, what two policies make of each key.
LOOSE = [None, None, None, "ratio", None, "ratio", None, None, "teacher", None, None, None]
STRICT = [None, "teacher", "teacher", None, None, "ratio", None, None, "ratio", None, None, None]
RELABELLED = {6: 2, 7: 0}  # keys of class 1


def selection(
    path: Path, reasons: list[str | None], policy: dict[str, Any], labels: dict[int, int]
) -> Path:
    """A selection of twelve samples with these reasons, and some labels other than assigned."""
    original = [key // 4 for key in range(12)]
    table = {
        "key": pa.array(range(12), pa.int64()),
        "kept": [reason is None for reason in reasons],
        "reason": pa.array(reasons, pa.string()),
        "label": pa.array([labels.get(key, label) for key, label in enumerate(original)]),
        "original_label": pa.array(original),
    }
    fitted = {"quantile": {"0": 1.5 if labels else 2.5}}
    write_table(path, pa.table(table), {"policy": policy, "fitted": fitted, "scores": "5" * 64})
    return path


def released(
    out: Path,
    version: str,
    reasons: list[str | None],
    labels: dict[int, int] | None = None,
    *,
    seed: int = 0,
    **facts: Any,
) -> Path:
    """A release of twelve samples with this selection and these facts."""
    told = {**tiny_facts(), **facts}
    scratch = out / f"of-{version}"
    write_tiny_release(scratch, plan=tiny_plan(4, seed=seed))
    chosen = selection(scratch / "chosen.parquet", reasons, told["policy"], labels or {})
    run = scratch / "run"
    sources = Sources(run / "pool", run / "scores", chosen, *described(told), False)
    return build_release(out, version, sources).folder


def measured(**overall: float) -> dict[str, Any]:
    """The check of a selection that meets all its limits, with these numbers."""
    judge = {"net": "judge", "images": 10, "sha256": "3" * 64}
    return {"judge": judge, "overall": overall, "limits": {}, "failures": [], "metrics": []}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two of one pool, with two policies."""
    out = tmp_path_factory.mktemp("releases")
    recipe = {"seed": 0, "policy": {"rho": 0.9}, "student": {"steps": [20], "lr": 0.1}}
    before = released(
        out,
        "v1.0.0",
        LOOSE,
        policy={"filter": "quantile", "rho": 0.9, "quota": None},
        recipe=recipe,
        check=measured(fid=12.5, recall=0.4),
    )
    weights = {**tiny_facts()["weights"], "teacher": "3" * 64}
    real = {**tiny_facts()["real"], "hashes": {"train": ["0" * 16]}, "salt": "x"}
    after = released(
        out,
        "v1.1.0",
        STRICT,
        RELABELLED,
        policy={"filter": "quantile", "rho": 0.7, "quota": None, "relabel": True},
        recipe={**recipe, "policy": {"rho": 0.7}, "student": {"steps": [20, 40], "lr": 0.1}},
        check=measured(fid=10.0, recall=0.4, coverage=0.9),
        weights=weights,
        real={**real, "split_seed": 1},
        license="mit",
    )
    return before, after


@pytest.fixture(scope="module")
def told(releases: tuple[Path, Path]) -> dict[str, Any]:
    return diff.diff(*releases, console=QUIET)


def fields(*rows: tuple[str, Any, Any]) -> list[dict[str, Any]]:
    return [dict(zip(("field", "before", "after"), row, strict=True)) for row in rows]


def test_keys_that_came_and_went_are_told_with_both_reasons(told: dict[str, Any]) -> None:
    """Counted by hand in the two lists above; one that is dropped in both is no change."""
    moves = [
        (row["key"], row["change"], row["reason_before"], row["reason_after"])
        for row in told["keys"]
    ]

    assert moves == [
        (1, "went", None, "teacher"),
        (2, "went", None, "teacher"),
        (3, "came", "ratio", None),
        (6, "relabelled", None, None),
        (7, "relabelled", None, None),
    ]
    assert told["changed"] == 5
    assert [tuple(row.values()) for row in told["why"]] == [
        ("relabelled", None, None, 2),
        ("went", None, "teacher", 2),
        ("came", "ratio", None, 1),
    ]
    assert [tuple(row.values()) for row in told["labels"]] == [
        (0, "class 0", 1, 2, 0),
        (1, "class 1", 0, 0, 2),
    ]


def test_images_are_counted_by_the_label_they_have(
    told: dict[str, Any], releases: tuple[Path, Path]
) -> None:
    """By hand, and as both manifests count them."""
    assert [tuple(row.values()) for row in told["counts"]] == [
        ("class 0", 3, 3),  # keys 0, 1, 2; then 0, 3 and the relabelled 7
        ("class 1", 3, 1),  # 4, 6, 7; then 4
        ("class 2", 3, 4),  # 9, 10, 11; then these and 6
    ]
    for side, folder in zip(("before", "after"), releases, strict=True):
        counts = tuple(row[side] for row in told["counts"])
        assert counts == read_manifest(folder).accepted


def test_policy_recipe_weights_and_metrics_are_compared_field_by_field(
    told: dict[str, Any],
) -> None:
    """By dotted paths; the recipe's policy is not told twice, nor a figure only one side has."""
    assert told["policy"] == fields(("filter.rho", 0.9, 0.7), ("relabel.kind", None, "teacher"))
    assert told["recipe"] == fields(("student.steps", [20], [20, 40]))
    assert told["weights"] == fields(("teacher", "1" * 64, "3" * 64))
    assert told["metrics"] == fields(
        ("check.overall.fid", 12.5, 10.0), ("fitted.quantile.0", 2.5, 1.5)
    )
    assert told["lineage"] == fields(("license", "cc0-1.0", "mit"), ("real.split_seed", 0, 1))
    assert told["space"] == told["columns"] == []


def test_the_other_way_round_everything_is_swapped(
    told: dict[str, Any], releases: tuple[Path, Path]
) -> None:
    """Before is after; the counts with it."""
    back = diff.diff(*releases[::-1], console=QUIET)

    assert back["before"] == told["after"]
    for name in ("counts", "policy", "recipe", "weights", "metrics", "lineage"):
        there = [{**row, "before": row["after"], "after": row["before"]} for row in told[name]]
        assert back[name] == there


def test_the_console_shows_all_of_it(releases: tuple[Path, Path]) -> None:
    """The first keys with nine digits, titles for what changed, none for what did not."""
    screen = io.StringIO()
    diff.diff(*releases, console=Console(rich=RichConsole(width=120, file=screen)))
    text = screen.getvalue()

    for part in (
        "5 samples changed",
        "000000003",
        "images: 9 before, 8 after",
        "student.steps",
        "[20, 40]",
        "check.overall.fid",
        "12.5",
    ):
        assert part in text
    assert "columns" not in text
    assert "check.overall.coverage" not in text


def test_a_release_does_not_differ_from_its_copy(releases: tuple[Path, Path]) -> None:
    """Every list is empty but the counts, which are equal."""
    told = diff.diff(releases[0], f"{releases[0]}/.", console=QUIET)

    assert told["changed"] == 0
    assert not any(told[name] for name in ("why", "keys", "policy", "recipe", "weights", "metrics"))
    assert all(row["before"] == row["after"] for row in told["counts"])


def test_releases_of_different_pools_are_compared_in_all_but_keys(
    releases: tuple[Path, Path], tmp_path: Path
) -> None:
    """On the command line it is said that the same key is another sample; nothing is refused."""
    other = released(tmp_path, "v2.0.0", STRICT, seed=1, policy={"filter": "none"})
    result = CliRunner().invoke(app, ["diff", str(releases[0]), str(other), "--json"])
    told = json.loads(result.stdout)

    assert result.exit_code == 0
    assert "are of different pools" in result.stderr.replace("\n", " ")
    assert [told[name] for name in ("changed", "why", "labels", "keys")] == [None] * 4
    assert [tuple(row.values()) for row in told["counts"]] == [
        ("class 0", 3, 2),
        ("class 1", 3, 3),
        ("class 2", 3, 3),
    ]
    assert told["policy"] == fields(("filter.kind", "quantile", None), ("filter.rho", 0.9, None))


def test_another_label_space_and_other_columns_are_told(
    releases: tuple[Path, Path], tmp_path: Path
) -> None:
    """A renamed class is one change; classes against numbers change the columns as well."""
    space = tiny_space().model_dump(mode="json")
    renamed = {**space, "names": ["class 0", "dog", "class 2"]}
    same_pool = released(tmp_path, "v2.0.0", LOOSE, space=renamed)
    told = diff.diff(releases[0], same_pool, console=QUIET)

    assert told["space"] == fields(("names.1", "class 1", "dog"))
    assert [tuple(row.values()) for row in told["counts"]] == [
        ("class 0", 3, 3),
        ("class 1", 3, None),
        ("class 2", 3, 3),
        ("dog", None, 3),
    ]
    numbers = write_tiny_release(tmp_path / "numbers", plan=tiny_continuous_plan(seed=1)).folder
    told = diff.diff(releases[0], numbers, console=QUIET)
    columns = {row["field"]: (row["before"], row["after"]) for row in told["columns"]}
    assert columns["label"] == ("int64", "double")
    assert columns["teacher_value"] == (None, "double")
    assert columns["teacher_label"] == ("int64", None)
    assert ("unit", None, "degrees") in [tuple(row.values()) for row in told["space"]]
    assert [row["before"] for row in told["counts"]][3:] == [None] * 4
    assert [row["label"] for row in told["counts"]][3:] == list(tiny_continuous_space().group_names)


def test_a_changed_file_is_refused_before_it_is_compared(
    releases: tuple[Path, Path], tmp_path: Path
) -> None:
    """Scores that are not the manifest's tell nothing."""
    other = released(tmp_path, "v1.0.0", LOOSE)
    path = other / "scores/train-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    result = CliRunner().invoke(app, ["diff", str(releases[0]), str(other)])

    assert result.exit_code == 1
    assert "scores/train-00000-of-00001.parquet" in result.stderr.replace("\n", "")


def test_nested_fields_are_compared_by_their_text() -> None:
    """1, 1.0 and true are different settings; null is what is not there."""
    before = {"a": 1, "b": {"c": True, "d": None}, "e": [1, 2], "f": {"g": 1}}
    after = {"a": 1.0, "b": {"c": 1}, "e": [2, 1], "h": {"i": {"j": 2}}, "f": 3}

    assert list(field_changes(before, after)) == fields(
        ("a", 1, 1.0),
        ("b.c", True, 1),
        ("e", [1, 2], [2, 1]),
        ("f", {"g": 1}, 3),
        ("h.i.j", None, 2),
    )


def test_releases_on_the_hub_are_compared_without_their_images(
    releases: tuple[Path, Path],
    told: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By their ids, also one on the Hub against one on disk; all is as between the folders."""
    with hub_and_client(tmp_path, monkeypatch) as hub:
        for folder in releases:
            published(folder, "user/tiny")
        hub.requests.clear()
        there = diff.diff("user/tiny@v1.0.0", "user/tiny@v1.1.0", console=QUIET)
        mixed = diff.diff("user/tiny@v1.0.0", releases[1], console=QUIET)
        with pytest.raises(BadInput, match=r"there is no version v1\.2\.0; it has v1\.0\.0, v1"):
            diff.diff("user/tiny@v1.0.0", "user/tiny@v1.2.0", console=QUIET)

    assert not any("/resolve/" in path and "/data/" in path for _, path in hub.requests)
    assert there["before"]["name"] == "user/tiny@v1.0.0"
    for compared in (there, mixed):
        assert {**compared, "before": None, "after": None} == {
            **told,
            "before": None,
            "after": None,
        }


def test_a_file_that_the_manifest_does_not_name_is_not_read(
    releases: tuple[Path, Path], tmp_path: Path
) -> None:
    """It would count twice."""
    before = tmp_path / "v1.0.0"
    shutil.copytree(releases[0], before)
    (scores,) = (before / "scores").iterdir()
    shutil.copyfile(scores, before / "scores/train-00001-of-00002.parquet")

    told = diff.diff(str(before), str(releases[1]), console=QUIET)
    expected = diff.diff(str(releases[0]), str(releases[1]), console=QUIET)
    assert told["changed"] == expected["changed"]
    assert told["counts"] == expected["counts"]
