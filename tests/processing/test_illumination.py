"""Smooth changes of brightness put on noise are taken off again; edges and even images are left alone."""

import numpy as np
import pytest

from cryopick.processing.illumination import without_uneven_illumination

SHAPE_YX = (512, 640)
YY, XX = np.mgrid[: SHAPE_YX[0], : SHAPE_YX[1]]
RADIUS = np.hypot(YY / SHAPE_YX[0] - 0.5, XX / SHAPE_YX[1] - 0.5) * np.sqrt(2)
NOISE = np.random.default_rng(0).normal(30, 4.5, SHAPE_YX)


@pytest.mark.parametrize(
    "pixels",
    [
        NOISE * (1 - 0.5 * RADIUS**2),
        NOISE * (1 - 0.7 * RADIUS**4),
        NOISE * np.exp(-(RADIUS**2)),
        NOISE + 30 * XX / SHAPE_YX[1],
        -(NOISE + 30 * YY / SHAPE_YX[0]),
    ],
    ids=["half", "fourth power", "bell", "ramp", "ramp of the negative"],
)
@pytest.mark.parametrize("is_torn", [False, True])
def test_a_smooth_change_is_subtracted_aloud(pixels, is_torn):
    pixels = pixels.astype(np.float32)
    if is_torn:
        pixels[:40] = np.nan
    flat, warnings = without_uneven_illumination(pixels)
    blocks = np.nanmean(flat[64:512, :640].reshape(7, 64, 10, 64), axis=(1, 3))
    assert np.ptp(blocks) < 1.5  # 15 and more before
    assert len(warnings) == 1
    assert np.array_equal(np.isnan(flat), np.isnan(pixels))


@pytest.mark.parametrize(
    "pixels",
    [
        NOISE,
        NOISE * (1 - 0.1 * RADIUS**2),
        NOISE * np.where(XX < 320, 1, 0.6),
        NOISE * np.where(XX + YY < 300, 0.6, 1),
        NOISE * np.where(RADIUS < 0.6, 1, 0.6),
        np.zeros(SHAPE_YX),
        np.full(SHAPE_YX, np.nan),
    ],
    ids=["even", "slight", "half on carbon", "corner on carbon", "hole in carbon", "constant", "nothing"],
)
def test_even_images_and_edges_are_handed_back_untouched(pixels):
    pixels = pixels.astype(np.float32)
    flat, warnings = without_uneven_illumination(pixels)
    assert flat is pixels
    assert warnings == ()
