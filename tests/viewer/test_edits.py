"""Marks: what they make of candidates, and a journal that loses nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryopick.errors import FormatError, InputError
from cryopick.types import Picks
from cryopick.workflows.edits import (
    Journals,
    Mark,
    Marks,
    apply_marks,
    checked_operations,
    junk_mask,
    mark_operations,
)

NOW = "2026-01-01T00:00:00"


def candidates(n: int = 6) -> Picks:
    """On a line, 100 px apart, of falling score; the third was rejected by a rule."""
    return Picks(
        xy_px=np.array([[100.0 * (k + 1), 50.0] for k in range(n)]),
        score=np.linspace(0.9, 0.4, n).astype(np.float32),
        diameter_px=np.float32(40),
        reason=np.array(["", "", "near the edge", *[""] * (n - 3)]),
        micrograph_name="m",
        shape_yx=(100, 1000),
    )


def marks(*placed: Mark) -> Marks:
    return Marks(by_id={f"m{k}": mark for k, mark in enumerate(placed)})


def kept_x(one: Marks, **cut: float) -> list[float]:
    return apply_marks(candidates(), one, diameter_px=40.0, **{"threshold": 0.6, **cut}).xy_px[:, 0].tolist()


def yes(x: float, y: float = 50.0) -> Mark:
    return Mark(kind="yes", x=x, y=y, diameter_px=40.0)


def no(x: float, y: float = 50.0) -> Mark:
    return Mark(kind="no", x=x, y=y)


JUNK = Mark(kind="junk", x=150.0, y=0.0, points=((150.0, 0.0), (250.0, 0.0), (250.0, 99.0), (150.0, 99.0)))


def test_a_no_takes_what_is_within_three_tenths_of_a_diameter_and_no_more():
    assert kept_x(marks(no(112.0))) == [200.0, 400.0]
    assert kept_x(marks(no(112.1))) == [100.0, 200.0, 400.0]


def test_a_yes_stands_for_the_candidate_beside_it_and_brings_back_what_a_rule_or_the_cut_took():
    picks = apply_marks(candidates(), marks(yes(105.0), yes(300.0), yes(700.0)), threshold=0.6, diameter_px=40.0)
    assert picks.xy_px[:, 0].tolist() == [200.0, 400.0, 105.0, 300.0, 700.0]
    assert picks.score[2:].tolist() == pytest.approx([0.9, 0.7, np.nan], nan_ok=True)
    assert picks.is_kept.all()


def test_junk_takes_candidates_inside_it_but_never_a_yes():
    assert kept_x(marks(JUNK)) == [100.0, 400.0]
    assert kept_x(marks(JUNK, yes(205.0))) == [100.0, 400.0, 205.0]


def test_no_threshold_touches_a_yes():
    assert kept_x(marks(yes(600.0)), threshold=0.95) == [600.0]


def test_the_order_of_marks_does_not_matter():
    placed = [no(112.0), yes(105.0), JUNK, yes(300.0), no(400.0)]
    results = {tuple(sorted(kept_x(marks(*order)))) for order in permutations(placed)}
    assert len(results) == 1


def test_a_belief_lowers_scores_as_the_run_does():
    assert kept_x(marks(), belief=0.8) == [100.0, 200.0]


def test_limits_on_power_leave_unknown_power_alone():
    power = np.array([1.0, 3.0, 1.0, np.nan, 1.0, 1.0], np.float32)
    picks = apply_marks(candidates(), Marks(), threshold=0.6, diameter_px=40.0, power=power, power_limits=(0.0, 2.0))
    assert picks.xy_px[:, 0].tolist() == [100.0, 400.0]


def test_a_mask_of_junk_covers_it_and_nothing_else():
    mask = junk_mask(marks(JUNK), (100, 1000))
    assert mask.shape == (13, 125)
    inside = np.flatnonzero(mask[6])
    assert (inside.min(), inside.max()) == (18, 31)  # 150 to 250 px, an eighth


# ------------------------------------------------------------------------------------------------------- the journal


def put(name: str, x: float, group: str, kind: str = "yes") -> dict[str, object]:
    return {"op": "put", "id": name, "kind": kind, "x": x, "y": 1.0, "group": group, "what": "added"}


def test_undo_and_redo_outlive_the_process_and_never_rewrite(tmp_path: Path):
    first = Journals(tmp_path)
    first.append("a", [put("p", 1.0, "g1")], now=NOW)
    first.append("a", [put("p", 2.0, "g2"), put("q", 3.0, "g2")], now=NOW)
    before = first.path("a").read_bytes()
    undone = Journals(tmp_path).undo("a", group="u1", now=NOW)
    assert {name: mark.x for name, mark in undone.marks.by_id.items()} == {"p": 1.0}
    assert first.path("a").read_bytes().startswith(before)
    again = Journals(tmp_path).undo("a", group="u2", now=NOW, forward=True)
    assert {name: mark.x for name, mark in again.marks.by_id.items()} == {"p": 2.0, "q": 3.0}
    nothing = Journals(tmp_path)
    for number in range(5):
        nothing.undo("a", group=f"v{number}", now=NOW)
    assert not nothing.read("a").marks.by_id
    assert nothing.read("a").undo == ()


def test_what_is_sent_twice_counts_once(tmp_path: Path):
    journals = Journals(tmp_path)
    for _ in range(2):
        journals.append("a", [put("p", 1.0, "g1")], now=NOW)
        journals.append("a", [put("q", 1.0, "g2")], now=NOW)
        journals.undo("a", group="u1", now=NOW)
    assert set(journals.read("a").marks.by_id) == {"p"}
    assert journals.read("a").revision == 3


actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.just("drop"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("verdict"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("undo"), st.just(0), st.just(0)),
        st.tuples(st.just("redo"), st.just(0), st.just(0)),
    ),
    max_size=14,
)


@given(actions)
def test_undo_is_what_a_list_of_states_does(tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, int, int]]):
    journals = Journals(tmp_path_factory.mktemp("journal"))
    states: list[tuple[dict[str, float], str]] = [({}, "none")]
    at = 0
    for number, (what, name, x) in enumerate(done):
        if what in ("undo", "redo"):
            journals.undo("a", group=f"g{number}", now=NOW, forward=what == "redo")
            at = max(0, at - 1) if what == "undo" else min(len(states) - 1, at + 1)
        else:
            by_id, verdict = dict(states[at][0]), states[at][1]
            if what == "put":
                by_id[f"p{name}"] = float(x)
                operation = put(f"p{name}", float(x), f"g{number}")
            elif what == "drop":
                by_id.pop(f"p{name}", None)
                operation = {"op": "drop", "id": f"p{name}", "group": f"g{number}"}
            else:
                verdict = ("good", "bad", "none")[name]
                operation = {"op": "verdict", "value": verdict, "group": f"g{number}"}
            journals.append("a", [operation], now=NOW)
            states, at = [*states[: at + 1], (by_id, verdict)], at + 1
        found = Journals(journals.folder).read("a").marks
        assert ({one: mark.x for one, mark in found.by_id.items()}, found.verdict) == states[at]


@given(st.integers(1, 200))
def test_a_torn_last_line_is_dropped_and_the_next_edit_is_whole(tmp_path_factory: pytest.TempPathFactory, cut: int):
    journals = Journals(tmp_path_factory.mktemp("journal"))
    journals.append("a", [put("p", 1.0, "g1")], now=NOW)
    whole = journals.path("a").read_bytes()
    journals.append("a", [put("q", 2.0, "g2")], now=NOW)
    both = journals.path("a").read_bytes()
    journals.path("a").write_bytes(both[: min(len(both) - 1, len(whole) + cut - 1)])
    assert set(journals.read("a").marks.by_id) == {"p"}
    journals.append("a", [put("r", 3.0, "g3")], now=NOW)
    assert set(Journals(journals.folder).read("a").marks.by_id) == {"p", "r"}
    assert all(json.loads(line) for line in journals.path("a").read_bytes().splitlines())


def test_a_damaged_line_is_named_and_the_file_left_alone(tmp_path: Path):
    journals = Journals(tmp_path)
    journals.append("a", [put("p", 1.0, "g1"), put("q", 1.0, "g1")], now=NOW)
    damaged = journals.path("a").read_bytes().replace(b'"kind": "yes"', b'"kind": "maybe"', 1)
    journals.path("a").write_bytes(damaged)
    for attempt in (lambda: journals.read("a"), lambda: journals.append("a", [put("r", 1.0, "g2")], now=NOW)):
        with pytest.raises(FormatError, match=r"a\.jsonl line 1: .*kind is 'maybe'"):
            attempt()
    assert journals.path("a").read_bytes() == damaged


@pytest.mark.parametrize("key", ["../a", "/etc/passwd", "a/../../b", "", "a\nb"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, key: str):
    with pytest.raises(InputError, match="cannot have a journal"):
        Journals(tmp_path).path(key)


def _write_for_ever(folder: str, writer: int, pipe: object) -> None:
    journals, number = Journals(Path(folder)), 0
    while True:
        journals.append("a", [put(f"w{writer}-{number}", 1.0, f"w{writer}-{number}")], now=NOW)
        os.write(pipe, f"w{writer}-{number}\n".encode())  # type: ignore[arg-type]  # acknowledged
        number += 1


def test_two_writers_that_are_killed_lose_nothing_that_was_acknowledged(tmp_path: Path):
    acknowledged: set[str] = set()
    context = multiprocessing.get_context("fork")
    for round_ in range(3):
        reader, writer = os.pipe()
        both = [context.Process(target=_write_for_ever, args=(str(tmp_path), 2 * round_ + k, writer)) for k in range(2)]
        for process in both:
            process.start()
        time.sleep(0.3)
        for process in both:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            acknowledged |= {line.decode() for line in stream.read().split(b"\n")[:-1]}
    assert len(acknowledged) > 10
    assert acknowledged <= set(Journals(tmp_path).read("a").marks.by_id)


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        ({"op": "put", "id": "a b", "kind": "yes", "x": 1, "y": 1, "group": "g"}, "id is 'a b'"),
        ({"op": "put", "id": "a", "kind": "maybe", "x": 1, "y": 1, "group": "g"}, "kind is 'maybe'"),
        ({"op": "put", "id": "a", "kind": "yes", "x": float("nan"), "y": 1, "group": "g"}, "no number of pixels"),
        ({"op": "put", "id": "a", "kind": "yes", "x": True, "y": 1, "group": "g"}, "no number of pixels"),
        ({"op": "put", "id": "a", "kind": "yes", "x": 141, "y": 1, "group": "g"}, "outside the micrograph"),
        ({"op": "put", "id": "a", "kind": "junk", "x": 1, "y": 1, "points": [[1, 1]], "group": "g"}, "corners"),
        ({"op": "verdict", "value": "fine", "group": "g"}, "verdict is 'fine'"),
        ({"op": "erase everything", "group": "g"}, "expected put, drop"),
    ],
)
def test_operations_from_outside_are_checked(operation: dict[str, object], told: str):
    with pytest.raises(ValueError, match=told):
        checked_operations([operation], shape_yx=(100, 100), diameter_px=40.0)


def test_marks_from_a_script_follow_the_rules_of_the_page(tmp_path: Path):
    journals = Journals(tmp_path)

    def mark(kind: str, x: float, group: str) -> Marks:
        now = journals.read("a").marks
        operations = mark_operations(now, kind, [(x, 1.0)], diameter_px=40.0, group=group)
        return journals.append("a", operations, now=NOW).marks

    mark("no", 100.0, "g1")
    assert [one.kind for one in mark("yes", 105.0, "g2").by_id.values()] == ["yes"]
    moved = mark("yes", 110.0, "g3")
    assert [(one.kind, one.x) for one in moved.by_id.values()] == [("yes", 110.0)]
