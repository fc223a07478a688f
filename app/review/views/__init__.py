"""What every page needs: the subject and this tab's state, images and grids of them, text shown as
text, errors as lines.
"""

import argparse
import html
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from cgankd.app.review.sample import Reals, open_reals
from cgankd.app.review.state import ReviewState
from cgankd.app.review.subject import Subject, open_subject, with_selection
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import CgankdError
from cgankd.shardset.places import Picture

KEPT_PREFIXES = ("filter.", "policy.", "compare.", "reviewer")
# Of series in charts: to be told apart on light and on dark.
COLOURS = ("#2a9d8f", "#e76f51", "#6a6df0", "#c9a227", "#d05a8e", "#3a86c8", "#7a9a3a", "#8b929c")
WATCHED = ("pool/stage.json", "scores/stage.json", "neighbours.parquet", "selections/*.parquet")
MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&^=])")

Stamp = tuple[tuple[str, int], ...]


def arguments() -> argparse.Namespace:
    """`spec` and `reviewer` from the command line behind `streamlit run serve.py --`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("spec")
    parser.add_argument("--reviewer", default="reviewer")
    return parser.parse_args(sys.argv[1:])


def opened() -> ReviewState:
    """The tab's state, with the verdicts of other tabs and the selection picked in the sidebar."""
    base = subject_at()
    held = st.session_state
    if held.get("base") is not base:
        held["base"], held["state"] = base, ReviewState.open(base)
        held["sizes"] = _verdict_sizes(base)
    state: ReviewState = held["state"]
    selection = held.get("filter.selection")
    if selection in base.selections and selection != state.subject.selection:
        state.subject = subject_at(selection=selection)
    if held["sizes"] != (sizes := _verdict_sizes(base)):
        state.refresh()
        held["sizes"] = sizes
    return state


def subject_at(spec: str | None = None, selection: str | None = None) -> Subject:
    """A run, release or Hub id, what is reviewed if none is given, opened once for all tabs; with
    the decisions of a selection of that name.
    """
    spec = spec or arguments().spec
    return _subject(spec, _stamp(spec), selection)


def real_images() -> tuple[Reals | None, str | None]:
    """The real images, read once for all tabs; or in one line why there are none."""
    spec = arguments().spec
    return _reals(spec, _stamp(spec))


@st.cache_resource(max_entries=6, show_spinner="Opening…")
def _subject(spec: str, stamp: Stamp, selection: str | None) -> Subject:
    if selection is None:
        return open_subject(spec)
    return with_selection(_subject(spec, stamp, None), selection)


@st.cache_resource(max_entries=1, show_spinner="Reading the real images…")
def _reals(spec: str, stamp: Stamp) -> tuple[Reals | None, str | None]:
    try:
        return open_reals(_subject(spec, stamp, None)), None
    except (CgankdError, OSError) as error:
        return None, str(error)


def _stamp(spec: str) -> Stamp:
    """What changes when the tables of a folder do."""
    folder = Path(spec).expanduser()
    paths = [path for pattern in WATCHED for path in sorted(folder.glob(pattern))]
    return tuple((str(path), path.stat().st_mtime_ns) for path in paths)


def _verdict_sizes(subject: Subject) -> Stamp:
    """What changes when any tab gives a verdict."""
    return tuple((str(p), p.stat().st_size) for p in sorted(subject.reviews.glob("*.jsonl")))


def mark_read() -> None:
    """Notes that this tab knows its own new verdicts, which need not be read again."""
    held = st.session_state
    held["sizes"] = _verdict_sizes(held["base"])


def reviewer() -> str:
    """Who reviews, as typed in the sidebar."""
    return st.session_state.get("reviewer") or arguments().reviewer


def keep_widgets() -> None:
    """Keeps filters and sliders while another page is open: Streamlit forgets what is not drawn."""
    for name in list(st.session_state):
        if str(name).startswith(KEPT_PREFIXES):
            st.session_state[name] = st.session_state[name]


def started(key: str, value: Any) -> str:
    """The key of a control that is kept, which begins with a value."""
    st.session_state.setdefault(key, value)
    return key


def sidebar() -> None:
    """Draws what is reviewed, by whom, and the verdicts so far."""
    state = opened()
    subject = state.subject
    with st.sidebar:
        st.text(subject.path.name, help=plain(str(subject.path)))
        if len(subject.selections) > 1:
            key = started("filter.selection", subject.selection or subject.selections[0])
            st.selectbox("Selection", subject.selections, key=key)
        st.text_input("Reviewer", key=started("reviewer", arguments().reviewer), max_chars=100)
        counts = state.counts()
        verdicts = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        st.caption(plain(f"Verdicts: {verdicts}" if verdicts else "No verdicts yet"))


@contextmanager
def errors_shown() -> Iterator[None]:
    """An error that a user can cause becomes a line on the page."""
    try:
        yield
    except CgankdError as error:
        st.error(plain(str(error)), icon=":material/error:")
    except OSError as error:
        where = error.filename or "operating system"
        st.error(plain(f"{where}: {error.strerror or error}"), icon=":material/error:")


def plain(text: str) -> str:
    """Text from outside for where Streamlit reads Markdown: every sign stands for itself."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def facts_table(rows: Sequence[tuple[str, str]], head: tuple[str, str] | None = None) -> None:
    """Draws two columns of text."""
    cell = '<td style="padding:.15rem 1.2rem .15rem 0;vertical-align:top;overflow-wrap:anywhere">'
    body = "".join(
        f"<tr>{cell}{html.escape(name)}</td>{cell}{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    top = ""
    if head:
        top = "".join(f'<th style="text-align:left">{html.escape(name)}</th>' for name in head)
    st.html(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")


def pictures(shown: Sequence[Picture], captions: Sequence[str], side: int = 96) -> None:
    """Draws images in lines, each with a text below; one that cannot be read is its reason."""
    figures = []
    for picture, caption in zip(shown, captions, strict=True):
        text = html.escape(caption)
        if picture.uri is None:
            image = (
                f'<div style="width:{side}px;height:{side}px;font-size:.7rem;overflow:auto;'
                f'border:1px dashed #8b929c">{html.escape(picture.error or "no image")}</div>'
            )
        else:
            image = (
                f'<img src="{picture.uri}" alt="{text}" style="width:{side}px;height:{side}px;'
                'image-rendering:pixelated;object-fit:contain">'
            )
        figures.append(
            f'<figure style="margin:0;width:{side}px">{image}'
            f'<figcaption style="font-size:.75rem;overflow-wrap:anywhere">{text}</figcaption>'
            "</figure>"
        )
    st.html(f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(figures)}</div>')


def counts_beside(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> None:
    """Draws what two selections keep of each label, and what they drop by reason."""
    tables = dict(zip(names, (first, second), strict=True))
    st.bar_chart(
        pd.DataFrame({name: table["kept"] for name, table in tables.items()}),
        height=260,
        stack=False,
        x_label="label",
        y_label="kept",
        color=list(COLOURS[:2]),
        sort=False,
    )
    dropped = pd.DataFrame({n: t.drop(columns="kept").sum() for n, t in tables.items()})
    if len(dropped):
        st.subheader("Dropped by")
        alt = f"Dropped samples by reason, {names[0]} and {names[1]}"
        st.dataframe(dropped.fillna(0).astype(int), alt=alt)


def drop_text(reason: int) -> str:
    """`−` and the reason of a drop, by its code; empty for what is kept."""
    return "" if reason == KEPT else f"−{REASONS[reason]}"


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"
