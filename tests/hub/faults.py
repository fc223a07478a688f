"""What goes wrong on purpose between the loopback Hub and its client."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What happens to the next `times` requests of a method (any if `None`) whose path `path` is
    found in, as a regular expression. The first fault that matches a request is the only one.

    `after` applies the request before it is spoiled: with `status` or `drop`, an answer lost.
    """

    path: str
    method: str | None = None
    times: int = 1
    after: bool = False
    call: Callable[[], None] | None = None  # such as: kill the client
    status: int | None = None  # answered instead
    headers: Mapping[str, str] = field(default_factory=dict)  # of that answer
    drop: bool = False  # the connection closes without an answer
    truncate: int | None = None  # bytes of the body that are sent before the connection closes
    corrupt: bool = False  # a bit of the body's every piece is flipped
    seconds: float = 0.0  # how long the body takes

    def matches(self, method: str, path: str) -> bool:
        """Whether this request is one of those that are left to spoil."""
        wanted = self.method in (None, method)
        return self.times > 0 and wanted and re.search(self.path, path) is not None


def take_fault(faults: list[Fault], method: str, path: str) -> Fault | None:
    """The fault that strikes a request, counted down; `None` if nothing goes wrong."""
    fault = next((fault for fault in faults if fault.matches(method, path)), None)
    if fault is not None:
        fault.times -= 1
    return fault
