"""Refinement against the truth of simulated particles: poses, maps, and what half sets may not share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryopick.errors import SettingsError
from cryopick.geometry.rotations import rotation_angle_deg
from cryopick.metrics.fourier_shell_correlation import fourier_shell_correlation, resolution_at
from cryopick.reconstruction.filtering import low_passed, soft_sphere
from cryopick.reconstruction.fourier_images import fourier_images
from cryopick.reconstruction.gridding import reconstruct
from cryopick.reconstruction.matching import PolarParticles, References, score_blocks, shift_grid, view_directions
from cryopick.reconstruction.polar import PolarGrid, SliceSource, polar_images
from cryopick.reconstruction.polishing import polish
from cryopick.reconstruction.poses import Poses
from cryopick.reconstruction.refinement import refine
from cryopick.reconstruction.symmetry import operators
from cryopick.types import Volume

EDGE = {"box_px": 40, "pixel_size_angstrom": 9.0}


@pytest.fixture(scope="module")
def reference(ribosome, imaged_ribosome) -> np.ndarray:
    """The true volume in the scale of the images: contrast over the noise of one pixel."""
    stack, poses = imaged_ribosome
    found = reconstruct(stack, poses, is_masked=True).density
    return ribosome.density * float((found * ribosome.density).sum() / (ribosome.density**2).sum())


def test_angular_coefficients_hold_all_of_a_slice() -> None:
    rng = np.random.default_rng(0)
    images = np.zeros((2, 32, 32), dtype=np.float32)
    images[:, 11:22, 11:22] = rng.normal(size=(2, 11, 11))
    grid = PolarGrid.of_object(32, 12, 9.0)
    samples = polar_images(images, grid)
    np.testing.assert_allclose(grid.samples(grid.coefficients(samples)), samples, atol=0.02 * np.abs(samples).max())
    # A sample by its own sum over the image
    y, x = np.mgrid[-16:16, -16:16]
    kx, ky = grid.xy[:, 7, 5]
    by_hand = (images[1] * np.exp(-2j * np.pi * (kx * x + ky * y) / 32)).sum()
    assert abs(samples[1, 7, 5] - by_hand) < 0.03 * np.abs(samples).max()


def test_scores_are_log_likelihoods_of_the_images(imaged_ribosome, reference) -> None:
    """Every score against the sum over all pixels of the two-dimensional transform, term by term."""
    stack, _ = imaged_ribosome
    few = stack.take(np.arange(3))
    particles = PolarParticles.of_stack(few, 9)
    grid, noise = particles.grid, np.full(21, 40.0**2)
    views = view_directions(5)
    source = SliceSource(reference)
    offsets = shift_grid(1.0, 1.0)
    ((_, _, scores),) = score_blocks(
        particles,
        References.of_volume(source, views, grid),
        noise_power=noise,
        base_shifts_px=np.zeros((3, 2)),
        offsets_px=offsets,
    )
    images = fourier_images(few, radius_px=9.5)
    is_used = images.pixels.shell >= 2
    plane, particle, shift, view = 7, 1, 3, 2
    angles = [*views[view], grid.in_plane_deg[plane]]
    slice_ = source.slices(Poses.of_angles([angles]).rotations, images.pixels.xy)[0] * images.transfer[particle]
    moved = images.transforms[particle] * images.pixels.shift_factors(-offsets[shift : shift + 1])[0]
    terms = np.abs(moved) ** 2 - np.abs(moved - slice_) ** 2
    by_hand = float(terms[is_used].sum() / 40.0**2)
    assert scores[plane, particle, shift, view] == pytest.approx(by_hand, abs=0.05 * float(np.ptp(scores[:, particle])))


def test_polish_finds_the_true_pose_from_some_degrees_off(imaged_ribosome, reference) -> None:
    stack, truth = imaged_ribosome
    rng = np.random.default_rng(1)
    few = np.arange(60)
    off = Rotation.from_rotvec(np.radians(4) * rng.normal(size=(60, 3)) / np.sqrt(3)).as_matrix()
    start = Poses(
        rotations=off @ truth.rotations[few],
        shifts_px=truth.shifts_px[few] + rng.normal(0, 0.4, size=(60, 2)),
        score=np.zeros(60),
    )
    images = fourier_images(stack.take(few), radius_px=15.5)
    found = polish(images, SliceSource(reference), start, noise_power=np.full(21, 40.0**2))
    error = rotation_angle_deg(np.einsum("nij,nkj->nik", found.poses.rotations, truth.rotations[few]))
    assert np.median(error) < 1.6
    assert np.median(np.hypot(*(found.poses.shifts_px - truth.shifts_px[few]).T)) < 0.15
    # Its own estimate of that error is honest: about as large as what is seen
    expected = np.degrees(np.sqrt(np.linalg.inv(found.information)[:, :3, :3].trace(axis1=1, axis2=2)))
    assert 0.5 < np.median(error) / np.median(expected) < 2


def test_refinement_from_a_blurred_start_comes_near_to_the_known_poses(ribosome, imaged_ribosome) -> None:
    stack, truth = imaged_ribosome
    stack, truth = stack.take(np.arange(240)), truth.take(np.arange(240))
    sphere = soft_sphere(40, 240 / 9)
    known = fourier_shell_correlation(reconstruct(stack, truth, is_masked=True).density, ribosome.density, sphere)
    told: list[str] = []
    start = Volume(7 * low_passed(ribosome.density, 6), 9.0)  # of any scale
    found = refine(stack, 1 + stack.micrograph % 2, start, iterations=2, progress=told.append)
    assert len(told) == len(found.steps) <= 2
    first, last = found.steps[0].resolution_angstrom, found.steps[-1].resolution_angstrom
    assert last <= first
    curve = fourier_shell_correlation(found.map.density, ribosome.density, sphere)
    assert resolution_at(curve, 0.5, **EDGE) <= 1.05 * resolution_at(known, 0.5, **EDGE)
    error = rotation_angle_deg(np.einsum("nij,nkj->nik", found.poses.rotations, truth.rotations))
    assert np.median(error) < 3.5
    np.testing.assert_allclose(found.noise_power[5:12] / 40**2, 1, atol=0.15)
    # The half maps are what `reconstruct` makes of each half's poses
    again = reconstruct(
        stack.take(stack.micrograph % 2 == 1), found.poses.take(stack.micrograph % 2 == 1), is_masked=True
    )
    np.testing.assert_allclose(found.half2.density, again.density, atol=1e-3 * again.density.max())


def test_half_sets_never_meet(imaged_ribosome, ribosome) -> None:
    """With half 2 turned into its negative, of the same power, half 1 gives the same map to the last digit."""
    stack, _ = imaged_ribosome
    stack = stack.take(np.arange(80))
    halves = 1 + np.arange(80) % 2
    start = Volume(low_passed(ribosome.density, 6), 9.0)
    sign = np.where(halves == 1, 1, -1).astype(np.float32)[:, None, None]
    one = refine(stack, halves, start, iterations=1)
    other = refine(replace(stack, images=stack.images * sign), halves, start, iterations=1)
    np.testing.assert_array_equal(one.half1.density, other.half1.density)
    assert np.corrcoef(one.half2.density.ravel(), other.half2.density.ravel())[0, 1] < 0.7


def test_views_of_a_symmetric_particle_cover_its_asymmetric_unit() -> None:
    for symmetry in ("D3", "O"):
        group = operators(symmetry)
        everywhere, kept = view_directions(2000), view_directions(2000, symmetry)
        assert len(kept) == pytest.approx(2000 / len(group), rel=0.1)
        seen = Poses.of_angles(np.column_stack([kept, np.zeros(len(kept))])).rotations[:, 2]
        wanted = Poses.of_angles(np.column_stack([everywhere, np.zeros(2000)])).rotations[:, 2]
        copies = np.einsum("vi,gij->gvj", seen, group).reshape(-1, 3)
        nearest = (wanted @ copies.T).max(axis=1)
        assert np.degrees(np.arccos(nearest.min())) < 6


def test_what_does_not_fit_is_refused(imaged_ribosome, ribosome) -> None:
    stack, _ = imaged_ribosome
    with pytest.raises(SettingsError, match="expected as many half sets, 1 or 2, and both"):
        refine(stack, np.ones(400), ribosome)
    with pytest.raises(SettingsError, match=r"box of 40 px of 4\.5 Å, the particles 40 px of 9 Å; resample"):
        refine(stack, 1 + np.arange(400) % 2, Volume(ribosome.density, 4.5))
