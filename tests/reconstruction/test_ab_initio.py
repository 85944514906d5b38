"""A first volume from images alone."""

import numpy as np
import pytest

from cryopick.errors import InputError
from cryopick.metrics.fourier_shell_correlation import fourier_shell_correlation
from cryopick.metrics.volume_alignment import align_volumes
from cryopick.reconstruction.ab_initio import initial_volume
from cryopick.reconstruction.filtering import low_passed, on_finer_voxels, soft_sphere


def test_first_volume_is_the_particle_in_one_hand_or_the_other(ribosome, imaged_ribosome) -> None:
    stack, _ = imaged_ribosome
    told: list[str] = []
    found = initial_volume(stack, seed=1, starts=1, steps=30, progress=told.append)
    assert len(told) == 3
    aligned = align_volumes(found.volume, ribosome, diameter_angstrom=240).aligned.density
    sphere = soft_sphere(40, 240 / 9)
    curve = fourier_shell_correlation(aligned, ribosome.density, sphere)
    assert curve[1:10].min() > 0.95, curve.round(2)
    truth = low_passed(ribosome.density, 8) * sphere
    assert np.corrcoef((low_passed(aligned, 8) * sphere).ravel(), truth.ravel())[0, 1] > 0.9


def test_the_seed_decides_every_bit_and_the_best_of_several_starts_is_given(imaged_ribosome) -> None:
    stack, _ = imaged_ribosome
    few = stack.take(np.arange(60))
    one, again = (initial_volume(few, seed=3, starts=1, steps=6) for _ in range(2))
    np.testing.assert_array_equal(one.volume.density, again.volume.density)
    other = initial_volume(few, seed=4, starts=1, steps=6)
    assert not np.array_equal(one.volume.density, other.volume.density)
    best = initial_volume(few, seed=3, steps=6, starts=2)
    assert best.score >= max(best.others)
    assert len(best.others) == 1


def test_finer_voxels_keep_the_map() -> None:
    axis = np.arange(20) - 10
    ball = np.exp(-((axis[:, None, None] - 2) ** 2 + (axis[:, None] + 1) ** 2 + axis**2) / 18.0)
    fine = on_finer_voxels(ball, 40)
    np.testing.assert_allclose(8 * fine[::2, ::2, ::2], ball, atol=1e-3)
    assert fine.sum() == pytest.approx(ball.sum(), rel=1e-4)


def test_too_few_particles_are_refused(imaged_ribosome) -> None:
    with pytest.raises(InputError, match="5 particles are too few for a first volume"):
        initial_volume(imaged_ribosome[0].take(np.arange(5)), seed=0)
