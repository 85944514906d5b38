"""The blob picker: hollow and solid particles, ranges of diameters, noise, and real micrographs."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from real_data import REAL
from scipy.optimize import linear_sum_assignment

from cryopick.errors import SettingsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.pickers.blob import BlobPicker
from cryopick.types import Micrograph


def pixels(low: float, high: float | None = None) -> Length:
    return Length(low, high or low, "px")


def kept(picker: BlobPicker, micrograph: Micrograph):
    return select(picker.pick(micrograph), SelectionSettings(), threshold=picker.default_threshold).kept()


def test_rings_are_marked_at_their_centres_not_on_their_rims(draw_particles, count_found):
    micrograph, true_xy = draw_particles(diameter_px=40, hole=0.65, spacing=1.4, shape_yx=(400, 400))
    picks = kept(BlobPicker(diameter=pixels(40)), micrograph)
    assert count_found(picks.xy_px, true_xy, 4) >= 0.95 * len(true_xy)
    assert len(picks) <= 1.05 * len(true_xy)


def test_centres_are_right_to_a_twentieth_of_a_diameter(draw_particles):
    micrograph, true_xy = draw_particles(diameter_px=60, contrast=2.0, shape_yx=(600, 600))
    picks = kept(BlobPicker(diameter=pixels(60)), micrograph)
    gaps = np.hypot(*(picks.xy_px[None] - true_xy[:, None]).transpose(2, 0, 1)).min(axis=1)
    assert np.median(gaps) < 3


def test_centres_have_no_common_offset(draw_particles):
    # an offset of half a pixel of the shrunken image would be two and a half stored pixels here
    micrograph, true_xy = draw_particles(diameter_px=60, contrast=3.0, shape_yx=(601, 727))
    picks = kept(BlobPicker(diameter=pixels(60)), micrograph)
    nearest = np.hypot(*(picks.xy_px[None] - true_xy[:, None]).transpose(2, 0, 1)).argmin(axis=1)
    offset = (picks.xy_px[nearest] - true_xy).mean(axis=0)
    np.testing.assert_allclose(offset, 0, atol=0.6)


@pytest.mark.parametrize("diameter_px", [25.0, 60.0, 200.0])
def test_white_noise_gives_almost_no_picks(diameter_px):
    noise = Micrograph(np.random.default_rng(7).normal(size=(1000, 1000)))
    places = 1000**2 / diameter_px**2
    assert len(kept(BlobPicker(diameter=pixels(diameter_px)), noise)) <= 0.003 * places + 1


def test_the_score_of_noise_is_in_its_standard_deviations():
    noise = Micrograph(np.random.default_rng(3).normal(size=(1500, 1500)))
    score = BlobPicker(diameter=pixels(30), profile="disc").pick(noise).score
    # of n independent draws of a normal distribution the largest is near sqrt(2 log n); here n is a few thousand
    assert 3.2 < score.max() < 4.8


def test_a_strong_gradient_a_dark_edge_and_hot_pixels_hide_nothing(draw_particles, count_found):
    micrograph, true_xy = draw_particles(shape_yx=(500, 500), contrast=1.5)
    y, x = np.mgrid[:500, :500]
    spoilt = micrograph.pixels + 0.05 * x - 8.0 * (y > 400)
    spoilt[::97, ::89] += 1e4
    picks = kept(BlobPicker(diameter=pixels(30)), replace(micrograph, pixels=spoilt))
    on_ice = true_xy[true_xy[:, 1] < 350]
    assert count_found(picks.xy_px, on_ice, 5) >= 0.9 * len(on_ice)


def test_a_flat_patch_gets_no_picks(draw_particles):
    micrograph, _ = draw_particles(shape_yx=(500, 500))
    spoilt = micrograph.pixels.copy()
    spoilt[:, 300:] = spoilt.mean()
    spoilt[:, 300:] += 1e-3 * np.random.default_rng(0).normal(size=(500, 200)).astype(np.float32)
    picks = kept(BlobPicker(diameter=pixels(30)), replace(micrograph, pixels=spoilt))
    assert not (picks.xy_px[:, 0] > 330).any()


def test_a_range_of_diameters_finds_both_sizes_and_tells_them_apart(draw_particles, count_found):
    small, small_xy = draw_particles(diameter_px=24, contrast=2.0, shape_yx=(400, 300))
    large, large_xy = draw_particles(diameter_px=48, contrast=2.0, shape_yx=(400, 300), seed=2)
    both = Micrograph(np.hstack([small.pixels, large.pixels]))
    picks = kept(BlobPicker(diameter=pixels(22, 52), profile="disc"), both)
    large_xy = large_xy + np.array([300, 0])
    assert count_found(picks.xy_px, small_xy, 5) >= 0.9 * len(small_xy)
    assert count_found(picks.xy_px, large_xy, 8) >= 0.9 * len(large_xy)
    is_left = picks.xy_px[:, 0] < 300
    assert 20 < np.median(picks.diameter_px[is_left]) < 30
    assert 40 < np.median(picks.diameter_px[~is_left]) < 55


def test_the_profile_follows_the_particles(draw_particles):
    rings, _ = draw_particles(diameter_px=40, hole=0.65, spacing=1.4, shape_yx=(400, 400))
    cores, _ = draw_particles(diameter_px=16, spacing=4, shape_yx=(400, 400), contrast=2.0)
    picker = BlobPicker(diameter=pixels(40))
    assert picker.survey([rings]).radial_profile in ("shell", "thin-shell")
    assert picker.survey([cores]).radial_profile in ("small-core", "core")
    disc = BlobPicker(diameter=pixels(40), profile="disc")
    asked, misled = disc.pick(rings, disc.survey([rings])), disc.pick(rings, picker.survey([rings]))
    np.testing.assert_array_equal(asked.xy_px, misled.xy_px)  # what is asked goes before what is seen


def test_with_and_without_a_survey_agree_on_a_single_micrograph(draw_particles):
    micrograph, _ = draw_particles()
    picker = BlobPicker(diameter=pixels(30))
    seen = picker.survey([micrograph])
    np.testing.assert_array_equal(picker.pick(micrograph, seen).xy_px, picker.pick(micrograph).xy_px)


def test_a_missing_or_impossible_diameter_is_refused_with_the_remedy():
    micrograph = Micrograph(np.zeros((50, 50)), name="a.mrc")
    with pytest.raises(SettingsError, match="--diameter"):
        BlobPicker().pick(micrograph)
    with pytest.raises(SettingsError, match="--pixel-size"):
        BlobPicker(diameter=Length(100, 100, "A")).pick(micrograph)
    with pytest.raises(SettingsError, match=r"a\.mrc.*4 px"):
        BlobPicker(diameter=pixels(2)).pick(micrograph)
    with pytest.raises(SettingsError, match="thin-shell"):
        BlobPicker(profile="hollow")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("name", "least_f1"), [("bgal10017", 0.78), ("apoferritin", 0.80)])
def test_f1_on_real_micrographs_at_the_default_threshold(name, least_f1):
    if not (REAL / name).is_dir():
        pytest.skip("the real labelled micrographs are not on this machine")
    import cv2

    diameter_px = json.loads((REAL / name / "set.json").read_text())["diameter_px"]
    picker = BlobPicker(diameter=pixels(diameter_px))
    hits = false = missed = 0
    for path in sorted((REAL / name).glob("*.csv")):
        image = next(p for p in path.parent.glob(path.stem + ".*") if p.suffix in (".png", ".jpg"))
        picks = kept(picker, Micrograph(cv2.imread(str(image), cv2.IMREAD_UNCHANGED)))
        rows = list(csv.DictReader(path.read_text().splitlines()))
        xy = {
            kind: np.array([(float(r["x"]), float(r["y"])) for r in rows if r["kind"] == kind]).reshape(-1, 2)
            for kind in ("particle", "uncertain")
        }
        gaps = {kind: np.hypot(*(picks.xy_px[:, None] - to[None]).transpose(2, 0, 1)) for kind, to in xy.items()}
        is_near = gaps["particle"] <= 0.25 * diameter_px
        pick, truth = linear_sum_assignment(is_near, maximize=True)
        is_hit = np.zeros(len(picks), bool)
        is_hit[pick[is_near[pick, truth]]] = True
        is_ignored = (gaps["uncertain"] <= 0.25 * diameter_px).any(axis=1) & ~is_hit
        hits += is_hit.sum()
        missed += len(xy["particle"]) - is_hit.sum()
        false += (~is_hit & ~is_ignored).sum()
    assert 2 * hits / (2 * hits + false + missed) >= least_f1
