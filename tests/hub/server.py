"""A Hugging Face Hub on this machine: the real protocol over HTTP, for tests and first tries.

It speaks to the real `huggingface_hub` and `datasets`, is bound to 127.0.0.1, and keeps its
repositories in a folder. It has no web pages, pull requests, spaces or viewer.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cgankd.shardset.errors import BadInput
from cgankd.shardset.pool.run_folder import RunFolder
from tests.hub.faults import Fault, take_fault
from tests.hub.objects import Refused
from tests.hub.routes import Answer, Hub, Request, answer
from tests.hub.storage import HubStorage

HOST = "127.0.0.1"
CHUNK = 1 << 16
PIECES = 10  # in which a slow body is sent


class LoopbackHub:
    """A Hub that serves while its `with` block runs.

    `token` is what writing, and reading what is private, needs; with `None` everyone may. A
    request with `read_token` may read everything and write nothing. Files larger than `part_bytes`
    are uploaded in parts, and listings are answered in pages of `page_size` paths.
    """

    def __init__(
        self,
        folder: Path,
        *,
        token: str | None = None,
        read_token: str | None = None,
        port: int = 0,
        user: str = "user",
        part_bytes: int = 64_000_000,
        page_size: int = 1000,
    ) -> None:
        self.folder = folder
        self.port = port
        self.user = user
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()  # held while faults and requests change
        self.stopping = threading.Event()
        self._settings: dict[str, Any] = {
            "token": token,
            "read_token": read_token,
            "user": user,
            "part_bytes": part_bytes,
            "page_size": page_size,
        }
        self._held = ExitStack()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """What `HF_ENDPOINT` has to be."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> "LoopbackHub":
        with ExitStack() as held:
            held.enter_context(RunFolder.open(self.folder, create=True).lock())
            self.start()
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._held.close()

    def start(self) -> None:
        """Serves, on the port that was served before where there was one."""
        self.stopping.clear()
        try:
            self._server = _Server((HOST, self.port), self)
        except OSError as error:
            raise BadInput(
                f"port {self.port} cannot be served: {error.strerror}; give another one"
            ) from error
        self.port = self._server.server_port
        self._server.routes = Hub(
            storage=HubStorage(self.folder), endpoint=self.endpoint, **self._settings
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Drops every connection and refuses new ones, until `start`."""
        if self._server is None or self._thread is None:
            return
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.drop_connections()
        self._server.server_close()
        mistakes = self._server.mistakes
        self._server = self._thread = None
        if mistakes:
            raise mistakes[0]


def client_environment(
    hub: LoopbackHub, home: Path, *, token: str | None = None, xet: bool = False
) -> dict[str, str]:
    """The environment of a process whose Hub is this one: files go through LFS unless `xet`, and
    what the Hub's libraries keep lies in `home`. (They read most of it when they are imported.)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    off = ("TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS")
    environment |= {f"HF_HUB_DISABLE_{name}": "1" for name in off}
    environment |= {
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
    }
    if token is not None:
        environment["HF_TOKEN"] = token
    if not xet:
        environment["HF_HUB_DISABLE_XET"] = "1"
    return environment


class _Server(ThreadingHTTPServer):
    """Threads are joined when it closes, so no request outlives it."""

    daemon_threads = False
    routes: Hub

    def __init__(self, address: tuple[str, int], hub: LoopbackHub) -> None:
        self.hub = hub
        self.mistakes: list[BaseException] = []  # of the Hub itself
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """Ends every connection, whatever is being sent on it."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client was first
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps what went wrong for `stop` to raise, but for clients that went away."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.mistakes.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        hub = self.server.hub
        with hub.lock:
            hub.requests.append((self.command, path))
            fault = take_fault(hub.faults, self.command, path)
        body = self._body()
        if fault is None:
            self._send(self._answer(body))
        else:
            self._spoil(fault, body)
        for _ in body:  # what an early answer left unread would be taken for the next request
            pass

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, body: Iterator[bytes]) -> Answer:
        url = urlsplit(self.path)
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        request = Request(
            method=self.command,
            path=url.path,
            query=parse_qs(url.query),
            headers=self.headers,
            body=body,
            token=token if scheme == "Bearer" else None,
        )
        try:
            return answer(self.server.routes, request)
        except Refused as error:
            return Answer.of_error(error)

    def _spoil(self, fault: Fault, body: Iterator[bytes]) -> None:
        spoils_body = fault.truncate is not None or fault.corrupt or fault.seconds
        result = self._answer(body) if fault.after or spoils_body else None
        if fault.call is not None:
            fault.call()
        if fault.drop:
            self._hang_up()
        elif fault.status is not None:
            error = Refused(fault.status, "made to fail")
            self._send(Answer.of_error(error, fault.headers))
        else:
            self._send(result or self._answer(body), fault)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, result: Answer, fault: Fault | None = None) -> None:
        self.send_response(result.status)
        for name, value in result.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(result.length))
        self.end_headers()
        if self.command == "HEAD":
            return
        left = result.length if fault is None or fault.truncate is None else fault.truncate
        size = CHUNK
        if fault is not None and fault.seconds:
            size = max(1, min(CHUNK, result.length // PIECES))
        for chunk in result.chunks(size):
            if fault is not None and fault.corrupt:
                chunk = chunk[:-1] + bytes([chunk[-1] ^ 1])
            if fault is not None and fault.seconds:
                self.server.hub.stopping.wait(fault.seconds * size / result.length)
            self.wfile.write(chunk[:left])
            left -= len(chunk[:left])
            if not left:
                break
        if fault is not None and fault.truncate is not None:
            self.wfile.flush()
            self._hang_up()

    def _body(self) -> Iterator[bytes]:
        """The request's body, with a length or in chunks of its own."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            chunk = self.rfile.read(min(left, CHUNK))
            if not chunk:
                raise ConnectionError("the client went away in the middle of its body")
            left -= len(chunk)
            yield chunk

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing; `requests` is the log."""
