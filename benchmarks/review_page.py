"""The review app in a browser, on a million samples: `python -m benchmarks.review_page`.

Debian's Chromium opens the gallery of a run in 200 shards and waits until half of a page of 200
thumbnails is there, the first time and again.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.review_speed import write_run

# The grid lies in a shadow root, which a selector of the whole document does not reach.
SHOWN = """() => {
  const images = (root) => [...root.querySelectorAll('*')].reduce(
    (sum, node) => sum + (node.shadowRoot ? images(node.shadowRoot) : 0),
    root.querySelectorAll('img').length);
  return images(document) >= 100;
}"""


def main() -> None:
    """Prints the seconds until a page is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "run", options.rows)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "cgankd.app",
            "review",
            f"{folder}/run",
            "--port",
            str(port),
        ]
        with subprocess.Popen(command) as server:
            try:
                measure(f"http://127.0.0.1:{port}")
            finally:
                server.terminate()


def measure(url: str) -> None:
    """Opens the gallery three times, the first one cold."""
    deadline = time.monotonic() + 60
    while not _answers(f"{url}/_stcore/health"):
        assert time.monotonic() < deadline, "the app did not start"
        time.sleep(0.1)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for name in ("first page", "again", "again"):
            start = time.perf_counter()
            page.goto(f"{url}/gallery")
            page.wait_for_function(SHOWN)
            print(f"{name:<12} {time.perf_counter() - start:.2f} s  (demanded of the first: 3 s)")
        browser.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.URLError:
        return False


if __name__ == "__main__":
    main()
