"""What would go out as the next version, whether it may, and the buttons that do it."""

import io
from pathlib import Path
from typing import Any

import streamlit as st
from rich.console import Console as RichConsole

from cgankd.app import pipeline, publishing
from cgankd.app.console import Console
from cgankd.app.review.state import ReviewState
from cgankd.app.review.subject import Subject
from cgankd.app.review.views import facts_table, opened, plain
from cgankd.app.review.views.overview import last_check
from cgankd.app.stages.selections import ARMS_WITHOUT_REVIEWS
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.release.manifest import MANIFEST, read_manifest
from cgankd.shardset.release.versions import released_versions
from cgankd.shardset.tables import read_metadata


def draw() -> None:
    """Draws the steps in order: select with the verdicts, check, build, publish."""
    state = opened()
    subject = state.subject
    if message := st.session_state.pop("done", None):
        st.success(plain(message))
    if subject.kind == "release":
        st.info("A release never changes. Open its run to build the next version.")
        if not (subject.path / MANIFEST).is_symlink():  # a copy of the Hub's is there already
            _publish(subject, [subject.path])
        return
    if subject.selection is None:
        st.info("There is no selection yet; make one on the Policy page.")
        return
    st.subheader("1. What would go out")
    current = _content(state)
    st.subheader("2. Does it pass its check?")
    _gates(subject)
    st.subheader("3. Build the next version")
    _build(subject, current)
    releases = RunFolder(subject.path).release
    folders = [releases / version for version in reversed(released_versions(releases))]
    st.subheader("4. Publish")
    _publish(subject, folders)


def _content(state: ReviewState) -> bool:
    """Draws what the selection holds; whether it heeds the newest verdicts."""
    subject = state.subject
    kept = int(subject.kept.sum())
    deciding = state.reviews().deciding()
    path = RunFolder(subject.path).selections / f"{subject.selection}.parquet"
    heeded = read_metadata(path).get("reviews") or {}
    now = deciding.sha256() if len(deciding.key) else None
    current = heeded.get("sha256") == now or subject.selection in ARMS_WITHOUT_REVIEWS
    facts_table(
        [
            ("selection", str(subject.selection)),
            ("samples kept", f"{kept:,} of {len(subject):,}"),
            ("verdicts heeded", _counts({k: v for k, v in heeded.items() if k != "sha256"})),
            ("verdicts given", _counts(deciding.counts())),
        ]
    )
    if current:
        return True
    st.warning("Verdicts were given or taken back since this selection was made.")
    if st.button("Select again with the verdicts", type="primary"):
        console, _ = _console()
        facts = pipeline.select(subject.path, console=console, name=str(subject.selection))
        _done(f"Selected again: kept {facts['kept']:,}, dropped {facts['dropped']}")
    return False


def _gates(subject: Subject) -> None:
    check = last_check(subject)
    if check is None:
        st.info("Not checked yet. Run `cgankd check`; publishing asks for it.")
        return
    if not check.is_current:
        st.warning("The check is of an older selection. Run `cgankd check` again.")
        return
    summary = check.summary
    for failure in summary.failures:
        st.error(plain(failure))
    if not summary.failures:
        st.success("Every threshold of the recipe's check is met.")
    rows = []
    for name, value in summary.overall.items():
        limit = summary.limits.get(name)
        if value is not None:
            limit_text = "none" if limit is None else f"{limit:g}"
            rows.append((name, f"{value:.4g}, limit {limit_text}"))
    facts_table(rows)


def _build(subject: Subject, current: bool) -> None:
    rejected = st.checkbox("Include the dropped samples, so that others can select again")
    arguments: dict[str, Any] = {"selection": subject.selection, "rejected": rejected}
    with st.container(horizontal=True):
        ask = st.button("Propose a version", disabled=not current)
        build = st.button("Build the proposed version", type="primary", disabled=not current)
    if not current:
        st.caption("Select again first.")
    if ask:
        console, _ = _console()
        proposal = pipeline.propose(subject.path, console=console, **arguments)
        if proposal["reason"]:
            st.info(plain(f"{proposal['version']}: {proposal['reason']}"))
        else:
            st.info(plain(f"Nothing changed since {proposal['version']}; nothing would be built."))
    if build:
        console, _ = _console()
        with st.spinner("Building…"):
            facts = pipeline.release(subject.path, console=console, **arguments)
        _done(f"{facts['version']}: {facts['accepted']:,} images in {facts['folder']}")


def _publish(subject: Subject, folders: list[Path]) -> None:
    """Draws publishing, which asks twice and uses the login of the Hub's client."""
    if not folders:
        st.info("There is no version to publish yet.")
        return
    folder = st.selectbox("Version", folders, format_func=lambda path: path.name)
    target = st.text_input("Repository on the Hub", placeholder="user/name")
    private = st.checkbox("Private, if the repository is new", value=True)
    manifest = read_manifest(folder)
    check = manifest.lineage.check
    allow = False
    if check is None or check.failures:
        st.warning("This version failed its check, or had none.")
        allow = st.checkbox("Publish it all the same")
    st.caption("The login is that of `hf auth login`; this page neither shows nor keeps it.")
    ask = st.button("Show what would be sent", disabled=not target)
    sure = st.text_input("To publish, type the version", placeholder=manifest.version)
    send = st.button("Publish", disabled=not target or sure != manifest.version)
    if ask or send:
        console, lines = _console()
        with st.spinner("Asking the Hub…"):
            publishing.publish_release(
                folder, target, console=console, private=private, dry_run=not send,
                allow_failures=allow,
            )  # fmt: skip
        st.code(lines.getvalue(), language=None, wrap_lines=True)


def _console() -> tuple[Console, io.StringIO]:
    """A console, and the text of its lines to show on the page."""
    lines = io.StringIO()
    return Console(rich=RichConsole(file=lines, width=100, highlight=False)), lines


def _done(message: str) -> None:
    """Draws the page again with what was done on top."""
    st.session_state["done"] = message
    st.rerun()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
