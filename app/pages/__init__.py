"""How the pages of check and report are written as HTML: templates, colours, numbers as text."""

import base64
import math
import re
from typing import TYPE_CHECKING, Any

from cgankd.app.console import duration

if TYPE_CHECKING:
    from jinja2 import Environment

# Every colour of page and figures: name → (light, dark). A figure is drawn in the light ones;
# its SVG then names them, so that the page's style sheet decides. They must differ pairwise.
COLOURS = {
    "ink": ("#1b1f24", "#e8eaed"),
    "muted": ("#5c6370", "#9aa2ae"),
    "line": ("#dfe2e7", "#33383f"),
    "page": ("#fafaf8", "#14171a"),
    "card": ("#ffffff", "#1b1f23"),
    "c0": ("#0f766e", "#35c9b5"),
    "c1": ("#c2500c", "#f0935a"),
    "c2": ("#4f52c9", "#9ca3f7"),
    "c3": ("#a8820b", "#e3c04f"),
    "c4": ("#b82a68", "#ee7fb0"),
    "c5": ("#0b6fa8", "#5db7ee"),
    "c6": ("#5a7d12", "#a4cc54"),
    "c7": ("#8b929c", "#767e89"),
}


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
    environment.globals["colours"] = COLOURS
    filters = (duration, percent, signed, unbroken, number, data_uri)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


def unbroken(text: str) -> str:
    """A sentence whose numbers stay on one line with their signs and units."""
    return re.sub(r"(?<=[\d±]) (?=[^\s(])", "\u00a0", text)


def signed(value: float) -> str:
    """For example `−60`, with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def percent(share: float | None) -> str:
    """For example `46.7 %`; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def number(value: Any) -> str:
    """A count as `128,000`, a diagnostic to four digits; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def data_uri(png: bytes) -> str:
    """PNG bytes as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
