"""The table of sessions: what counts as false, what as lost, and what is told of it."""

from __future__ import annotations

from argparse import Namespace

import pytest

from sessions import ARRANGEMENTS, as_markdown, chosen_sessions, false_per_empty, precision_gap


def entry(**changes: object) -> dict[str, object]:
    return {
        "false_picks_on_empty": [["empty", 0], ["empty", 3], ["carbon", 6]],
        "f1_filled": 0.81,
        "f1_filled_alone": 0.9,
        "f1_by_kind": {"full": 0.81},
        "kept": 40,
        "right": 30,
        "judged": 40,
        "precision": 0.75,
        "expected_precision": 0.85,
        "expected_low": 0.7,
        "expected_high": 0.9,
        "measured_over_true_diameter": None,
        "core_seconds": 5.0,
        **changes,
    }


def test_false_picks_are_averaged_over_the_micrographs_without_particles():
    assert false_per_empty(entry()) == 3.0


def test_a_picker_that_promises_too_much_has_a_positive_gap():
    assert precision_gap(entry()) == pytest.approx(0.1)


def test_the_table_tells_mean_and_worst_session_and_what_was_lost():
    better = entry(false_picks_on_empty=[["empty", 1]], f1_filled=0.9, precision=0.9, right=36)
    sessions = {
        f"judge-{name}-easy-mostly-empty": {"general": {"given": one, "measured": one}}
        for name, one in (("rod", entry()), ("ring", better))
    }
    row = next(line for line in as_markdown({"judge": sessions}).splitlines() if line.startswith("| general | given"))
    columns = [column.strip() for column in row.strip("| ").split("|")]
    assert columns[2:7] == ["2", "2.00", "3.0", "0.855", "0.900"]
    assert columns[7:12] == ["0.090", "0.900", "0.825", "0.850", "0.025"]  # loss, share kept, precision, expected, gap
    assert columns[12] == "0.100"
    assert columns[13] == "2 of 2, width 0.200"


def test_a_picker_without_picks_or_probabilities_leaves_its_columns_empty():
    none = {
        **entry(precision=None, expected_precision=None, expected_low=None, expected_high=None),
        **{"kept": 0, "right": 0, "judged": 0, "f1_filled": 0.0, "f1_filled_alone": 0.0},
    }
    sessions = {"judge-rod-easy-mostly-empty": {"blob": {"given": none, "measured": none}}}
    row = next(line for line in as_markdown({"judge": sessions}).splitlines() if line.startswith("| blob | given"))
    assert [column.strip() for column in row.split("|")[9:15]] == [""] * 6


def test_the_full_benchmark_is_24_sessions_and_8_of_each_special_arrangement():
    wanted = Namespace(sessions="judge", levels=["easy", "medium", "hard"], proteins=range(8))
    counts = [len(chosen_sessions(Namespace(**vars(wanted), arrangements=[one]))) for one in ARRANGEMENTS]
    assert counts == [24, 8, 8]
