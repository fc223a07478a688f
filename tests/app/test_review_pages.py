"""The review app's pages, each drawn by Streamlit's own test driver, without a browser."""

import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from cgankd.app.cli import app as cli
from cgankd.app.recipe import load_recipe
from cgankd.app.review.served.serve import _is_local
from cgankd.app.review.state import ReviewState
from cgankd.app.review.subject import open_subject
from cgankd.app.review.views import plain
from cgankd.shardset.reviews import VERDICTS, read_reviews
from cgankd.shardset.testing import write_tiny_release
from tests.app import small_run
from tests.app.tiny import released_run
from tests.shardset.hubs import TOKEN, hub_and_client


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return released_run(tmp_path_factory.mktemp("pages") / "run")


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture
def drawn(monkeypatch):
    """Draws a page of a subject."""

    def draw(name, spec):
        def script(name):
            from cgankd.app.review.served.serve import pages
            from cgankd.app.review.views import errors_shown

            with errors_shown():
                pages()[name][0]()

        monkeypatch.setattr(sys, "argv", ["review.py", str(spec), "--reviewer", "reviewer"])
        # Streamlit puts a module of its own there, which no worker process could import.
        monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
        page = AppTest.from_function(script, args=(name,), default_timeout=60).run()
        assert not page.exception
        return page

    return draw


def button(page, label):
    return next(button for button in page.button if button.label == label)


def control(kind, label):
    return next(widget for widget in kind if widget.label == label)


def texts(elements):
    return [element.value for element in elements]


def html(page):
    return " ".join(element.proto.body for element in page.get("html"))


def test_the_app_opens_on_its_overview(made, monkeypatch):
    """Navigation, the reviewer's name, and the first page."""
    monkeypatch.setattr(sys, "argv", ["review.py", str(made), "--reviewer", "reviewer"])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    page = AppTest.from_file("../../app/review/served/serve.py", default_timeout=60).run()

    assert not page.exception
    assert texts(page.title) == ["Overview"]
    assert control(page.text_input, "Reviewer").value == "reviewer"


def test_the_overview_counts_what_was_kept_and_dropped(drawn, made):
    """By label and in all, with the version and where it comes from."""
    page, subject = drawn("Overview", made), open_subject(made)
    shown = {metric.label: metric.value for metric in page.metric}

    assert shown["Samples"] == f"{len(subject):,}"
    assert shown["Kept"] == f"{subject.kept.sum():,}"
    assert shown["Version"] == "v1.0.0"
    table = page.dataframe[0].value
    assert table["kept"].sum() == subject.kept.sum()
    assert (table["produced"] == 30).all()
    assert subject.pool_id in html(page)
    assert any("Not checked yet" in text for text in texts(page.info))


def test_a_check_of_another_version_is_a_line_and_the_rest_is_shown(drawn, run):
    """It says to check again; where the samples come from is still there."""
    (run / "check").mkdir(exist_ok=True)
    (run / "check" / "check.json").write_text('{"selection": "cgan-kd"}')
    page = drawn("Overview", run)

    assert "run \\`cgankd check\\` again" in page.error[0].value
    assert open_subject(run).pool_id in html(page)


def test_the_gallery_filters_and_says_so_when_nothing_matches(drawn, made):
    """The filter's controls lead to the rows that a mask gives."""
    page, subject = drawn("Gallery", made), open_subject(made)
    control(page.multiselect, "Label").set_value([2, 5]).run()
    control(page.selectbox, "Decision").set_value("dropped").run()
    control(page.selectbox, "Sort by").set_value("teacher_error").run()
    control(page.checkbox, "Largest first").check().run()

    wanted = np.isin(subject.original_label, [2, 5]) & ~subject.kept
    rows = page.session_state["rows"]
    assert sorted(rows.tolist()) == np.flatnonzero(wanted).tolist()
    assert (np.diff(subject.scores["teacher_error"][rows]) <= 0).all()
    control(page.multiselect, "Verdict").set_value(["flag"]).run()
    assert not page.exception
    assert any("No sample matches" in text for text in texts(page.info))


def test_one_by_one_gives_takes_back_and_goes_on(drawn, run):
    """Each verdict is on disk when the next sample is shown."""
    page, subject = drawn("One by one", run), open_subject(run)
    keys = subject.key[subject.kept].tolist()
    for label in ("Reject", "Accept", "Flag"):
        button(page, label).click().run()
        assert not page.exception
    found = read_reviews(run / "reviews")
    assert found.key.tolist() == keys[:3]
    assert [VERDICTS[code] for code in found.verdict] == ["reject", "accept", "flag"]

    button(page, "Undo").click().run()
    assert read_reviews(run / "reviews").key.tolist() == keys[:2]
    control(page.selectbox, "New label").set_value(7).run()
    button(page, "Relabel").click().run()
    assert not page.exception
    assert read_reviews(run / "reviews").label[2] == 7
    assert page.session_state["turn"] == 3


def test_two_tabs_see_each_other(drawn, run):
    """What one says is shown in the other when that is drawn again."""
    one, other = drawn("One by one", run), drawn("One by one", run)
    button(one, "Reject").click().run()
    other.run()

    assert "reject, by reviewer" in texts(other.text)


def test_the_policy_page_previews_saves_and_selects(drawn, run, tmp_path, monkeypatch):
    """A slider changes the counts at once; recipe and selection hold its value."""
    monkeypatch.chdir(tmp_path)
    page = drawn("Policy", run)
    before = int(page.metric[0].value.replace(",", ""))
    control(page.selectbox, "quota").set_value("off").run()
    control(page.slider, "filter.rho").set_value(0.2).run()
    after = int(page.metric[0].value.replace(",", ""))
    assert before != after

    control(page.text_input, "File").set_value("mine.yaml")
    button(page, "Save recipe").click().run()
    assert load_recipe(str(tmp_path / "mine.yaml")).policy.filter.rho == 0.2
    control(page.text_input, "Selection's name").set_value("strict")
    button(page, "Run selection").click().run()
    assert not page.exception
    assert int(open_subject(run, "strict").kept.sum()) == after


@pytest.mark.parametrize("name", ["../mine.yaml", "mine.txt"])
def test_a_recipe_is_saved_nowhere_else(drawn, run, tmp_path, monkeypatch, name):
    """A browser names no folder of this machine."""
    monkeypatch.chdir(tmp_path)
    page = drawn("Policy", run)
    control(page.text_input, "File").set_value(name)
    button(page, "Save recipe").click().run()

    assert "give a file name that ends in" in page.error[0].value
    assert not list(tmp_path.glob("*.yaml"))


def test_compare_shows_two_selections(drawn, run):
    """Counts of both, and what one alone keeps; another folder may be one side."""
    ReviewState.open(run).give(np.array([0]), "reject", reviewer="reviewer")
    page = drawn("Compare", run)
    control(page.selectbox, "Second").set_value("another run, release or Hub id").run()
    control(page.text_input, "Folder or Hub id").set_value(str(run / "release" / "v1.0.0")).run()
    assert not page.exception
    assert [metric.label for metric in page.metric] == ["Kept", "Kept"]
    assert page.metric[0].value == page.metric[1].value

    control(page.text_input, "Folder or Hub id").set_value(str(run / "nothing")).run()
    assert "nothing" in page.error[0].value


def test_faces_show_both_kinds_and_score_a_blind_test(drawn, made):
    """As many answers as pairs; always the first is right as often as it is the generated one."""
    page, subject = drawn("Reals and fakes", made), open_subject(made)
    kept = int((subject.kept & (subject.group == 0)).sum())
    assert html(page).count("<img") == 10 + kept
    control(page.selectbox, "Show").set_value("Blind test").run()
    pairs = page.session_state["blind"][0]
    for _ in pairs:
        button(page, "The first").click().run()

    assert not page.exception
    right = sum(pair.generated_first for pair in pairs)
    assert page.metric[0].label == "Your score"
    assert page.metric[0].value == f"{100 * right / len(pairs):.1f} %"


def test_the_release_page_selects_again_and_builds(drawn, run):
    """A verdict makes the selection stale; the new version is without the rejected sample."""
    subject = open_subject(run)
    row = int(np.flatnonzero(subject.kept)[0])
    ReviewState.open(run).give(np.array([row]), "reject", reviewer="reviewer")
    page = drawn("Release", run)
    assert button(page, "Build the proposed version").disabled
    button(page, "Select again with the verdicts").click().run()
    button(page, "Propose a version").click().run()
    assert any("v1\\.1\\.0" in text for text in texts(page.info))
    button(page, "Build the proposed version").click().run()

    assert not page.exception
    released = open_subject(run / "release" / "v1.1.0")
    assert not released.kept[row]


def test_publishing_asks_for_the_version_and_never_shows_the_token(
    drawn, run, tmp_path, monkeypatch
):
    """To a Hub on this machine: shown first, sent only when the version was typed."""
    with hub_and_client(tmp_path, monkeypatch) as hub:
        page = drawn("Release", run)
        target = f"{hub.user}/digits"
        control(page.text_input, "Repository on the Hub").set_value(target).run()
        assert button(page, "Publish").disabled
        button(page, "Show what would be sent").click().run()
        assert "was never checked" in page.error[0].value
        control(page.checkbox, "Publish it all the same").check().run()
        button(page, "Show what would be sent").click().run()
        assert "README.md" in page.code[0].value
        assert "published, commit" not in page.code[0].value
        control(page.text_input, "To publish, type the version").set_value("v1.0.0").run()
        button(page, "Publish").click().run()
        assert not page.exception
        assert "published, commit" in page.code[0].value
        assert TOKEN not in str(page)
        assert button(drawn("Release", run), "Publish").disabled

        opened = open_subject(f"{target}@v1.0.0")
        assert opened.kept.tolist() == open_subject(run).kept.tolist()
        assert opened.reviews == tmp_path / "home" / "cgankd" / "reviews" / target / "v1.0.0"
        overview = drawn("Overview", f"{target}@v1.0.0")
        assert any("read only" in text for text in texts(overview.info))


@pytest.mark.parametrize("name", ["Overview", "Gallery", "One by one", "Policy", "Release"])
def test_a_release_is_shown_too(drawn, tmp_path, name):
    """Without reals and neighbours, which is told."""
    folder = write_tiny_release(tmp_path).folder
    page = drawn(name, folder)

    assert not page.error


@pytest.mark.parametrize("name", ["Overview", "Gallery", "One by one", "Policy", "Release"])
def test_what_is_missing_or_broken_is_a_line(drawn, run, name):
    """No scores, no selection, and a shard that was cut."""
    for folder in ("scores", "selections"):
        shutil.rmtree(run / folder)
    shard = run / "pool" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    page = drawn(name, run)

    told = [*texts(page.info), *texts(page.error)]
    assert any("no scores" in text or "no selection" in text for text in told)


def test_text_from_outside_stands_for_itself():
    """Nothing of Markdown, formulas, emoji, colours or HTML is left to be read as such."""
    text = "**a** :smile: $x$ [b](http://c) <b> `d` :red[e]\n# f"
    escaped = plain(text)

    assert "\n" not in escaped
    assert escaped.replace("\\", "") == text.replace("\n", " ")
    signs = [i for i, sign in enumerate(escaped) if sign in "*:$[]()<>`#"]
    assert all(escaped[i - 1] == "\\" for i in signs)


def test_what_cannot_be_reviewed_is_refused_before_a_server_starts(run):
    """One line and exit code 2: an unknown id, no scores, a port that is taken."""

    def refused(*words):
        done = CliRunner().invoke(cli, ["review", *map(str, words)])
        assert done.exit_code == 2
        return " ".join(done.output.split())

    assert "neither a run nor a release folder" in refused(run / "nothing")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1 port {port}" in refused(run, "--port", port)
    shutil.rmtree(run / "scores")
    assert "no scored sample; run `cgankd score` first" in refused(run)


def test_only_this_machine_is_let_in_unless_told_otherwise():
    """Loopback addresses are this machine's own."""
    assert all(map(_is_local, ("127.0.0.1", "::1", "localhost")))
    assert not any(map(_is_local, ("0.0.0.0", "::", "192.168.0.7", "example.org")))


def test_streamlit_is_imported_by_the_pages_alone():
    """The command line and every decision do without it."""
    names = ("cli", "review.state", "review.served.serve", "review.policy")
    code = f"import sys, {', '.join(f'cgankd.app.{name}' for name in names)}"
    code += "; sys.exit('streamlit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_continuous_labels_have_a_range_and_a_strip(drawn, tmp_path):
    """The gallery filters by both ends, and the faces lie along the label."""
    run = small_run.write_small_run(tmp_path / "run", "numbers")
    subject = open_subject(run.path)
    page = drawn("Gallery", run.path)
    control(page.slider, "Label").set_value((-10.0, 10.0)).run()
    inside = np.abs(subject.original_label) <= 10
    assert page.session_state["rows"].tolist() == np.flatnonzero(inside).tolist()

    page = drawn("Reals and fakes", run.path)
    control(page.selectbox, "Show").set_value("Along the label").run()
    assert not page.exception
    assert html(page).count("<img") >= 2
