"""The overview: counts, why samples were dropped, what was measured, where it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from cgankd.app.pages.records import CheckFacts, read_record
from cgankd.app.review.policy import counted
from cgankd.app.review.subject import Subject
from cgankd.app.review.views import COLOURS, errors_shown, facts_table, opened, plain
from cgankd.shardset.files import sha256_file
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.records import CheckSummary, TeacherFacts
from cgankd.shardset.release.manifest import read_manifest
from cgankd.shardset.release.versions import released_versions


def draw() -> None:
    """Draws counts, drops, metrics and where the samples come from."""
    state = opened()
    subject, counts = state.subject, counted(state.subject)
    for note in subject.notes:
        st.info(plain(note))
    for problem in subject.ratio_problems:
        st.warning(plain(f"Density ratio refused: {problem}"))
    verdicts = state.counts()
    with st.container(horizontal=True):
        st.metric("Samples", f"{len(subject):,}")
        st.metric("Kept", f"{int(subject.kept.sum()):,}")
        st.metric("Dropped", f"{int((~subject.kept).sum()):,}")
        st.metric("With a verdict", f"{sum(verdicts.values()):,}")
        if version := _version(subject):
            st.metric("Version", version)
    st.subheader("Kept and dropped, by label")
    st.bar_chart(
        counts,
        height=280,
        y_label="samples",
        x_label="label",
        color=list(COLOURS[: len(counts.columns)]),
        sort=False,
    )
    counts.insert(0, "produced", counts.sum(axis=1))
    st.dataframe(counts, alt="Samples produced, kept and dropped for each label")
    with errors_shown():
        _metrics(subject)
    st.subheader("Where it comes from")
    facts_table(lineage(subject))


def lineage(subject: Subject) -> list[tuple[str, str]]:
    """Names and texts of what led to the samples."""
    facts = subject.facts
    source: Mapping[str, Any] = facts.get("source") or facts.get("real") or {}
    rows = [
        ("folder", str(subject.path)),
        ("selection", subject.selection or "none"),
        ("pool", subject.pool_id),
        ("seed", str(subject.seed)),
        ("real images", str(source.get("spec", "not stated"))),
        ("their fingerprint", str(source.get("fingerprint", "not stated"))),
    ]
    weights = facts.get("weights")
    if isinstance(weights, Mapping):
        rows += [(f"{name}'s weights", str(sha256)) for name, sha256 in weights.items() if sha256]
    if subject.policy is not None:
        fields = subject.policy.model_dump(mode="json")
        rows.append(("policy", ", ".join(f"{name} {value}" for name, value in fields.items())))
    return rows


def _version(subject: Subject) -> str | None:
    if subject.kind == "release":
        return str(subject.facts["version"])
    versions = released_versions(subject.path / "release")
    return versions[-1] if versions else None


def _metrics(subject: Subject) -> None:
    st.subheader("What was measured")
    st.caption(
        "On training and validation images; what is measured on test images is in the report."
    )
    if subject.kind == "run":
        facts_table(_validation(RunFolder(subject.path)))
    check = last_check(subject)
    if check is None:
        st.info("Not checked yet: `cgankd check` measures this selection, each label by itself.")
        return
    for failure in check.summary.failures:
        st.warning(plain(failure))
    if not check.is_current:
        st.info("The check is of an older selection; run `cgankd check` again.")
    if check.labels:
        st.caption("The worst labels first")
        labels = pd.DataFrame(check.labels)
        labels.insert(0, "label", labels.pop("label"))
        st.dataframe(labels, hide_index=True, alt="Metrics of each label, worst first")
    rows = [
        {
            "metric": number.metric,
            "value": number.value,
            "interval": " to ".join(
                "?" if v is None else f"{v:.4g}" for v in number.interval or ()
            ),
            "judged by": number.net,
        }
        for number in check.summary.metrics
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="Metrics of the whole selection")


def _validation(run: RunFolder) -> list[tuple[str, str]]:
    """The teacher's metrics on validation images, as rows of a table."""
    if not run.is_finished("teacher"):
        return []
    measured = run.read_facts("teacher", TeacherFacts).validation
    return [(f"teacher, validation {name}", f"{value:.4g}") for name, value in measured.items()]


@dataclass(frozen=True)
class Check:
    """The last check of a selection."""

    summary: CheckSummary
    labels: Sequence[Mapping[str, str | int | float | None]]  # none for a release
    is_current: bool  # of the decisions that are shown


def last_check(subject: Subject) -> Check | None:
    """The last check, None if there is none; `CgankdError` for one that another version wrote."""
    if subject.kind == "release":
        summary = read_manifest(subject.path).lineage.check
        return None if summary is None else Check(summary, (), True)
    run = RunFolder(subject.path)
    path = run.check / "check.json"
    if not path.is_file():
        return None
    check = read_record(path, CheckFacts, "check")
    table = run.selections / f"{check.selection}.parquet"
    same = check.selection == subject.selection and table.is_file()
    is_current = same and sha256_file(table) == check.selection_sha256
    return Check(check.of_release(), check.labels, is_current)
