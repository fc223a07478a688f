"""How the pages are written as HTML: their templates, and numbers and pictures as text."""

import base64
import math
import re
from typing import TYPE_CHECKING, Any

from cgankd.app.console import duration

if TYPE_CHECKING:
    from jinja2 import Environment


def page_templates() -> "Environment":
    """The pages' templates; every text that they are given is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cgankd.app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "count": count,
        "percent": percent,
        "signed": signed,
        "unbroken": unbroken,
        "number": number,
    }
    return environment


def unbroken(text: str) -> str:
    """A sentence whose numbers stay on one line with their signs and units."""
    return re.sub(r"(?<=[\d±]) (?=[^\s(])", "\u00a0", text)


def count(number: int) -> str:
    """For example `128,000`."""
    return f"{number:,}"


def signed(value: float) -> str:
    """For example `−60`, with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def percent(share: float | None) -> str:
    """For example `46.7 %`; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def number(value: Any) -> str:
    """A diagnostic to four digits; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def data_uri(png: bytes) -> str:
    """PNG bytes as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
