"""Picks in a notebook: a short table, and a DataFrame for those who have pandas."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cryopick import Picks
from cryopick.errors import MissingExtraError


def picks(name: str = "a.mrc") -> Picks:
    return Picks(
        xy_px=[[1.5, 2.0], [3.0, 4.0], [5.0, 6.0]],
        score=[0.2, 0.9, np.nan],
        diameter_px=[10, 12, 14],
        class_id=[0, 1, 0],
        reason=["below threshold", "", ""],
        micrograph_name=name,
    )


def test_a_notebook_shows_counts_and_the_best_picks_first() -> None:
    html = picks()._repr_html_()
    assert "<b>a.mrc</b>: 2 kept of 3 candidates; 1 below threshold" in html
    assert "<td>1</td><td>3.0</td><td>4.0</td><td>0.9</td><td>12</td>" in html
    assert html.index("0.9</td>") < html.index("nan</td>")


def test_a_notebook_shows_names_with_markup_as_text_and_no_picks_as_none() -> None:
    assert "<img" not in picks("<img src=x onerror=alert(1)>")._repr_html_()
    assert "0 kept of 0 candidates" in Picks(xy_px=np.zeros((0, 2)))._repr_html_()


def test_a_data_frame_has_a_row_for_each_candidate() -> None:
    pytest.importorskip("pandas")
    frame = picks().to_dataframe()
    assert list(frame.columns) == ["micrograph", "x_px", "y_px", "score", "diameter_px", "class_id", "reason"]
    assert frame["micrograph"].tolist() == ["a.mrc"] * 3
    assert frame["x_px"].tolist() == [1.5, 3.0, 5.0]
    assert frame[frame["reason"] == ""]["class_id"].tolist() == [1, 0]
    assert len(Picks(xy_px=np.zeros((0, 2))).to_dataframe()) == 0


def test_without_pandas_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"a table of picks needs pandas; install with: .*(pandas>=2|notebook)"):
        picks().to_dataframe()
