"""Boxes cut by hand, RELION's extraction, half sets that share nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryopick.errors import InputError, SettingsError
from cryopick.io.coordinates.formats import write_picks
from cryopick.io.images.micrographs import write_micrograph
from cryopick.processing.ctf import CtfParameters, ctf_2d
from cryopick.reconstruction.fourier_images import FrequencyPixels
from cryopick.reconstruction.halves import overlapping_groups, split_half_sets
from cryopick.reconstruction.particles import ContrastTransfer, extract_particles, good_box
from cryopick.types import Micrograph, Picks

CENTRES_XY = np.array([[60.0, 44.0], [120.0, 71.0], [201.0, 90.0], [88.0, 150.0]])


def textured(seed: int = 0) -> np.ndarray:
    """(200, 260) noise of all frequencies on a slope."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :260]
    noise = rng.normal(size=(200, 260)) + np.kron(rng.normal(size=(50, 65)), np.ones((4, 4)))
    return (10 + 0.02 * x - 0.03 * y + noise).astype(np.float32)


def test_box_is_the_pixels_around_its_pick_with_the_slope_taken_off() -> None:
    image = textured()
    boxes, kept = extract_particles(image, CENTRES_XY, box_px=40, scaled_px=40, background_radius_px=15, invert=False)
    np.testing.assert_array_equal(kept, np.arange(4))
    for box, (x, y) in zip(boxes, CENTRES_XY.astype(int), strict=True):
        raw = image[y - 20 : y + 20, x - 20 : x + 20].astype(float)
        yy, xx = np.mgrid[-20:20, -20:20]
        outside = xx**2 + yy**2 > 15**2
        plane = np.stack([xx[outside], yy[outside], np.ones(outside.sum())], axis=1)
        fit = np.linalg.lstsq(plane, raw[outside], rcond=None)[0]
        flat = raw - (fit[0] * xx + fit[1] * yy + fit[2])
        np.testing.assert_allclose(box, flat / flat[outside].std(), atol=1e-4)


def test_inverted_boxes_are_the_negative_and_fractions_are_rounded() -> None:
    keywords = {"box_px": 40, "scaled_px": 32, "background_radius_px": 12}
    dark, _ = extract_particles(textured(), CENTRES_XY, invert=False, **keywords)
    bright, _ = extract_particles(textured(), CENTRES_XY + np.array([0.4, -0.4]), **keywords)
    np.testing.assert_array_equal(bright, -dark)


def test_boxes_over_the_border_are_left_out_unless_little_is_missing() -> None:
    image = textured()
    centres = np.array([[20.0, 100.0], [15.0, 100.0], [130.0, 184.0], [130.0, 100.0]])
    keywords = {"box_px": 40, "scaled_px": 40, "background_radius_px": 15, "invert": False}
    _, kept = extract_particles(image, centres, **keywords)
    np.testing.assert_array_equal(kept, [0, 3])
    boxes, kept = extract_particles(image, centres, overhang_px=5, **keywords)
    np.testing.assert_array_equal(kept, [0, 1, 2, 3])
    np.testing.assert_allclose(np.diff(boxes[1][:, :6], axis=1), boxes[1][:, 1:6] - boxes[1][:, :5])
    # The five missing columns repeat the first one: before the plane is taken off they are equal
    second = np.diff(boxes[1][:, :6], n=2, axis=1)
    np.testing.assert_allclose(second, 0, atol=1e-4)


def test_impossible_boxes_and_pixels_are_refused_with_a_way_out() -> None:
    image = textured()
    with pytest.raises(SettingsError, match="box of 41 px: expected an even number of at least 8; 42 would do"):
        extract_particles(image, CENTRES_XY, box_px=41, scaled_px=32, background_radius_px=12)
    with pytest.raises(SettingsError, match="cannot be scaled up"):
        extract_particles(image, CENTRES_XY, box_px=32, scaled_px=40, background_radius_px=12)
    image[3, 3] = np.nan
    with pytest.raises(SettingsError, match="1 pixels that are not finite"):
        extract_particles(image, CENTRES_XY, box_px=40, scaled_px=32, background_radius_px=12)


def test_good_boxes_have_small_factors() -> None:
    assert [good_box(one) for one in (81, 84, 85, 95.2, 3, 121.999999999999)] == [84, 84, 90, 96, 8, 126]


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="needs RELION's relion_preprocess")
def test_extraction_is_that_of_relion_preprocess(tmp_path: Path) -> None:
    micrograph = Micrograph(textured(), name="mics/m1.mrc", pixel_size_angstrom=4.0)
    write_micrograph(tmp_path / micrograph.name, micrograph)
    near_border = np.concatenate([CENTRES_XY, [[17.0, 100.0]]])
    picks = Picks(xy_px=near_border, score=np.ones(5), micrograph_name=micrograph.name, shape_yx=(200, 260))
    write_picks([picks], tmp_path / "picks", format="star")
    (tmp_path / "micrographs.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnMicrographPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n"
        "g1 1 4.0 300 2.7 0.1\n\n# version 30001\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n"
        f"_rlnOpticsGroup #2\n{micrograph.name} 1\n\n"
    )
    command = (
        "relion_preprocess --i micrographs.star --coord_dir picks/ --coord_suffix _picks.star --extract "
        "--extract_size 42 --scale 30 --norm --bg_radius 11 --invert_contrast --part_star p.star --part_dir Extract/"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (path,) = (tmp_path / "Extract").rglob("*.mrcs")
    theirs = np.asarray(mrcfile.read(path))
    ours, kept = extract_particles(
        micrograph, near_border, box_px=42, scaled_px=30, background_radius_px=11, overhang_px=10
    )
    assert len(kept) == len(theirs) == 5
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, theirs, strict=True)]
    assert min(correlation) > 0.999, correlation
    np.testing.assert_allclose(ours.std(axis=(1, 2)) / theirs.std(axis=(1, 2)), 1, atol=0.01)


def test_transfer_is_that_of_each_particles_micrograph_with_protein_bright() -> None:
    optics = [
        CtfParameters(defocus_u_um=1.5, defocus_v_um=1.2, astigmatism_angle_deg=20, b_factor_angstrom2=50),
        CtfParameters(defocus_u_um=2.5, defocus_v_um=2.5, voltage_kv=200, phase_shift_deg=60),
    ]
    which = np.array([1, 0, 1])
    transfer = ContrastTransfer.of_micrographs(optics, which)
    pixels = FrequencyPixels(24, 12)
    found = transfer.at(*(pixels.xy / (24 * 5.0)))
    for row, number in zip(found, which, strict=True):
        expected = -ctf_2d((24, 24), 5.0, optics[number]).ravel()[pixels.index]
        np.testing.assert_allclose(row, expected, atol=1e-4)
    assert found[:, 0].min() > 0


def test_with_many_micrographs_whole_ones_are_dealt_out_whatever_was_picked() -> None:
    rng = np.random.default_rng(0)
    micrograph = rng.integers(0, 9, size=300)
    half = split_half_sets(micrograph, rng.uniform(0, 900, size=(300, 2)), 60, 9, seed=4)
    of_micrograph = {number: set(half[micrograph == number].tolist()) for number in range(9)}
    assert all(len(found) == 1 for found in of_micrograph.values())
    assert sorted(sum(number in found for found in of_micrograph.values()) for number in (1, 2)) == [4, 5]
    fewer = rng.permutation(300)[:80]
    again = split_half_sets(micrograph[fewer], np.zeros((80, 2)), 60, 9, seed=4)
    np.testing.assert_array_equal(again, half[fewer])


def test_with_few_micrographs_overlapping_boxes_stay_together_and_halves_are_even() -> None:
    rng = np.random.default_rng(1)
    micrograph, centres = np.repeat([0, 1], 60), rng.uniform(0, 2500, size=(120, 2))
    half = split_half_sets(micrograph, centres, 90, 2, seed=0)
    apart = np.abs(centres[:, None] - centres[None]).max(axis=2)
    touches = (apart < 90) & (micrograph[:, None] == micrograph[None])
    assert touches.sum() > 140
    assert not (touches & (half[:, None] != half[None])).any()
    assert abs((half == 1).sum() - 60) <= 3


def test_a_crowded_micrograph_is_cut_into_parts() -> None:
    centres = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2) * 50.0
    groups = overlapping_groups(np.zeros(144, dtype=int), centres, 60)
    assert sorted(np.concatenate(groups)) == list(range(144))
    assert max(len(rows) for rows in groups) <= 36
    half = split_half_sets(np.zeros(144, dtype=int), centres, 60, 1, seed=0)
    assert (half == 1).sum() == (half == 2).sum() == 72


def test_too_few_particles_for_two_halves_are_refused() -> None:
    with pytest.raises(InputError, match="1 particles give no two half sets"):
        split_half_sets([0], [[5.0, 5.0]], 60, 3, seed=0)
