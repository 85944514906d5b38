"""Normalised correlation against its definition, evaluated window by window; noise with the spectrum of an image."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.processing.fourier import chance_spread, normalized_correlation


def by_definition(image, template, window):
    """Pearson's r of the template and the image under the window, at every place, borders mirrored."""
    half = len(template) // 2
    padded = np.pad(image, half, mode="symmetric").astype(float)
    result = np.zeros(image.shape)
    for row, column in np.ndindex(image.shape):
        patch = padded[row : row + len(template), column : column + len(template)]
        result[row, column] = np.corrcoef(patch[window], template[window])[0, 1]
    return result


@pytest.mark.parametrize("shape", [(24, 31), (9, 40), (5, 4)])
def test_correlation_equals_pearsons_r_under_the_window_at_every_place(shape):
    rng = np.random.default_rng(3)
    image = rng.normal(size=shape).astype(np.float32)
    template = rng.normal(size=(7, 7)).astype(np.float32)
    y, x = np.mgrid[-3:4, -3:4]
    window = np.hypot(x, y) <= 3.2
    (found,) = normalized_correlation(image, [template], window=window)
    expected = by_definition(image, template, window)
    is_floored = np.abs(found - expected) > 1e-4  # where the window's variance is low, ours is drawn to 0
    assert is_floored.mean() < 0.35
    assert (np.abs(found[is_floored]) < np.abs(expected[is_floored])).all()
    assert np.abs(found).max() <= 1


def test_a_copy_of_the_template_scores_one_at_its_centre():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(40, 50)).astype(np.float32)
    template = 5 * image[10:21, 20:31] - 3
    (found,) = normalized_correlation(image, [template], window=np.ones((11, 11), bool))
    assert np.unravel_index(found.argmax(), found.shape) == (15, 25)
    assert found.max() == pytest.approx(1, abs=1e-4)


def test_nothing_wraps_around():
    rng = np.random.default_rng(0)
    template, window = rng.normal(size=(9, 9)).astype(np.float32), np.ones((9, 9), bool)
    image = rng.choice(np.float32([-1, 1]), size=(30, 40))  # of even variance, so the floor plays no part
    (before,) = normalized_correlation(image, [template], window=window)
    image[:, 36:] += 5  # a bar at the right edge
    image[26:] += 5  # and one at the bottom
    (after,) = normalized_correlation(image, [template], window=window)
    np.testing.assert_allclose(after[:20, :30], before[:20, :30], atol=1e-5)
    assert np.abs(after[:, 36:] - before[:, 36:]).max() > 0.1


def test_a_flat_place_scores_nearly_zero():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(60, 120)).astype(np.float32)
    image[:, 40:60] *= 1e-3
    (found,) = normalized_correlation(image, [rng.normal(size=(9, 9)).astype(np.float32)], window=np.ones((9, 9), bool))
    assert np.abs(found[:, 46:54]).max() < 0.01


def test_each_template_has_its_own_correlation_and_a_blank_one_scores_zero():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(20, 20)).astype(np.float32)
    template = rng.normal(size=(5, 5)).astype(np.float32)
    window = np.ones((5, 5), bool)
    one, negative, blank = normalized_correlation(
        image, [template, -template, np.ones((5, 5), np.float32)], window=window
    )
    np.testing.assert_allclose(one, -negative, atol=1e-6)
    assert not blank.any()


def test_even_templates_are_refused():
    with pytest.raises(ValueError, match="odd"):
        list(normalized_correlation(np.zeros((9, 9), np.float32), [], window=np.ones((4, 4), bool)))


def test_the_spread_of_chance_is_that_of_noise_whatever_the_particles_add():
    rng = np.random.default_rng(0)
    dark = 0.08 * rng.normal(size=(200, 200)).astype(np.float32)
    dark[::20, ::20] = 0.9  # particles
    assert chance_spread(-dark, limits=(0.01, 0.5)) == pytest.approx(0.08, rel=0.03)
    assert chance_spread(-dark, limits=(0.01, 0.05)) == 0.05
    assert chance_spread(np.zeros((4, 4), np.float32), limits=(0.06, 0.1)) == 0.06
