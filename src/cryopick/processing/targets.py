"""Particle centres to what networks learn from: discs, density-shaped masks, boxes, centre heatmaps.

Everything here takes centres `(x, y)` in pixels of the target grid, `(0, 0)` the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryopick.extras import require_extra
from cryopick.processing.projection import Projector
from cryopick.types import Volume

SEGMENTATION_REACH = 0.65
"""Local segmentation marks nothing farther than this many diameters from the centre: labels jitter and particles are
seldom round, but what lies farther away belongs to something else."""
_RING_REACH = 0.85  # the surroundings that the particle is compared with end here, in diameters
_SMOOTHING = 0.1  # Gaussian sigma in diameters: particles are segmented, not their noise
_AREA_RANGE = (0.15, 1.3)  # of the disc's area; a segmentation outside has failed


@dataclass(frozen=True, eq=False)
class Instances:
    """One silhouette per particle.

    Parameters
    ----------
    labels : (h, w) int32, 0 background, `i + 1` particle `i`; where silhouettes overlap, the nearest centre's
    is_fallback : (n,) True where the particle's own shape could not be told and a disc stands for it
    """

    labels: NDArray[np.int32]
    is_fallback: NDArray[np.bool_]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(h, w) True on any particle."""
        return self.labels > 0


def disc_instances(xy_px: ArrayLike, diameter_px: ArrayLike, *, shape_yx: tuple[int, int]) -> Instances:
    """A disc per particle: pixels whose centre lies within half a diameter; parts outside the image are cut.

    Parameters
    ----------
    xy_px : (n, 2)
    diameter_px : (n,) or one for all, > 0
    """
    painter = _Painter(shape_yx)
    centres, diameters = _checked(xy_px, diameter_px)
    for number, (centre, diameter) in enumerate(zip(centres, diameters, strict=True), start=1):
        for window, distance in painter.window(centre, diameter / 2):
            painter.paint(window, distance <= diameter / 2, distance, number)
    return Instances(painter.labels, np.zeros(len(centres), dtype=np.bool_))


def disc_mask(xy_px: ArrayLike, diameter_px: ArrayLike, *, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """(h, w) True within half a diameter of a centre."""
    return disc_instances(xy_px, diameter_px, shape_yx=shape_yx).mask


def density_instances(pixels: NDArray[np.float32], xy_px: ArrayLike, diameter_px: ArrayLike) -> Instances:
    """Silhouettes from coordinates alone: each particle segmented from its own surroundings.

    Around each centre the smoothed micrograph is split in two by Otsu's threshold; the dark part nearest the centre,
    holes filled, is the particle. A pixel belongs to its nearest centre. Where this gives less than 15 % or more than
    130 % of the disc's area, or contrast is missing, the disc is used.

    Parameters
    ----------
    pixels : (h, w) float32, particles dark; NaN and inf count as the median
    xy_px, diameter_px : as for `disc_instances`

    References
    ----------
    N. Otsu, IEEE Trans. Syst. Man Cybern. 9(1), 62-66 (1979).
    """
    from cryopick.processing.scale import fill_non_finite

    centres, diameters = _checked(xy_px, diameter_px)
    filled = fill_non_finite(np.asarray(pixels, dtype=np.float32))
    painter = _Painter((filled.shape[0], filled.shape[1]))
    is_fallback = np.zeros(len(centres), dtype=np.bool_)
    for number, (centre, diameter) in enumerate(zip(centres, diameters, strict=True), start=1):
        for window, distance in painter.window(centre, _RING_REACH * diameter):
            silhouette = _segment(filled[window], distance / diameter, sigma_px=_SMOOTHING * diameter)
            expected = np.count_nonzero(distance <= diameter / 2)
            found = np.count_nonzero(silhouette)
            if not _AREA_RANGE[0] * expected <= found <= _AREA_RANGE[1] * expected:
                is_fallback[number - 1] = True
                silhouette = distance <= diameter / 2
            painter.paint(window, silhouette, distance, number)
    return Instances(painter.labels, is_fallback)


def _segment(window: NDArray[np.float32], radius: NDArray[np.float64], *, sigma_px: float) -> NDArray[np.bool_]:
    """The dark object at the middle of a window; `radius` is the distance from the centre in diameters."""
    require_extra("masks", ("skimage",), "outlining particles")
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    smooth = ndimage.gaussian_filter(window, sigma_px, mode="nearest")
    values = smooth[radius <= _RING_REACH]
    nothing = np.zeros(window.shape, dtype=np.bool_)
    if len(values) < 9 or np.ptp(values) <= 0:
        return nothing
    threshold: Any = threshold_otsu(values)  # type: ignore[no-untyped-call]
    is_dark = (smooth < threshold) & (radius <= SEGMENTATION_REACH)
    if smooth[radius <= 0.5].mean() >= values.mean():
        return nothing  # brighter than its surroundings: not a particle in this contrast
    is_dark = ndimage.binary_fill_holes(is_dark)  # hollow shells are particles too
    parts, count = ndimage.label(is_dark)
    if count == 0:
        return nothing
    share = np.bincount(parts[radius <= 0.4], minlength=count + 1)[1:]
    return np.asarray(parts == 1 + int(np.argmax(share))) if share.max() > 0 else nothing


def projected_instances(
    volume: Volume,
    rotations: NDArray[np.float64],
    xy_px: ArrayLike,
    *,
    pixel_size_angstrom: float,
    shape_yx: tuple[int, int],
) -> Instances:
    """Silhouettes from poses and a 3D map: project, threshold, place at sub-pixel centres.

    The threshold is Li's minimum cross-entropy of each projection; components under 1 % of the silhouette are dropped.

    Parameters
    ----------
    volume : map (or mask) of the particle
    rotations : (n, 3, 3), from specimen to image
    xy_px : (n, 2) refined centres in pixels of the micrograph (RELION: coordinate minus origin)
    pixel_size_angstrom : of the micrograph

    References
    ----------
    C. H. Li and C. K. Lee, Pattern Recognition 26(4), 617-625 (1993).
    """
    require_extra("masks", ("skimage",), "outlining particles")
    from scipy import ndimage
    from skimage.filters import threshold_li

    centres, _ = _checked(xy_px, 1.0)
    if len(rotations) != len(centres):
        raise ValueError(f"{len(centres)} centres but {len(rotations)} rotations")
    projector, n = Projector(volume), len(volume.density)
    scale = pixel_size_angstrom / volume.voxel_size_angstrom  # voxels per micrograph pixel
    reach_px = (n / 2 - 1) / scale
    painter = _Painter(shape_yx)
    is_fallback = np.zeros(len(centres), dtype=np.bool_)
    for index, centre in enumerate(centres):
        image = projector.project(rotations[index : index + 1])[0]
        image = np.maximum(image - np.median(_rim(image)), 0)  # maps seldom have a background of exactly 0
        threshold: Any = threshold_li(image) if image.max() > 0 else 0.0  # type: ignore[no-untyped-call]
        silhouette = image > threshold
        parts, count = ndimage.label(silhouette)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        silhouette = sizes[parts] > 0.01 * sizes.sum()
        for window, distance in painter.window(centre, reach_px):
            rows, columns = (np.arange(part.start, part.stop) for part in window)
            yx = np.meshgrid((rows - centre[1]) * scale + n // 2, (columns - centre[0]) * scale + n // 2, indexing="ij")
            placed = ndimage.map_coordinates(silhouette.astype(np.float32), np.stack(yx), order=1, cval=0.0) >= 0.5
            is_fallback[index] = not placed.any()
            painter.paint(window, placed, distance, index + 1)
    return Instances(painter.labels, is_fallback)


def _rim(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def boxes(
    xy_px: ArrayLike, diameter_px: ArrayLike, *, shape_yx: tuple[int, int], min_visible: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Boxes one diameter wide, cut at the image's edges.

    Parameters
    ----------
    min_visible : boxes that keep less than this fraction of their area inside the image are left out

    Returns
    -------
    boxes : (m, 4) left, top, right, bottom, pixel edges: a box over the whole image is (0, 0, w, h)
    index : (m,) the particle of each box
    """
    centres, diameters = _checked(xy_px, diameter_px)
    height, width = shape_yx
    low, high = centres + 0.5 - diameters[:, None] / 2, centres + 0.5 + diameters[:, None] / 2
    cut = np.concatenate([np.maximum(low, 0), np.minimum(high, [width, height])], axis=1)
    sides = np.maximum(cut[:, 2:] - cut[:, :2], 0)
    visible = sides.prod(axis=1) / diameters**2
    index = np.flatnonzero((visible > 0) & (visible >= min_visible))
    return cut[index], index


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Centre heatmap with what is to be read off at its peaks, on a grid `stride_px` coarser than the image.

    Parameters
    ----------
    heat : (h, w) float32 in [0, 1], 1 on the grid pixel nearest to a centre, a Gaussian around it
    offset_xy : (2, h, w) float32, from that grid pixel to the centre, in grid pixels; 0 where `is_centre` is False
    diameter_px : (h, w) float32, image pixels; 0 where `is_centre` is False
    is_centre : (h, w) bool
    """

    heat: NDArray[np.float32]
    offset_xy: NDArray[np.float32]
    diameter_px: NDArray[np.float32]
    is_centre: NDArray[np.bool_]
    stride_px: int


def centre_heatmap(
    xy_px: ArrayLike,
    diameter_px: ArrayLike,
    *,
    shape_yx: tuple[int, int],
    stride_px: int = 4,
    sigma_diameters: float = 0.125,
) -> Heatmap:
    """Targets of a centre detector.

    Parameters
    ----------
    xy_px, diameter_px : image pixels
    shape_yx : of the image; the grid has `ceil(h / stride_px)` rows
    sigma_diameters : width of the Gaussians

    References
    ----------
    X. Zhou et al., Objects as Points, arXiv:1904.07850, section 3. Ours scales the Gaussian with the particle alone.
    """
    centres, diameters = _checked(xy_px, diameter_px)
    height, width = -(-shape_yx[0] // stride_px), -(-shape_yx[1] // stride_px)
    painter = _Painter((height, width))
    heat = np.zeros((height, width), np.float32)
    offset = np.zeros((2, height, width), np.float32)
    size = np.zeros((height, width), np.float32)
    grid_xy = (centres + 0.5) / stride_px - 0.5
    for (x, y), diameter in zip(grid_xy, diameters, strict=True):
        column, row = round(x), round(y)
        if not (0 <= column < width and 0 <= row < height):
            continue
        sigma = max(sigma_diameters * diameter / stride_px, 0.5)
        for window, distance in painter.window(np.array([column, row], dtype=np.float64), 4 * sigma):
            heat[window] = np.maximum(heat[window], np.exp(-(distance**2) / (2 * sigma**2)))
        offset[:, row, column] = x - column, y - row
        size[row, column] = diameter
    return Heatmap(heat, offset, size, size > 0, stride_px)


class _Painter:
    """A label image in which the particle with the nearest centre wins."""

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        self.labels = np.zeros(shape_yx, np.int32)
        self._nearest = np.full(shape_yx, np.inf, np.float32)

    def window(
        self, centre_xy: NDArray[np.float64], reach_px: float
    ) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float64]]]:
        """The part of the image within `reach_px`, and each pixel's distance; nothing where that is empty."""
        height, width = self.labels.shape
        x, y = float(centre_xy[0]), float(centre_xy[1])
        left, right = max(int(np.ceil(x - reach_px)), 0), min(int(np.floor(x + reach_px)) + 1, width)
        top, bottom = max(int(np.ceil(y - reach_px)), 0), min(int(np.floor(y + reach_px)) + 1, height)
        if left < right and top < bottom:
            rows, columns = np.arange(top, bottom)[:, None] - y, np.arange(left, right)[None, :] - x
            yield np.s_[top:bottom, left:right], np.hypot(rows, columns)

    def paint(
        self, window: tuple[slice, slice], silhouette: NDArray[np.bool_], distance: NDArray[np.float64], number: int
    ) -> None:
        is_mine = silhouette & (distance < self._nearest[window])
        self.labels[window][is_mine] = number
        self._nearest[window][is_mine] = distance[is_mine]


def _checked(xy_px: ArrayLike, diameter_px: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centres = np.asarray(xy_px, dtype=np.float64).reshape(-1, 2)
    diameters = np.broadcast_to(np.asarray(diameter_px, dtype=np.float64), (len(centres),))
    if not (np.isfinite(centres).all() and np.isfinite(diameters).all() and (diameters > 0).all()):
        raise ValueError("centres must be finite and diameters positive, so that targets can be drawn")
    return centres, diameters
