"""A Hub on this machine, to try publishing without an account: `python -m tests.hub [FOLDER]`."""

import signal
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event

from tests.hub.server import LoopbackHub


def main(folder: Path) -> None:
    """Serves the repositories in a folder until Ctrl-C."""
    # A shell starts what runs in the background with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt), LoopbackHub(folder, port=0) as served:
        print(f"{served.endpoint} serves {folder} until Ctrl-C; in another terminal:", flush=True)
        print(f"export HF_ENDPOINT={served.endpoint}")
        print("export HF_HUB_DISABLE_XET=1")
        print("export HF_TOKEN=any")
        print(f"cgankd publish runs/NAME/release/v1.0.0 {served.user}/NAME", flush=True)
        Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/hub"))
