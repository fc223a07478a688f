"""What every command works with: a console, a result for `--json`, and one line for each error."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cgankd.app.console import Console


@dataclass
class Answer:
    """Where a command prints, and what it gives to `--json`."""

    console: "Console"
    result: dict[str, Any] = field(default_factory=dict)


@contextmanager
def answering(json: bool) -> Iterator[Answer]:
    """What a command works with; its errors become one line and an exit code."""
    from cgankd.app.console import Console
    from cgankd.shardset.errors import CgankdError
    from cgankd.shardset.tables import without_pandas

    without_pandas()
    answer = Answer(Console(json=json))
    try:
        yield answer
    except CgankdError as error:
        answer.console.error(str(error))
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        answer.console.error(f"{error.filename or 'operating system'}: {error.strerror or error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        answer.console.error("interrupted; run the same command again to continue")
        raise typer.Exit(1) from None
    if json:
        answer.console.result(answer.result)
