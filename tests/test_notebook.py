"""Picks in a notebook: a short table, and a DataFrame for those who have pandas."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from notebooks import shown_by

import cryopick
from cryopick import Micrograph, Picks
from cryopick.errors import InputError, MissingExtraError, NotARunFolderError, SettingsError
from cryopick.simulation.sample import write_sample

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


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


def seen(picture: Any) -> np.ndarray:
    """(h, w, 3) BGR, decoded from what a notebook is given."""
    return cv2.imdecode(np.frombuffer(picture._repr_png_(), np.uint8), cv2.IMREAD_COLOR)


def green(image: np.ndarray) -> np.ndarray:
    blue, middle, red = (image[..., channel].astype(int) for channel in range(3))
    return (middle > red + 60) & (middle > blue + 40)


def test_a_micrograph_draws_itself_stretched_and_binned_to_the_width() -> None:
    ramp = np.tile(np.linspace(-5, 900, 1800, dtype=np.float32), (600, 1))
    ramp[10, 10] = np.nan
    image = seen(Micrograph(ramp))
    assert image.shape == (300, 900, 3)
    assert image[150, 5, 0] == 0
    assert image[150, 895, 0] == 255
    assert abs(int(image[150, 450, 0]) - 128) < 4
    assert seen(Micrograph(ramp).draw(width_px=90)).shape == (30, 90, 3)


def test_picks_draw_a_circle_of_their_diameter_around_their_place_and_only_kept_ones() -> None:
    micrograph = Micrograph(np.zeros((200, 300), np.float32))
    two = Picks(xy_px=[[100, 60], [220, 150]], diameter_px=[40, 40], reason=["", "on junk"], shape_yx=(200, 300))
    y, x = np.nonzero(green(seen(two.draw(micrograph))))
    assert (abs(x.min() - 80), abs(x.max() - 120), abs(y.min() - 40), abs(y.max() - 80)) <= (2, 2, 2, 2)
    assert np.abs(np.hypot(x - 100, y - 60) - 20).max() < 2
    amber = seen(two.draw(micrograph, rejected=True))[150, 195:206]
    assert (amber[:, 2].astype(int) > amber[:, 0] + 100).any()
    with pytest.raises(SettingsError, match="give the micrograph that they were picked on"):
        two.draw(Micrograph(np.zeros((300, 200), np.float32)))


def test_picks_show_where_they_are_even_without_their_micrograph() -> None:
    html = Picks(xy_px=[[10.0, 20.0]], diameter_px=[8.0], shape_yx=(100, 200))._repr_html_()
    assert 'viewBox="0 0 200 100"' in html
    assert '<circle cx="10.5" cy="20.5" r="4.0"' in html


def test_an_opened_run_holds_what_was_picked_at_its_threshold(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    write_sample(tmp_path, count=2)
    summary = cryopick.pick(tmp_path / "micrographs", "blob", output=tmp_path / "run", diameter="140A")
    run = cryopick.open_run(tmp_path / "run")
    first, second = run
    assert sum(len(picks.kept()) for picks in run.values()) == summary.particles == run.summary["particles"]
    assert run.micrograph(first).pixels.shape == run[first].shape_yx
    assert green(seen(run.draw(first))).any()
    frame = run.to_dataframe()
    assert (frame["reason"] == "").sum() == summary.particles
    assert set(frame["micrograph"]) == {first, second}
    assert f"<td>{first}</td>" in run._repr_html_()
    cryopick.rethreshold(tmp_path / "run", float(run[first].kept().score.max()))
    assert len(cryopick.open_run(tmp_path / "run")[first].kept()) < len(run[first].kept())
    with pytest.raises(InputError, match=r"no finished micrograph 'other\.mrc'; it has: "):
        run["other.mrc"]
    with pytest.raises(NotARunFolderError):
        cryopick.open_run(tmp_path / "micrographs")


def test_simulate_takes_the_words_of_the_command_line(tmp_path: Path) -> None:
    words = {"structure": "random", "size": "128x160", "pixel_size": 4.0, "dose": 40, "seed": 5}
    made = cryopick.simulate(tmp_path / "sim", count=1, **words)
    (path,) = (made.folder / "micrographs").glob("*.mrc")
    assert cryopick.read_micrograph(path).shape_yx == (128, 160)
    with pytest.raises(SettingsError, match=r"simulate has no setting sice; it has: .*size"):
        cryopick.simulate(tmp_path / "other", sice="1x1")
    with pytest.raises(SettingsError, match="both set the dose"):
        cryopick.simulate(tmp_path / "other", dose=40, snr=9)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_notebook_of_the_gallery_runs_and_what_its_cells_end_with_can_be_shown(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    assert not any(
        cell.get("outputs") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    )  # they would age
    shown = 0
    for value in shown_by(path):
        for draw in ("_repr_png_", "_repr_html_"):
            if hasattr(value, draw):
                assert getattr(value, draw)()
                shown += 1
    assert shown >= 5
