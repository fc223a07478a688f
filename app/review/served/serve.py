"""The server of the review app, `cgankd review`; this file is also the script that it runs.

Streamlit puts the script's folder first on the import path: it holds nothing but the script.
"""

import getpass
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import numpy as np

from cgankd.app.console import Console
from cgankd.app.review.subject import open_subject
from cgankd.shardset.errors import BadInput, CgankdError

# What the pages import takes a second or two, which the first visitor need not wait for.
SERVER = (
    "from cgankd.app.review.served.serve import pages; pages(); import pandas; "
    "from streamlit.web.cli import main; main()"
)
SETTINGS = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "theme.light.primaryColor": "#0f766e",
    "theme.dark.primaryColor": "#147d71",
}
# Streamlit's captions and slider values are paler than WCAG 2's 4.5 to 1 asks for.
STYLE = """<style>
.stMainBlockContainer { padding-top: 3.2rem }
[data-testid="stCaptionContainer"] { color: inherit; opacity: 0.85 }
[data-testid="stCaptionContainer"] * { color: inherit }
.stSlider [data-testid="stSliderThumbValue"], .stSlider p { color: inherit !important }
</style>"""


def serve(
    spec: str, *, console: Console, port: int, host: str, reviewer: str | None
) -> dict[str, Any]:
    """Where the app was served until Ctrl-C.

    `BadInput` before anything starts, where there is nothing to review, no scores, or the port is
    taken.
    """
    subject = open_subject(spec)
    if not np.isfinite(subject.scores["teacher_error"]).any():
        raise BadInput(f"{spec} has no scored sample; run `cgankd score` first")
    local = _is_local(host)
    _require_free(host, port)
    url = f"http://{host}:{port}"
    console.note(f"{url} shows {spec} until Ctrl-C; verdicts go to {subject.reviews}")
    if not local:
        console.note(
            f"listening on {host}: whoever reaches this machine's port {port} can see the samples, "
            "give verdicts and publish with your login"
        )
    # -P: modules of the folder that the command is called in are not imported.
    command = [sys.executable, "-P", "-c", SERVER, "run", __file__]
    for name, value in {**SETTINGS, "server.address": host, "server.port": port}.items():
        command.append(f"--{name}={value}")
    command += ["--", spec, "--reviewer", reviewer or _login()]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        # Whoever ends this process ends the server too.
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            code = max(server.wait(), 0)
        except KeyboardInterrupt:
            code = 0
        finally:
            server.terminate()
    if code:
        raise CgankdError(f"the review app's server ended with code {code}; see the lines above")
    return {"url": url, "reviews": str(subject.reviews)}


def _is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise BadInput(
            f"cannot listen on {host} port {port} ({error.strerror}); give another --port or --host"
        ) from error


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "reviewer"


def pages() -> dict[str, tuple[Callable[[], None], str]]:
    """What draws each page, and its icon, by title; the first is the one that opens."""
    from cgankd.app.review.views import (
        gallery,
        one_by_one,
        overview,
        policy,
        release,
        side_by_side,
    )

    return {
        "Overview": (overview.draw, ":material/dashboard:"),
        "Gallery": (gallery.draw, ":material/grid_view:"),
        "One by one": (one_by_one.draw, ":material/swipe:"),
        "Policy": (policy.draw, ":material/tune:"),
        "Compare": (side_by_side.draw_selections, ":material/compare_arrows:"),
        "Reals and fakes": (side_by_side.draw_faces, ":material/visibility:"),
        "Release": (release.draw, ":material/publish:"),
    }


def draw() -> None:
    """Draws the page that the address names."""
    import streamlit as st

    from cgankd.app.review.views import errors_shown, keep_widgets, sidebar

    st.set_page_config(page_title="cgankd review", layout="wide")
    st.html(STYLE)
    keep_widgets()
    page = st.navigation(
        [
            st.Page(draw_page, title=title, icon=icon, url_path=title.lower().replace(" ", "-"))
            for title, (draw_page, icon) in pages().items()
        ]
    )
    st.title(page.title)
    with errors_shown():
        sidebar()
        page.run()


if __name__ == "__main__":
    draw()
