"""The overview: counts, why samples were dropped, what was measured, where it comes from."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from cgankd.app.review.policy import counted
from cgankd.app.review.subject import Subject
from cgankd.app.review.views import COLOURS, facts_table, opened, plain
from cgankd.shardset.files import read_json
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.records import TeacherFacts


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
    from cgankd.shardset.release.versions import released_versions

    versions = released_versions(subject.path / "release")
    return versions[-1] if versions else None


def _metrics(subject: Subject) -> None:
    st.subheader("What was measured")
    st.caption(
        "On training and validation images; what is measured on test images is in the report."
    )
    if subject.kind == "run":
        facts_table(_validation(RunFolder(subject.path)))
    check = check_facts(subject)
    if check is None:
        st.info("Not checked yet: `cgankd check` measures this selection, each label by itself.")
        return
    for failure in check["failures"]:
        st.warning(plain(failure))
    if subject.kind == "run" and not check["current"]:
        st.info("The check is of an older selection; run `cgankd check` again.")
    if check["labels"]:
        st.caption("The worst labels first")
        labels = pd.DataFrame(check["labels"])
        front = ["label", *(name for name in labels if name != "label")]
        st.dataframe(labels[front], hide_index=True, alt="Metrics of each label, worst first")
    rows = [
        {
            "metric": row["metric"],
            "value": row["value"],
            "interval": " to ".join(f"{v:.4g}" for v in row["interval"] or ()),
            "judged by": str(row.get("judge", row)["net"]),
        }
        for row in check["metrics"]
        if row.get("kind", "all") == "all"
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="Metrics of the whole selection")


def _validation(run: RunFolder) -> list[tuple[str, str]]:
    """The teacher's metrics on validation images, as rows of a table."""
    rows = []
    if (run.teacher / "stage.json").is_file():
        measured = run.read_facts("teacher", TeacherFacts).validation
        rows += [
            (f"teacher, validation {name}", f"{value:.4g}") for name, value in measured.items()
        ]
    return rows


def check_facts(subject: Subject) -> dict[str, Any] | None:
    """The last check, if any: `failures`, `labels`, `metrics`, and whether it is `current`."""
    from cgankd.shardset.files import sha256_file

    if subject.kind == "release":
        check = subject.facts.get("check")
        return {"labels": [], **check, "current": True} if check else None
    run = RunFolder(subject.path)
    if not (run.check / "check.json").is_file():
        return None
    check = read_json(run.check / "check.json")
    path = run.selections / f"{check['selection']}.parquet"
    same = check["selection"] == subject.selection and path.is_file()
    current = same and sha256_file(path) == check.get("selection_sha256")
    return {**check, "current": current}
