"""References: contrast, diameter, rotation about pixel s // 2, and directions that cover the sphere."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.geometry.rotations import euler_to_matrix
from cryopick.pickers.template.images import (
    angle_count,
    estimate_diameter_px,
    is_bright,
    rotated_templates,
    subtract_rim,
    view_directions,
)


def disc(size_px, diameter_px, *, centre=None):
    middle = size_px // 2 if centre is None else centre
    y, x = np.mgrid[:size_px, :size_px] - middle
    return np.clip(diameter_px / 2 - np.hypot(x, y) + 0.5, 0, 1).astype(np.float32)


@pytest.mark.parametrize("size_px", [64, 65])
@pytest.mark.parametrize("diameter_px", [20, 40])
def test_the_diameter_of_a_noisy_disc_is_measured(size_px, diameter_px):
    noise = np.random.default_rng(0).normal(size=(5, size_px, size_px))
    references = subtract_rim((disc(size_px, diameter_px) + 0.1 * noise + 7).astype(np.float32))
    assert estimate_diameter_px(references) == pytest.approx(diameter_px, abs=3)


def test_a_blank_reference_has_no_diameter():
    assert estimate_diameter_px(np.zeros((2, 32, 32), np.float32)) == 0


def test_the_contrast_is_that_of_the_particle_not_of_its_halo():
    halo = disc(64, 60) - disc(64, 22)
    particle = disc(64, 20) - 0.25 * halo
    references = subtract_rim(particle[None] + 3)
    assert is_bright(references)
    assert not is_bright(-references)


def test_no_rotation_at_unit_scale_returns_the_reference_about_its_centre():
    reference = np.random.default_rng(0).normal(size=(1, 20, 20)).astype(np.float32)
    (template,) = rotated_templates(reference, factor=1.0, reach_px=6, step_deg=360)
    np.testing.assert_allclose(template, reference[0, 4:17, 4:17], atol=1e-5)


def test_quarter_turns_are_exact_and_keep_the_centre():
    reference = np.zeros((1, 21, 21), np.float32)
    reference[0, 10, 10] = 1
    reference[0, 10, 14] = 2  # four pixels to the right
    templates = list(rotated_templates(reference, factor=1.0, reach_px=5, step_deg=90))
    assert len(templates) == angle_count(90) == 4
    seen = set()
    for template in templates:
        assert template[5, 5] == pytest.approx(1, abs=1e-4)
        seen.add(tuple(int(i) for i in np.unravel_index(template.argmax(), template.shape)))
    assert seen == {(5, 9), (9, 5), (5, 1), (1, 5)}


@pytest.mark.parametrize("size_px", [64, 65])
@pytest.mark.parametrize("factor", [0.25, 0.6, 1.5])
def test_resampling_scales_the_particle_and_keeps_it_centred(size_px, factor):
    reference = disc(size_px, 40)[None]
    reach_px = int(30 * factor)
    (template,) = rotated_templates(reference, factor=factor, reach_px=reach_px, step_deg=360)
    assert 2 * np.sqrt(template.sum() / np.pi) == pytest.approx(40 * factor, rel=0.03)
    y, x = np.mgrid[: len(template), : len(template)] - reach_px
    assert (template * x).sum() / template.sum() == pytest.approx(0, abs=0.02)
    assert (template * y).sum() / template.sum() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("step_deg", [15.0, 30.0, 60.0])
def test_every_direction_has_a_view_within_about_the_step(step_deg):
    views = euler_to_matrix(view_directions(step_deg))[:, 2]  # the viewing axis in the map's frame
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    nearest_deg = np.degrees(np.arccos(np.clip((directions @ views.T).max(axis=1), -1, 1)))
    assert nearest_deg.max() < step_deg
    assert len(views) < 1.2 * 4 * np.pi / np.radians(step_deg) ** 2 + 2
