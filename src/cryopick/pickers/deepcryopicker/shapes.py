"""Shapes of the objects of a binary mask: roundness, calipers, circles, squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.peaks import find_peaks
from cryopick.processing.regions import fill_holes, find_objects

ROUND_LIMIT = 1.10
"""Objects with a circularity below it count as round; a square has 1.27, one of a dozen pixels a little less."""
SQUARE_RATIO = 0.8
"""Smallest Feret diameter over the largest one of a square side view, at least."""
SQUARE_FERET = 1.15
"""Largest Feret diameter over the smallest of a square side view, at least: a square has 1.41, one of a dozen pixels,
with rounded corners, about 1.25."""
RECTANGLE_FILL = 0.76
"""Area over that of the smallest rectangle around the object, at least. A square has 1; one of a dozen pixels 0.8,
because its corners are rounded and the rectangle lies around whole pixels."""
VOTE_SIGMA_PX = 1.0
_RADIUS_STEP_PX = 0.5


def perimeter(mask: NDArray[np.bool_]) -> float:
    """Length of the outer border of one object in pixels, by counting its crossings with lines in four directions.

    Counting border pixels gives a disc's perimeter wrong by up to 27 %; Crofton's formula, which this is with four
    directions, converges. Holes count as filled.

    References
    ----------
    D. Legland, K. Kieu, M.-F. Devaux, Image Anal. Stereol. 26 (2007) 83-92, the 2-D weights.
    """
    solid = np.pad(fill_holes(mask), 1).astype(np.int8)
    rows = np.abs(np.diff(solid, axis=0)).sum()
    columns = np.abs(np.diff(solid, axis=1)).sum()
    down = np.abs(solid[1:, 1:] - solid[:-1, :-1]).sum()
    up = np.abs(solid[1:, :-1] - solid[:-1, 1:]).sum()
    # pi / 4 times the mean over directions of crossings times line spacing, each direction halved
    return float(np.pi / 8 * (rows + columns + (down + up) / np.sqrt(2)))


def circularity(area: float, perimeter: float) -> float:
    """P^2 / (4 pi A): 1 for a disc, 4 / pi for a square, more for anything less round (DeepCryoPicker, eq. 5)."""
    return perimeter**2 / (4 * np.pi * area)


@dataclass(frozen=True)
class Rectangle:
    """The smallest rectangle around an object, at any angle.

    Parameters
    ----------
    x, y : centre, in pixels of the window
    short_px, long_px : sides
    angle_deg : of the long side against the x axis, 0 to 180
    """

    x: float
    y: float
    short_px: float
    long_px: float
    angle_deg: float


def smallest_rectangle(mask: NDArray[np.bool_]) -> Rectangle:
    """The rectangle of smallest area around one object, the pixels' own extent included."""
    corners = _hull(mask)
    best: Rectangle | None = None
    for side in np.roll(corners, -1, axis=0) - corners:
        length = float(np.hypot(*side))
        if length == 0:
            continue
        along = side / length
        axes = np.stack([along, [-along[1], along[0]]])
        extent = corners @ axes.T
        low, high = extent.min(axis=0), extent.max(axis=0)
        size = high - low
        if best is None or size.prod() < best.short_px * best.long_px:
            x, y = (low + high) / 2 @ axes
            direction = axes[int(np.argmax(size))]
            angle = float(np.degrees(np.arctan2(direction[1], direction[0])) % 180)
            best = Rectangle(float(x), float(y), float(size.min()), float(size.max()), angle)
    if best is None:
        raise ValueError("an object needs at least one pixel")
    return best


def is_square_view(mask: NDArray[np.bool_]) -> bool:
    """Whether one object is a square side view: not round, calipers alike, filling its rectangle.

    A square's largest caliper is its diagonal, 1.41 of the smallest; a disc's calipers are all alike.
    """
    area = float(np.count_nonzero(mask))
    if not circularity(area, perimeter(mask)) >= ROUND_LIMIT:
        return False
    rectangle = smallest_rectangle(mask)
    largest, smallest = feret_diameters(mask)
    return (
        largest >= SQUARE_FERET * smallest
        and rectangle.short_px >= SQUARE_RATIO * rectangle.long_px
        and area >= RECTANGLE_FILL * rectangle.short_px * rectangle.long_px
    )


def feret_diameters(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Largest and smallest caliper width of one object in pixels, the pixels' own extent included.

    The largest lies between two corners of the convex hull, the smallest across one of its sides.
    """
    corners = _hull(mask)
    gaps = corners[:, None] - corners[None]
    largest = float(np.hypot(gaps[..., 0], gaps[..., 1]).max())
    sides = np.roll(corners, -1, axis=0) - corners
    sides = sides[np.hypot(sides[:, 0], sides[:, 1]) > 0]
    across = np.stack([-sides[:, 1], sides[:, 0]]) / np.hypot(sides[:, 0], sides[:, 1])
    return largest, float(np.ptp(corners @ across, axis=0).min())


def without_overlap(xy_px: NDArray[np.float64], extent_px: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) True for rectangles that share no area with any other; of two that do, neither is a perfect side view.

    Parameters
    ----------
    xy_px : (n, 2) centres
    extent_px : (n, 3) long side, short side, angle of the long side against the x axis in degrees
    """
    import cv2

    is_kept = np.ones(len(xy_px), bool)
    boxes = [
        ((float(x), float(y)), (float(long), float(short)), float(angle))
        for (x, y), (long, short, angle) in zip(xy_px, extent_px, strict=True)
    ]
    for first in range(len(boxes)):
        for second in range(first + 1, len(boxes)):
            reach = 0.5 * (np.hypot(*boxes[first][1]) + np.hypot(*boxes[second][1]))
            if np.hypot(*(xy_px[first] - xy_px[second])) >= reach:
                continue
            kind, region = cv2.rotatedRectangleIntersection(boxes[first], boxes[second])
            if kind != cv2.INTERSECT_NONE and region is not None and cv2.contourArea(cv2.convexHull(region)) > 0.5:
                is_kept[[first, second]] = False
    return is_kept


def own_shape(mask: NDArray[np.bool_], xy: NDArray[np.float64], *, reach_px: float) -> NDArray[np.bool_]:
    """The part of a mask that belongs to one particle: within reach of its centre, holes filled, the largest object."""
    x, y = xy
    top, left = max(0, int(y - reach_px)), max(0, int(x - reach_px))
    part = mask[top : int(y + reach_px) + 2, left : int(x + reach_px) + 2]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    inside = np.hypot(columns + left - x, rows + top - y) <= reach_px
    objects = find_objects(fill_holes(part & inside))
    if len(objects) == 0:
        return np.zeros((1, 1), bool)
    return objects.window(int(np.argmax(objects.area_px)))


def find_circles(
    mask: NDArray[np.bool_], *, radius_px: tuple[float, float], min_support: float = 0.15
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Circles around objects of a mask: Hough transform whose votes carry the radius as a phase.

    Every border pixel votes for the centres that lie inwards of it at all radii; votes for one radius at one place add
    up, those for different radii cancel in part. The phase at a centre is its radius.

    Parameters
    ----------
    mask : (h, w)
    radius_px : smallest and largest radius
    min_support : of the circle that has to be there, 0 to 1

    Returns
    -------
    xy_px : (n, 2), best first
    radius_px : (n,)
    support : (n,) float32, about the share of the circle that is in the mask's borders

    References
    ----------
    T. J. Atherton, D. J. Kerbyson, Image Vis. Comput. 17 (1999) 795-803.
    """
    votes = circle_votes(mask, radius_px=radius_px)
    strength = np.abs(votes).astype(np.float32)
    xy, support = find_peaks(strength, min_score=min_support, radius_px=0.5 * radius_px[0])
    column, row = np.rint(xy).astype(int).T
    phase = np.angle(votes[row, column])
    low, high = radius_px
    share = (phase + np.pi) / (2 * np.pi)
    return xy, np.exp(np.log(low) + share * (np.log(high) - np.log(low))), support


def circle_votes(mask: NDArray[np.bool_], *, radius_px: tuple[float, float]) -> NDArray[np.complex64]:
    """(h, w) complex votes for centres; the modulus is about 1 at the centre of a full circle."""
    import cv2

    low, high = radius_px
    if not 0 < low < high:
        raise ValueError(f"radius_px is {radius_px}, expected 0 < low < high")
    height, width = mask.shape
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), VOTE_SIGMA_PX, borderType=cv2.BORDER_REPLICATE)
    slope_y, slope_x = np.gradient(soft) if min(mask.shape) > 1 else (np.zeros_like(soft), np.zeros_like(soft))
    steepness = np.hypot(slope_x, slope_y)
    row, column = np.nonzero(steepness > 0.05)
    weight = steepness[row, column]  # across a border it adds up to 1, however the border is sampled
    unit_x, unit_y = slope_x[row, column] / weight, slope_y[row, column] / weight
    radii = np.arange(low, high + 1e-9, _RADIUS_STEP_PX)
    votes = np.zeros(height * width, np.complex128)
    for radius in radii:
        x = np.rint(column + radius * unit_x).astype(np.intp)
        y = np.rint(row + radius * unit_y).astype(np.intp)
        is_inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        phase = 2 * np.pi * (np.log(radius) - np.log(low)) / (np.log(high) - np.log(low)) - np.pi
        vote = weight * np.exp(1j * phase) / (2 * np.pi * radius)
        index = (y * width + x)[is_inside]
        votes.real += np.bincount(index, weights=vote.real[is_inside], minlength=height * width)
        votes.imag += np.bincount(index, weights=vote.imag[is_inside], minlength=height * width)
    plane = votes.reshape(height, width)
    sigma = VOTE_SIGMA_PX + 0.5
    blurred = [cv2.GaussianBlur(part, (0, 0), sigma) for part in (plane.real.copy(), plane.imag.copy())]
    votes_at_centre = 2 * np.pi * sigma**2 * 0.5  # of a circle's votes, that scatter by about sigma themselves
    return np.asarray((blurred[0] + 1j * blurred[1]) * votes_at_centre, np.complex64)


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, 2) corners x, y of the convex hull of the pixels' squares."""
    import cv2

    row, column = np.nonzero(mask)
    if len(row) == 0:
        raise ValueError("an object needs at least one pixel")
    centres = np.stack([column, row], axis=1)
    squares = np.concatenate([2 * centres + [dx, dy] for dx in (-1, 1) for dy in (-1, 1)])  # half pixels
    return np.asarray(cv2.convexHull(squares.astype(np.int32)).reshape(-1, 2) / 2, np.float64)
