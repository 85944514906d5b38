"""Changes of a labelled crop that leave it a plausible micrograph; coordinates move with the pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.transforms import flip_x, flip_y, transpose

P = TypeVar("P", bound=np.generic)


@dataclass(frozen=True, eq=False)
class LabelledCrop:
    """A part of a labelled micrograph at working scale.

    Parameters
    ----------
    image : (h, w) float32, particles dark
    xy_px, diameter_px : (n, 2) and (n,), labelled particles whose centre is inside
    is_uncertain : (n,) True where a label must not count
    is_complete : True when every particle in the crop is labelled
    background_xy_px : (k, 2) places where a person saw that there is no particle
    """

    image: NDArray[np.float32]
    xy_px: NDArray[np.float64]
    diameter_px: NDArray[np.float64]
    is_uncertain: NDArray[np.bool_]
    is_complete: bool
    background_xy_px: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))


def dihedral(crop: LabelledCrop, number: int) -> LabelledCrop:
    """One of the eight symmetries of the square, 0 the identity: bit 0 flips y, bit 1 flips x, bit 2 transposes.

    Micrographs have no up or down, and the detector's pixels are square. Astigmatism turns with the crop.
    """
    if not 0 <= number < 8:
        raise ValueError(f"symmetry {number}: expected 0 to 7")
    image, xy_px, background = crop.image, crop.xy_px, crop.background_xy_px
    shape_yx = image.shape[0], image.shape[1]
    for bit, move in ((1, flip_y), (2, flip_x), (4, transpose)):
        if number & bit:
            xy_px, background = move(xy_px, shape_yx), move(background, shape_yx)
    return replace(crop, image=dihedral_pixels(image, number), xy_px=xy_px, background_xy_px=background)


def dihedral_pixels(image: NDArray[P], number: int) -> NDArray[P]:
    """The pixels (h, w) alone, moved as by `dihedral`."""
    for bit, move in ((1, np.flipud), (2, np.fliplr), (4, np.transpose)):
        if number & bit:
            image = move(image)
    return np.ascontiguousarray(image)


def jitter_intensity(crop: LabelledCrop, rng: np.random.Generator, *, noise: float = 0.2) -> LabelledCrop:
    """Another brightness and contrast, and up to `noise` standard deviations of further white noise."""
    return replace(crop, image=jittered_pixels(crop.image, rng, noise=noise))


def jittered_pixels(image: NDArray[np.float32], rng: np.random.Generator, *, noise: float = 0.2) -> NDArray[np.float32]:
    """The pixels (h, w) alone, changed as by `jitter_intensity`."""
    spread = float(image.std())
    gain, offset = np.exp(rng.normal(0.0, 0.2)), rng.normal(0.0, 0.5) * spread
    added = rng.uniform(0.0, noise) * spread * rng.standard_normal(image.shape)
    return np.asarray(gain * (image + added) + offset, dtype=np.float32)
