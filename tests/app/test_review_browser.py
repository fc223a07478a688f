"""The review app in a real browser: verdicts outlive it, and the next version honours them."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from cgankd.app import inspecting
from cgankd.app.console import Console
from cgankd.app.review.state import ReviewState
from cgankd.app.review.subject import open_subject
from cgankd.shardset.reviews import VERDICTS, read_reviews
from cgankd.shardset.tables import read_table
from tests.app.test_foreign_folder import CGANKD, write_foreign_project
from tests.app.tiny import released_run

QUIET = Console(json=True)
ROOT = Path(__file__).parents[2]
WAIT = 60_000  # ms; two tests of this file share two cores with others
expect.set_options(timeout=WAIT)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run up to its first release, without students."""
    return released_run(tmp_path_factory.mktemp("review") / "run")


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@contextmanager
def served(spec: Path | str, cwd: Path = ROOT):
    """The address of a review app of its own, started in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*CGANKD, "review", str(spec), "--port", str(port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        [*command, "--reviewer", "reviewer"],
        cwd=cwd,
        env=env,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        for _ in range(300):
            assert server.poll() is None, server.stderr.read().decode()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health"):
                    break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate()


@contextmanager
def browser(**more):
    """A page of a fresh browser without history."""
    path = shutil.which("chromium")
    assert path, "these tests need Debian's Chromium: apt-get install chromium"
    with sync_playwright() as driver:
        own = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = own.new_page(**{"viewport": {"width": 1280, "height": 900}, **more})
        page.set_default_timeout(WAIT)
        try:
            yield page
        finally:
            own.close()


def cells(page):
    return page.locator(".cell")


def choose(page, label, option):
    """Picks from one of Streamlit's lists by keyboard."""
    box = page.get_by_role("combobox", name=label, exact=True)
    box.click()
    box.press_sequentially(option)
    page.get_by_role("option", name=option, exact=True).click()
    page.keyboard.press("Escape")


def key_of(cell):
    return int(cell.get_attribute("data-key"))


def test_verdicts_outlive_the_browser_and_make_the_next_version(run):
    """Filter, reject three, relabel one, undo one; the next release is without those rejected."""
    subject = open_subject(run)
    kept = np.flatnonzero(subject.kept & (subject.original_label == 3))
    keys = subject.key[kept].tolist()

    with served(run) as url:
        with browser() as page:
            page.goto(f"{url}/gallery")
            expect(cells(page)).to_have_count(min(200, len(subject)), timeout=WAIT)
            choose(page, "Label", "3")
            choose(page, "Decision", "kept")
            expect(cells(page)).to_have_count(len(kept), timeout=WAIT)
            assert [key_of(cell) for cell in cells(page).all()] == keys

            for place in range(3):
                cells(page).nth(place).locator(".tick").click()
            expect(page.get_by_text("3 selected")).to_be_visible()
            page.get_by_role("button", name="Reject", exact=True).click()
            expect(page.locator(".cell.reject")).to_have_count(3)

            cells(page).nth(3).locator(".tick").click()
            page.get_by_label("New label", exact=True).select_option("5")
            page.get_by_role("button", name="Relabel", exact=True).click()
            expect(cells(page).nth(3)).to_contain_text("relabel 5")

            cells(page).nth(4).focus()
            page.keyboard.press("x")
            expect(page.locator(".cell.reject")).to_have_count(4)
            page.get_by_role("button", name="Undo", exact=True).click()
            expect(page.locator(".cell.reject")).to_have_count(3)

        found = read_reviews(run / "reviews")
        assert found.key.tolist() == keys[:4]
        assert [VERDICTS[code] for code in found.verdict] == ["reject"] * 3 + ["relabel"]
        assert set(found.reviewer) == {"reviewer"}

        with browser() as page:
            page.goto(f"{url}/release")
            page.get_by_role("button", name="Select again with the verdicts").click()
            expect(page.get_by_text("Selected again")).to_be_visible()
            # A click while the page is still being drawn can be lost with what it was on.
            app = page.locator("[data-testid=stApp]")
            expect(app).to_have_attribute("data-test-script-state", "notRunning")
            page.get_by_role("button", name="Build the proposed version").click()
            expect(page.get_by_text("v1.1.0: ")).to_be_visible()

    scores = read_table(next((run / "release" / "v1.1.0" / "scores").glob("*.parquet")))
    row = {r["key"]: r for r in scores.select(["key", "kept", "reason", "label"]).to_pylist()}
    assert [(row[key]["kept"], row[key]["reason"]) for key in keys[:3]] == [(False, "reviewer")] * 3
    assert (row[keys[3]]["kept"], row[keys[3]]["label"]) == (True, 5)
    assert inspecting.verify(str(run), console=QUIET)["verified"]


def test_a_new_browser_shows_what_was_said_by_keyboard_alone(run):
    """Arrows, X, F and U are enough, and the verdicts are there when it is opened again."""
    with served(run) as url:
        with browser() as page:
            page.goto(f"{url}/gallery")
            expect(cells(page).first).to_be_visible()
            cells(page).first.focus()
            page.keyboard.press("x")
            expect(page.locator(".cell.reject")).to_have_count(1)
            expect(cells(page).nth(1)).to_be_focused()
            page.keyboard.press("ArrowRight")
            page.keyboard.press("f")
            expect(page.locator(".cell.flag")).to_have_count(1)
            expect(cells(page).nth(3)).to_be_focused()
            page.keyboard.press("Enter")
            expect(page.get_by_role("dialog")).to_contain_text("decision")
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_have_count(0)
        with browser() as page:
            page.goto(f"{url}/gallery")
            expect(cells(page).nth(0)).to_contain_text("reject")
            expect(cells(page).nth(2)).to_contain_text("flag")


def test_a_phone_reviews_one_by_one(run):
    """Large buttons, nothing wider than the screen, dark as the phone is."""
    with (
        served(run) as url,
        browser(
            viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark"
        ) as page,
    ):
        page.goto(f"{url}/one-by-one")
        page.get_by_role("button", name="Reject").tap()
        expect(page.get_by_text("2 of ")).to_be_visible()
        page.get_by_role("button", name="Accept").tap()
        expect(page.get_by_text("3 of ")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        dark = page.evaluate(
            "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
        )
        assert max(map(int, dark[4:-1].split(","))) < 60
    assert read_reviews(run / "reviews").counts() == {"accept": 1, "reject": 1}


def test_text_from_outside_is_never_run(run):
    """A label's name and a comment with markup are shown letter by letter."""
    script = "<img src=x onerror=document.title='run'>"
    facts = (run / "run.json").read_text()
    assert '"3"' in facts
    (run / "run.json").write_text(facts.replace('"3"', f'"{script}"'))
    said = ReviewState.open(run)
    said.comment(np.array([0]), script, reviewer=script)
    with served(run) as url, browser() as page:
        page.goto(f"{url}/gallery")
        cells(page).first.click()
        expect(page.get_by_role("dialog").get_by_text(script).first).to_be_visible()
        for place in ("", "gallery", "one-by-one"):
            page.goto(f"{url}/{place}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            page.wait_for_load_state("networkidle")
            assert page.locator("img[src=x]").count() == 0
            assert page.title() != "run"


def test_every_page_draws_where_the_folder_has_modules_of_our_rooms_names(made, tmp_path):
    """Neither the caller's folder nor that of the script that Streamlit runs gets in the way."""
    write_foreign_project(tmp_path)
    with served(made, cwd=tmp_path) as url, browser() as page:
        for title in ("Overview", "Gallery", "One by one", "Policy", "Compare", "Release"):
            page.goto(f"{url}/{'' if title == 'Overview' else title.lower().replace(' ', '-')}")
            expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()
            page.wait_for_load_state("networkidle")
            expect(page.get_by_test_id("stException")).to_have_count(0)
