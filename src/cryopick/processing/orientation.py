"""Which way round coordinates fit their images: measured, because files do not say and programs disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.transforms import TRANSFORMS

MIN_PICKS = 10
MIN_SIGNIFICANCE = 5.0
"""Standard errors by which the best orientation must differ from flat background and from the second best."""
MAX_RIVAL = 0.5
"""The second best orientation may have at most this fraction of the contrast of the best."""
MIN_INSIDE = 0.9
"""An orientation that puts more than a tenth of the picks outside the image is impossible."""
_MAX_PICKS = 4000
_WORKING_DIAMETER_PX = 16


@dataclass(frozen=True)
class OrientationFit:
    """How well picks fit their images under each named transform.

    Parameters
    ----------
    best : the name in `TRANSFORMS` with the largest contrast
    contrast : by name, mean of (ring around the pick - disc of the pick), in standard deviations of the image; positive
        where particles are dark; NaN where the transform puts picks outside the image
    significance : standard errors by which the best differs from zero, or from the second best, whichever is less
    count : picks measured
    is_clear : True where the answer can be trusted
    """

    best: str
    contrast: dict[str, float]
    significance: float
    count: int
    is_clear: bool

    def describe(self) -> str:
        """One sentence with what was measured."""
        shown = ", ".join(f"{name} {value:.3f}" for name, value in self.contrast.items())
        return (
            f"mean contrast of {self.count} picks under {shown} (standard deviations of the image); "
            f"{self.best} fits best, by {self.significance:.1f} standard errors"
        )


def measure_orientation(
    images: Sequence[NDArray[np.float32]], xy_px: Sequence[NDArray[np.float64]], *, diameter_px: float
) -> OrientationFit:
    """Compare identity, y-flip, x-flip and transpose by the contrast between each pick and the ring around it.

    Under the right transform particles differ from their surroundings, darker or brighter alike; under a wrong one
    the picks fall on arbitrary places, where the difference averages to zero. Contrast is local, so that gradients
    and carbon edges do not count.

    Parameters
    ----------
    images : (h, w) each, any size, may hold NaN
    xy_px : (n, 2) picks of each image, in pixels of that image
    diameter_px : particle diameter; the disc is one diameter wide, the ring reaches from 1.1 to 1.5 diameters

    Returns
    -------
    fit : `fit.is_clear` is False for few, random or symmetric picks
    """
    total = sum(map(len, xy_px))
    step = max(1, -(-total // _MAX_PICKS))
    per_image = [
        _contrasts(image, picks[::step], diameter_px) for image, picks in zip(images, xy_px, strict=True) if len(picks)
    ]
    if not per_image:
        return OrientationFit("identity", {name: float("nan") for name in TRANSFORMS}, 0.0, 0, False)
    contrasts = {name: np.concatenate([one[name] for one in per_image]) for name in TRANSFORMS}
    count = len(contrasts["identity"])
    mean = {}
    for name, values in contrasts.items():
        is_measured = np.isfinite(values)
        mean[name] = float(values[is_measured].mean()) if is_measured.mean() >= MIN_INSIDE else float("nan")
    possible = sorted((name for name in TRANSFORMS if np.isfinite(mean[name])), key=lambda name: -abs(mean[name]))
    if not possible:
        return OrientationFit("identity", mean, 0.0, count, False)
    best = possible[0]
    sign = np.sign(mean[best])
    significance = _standard_errors(sign * contrasts[best])
    rival = 0.0
    for other in possible[1:]:
        significance = min(significance, _standard_errors(sign * (contrasts[best] - contrasts[other])))
        rival = max(rival, sign * mean[other])
    is_clear = count >= MIN_PICKS and significance >= MIN_SIGNIFICANCE and rival <= MAX_RIVAL * abs(mean[best])
    return OrientationFit(best, mean, float(significance), count, bool(is_clear))


def _contrasts(
    image: NDArray[np.float32], xy_px: NDArray[np.float64], diameter_px: float
) -> dict[str, NDArray[np.float64]]:
    """Per transform, (n,) ring minus disc of each pick in standard deviations of the image; NaN outside."""
    factor = max(1, round(diameter_px / _WORKING_DIAMETER_PX))
    small = _binned(image, factor)
    if small.size == 0:  # particles larger than the image: nothing to compare
        return {name: np.full(len(xy_px), np.nan) for name in TRANSFORMS}
    spread = float(np.nanstd(small)) if np.isfinite(small).any() else 0.0
    disc, ring = _disc_and_ring(diameter_px / factor)
    found = {}
    for name, transform in TRANSFORMS.items():
        xy = (transform(xy_px, (image.shape[0], image.shape[1])) + 0.5) / factor - 0.5
        centre_yx = np.rint(xy[:, ::-1]).astype(np.int64)
        is_inside = ((centre_yx >= 0) & (centre_yx < small.shape)).all(axis=1)
        difference = _mean_at(small, centre_yx, ring) - _mean_at(small, centre_yx, disc)
        found[name] = np.where(is_inside, difference / spread if spread > 0 else np.nan, np.nan)
    return found


def _binned(image: NDArray[np.float32], factor: int) -> NDArray[np.float64]:
    """Means of `factor` x `factor` blocks, the incomplete ones at the far edges left out; NaN where not finite."""
    height, width = (side // factor for side in image.shape)
    if height == 0 or width == 0:
        return np.empty((0, 0))
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    means = blocks.mean(axis=(1, 3), dtype=np.float64)
    return np.where(np.isfinite(means), means, np.nan)


def _disc_and_ring(diameter_px: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(k, 2) offsets (y, x) of the pixels within half a diameter, and of those between 0.55 and 0.75 diameters."""
    reach = int(np.ceil(0.75 * diameter_px)) + 1
    line = np.arange(-reach, reach + 1)
    offsets = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    radius = np.hypot(offsets[:, 0], offsets[:, 1]) / diameter_px
    return offsets[radius <= 0.5], offsets[(radius > 0.55) & (radius <= 0.75)]


def _mean_at(
    image: NDArray[np.float64], centre_yx: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n,) Mean of the finite pixels at the offsets around each centre; NaN where there are none."""
    yx = centre_yx[:, np.newaxis] + offsets  # (n, k, 2)
    is_inside = ((yx >= 0) & (yx < image.shape)).all(axis=-1)
    values = image[np.where(is_inside, yx[..., 0], 0), np.where(is_inside, yx[..., 1], 0)]
    is_used = is_inside & np.isfinite(values)
    count = is_used.sum(axis=1)
    total = np.where(is_used, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _standard_errors(values: NDArray[np.float64]) -> float:
    """The mean of the finite values in units of its standard error; 0 for fewer than two."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return 0.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() / error) if error > 0 else 0.0
