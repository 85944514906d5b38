"""The template picker: orientation, contrast, pixel sizes, maps, and references that cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.io.images.mrc import write_mrc
from cryopick.pickers.template.picker import TemplatePicker
from cryopick.types import Micrograph

LENGTH_PX, WIDTH_PX = 40, 14


def bar(size_px, angle_deg, *, centre_xy, length_px=LENGTH_PX, width_px=WIDTH_PX):
    """1 inside a bar with one thick end, so that no rotation but the full turn maps it onto itself."""
    y, x = np.mgrid[: size_px[0], : size_px[1]]
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    along = cosine * (x - centre_xy[0]) + sine * (y - centre_xy[1])
    across = -sine * (x - centre_xy[0]) + cosine * (y - centre_xy[1])
    half_width = np.where(along > 0, width_px, width_px / 2)
    return ((np.abs(along) <= length_px / 2) & (np.abs(across) <= half_width)).astype(np.float32)


@pytest.fixture
def bars():
    """A micrograph of dark bars at many angles between dark discs of equal area, and the bars' centres."""
    rng = np.random.default_rng(5)
    shape = (460, 620)
    pixels = rng.normal(size=shape)
    bars_xy, discs_xy = [], []
    y, x = np.mgrid[: shape[0], : shape[1]]
    for i, (centre_y, centre_x) in enumerate(np.ndindex(5, 7)):
        xy = np.array([centre_x, centre_y]) * 85 + 50 + rng.uniform(-5, 5, 2)
        if i % 2:
            pixels -= 1.2 * bar(shape, 37.0 * i, centre_xy=xy)
            bars_xy.append(xy)
        else:
            pixels -= 1.2 * (np.hypot(x - xy[0], y - xy[1]) <= 16)
            discs_xy.append(xy)
    return Micrograph(pixels, pixel_size_angstrom=2.0), np.array(bars_xy), np.array(discs_xy)


@pytest.fixture
def references(tmp_path):
    path = tmp_path / "bar.mrcs"
    write_mrc(path, bar((64, 64), 0.0, centre_xy=(32, 32))[None], pixel_size_angstrom=2.0)
    return path


def kept(picker, micrograph, threshold=None):
    chosen = picker.default_threshold if threshold is None else threshold
    return select(picker.pick(micrograph), SelectionSettings(), threshold=chosen).kept()


def nearest_px(picks, xy):
    return np.hypot(*(picks.xy_px[None] - xy[:, None]).transpose(2, 0, 1)).min(axis=1)


def test_particles_at_any_angle_are_found_at_their_reference_centre(bars, references):
    micrograph, bars_xy, _ = bars
    picks = kept(TemplatePicker(references=references), micrograph)
    assert (nearest_px(picks, bars_xy) < 3).mean() >= 0.95


def test_the_shape_tells_bars_from_discs(bars, references):
    micrograph, bars_xy, discs_xy = bars
    picks = TemplatePicker(references=references).pick(micrograph)
    best_at = [
        [picks.score[np.hypot(*(picks.xy_px - xy).T) < 12].max(initial=0) for xy in group]
        for group in (bars_xy, discs_xy)
    ]
    assert np.quantile(best_at[0], 0.1) > np.quantile(best_at[1], 0.9)


def test_contrast_of_the_references_is_recognised_and_can_be_set(bars, references, tmp_path):
    micrograph, _, _ = bars
    expected = TemplatePicker(references=references).pick(micrograph)
    dark = tmp_path / "dark.mrcs"
    write_mrc(dark, 5 - bar((64, 64), 0.0, centre_xy=(32, 32))[None], pixel_size_angstrom=2.0)
    for picker in (
        TemplatePicker(references=dark),
        TemplatePicker(references=dark, references_contrast="dark"),
        TemplatePicker(references=references, references_contrast="bright"),
    ):
        found = picker.pick(micrograph)
        np.testing.assert_allclose(found.xy_px, expected.xy_px, atol=1e-2)
    wrong = kept(TemplatePicker(references=references, references_contrast="dark"), micrograph)
    assert len(wrong) < 0.2 * len(kept(TemplatePicker(references=references), micrograph))


def test_references_of_another_pixel_size_are_resampled(bars, tmp_path):
    micrograph, bars_xy, _ = bars
    path = tmp_path / "binned.mrcs"
    small = bar((40, 40), 0.0, centre_xy=(20, 20), length_px=LENGTH_PX / 2, width_px=WIDTH_PX / 2)
    write_mrc(path, small[None], pixel_size_angstrom=4.0)
    picks = kept(TemplatePicker(references=path), micrograph)
    assert (nearest_px(picks, bars_xy) < 4).mean() >= 0.9
    assert not picks.warnings


def test_an_unknown_pixel_size_is_said_aloud(bars, references):
    micrograph, bars_xy, _ = bars
    picks = kept(TemplatePicker(references=references), replace(micrograph, pixel_size_angstrom=None))
    assert any("pixel size" in sentence for sentence in picks.warnings)
    assert (nearest_px(picks, bars_xy) < 3).mean() >= 0.95


def test_class_id_names_the_reference_that_fits_best(bars, tmp_path):
    micrograph, bars_xy, discs_xy = bars
    y, x = np.mgrid[:64, :64] - 32
    stack = np.stack([bar((64, 64), 0.0, centre_xy=(32, 32)), (np.hypot(x, y) <= 16).astype(np.float32)])
    path = tmp_path / "both.mrcs"
    write_mrc(path, stack, pixel_size_angstrom=2.0)
    picks = kept(TemplatePicker(references=path), micrograph)
    for group, expected in ((bars_xy, 0), (discs_xy, 1)):
        nearest = np.hypot(*(picks.xy_px[None] - group[:, None]).transpose(2, 0, 1)).argmin(axis=1)
        assert np.mean(picks.class_id[nearest] == expected) > 0.8


def test_a_flat_carbon_sheet_scores_nothing(bars, references):
    micrograph, _, _ = bars
    pixels = micrograph.pixels.copy()
    pixels[:, 400:] = -4 + 0.01 * np.random.default_rng(0).normal(size=(460, 220))
    picks = kept(TemplatePicker(references=references), replace(micrograph, pixels=pixels), threshold=2.5)
    assert not (picks.xy_px[:, 0] > 430).any()


def test_projections_of_a_map_find_its_views(tmp_path):
    # a rod: seen from the side a bar, from its end a spot
    z, y, x = np.mgrid[:48, :48, :48] - 24
    rod = ((np.abs(z) <= 18) & (np.hypot(x, y) <= 6)).astype(np.float32)
    path = tmp_path / "rod.mrc"
    write_mrc(path, rod, pixel_size_angstrom=2.0, is_volume=True)
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(300, 300))
    true_xy = np.array([[80, 90], [210, 80], [90, 210], [220, 220]])
    for xy, angle in zip(true_xy, (0, 30, 75, 120), strict=True):
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        row, column = np.mgrid[:300, :300]
        along = cosine * (column - xy[0]) + sine * (row - xy[1])
        across = -sine * (column - xy[0]) + cosine * (row - xy[1])
        pixels -= 2 * ((np.abs(along) <= 18) & (np.abs(across) <= 6))
    picker = TemplatePicker(references=path, view_step_deg=45, rotation_step_deg=15)
    picks = kept(picker, Micrograph(pixels, pixel_size_angstrom=2.0))
    assert (nearest_px(picks, true_xy) < 3).all()
    assert len(picks) <= 6


def test_changed_references_are_read_again(bars, references):
    micrograph, _, _ = bars
    picker = TemplatePicker(references=references)
    before = picker.pick(micrograph)
    y, x = np.mgrid[:64, :64] - 32
    write_mrc(references, (np.hypot(x, y) <= 16)[None].astype(np.float32), pixel_size_angstrom=2.0)
    assert not np.array_equal(before.score, picker.pick(micrograph).score)


def test_unusable_references_are_refused_with_the_remedy(tmp_path):
    micrograph = Micrograph(np.zeros((50, 50)), name="a.mrc", pixel_size_angstrom=2.0)
    with pytest.raises(SettingsError, match="--references"):
        TemplatePicker().pick(micrograph)
    with pytest.raises(InputError, match=r"absent\.mrcs"):
        TemplatePicker(references=tmp_path / "absent.mrcs").pick(micrograph)
    blank = tmp_path / "blank.mrcs"
    write_mrc(blank, np.zeros((3, 32, 32), np.float32), pixel_size_angstrom=2.0)
    with pytest.raises(SettingsError, match="no reference shows a particle"):
        TemplatePicker(references=blank).pick(micrograph)
    oblong = tmp_path / "oblong.mrcs"
    write_mrc(oblong, np.ones((3, 32, 20), np.float32), pixel_size_angstrom=2.0)
    with pytest.raises(SettingsError, match="20 x 32"):
        TemplatePicker(references=oblong).pick(micrograph)
    tiny = tmp_path / "tiny.mrcs"
    write_mrc(tiny, bar((64, 64), 0, centre_xy=(32, 32))[None], pixel_size_angstrom=0.1)
    with pytest.raises(SettingsError, match="pixel sizes"):
        TemplatePicker(references=tiny).pick(micrograph)


@pytest.mark.parametrize(
    "wrong",
    [
        {"references_contrast": "white"},
        {"rotation_step_deg": 0.0},
        {"view_step_deg": float("nan")},
        {"references_pixel_size_angstrom": -1.0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        TemplatePicker(references=Path("x.mrcs"), **wrong)


def test_a_given_diameter_wins_over_the_measured_one(bars, references):
    micrograph, _, _ = bars
    picks = TemplatePicker(references=references, diameter=Length(100, 100, "A")).pick(micrograph)
    assert set(picks.diameter_px) == {50.0}
    measured = TemplatePicker(references=references).pick(micrograph)
    assert LENGTH_PX * 0.8 < measured.diameter_px[0] < LENGTH_PX * 1.4
