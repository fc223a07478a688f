"""Pictures of the review app for the docs: `python docs/screenshots.py runs/digits`.

Each page of a copy of that run, in Debian's Chromium, light and 1280 pixels wide, as
`docs/review-*.png`.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from cgankd.app.review.state import ReviewState
from cgankd.app.review.subject import open_subject

HERE = Path(__file__).parent
PAGES = ("overview", "gallery", "one-by-one", "policy", "compare", "reals-and-fakes", "release")
COLOURS = 128  # of a picture: enough for a page, and a third of the bytes


def main(run: Path) -> None:
    """Makes all of them."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(run, Path(folder) / "digits")
        say_something(copy)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "cgankd.app", "review", str(copy), "--port", str(port)]
        with subprocess.Popen([*command, "--reviewer", "reviewer"]) as server:
            try:
                take(f"http://127.0.0.1:{port}")
            finally:
                server.terminate()


def say_something(run: Path) -> None:
    """A few verdicts on the kept samples that the teacher likes least."""
    subject = open_subject(run)
    state = ReviewState.open(subject)
    rows = np.flatnonzero(subject.kept)
    worst = rows[np.argsort(-subject.scores["teacher_error"][rows])]
    state.give(worst[:3], "reject", reviewer="reviewer", comment="not a digit")
    state.give(worst[3:4], "accept", reviewer="reviewer")
    state.give(worst[4:6], "flag", reviewer="reviewer")


def take(url: str) -> None:
    """Opens every page and keeps what it shows."""
    wait_for(f"{url}/_stcore/health")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        for name in PAGES:
            page.goto(f"{url}/{'' if name == 'overview' else name}")
            settle(page)
            if name == "gallery":
                choose(page, "Decision", "kept")
                choose(page, "Sort by", "teacher's error")
                page.get_by_text("Largest first").click()
                page.mouse.move(0, 0)
                settle(page)
            keep(page, name)
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        page.goto(f"{url}/one-by-one")
        settle(page)
        keep(page, "phone")
        browser.close()


def choose(page: Page, label: str, option: str) -> None:
    """Picks from one of Streamlit's lists."""
    box = page.get_by_role("combobox", name=label, exact=True)
    box.click()
    box.press_sequentially(option)
    page.get_by_role("option", name=option, exact=True).click()


def settle(page: Page) -> None:
    """Returns when the page is drawn."""
    page.get_by_role("heading", level=1).wait_for()
    page.wait_for_load_state("networkidle")
    time.sleep(2)


def keep(page: Page, name: str) -> None:
    """Writes what is seen, in few colours."""
    path = HERE / f"review-{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def wait_for(url: str) -> None:
    """Returns when the server answers."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
