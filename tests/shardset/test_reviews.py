"""Verdicts on disk: there the moment they are given, the latest counts, the pool never changes."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgankd.shardset import reviews as module
from cgankd.shardset.errors import BadInput
from cgankd.shardset.reviews import (
    MAX_LINE,
    VERDICTS,
    Decision,
    ReviewSession,
    checked_label,
    read_reviews,
)
from cgankd.shardset.testing import tiny_continuous_space, tiny_space

FIRST = {"reviewer": "first"}
GOOD = {
    "key": 3,
    "verdict": "reject",
    "label": None,
    "comment": "",
    "reviewer": "first",
    "time": "2026-01-02T03:04:05.000006Z",
}
CHILD = """
import sys
from pathlib import Path
from cgankd.shardset.reviews import Decision, ReviewSession
session = ReviewSession.open(Path(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
for key in range(int(sys.argv[3])):
    session.append([Decision(key=key, verdict="reject", reviewer=sys.argv[2], comment="x" * 500)])
    print(key, flush=True)
"""


def said(folder):
    """What stands, as plain rows."""
    found = read_reviews(folder)
    return {
        key: (VERDICTS[verdict], None if np.isnan(label) else label, comment, reviewer)
        for key, verdict, label, comment, reviewer in zip(
            *(column.tolist() for column in vars(found).values()), strict=True
        )
    }


def child(folder, name, count):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_a_verdict_is_on_disk_when_append_returns(tmp_path):
    """One line of JSON with key, verdict, label, comment, reviewer and time in UTC."""
    session = ReviewSession.open(tmp_path / "reviews", "tab")
    session.append([Decision(key=7, verdict="relabel", label=2, comment="a 2", **FIRST)])
    line = json.loads((tmp_path / "reviews" / "tab.jsonl").read_text())

    moment = datetime.fromisoformat(line.pop("time"))
    assert line == {
        "key": 7,
        "verdict": "relabel",
        "label": 2,
        "comment": "a 2",
        "reviewer": "first",
    }
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert said(tmp_path / "reviews") == {7: ("relabel", 2.0, "a 2", "first")}


def test_each_line_is_written_once_and_synced(tmp_path, monkeypatch):
    """One os.write to a file opened for appending, then one fsync of it."""
    calls = []
    session = ReviewSession.open(tmp_path, "tab")
    session.append([Decision(key=0, verdict="flag", **FIRST)])
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(module.os, "write", lambda h, d: (calls.append("write"), write(h, d))[1])
    monkeypatch.setattr(module.os, "fsync", lambda h: (calls.append("fsync"), fsync(h))[1])
    session.append([Decision(key=(1, 2, 3), verdict="accept", **FIRST)])

    assert calls == ["write", "fsync"]
    assert sorted(said(tmp_path)) == [0, 1, 2, 3]


def test_the_latest_counts_across_sessions(tmp_path):
    """Two tabs in turn: whoever spoke last on a key is heard, cleared keys are gone."""
    one, two = (ReviewSession.open(tmp_path, name) for name in ("one", "two"))
    one.append([Decision(key=(1, 2, 3), verdict="accept", **FIRST)])
    two.append([Decision(key=2, verdict="reject", reviewer="second")])
    one.append([Decision(key=3, verdict="clear", **FIRST)])

    assert said(tmp_path) == {1: ("accept", None, "", "first"), 2: ("reject", None, "", "second")}
    assert read_reviews(tmp_path).counts() == {"accept": 1, "reject": 1}


def test_what_overrules_a_verdict_is_later_though_the_clock_is_not(tmp_path):
    """A verdict from a clock that is ahead does not win against one that was given knowing it."""
    ahead = {**GOOD, "time": "2999-01-01T00:00:00Z"}
    (tmp_path / "other.jsonl").write_text(json.dumps(ahead) + "\n")
    session = ReviewSession.open(tmp_path, "tab")
    session.append([Decision(key=3, verdict="accept", **FIRST)])
    session.append([Decision(key=3, verdict="flag", **FIRST)])

    assert said(tmp_path) == {3: ("flag", None, "", "first")}


def test_equal_times_go_by_session_then_line(tmp_path):
    """The order is defined even where clocks are too coarse."""
    lines = [{**GOOD, "verdict": verdict} for verdict in ("reject", "flag")]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "a.jsonl").write_text(json.dumps({**GOOD, "verdict": "accept"}) + "\n")

    assert said(tmp_path)[3][0] == "flag"


decisions = st.builds(
    lambda key, verdict, label, comment, reviewer: Decision(
        key=key,
        verdict=verdict,
        label=label if verdict == "relabel" else None,
        comment=comment,
        reviewer=reviewer,
    ),
    st.integers(0, 9) | st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple),
    st.sampled_from(VERDICTS),
    st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.text(min_size=1, max_size=9),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), decisions), max_size=8))
def test_whatever_is_said_is_read_back(tmp_path_factory, told):
    """Any text, any keys, any order of two sessions: a plain dict of what was said last."""
    folder = tmp_path_factory.mktemp("reviews")
    sessions = {name: ReviewSession.open(folder, name) for name in "ab"}
    expected = {}
    for name, decision in told:
        other = sessions["b" if name == "a" else "a"]
        sessions[name].newest = max(sessions[name].newest, other.newest)  # the clock may stand
        sessions[name].append([decision])
        keys = decision.key if isinstance(decision.key, tuple) else (decision.key,)
        for key in keys:
            expected.pop(key, None)
            if decision.verdict != "clear":
                label = None if decision.label is None else float(decision.label)
                expected[key] = (decision.verdict, label, decision.comment, decision.reviewer)

    assert said(folder) == expected


@pytest.mark.parametrize("cut", [1, 20, 90])
def test_a_torn_last_line_is_ignored_then_mended(tmp_path, cut):
    """What a crash left of a line is no verdict, and does not spoil the next one."""
    session = ReviewSession.open(tmp_path, "tab")
    session.append([Decision(key=0, verdict="accept", **FIRST)])
    session.append([Decision(key=1, verdict="accept", **FIRST)])
    path = tmp_path / "tab.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])

    assert sorted(said(tmp_path)) == [0]
    ReviewSession.open(tmp_path, "tab").append([Decision(key=2, verdict="accept", **FIRST)])
    assert sorted(said(tmp_path)) == [0, 2]
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_line_longer_than_one_block_is_mended(tmp_path):
    """The end of the last whole line is found however far back it is."""
    path = tmp_path / "tab.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + b'{"key": [' + b"1, " * 100_000)
    ReviewSession.open(tmp_path, "tab").append([Decision(key=2, verdict="accept", **FIRST)])

    assert sorted(said(tmp_path)) == [2, 3]


def test_killed_while_appending_every_confirmed_verdict_is_there(tmp_path):
    """SIGKILL in the middle: what was confirmed is read, and the session goes on."""
    process = child(tmp_path, "tab", 10**6)
    confirmed = -1
    while confirmed < 20:
        line = process.stdout.readline()
        confirmed = int(line) if line.strip().isdigit() else confirmed
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    confirmed = max([confirmed, *(int(word) for word in rest.split("\n")[:-1])])

    keys = sorted(said(tmp_path))
    assert keys == list(range(len(keys)))
    assert confirmed + 1 <= len(keys) <= confirmed + 2
    ReviewSession.open(tmp_path, "tab").append([Decision(key=999, verdict="flag", **FIRST)])
    assert sorted(said(tmp_path)) == [*keys, 999]


@pytest.mark.parametrize("names", [("one", "two"), ("same", "same")], ids=["tabs", "one name"])
def test_two_processes_append_at_once_and_lose_nothing(tmp_path, names):
    """Each has its own file; even under one name every line stays whole."""
    count = 60
    processes = [child(tmp_path, name, count) for name in names]
    for process in processes:
        assert process.communicate(timeout=60)[0].split()[-1] == str(count - 1)
        assert process.returncode == 0
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]

    assert len(lines) == 2 * count
    assert sorted(said(tmp_path)) == list(range(count))
    assert len(list(tmp_path.iterdir())) == len(set(names))


HOSTILE = {
    "not JSON": ("{", "is no decision"),
    "a list": ("[1]", "is no decision"),
    "no key": ({"key": None}, "key"),
    "a text for a key": ({"key": "3"}, "key"),
    "a truth for a key": ({"key": True}, "key"),
    "no keys": ({"key": []}, "key"),
    "a negative key": ({"key": -1}, "key"),
    "a huge key": ({"key": 10**9}, "key"),
    "an unknown verdict": ({"verdict": "love"}, "verdict"),
    "an unknown field": ({"admin": True}, "admin"),
    "a label without relabel": ({"label": 1}, "relabel needs a label"),
    "relabel without a label": ({"verdict": "relabel"}, "relabel needs a label"),
    "a text for a label": ({"verdict": "relabel", "label": "1"}, "label"),
    "an endless label": ({"verdict": "relabel", "label": 10**400}, "label"),
    "a comment too long": ({"comment": "x" * 2001}, "comment"),
    "nobody": ({"reviewer": ""}, "reviewer"),
    "a time without a zone": ({"time": "2026-01-02T03:04:05"}, "time"),
    "no time": ({"time": "soon"}, "time"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_is_named(tmp_path, name):
    """File, line number and what is wrong, in one line of at most a few hundred characters."""
    change, word = HOSTILE[name]
    bad = change if isinstance(change, str) else json.dumps({**GOOD, **change})
    path = tmp_path / "tab.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{bad}\n")
    with pytest.raises(BadInput) as raised:
        read_reviews(tmp_path)
    message = str(raised.value)

    assert f"{path} line 2 is no decision" in message
    assert word in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(tmp_path))


def test_a_line_that_never_ends_is_refused_without_reading_it_all(tmp_path):
    """A file of zeros of any size costs one line's memory."""
    with open(tmp_path / "tab.jsonl", "wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(BadInput, match=f"line 1 is longer than {MAX_LINE:,} bytes"):
        read_reviews(tmp_path)


def test_verdicts_on_another_pool_are_refused_by_name(tmp_path):
    """A key the pool lacks and a label the space lacks, with file and line."""
    session = ReviewSession.open(tmp_path, "tab")
    session.append([Decision(key=(1, 2), verdict="relabel", label=3, **FIRST)])

    assert len(read_reviews(tmp_path, np.arange(3), tiny_space(4)).key) == 2
    with pytest.raises(BadInput, match=r"tab.jsonl line 1: key 2 is not in this pool of 2"):
        read_reviews(tmp_path, np.arange(2), tiny_space(4))
    with pytest.raises(BadInput, match=r"tab.jsonl line 1: label 3 of"):
        read_reviews(tmp_path, np.arange(3), tiny_space(3))


def test_labels_are_checked_by_the_space():
    """A class is a whole number of the space; a value may be any number of the range."""
    assert checked_label(2, tiny_space(3), "here") == 2
    assert isinstance(checked_label(2, tiny_continuous_space(), "here"), float)
    with pytest.raises(BadInput, match=r"here: label 1\.0 is not a class"):
        checked_label(1.0, tiny_space(3), "here")
    with pytest.raises(BadInput, match="here: label 61"):
        checked_label(61, tiny_continuous_space(), "here")


def test_the_hash_is_of_what_was_decided_alone(tmp_path):
    """Who, when and in what words changes nothing; a verdict or label does."""

    def hashed(name, **decision):
        folder = tmp_path / name
        ReviewSession.open(folder).append([Decision(**{"key": 1, **FIRST, **decision})])
        return read_reviews(folder).deciding().sha256()

    accepted = hashed("a", verdict="accept")
    assert accepted == hashed("b", verdict="accept", comment="good", reviewer="second")
    assert accepted != hashed("c", verdict="reject")
    assert hashed("d", verdict="relabel", label=1) != hashed("e", verdict="relabel", label=2)
    assert hashed("f", verdict="flag") == read_reviews(tmp_path / "none").sha256()


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    """A write that is cut short is taken back, and the error says so in one line."""
    session = ReviewSession.open(tmp_path, "tab")
    session.append([Decision(key=0, verdict="accept", **FIRST)])
    before = (tmp_path / "tab.jsonl").read_bytes()
    write = os.write
    monkeypatch.setattr(module.os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(BadInput, match="the disk is full"):
        session.append([Decision(key=1, verdict="accept", **FIRST)])

    assert (tmp_path / "tab.jsonl").read_bytes() == before


def test_a_million_keys_are_decided_on_in_one_line(tmp_path):
    """All that match is one decision, on one line of the file, however many they are."""
    keys = tuple(range(10**8, 10**8 + 10**6))
    ReviewSession.open(tmp_path, "tab").append([Decision(key=keys, verdict="reject", **FIRST)])
    found = read_reviews(tmp_path, np.array(keys))

    assert found.counts() == {"reject": 10**6}
    assert len((tmp_path / "tab.jsonl").read_bytes().splitlines()) == 1
    with pytest.raises(BadInput, match="decide on fewer samples at once"):
        ReviewSession.open(tmp_path).append([Decision(key=keys * 2, verdict="reject", **FIRST)])


@pytest.mark.parametrize("name", ["", "../up", "a b", "x" * 65])
def test_a_session_cannot_be_named_out_of_its_folder(tmp_path, name):
    """Names are letters, digits, hyphens and underscores."""
    with pytest.raises(BadInput, match="session"):
        ReviewSession.open(tmp_path, name)
