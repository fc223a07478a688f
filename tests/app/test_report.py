"""The report says what the numbers say, in one page that needs nothing else."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgankd.app.pages import unbroken
from cgankd.app.pages.records import (
    Curve,
    ImageGrid,
    RatioDiagnostics,
    ReportRecord,
    metric_of,
    paired_difference,
    read_record,
)
from cgankd.app.pages.report import write_report
from cgankd.shardset.labels import ClassLabels, ContinuousLabels
from cgankd.shardset.records import TeacherResult
from tests.app.small_report import DEGREES, arm, facts_of_a_continuous_run, facts_of_a_run


class Page(HTMLParser):
    """What a browser would find: open elements, ids, addresses, text."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids[value or ""] += 1
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value or "")
            if name in ("alt", "title", "aria-label"):
                self.texts.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report folder of a run with a continuous label."""
    return write_report(tmp_path_factory.mktemp("degrees"), facts_of_a_continuous_run()).parent


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report folder."""
    folder = tmp_path_factory.mktemp("report")
    assert write_report(folder, facts_of_a_run()) == folder / "report.html"
    return folder


def test_json_has_the_documented_fields(written: Path) -> None:
    """What scripts read: means, deviations and counts agree with NumPy's."""
    report = json.loads((written / "report.json").read_text())

    values = [83.0, 85.0, 88.0]
    assert report["task"] == "classification"
    assert report["metric"] == "accuracy"
    assert report["arm_order"] == ["no-kd", "cgan-kd"]
    arm = report["arms"]["cgan-kd"]
    assert arm["values"] == values
    assert arm["mean"] == pytest.approx(np.mean(values))
    assert arm["std"] == pytest.approx(np.std(values, ddof=1))
    assert (arm["steps"], arm["images_seen"], arm["learning_rate"]) == (500, 32_000, 0.1)
    assert report["teacher"]["data"] == "all"
    assert (report["pool"], report["kept"]) == (60, 40)
    assert report["dropped"] == {"ratio": 10, "teacher": 10, "outlier": 0}
    assert report["classes"][1] == {
        "name": "dog",
        "pool": 20,
        "kept": 10,
        "dropped": {"ratio": 0, "teacher": 10, "outlier": 0},
        "acceptance": 0.5,
    }
    assert report["seconds"] == {"produce": 90.0, "score": 5.0}
    assert report["peak_memory_bytes"] == 3 * 2**29
    assert report["run"]["libraries"] == {"torch": "2.13.0"}
    assert report["difference"]["verdict"] == "gain"
    assert "labels" not in report


def test_json_of_a_continuous_label_is_in_its_unit(continuous: Path) -> None:
    """The metric is MAE, less of it is a gain, and counts go by the parts of the range."""
    report = json.loads((continuous / "report.json").read_text())

    assert (report["task"], report["metric"], report["unit"]) == ("regression", "mae", "degrees")
    # Differences by seed: −2.4, −2.5 and −2.3.
    assert report["difference"]["mean"] == pytest.approx(-2.4)
    assert report["difference"]["verdict"] == "gain"
    assert [part["name"] for part in report["parts"]] == [
        "−60 … −30",
        "−30 … 0",
        "0 … 30",
        "30 … 60",
    ]
    assert report["parts"][0]["acceptance"] == pytest.approx(10 / 15)
    labels = report["labels"]
    assert labels["pool"] == [15, 15, 15, 15]
    assert sum(labels["real"]) == 30
    # The last kept sample was made for −60 + 39 · 120/59 = 19.3 degrees.
    assert labels["kept"] == [15, 15, 10, 0]
    assert labels["mae"]["no-kd"] == [7.0, 5.0, None, 8.0]
    assert labels["fidelity"]["overall"] == [12.3, 6.15]
    assert labels["label_score"]["kept"] == [None] * 4


@pytest.mark.parametrize("folder", ["written", "continuous"])
def test_a_report_is_read_by_the_record_that_wrote_it(
    folder: str, request: pytest.FixtureRequest
) -> None:
    """A release keeps a part of it, without what a reader of the page needs."""
    path = request.getfixturevalue(folder) / "report.json"
    record = read_record(path, ReportRecord, "report")

    assert record.plain() == json.loads(path.read_text())
    kept = record.of_release().model_dump(mode="json")
    assert kept["summary"] == record.summary
    assert kept["arms"]["no-kd"]["values"] == list(record.arms["no-kd"].values)
    assert "validation" not in kept["arms"]["no-kd"]


def test_numbers_that_are_not_finite_become_null(written: Path) -> None:
    """JSON has no infinity."""
    report = json.loads((written / "report.json").read_text())

    assert report["ratio"]["diagnostics"][1]["largest"] is None
    assert facts_of_a_run(run={"a": [np.nan]}).record.plain()["run"] == {"a": [None]}


def test_the_page_needs_nothing_else_and_is_well_formed(written: Path) -> None:
    """Every address is inside the page, every element is closed, every id is one element's."""
    html = (written / "report.html").read_text()
    page = Page(html)

    assert page.open == []
    assert page.elements["script"] == page.elements["link"] == page.elements["base"] == 0
    for address in page.addresses:
        assert address.startswith("data:image/png;base64,") or address[1:] in page.ids
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert set(page.ids.values()) == {1}
    assert all(reference in page.ids for reference in re.findall(r"url\(#([^)]+)\)", html))


def test_the_page_shows_what_a_reader_looks_for(written: Path) -> None:
    """Arms with their spread, notes, advice, problems, times and the recipe."""
    text = " ".join(" ".join(Page((written / "report.html").read_text()).texts).split())

    for part in (
        "cgan-kd reaches 85.33 ± 2.52 % accuracy, 3.33 ± 0.33 points more than no-kd",
        "82.00 ± 2.00",
        "no ratio",
        "more seeds would help",
        "dog: mean ratio is 0.31",
        "all real training images",
        "75.0 %",
        "1 min 30 s",
        "1 min 35 s",
        "1.50 GiB",
        "libraries.torch",
        "seed: 0",
        "2 zeros stand at the left edge",
        "dropped: ratio: least likely",
    ):
        assert part in text


def test_the_page_of_a_continuous_label_speaks_of_its_unit(continuous: Path) -> None:
    """No percent where there are degrees, no class where there are parts of a range."""
    html = (continuous / "report.html").read_text()
    page = Page(html)
    text = " ".join(" ".join(page.texts).split())

    assert page.open == []
    assert set(page.ids.values()) == {1}
    for part in (
        "cgan-kd reaches a mean absolute error of 3.80 ± 0.26 degrees, 2.40 ± 0.06 degrees or "
        "39 % less than no-kd",
        "A gain of more than twice the standard error",
        "MAE in degrees (mean absolute error: less is better)",
        "MAE, degrees",
        "validation, degrees",
        "test 1.52 degrees",
        "by the part of the range it was made for",
        "−60 … 60 degrees",
        "|teacher − assigned label|, degrees",
        "Fréchet distance: raw 12.3, kept 6.15",
        "Label Score: raw 5 degrees, kept 2.5 degrees",
        "Students: MAE against the label",
        "features of a net; less is better",
        "low to high: kept",
    ):
        assert part in text
    assert "class" not in text
    assert "accuracy" not in text


def test_every_text_is_escaped(tmp_path: Path) -> None:
    """Names and notes are text, never markup, wherever they stand."""
    bad = "\"'><script>alert(1)</script>&amp;"
    facts = facts_of_a_run(
        title=bad,
        space=ClassLabels(names=(bad, bad + "2")),
        arms={bad: arm((1.0,), note=bad), **facts_of_a_run().record.arms},
        teacher=TeacherResult(name=bad, data=bad),
        dropped={bad: (1, 2)},
        ratio=RatioDiagnostics(diagnostics=({"label": bad, bad: 1.0},), problems=(bad,)),
        curves=(Curve(bad, bad, np.arange(3), np.arange(3)), Curve(bad, "b", *np.ones((2, 3)))),
        grids=(ImageGrid(bad, np.zeros((1, 3, 8, 8), np.uint8), bad),),
        seconds={bad: 1.0},
        run={bad: {bad: bad}},
        recipe=bad,
        warnings=(bad,),
    )

    page = Page(write_report(tmp_path, facts).read_text())

    assert page.open == []
    assert page.elements["script"] == 0
    assert sum(text.count(bad) for text in page.texts) >= 20
    assert all(path.parent == tmp_path / "figures" for path in tmp_path.rglob("*.png"))


def test_a_unit_is_escaped(tmp_path: Path) -> None:
    """It comes from the recipe, and stands in sentences, tables and figures."""
    bad = "<script>"
    facts = facts_of_a_continuous_run(space=DEGREES.model_copy(update={"unit": bad}))

    page = Page(write_report(tmp_path, facts).read_text())

    assert page.open == []
    assert page.elements["script"] == 0
    assert sum(text.count(bad) for text in page.texts) >= 10


def test_the_same_facts_give_the_same_bytes_and_leave_no_old_figures(tmp_path: Path) -> None:
    """No clock, no random id; what a former report drew is gone."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_report(first, facts_of_a_run())
    (second / "figures").mkdir(parents=True)
    (second / "figures" / "old.png").touch()
    write_report(second, facts_of_a_run())

    def contents(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert contents(first) == contents(second)
    assert len(contents(first)) == 2 + 5


@pytest.mark.parametrize(
    ("with_images", "verdict", "words"),
    [
        ((83.0, 85.0, 88.0), "gain", "3.33 ± 0.33 points more than no-kd"),
        ((79.0, 82.0, 84.5), "unclear", "no effect is shown"),
        ((78.0, 80.5, 81.0), "loss", "2.17 ± 0.44 points less than no-kd"),
    ],
)
def test_the_summary_claims_no_more_than_two_standard_errors_allow(
    with_images: tuple[float, ...], verdict: str, words: str
) -> None:
    """Differences by hand: (3, 3, 4), (−1, 0, ½) and (−2, −1½, −3)."""
    no_kd = facts_of_a_run().record.arms["no-kd"]
    record = facts_of_a_run(arms={"no-kd": no_kd, "cgan-kd": arm(with_images)}).record

    assert record.difference is not None
    assert record.difference.verdict == verdict
    assert words in record.summary


@pytest.mark.parametrize(
    ("with_images", "verdict", "words"),
    [
        ((3.6, 3.7, 4.1), "gain", "2.40 ± 0.06 degrees or 39 % less than no-kd"),
        ((5.9, 6.3, 6.4), "unclear", "no effect is shown"),
        ((7.0, 7.3, 7.4), "loss", "1.03 ± 0.03 degrees or 17 % more than no-kd"),
    ],
)
def test_a_smaller_error_is_a_gain(
    with_images: tuple[float, ...], verdict: str, words: str
) -> None:
    """Differences by hand: (−2.4, −2.5, −2.3), (−0.1, 0.1, 0) and (1, 1.1, 1)."""
    no_kd = facts_of_a_continuous_run().record.arms["no-kd"]
    record = facts_of_a_continuous_run(arms={"no-kd": no_kd, "cgan-kd": arm(with_images)}).record

    assert record.difference is not None
    assert record.difference.verdict == verdict
    assert words in record.summary


@pytest.mark.parametrize(
    ("low", "high", "text"), [(-60, 60, "1.23"), (0, 1, "1.2346"), (0, 10, "1.235"), (0, 1e5, "1")]
)
def test_errors_are_written_as_finely_as_the_range_asks(low: float, high: float, text: str) -> None:
    """About a ten-thousandth of the range."""
    metric = metric_of(ContinuousLabels(unit="bar", low=low, high=high))

    assert metric.text(1.23456) == text


def test_numbers_stay_with_their_signs_and_units() -> None:
    """A line may break before a bracket or between words."""
    text = unbroken("3.33 ± 0.33 points more (over 5 seeds): 39 % of 4 (four)")

    assert text == (
        "3.33\u00a0±\u00a00.33\u00a0points more (over 5\u00a0seeds): 39\u00a0% of 4 (four)"
    )


def test_one_seed_and_a_missing_arm_claim_nothing() -> None:
    """Without a spread or a baseline there is no verdict."""
    arms = facts_of_a_run().record.arms
    one = {name: arm(of_many.values[:1]) for name, of_many in arms.items()}

    assert "One seed" in facts_of_a_run(arms=one).record.summary
    difference = paired_difference(one)
    assert difference is not None
    assert (difference.mean, difference.standard_error, difference.pairs) == (3.0, None, 1)
    assert difference.verdict == "unclear"
    assert one["no-kd"].std is None
    assert "no answer" in facts_of_a_run(arms={"no-kd": one["no-kd"]}).record.summary


@given(st.lists(st.tuples(*[st.floats(0, 100)] * 2), min_size=2, max_size=9))
def test_the_paired_difference_is_numpys(pairs: list[tuple[float, float]]) -> None:
    """Mean and standard error of the differences, computed another way."""
    a, b = np.array(pairs).T
    arms = {"x": arm(a.tolist()), "y": arm(b.tolist())}

    difference = paired_difference(arms, "x", "y")

    assert difference is not None
    assert difference.mean == pytest.approx(np.mean(a - b), abs=1e-9)
    error = np.std(a - b, ddof=1) / np.sqrt(len(a))
    assert difference.standard_error == pytest.approx(error, abs=1e-9)


def test_arms_with_other_seeds_are_not_paired() -> None:
    """Pairs need the same seeds."""
    arms = {"x": arm((1.0, 2.0)), "y": arm((1.0,))}

    with pytest.raises(ValueError, match="shorter"):
        paired_difference(arms, "x", "y")


def test_facts_that_do_not_fit_together_are_refused() -> None:
    """One count per class, one decision per sample."""
    with pytest.raises(ValueError, match="one row for each of 2 classes"):
        facts_of_a_run(kept=(1,), dropped={})
    with pytest.raises(ValueError, match="aligned"):
        facts_of_a_run(was_kept=np.ones(3, bool))
    labels = facts_of_a_continuous_run().labels
    assert labels is not None
    with pytest.raises(ValueError, match="one row for each of 4 parts of the range"):
        facts_of_a_continuous_run(kept=(1, 2), dropped={})
    with pytest.raises(ValueError, match="aligned"):
        facts_of_a_continuous_run(labels={**labels, "raw": np.zeros(3)})
    with pytest.raises(ValueError, match="no axis"):
        facts_of_a_run(labels=labels)


@pytest.mark.parametrize(
    "ratio", [np.zeros(60), np.ones(60), np.full(60, np.nan), np.append(np.ones(59), 1e30)]
)
def test_degenerate_scores_still_give_a_report(ratio: np.ndarray, tmp_path: Path) -> None:
    """All zero, all equal, none at all, one that dwarfs the rest; no arm, no class kept."""
    facts = facts_of_a_run(
        density_ratio=ratio,
        teacher_error=ratio,
        arms={},
        kept=(0, 0),
        dropped={},
        curves=(
            Curve("s", "s", np.arange(2), np.full(2, np.nan)),
            Curve("t", "t", *np.ones((2, 1))),
        ),
        grids=(),
        seconds={},
        ratio=RatioDiagnostics(diagnostics=(), problems=()),
    )

    assert Page(write_report(tmp_path, facts).read_text()).open == []


def test_a_continuous_run_with_nothing_to_show_still_gives_a_report(tmp_path: Path) -> None:
    """Nothing kept, no error known, no fidelity measured, no student trained."""
    usual, nothing = facts_of_a_continuous_run(), np.full(60, np.nan)
    assert usual.labels is not None
    assert usual.record.labels is not None
    measured = {"mae": {}, "fidelity": None, "label_score": None}
    facts = facts_of_a_continuous_run(
        arms={},
        grids=(),
        labels={**usual.labels, "kept": np.empty(0)},
        label_record=usual.record.labels.model_copy(update=measured),
        teacher_error=nothing,
        density_ratio=nothing,
    )

    assert Page(write_report(tmp_path, facts).read_text()).open == []
