"""Starts the review app's server: `cgankd review`."""

import getpass
import signal
import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np

from cgankd.app.console import Console
from cgankd.app.review.subject import open_subject
from cgankd.shardset.errors import BadInput, CgankdError

# Streamlit puts the script's folder first on the import path: it holds nothing but the script.
PAGE = Path(__file__).parent / "served" / "entry.py"
# What the pages import takes a second or two, which the first visitor need not wait for.
SERVER = "import cgankd.app.review.served.entry, pandas; from streamlit.web.cli import main; main()"
SETTINGS = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "theme.light.primaryColor": "#0f766e",
    "theme.dark.primaryColor": "#147d71",
}


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
    command = [sys.executable, "-P", "-c", SERVER, "run", str(PAGE)]
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
