"""Which 2D classes a file keeps, and what the table says of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import FormatError, InputError
from cryopick.workflows.validate3d.selection import chosen_classes, class_facts, classes_csv
from cryopick.workflows.validate3d.truth import MatchedPicks


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "good.txt"
    path.write_text(text)
    return path


def test_a_file_keeps_classes_of_each_run(tmp_path: Path) -> None:
    path = written(tmp_path, "# mine\nblob: 1, 2 5\n\ngeneral: 3 # the only one\n")
    assert chosen_classes(path, ["general", "blob"]) == {"blob": (1, 2, 5), "general": (3,)}
    assert chosen_classes(written(tmp_path, "4 7\n"), ["general"]) == {"general": (4, 7)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 2\n", "line 1: says no run"),
        ("blog: 1\n", "line 1: run 'blog' is unknown; known: general, blob"),
        ("blob: 1\ngeneral: one\n", "line 2: expected class numbers, got 'one'"),
        ("blob: 1\n", "keeps no classes of general"),
    ],
)
def test_what_a_file_leaves_open_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        chosen_classes(written(tmp_path, text), ["general", "blob"])


def test_a_missing_file_is_told_what_the_option_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected none, auto, or a file"):
        chosen_classes(tmp_path / "ato", ["general"])


def test_with_known_truth_each_class_says_what_share_of_it_is_particles() -> None:
    known = MatchedPicks(
        is_true=np.array([True, True, False, True]),
        euler_deg=np.zeros((4, 3)),
        centre_px=np.zeros((4, 2)),
        counts=np.ones(4, bool),
        pickable=4,
    )
    facts = class_facts(np.array([0, 0, 2, 2]), [3.0, 0.0, np.nan], [True, False, False], ["a", "b", "c"], known)
    assert [(one.number, one.particles, one.precision) for one in facts] == [(1, 2, 1.0), (2, 0, None), (3, 2, 0.5)]
    assert classes_csv(facts).splitlines()[1] == "1,2,3,1,a,1.0000"
