"""Fully connected conditional random field over a map of class probabilities, by mean field.

Every pair of pixels is tied: by their distance alone (smoothness) and by their distance and the likeness of a guide
image (appearance). `mean_field` does the appearance sum on a bilateral grid, in time that grows with the number of
pixels; tests hold it against the sum over all pairs.

References
----------
P. Krähenbühl and V. Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NeurIPS 2011.
J. Chen, S. Paris, F. Durand, Real-time Edge-Aware Image Processing with the Bilateral Grid, SIGGRAPH 2007.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TAPS = 4.0  # Gaussians end at so many sigma
_INTERPOLATION_VARIANCE = 1 / 3
"""Cells²: what linear interpolation into a grid and out of it adds to a kernel, on average."""


@dataclass(frozen=True, kw_only=True)
class DenseCrf:
    """Strength and reach of the two kernels; lengths in particle diameters, the guide in standard deviations.

    Parameters
    ----------
    appearance_sigma : (rows, columns) of the Gaussian of position in the appearance kernel
    guide_sigma : of the Gaussian of the guide's difference
    appearance_weight, smoothness_weight : of the two messages; 0 switches one off
    smoothness_sigma : (rows, columns) of the smoothness kernel
    iterations : of mean field
    compatible : pairs of labels that do not repel each other; all other pairs do (Potts' model)
    counts_itself : a pixel sends a message to itself as well, as in the program pydensecrf; the paper's sum leaves it
        out
    """

    appearance_sigma: tuple[float, float] = (0.3, 0.3)
    guide_sigma: float = 0.7
    appearance_weight: float = 1.0
    smoothness_sigma: tuple[float, float] = (0.08, 0.08)
    smoothness_weight: float = 0.3
    iterations: int = 5
    compatible: tuple[tuple[int, int], ...] = ()
    counts_itself: bool = False

    def __post_init__(self) -> None:
        lengths = (*self.appearance_sigma, *self.smoothness_sigma, self.guide_sigma)
        if not all(np.isfinite(length) and length > 0 for length in lengths):
            raise ValueError(f"sigmas must be positive numbers, got {lengths}")
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}, expected 1 or more")

    def compatibility(self, labels: int) -> NDArray[np.float32]:
        """(labels, labels): what it costs to be near another label, 0 on the diagonal."""
        matrix = (1 - np.eye(labels)).astype(np.float32)
        for one, other in self.compatible:
            matrix[one, other] = matrix[other, one] = 0
        return matrix


PUBLISHED_DIAMETER_PX = 108.0
"""Of the particle (EMPIAR-10017) on which the published figures, in pixels, were chosen."""


def published_crf(*, with_axis_fault: bool = True, counts_itself: bool = False) -> DenseCrf:
    """The settings of the published notebooks: one appearance kernel of sigma 10 px on raw intensities.

    Their image had one axis too many, so that the second sigma went to the rows and a sigma of 1 px to the columns.
    Lengths are told in diameters of their particle, `PUBLISHED_DIAMETER_PX`.
    """
    row, column = 10 / PUBLISHED_DIAMETER_PX, (1 if with_axis_fault else 10) / PUBLISHED_DIAMETER_PX
    return DenseCrf(
        appearance_sigma=(row, column),
        guide_sigma=0.5,
        appearance_weight=1.0,
        smoothness_weight=0.0,
        iterations=10,
        counts_itself=counts_itself,
    )


BAND_PIXELS = 2**21
"""Rows are refined in bands of so many pixels: the grid and what leads to it take about 300 bytes for each."""
BAND_REACH = 12.0
"""Sigmas read around a band. Ten iterations could reach further, but what comes from there is less than rounding."""


def mean_field_in_bands(
    log_probability: NDArray[np.floating],
    guide: NDArray[np.floating],
    crf: DenseCrf,
    *,
    diameter_px: float,
    band_pixels: int = BAND_PIXELS,
) -> NDArray[np.float32]:
    """As `mean_field`, for maps as large as a micrograph, in memory that does not grow with them.

    Bands differ from the whole by what the bilateral grid leaves to chance, a few thousandths.
    """
    _, height, width = log_probability.shape
    count = -(-height * width // band_pixels)
    if count == 1:
        return mean_field(log_probability, guide, crf, diameter_px=diameter_px)
    sigma = max(crf.appearance_sigma[0], crf.smoothness_sigma[0] if crf.smoothness_weight else 0.0) * diameter_px
    halo, step = int(np.ceil(BAND_REACH * sigma)), -(-height // count)
    refined = np.empty(log_probability.shape, np.float32)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        first, last = max(top - halo, 0), min(bottom + halo, height)
        part = mean_field(log_probability[:, first:last], guide[first:last], crf, diameter_px=diameter_px)
        refined[:, top:bottom] = part[:, top - first : bottom - first]
    return refined


def mean_field(
    log_probability: NDArray[np.floating], guide: NDArray[np.floating], crf: DenseCrf, *, diameter_px: float
) -> NDArray[np.float32]:
    """Mean field, the appearance kernel approximated on a bilateral grid; any size of image.

    Parameters
    ----------
    log_probability : (labels, h, w), the unary potentials with opposite sign; need not be normalised
    guide : (h, w), in its standard deviations
    diameter_px : pixels of these maps per particle diameter

    Returns
    -------
    probability : (labels, h, w), sums to 1 over labels
    """
    from scipy.special import softmax

    labels, height, width = log_probability.shape
    unary = np.asarray(log_probability, np.float32)
    compatibility = crf.compatibility(labels)
    messages: list[tuple[float, _Kernel]] = []
    if crf.smoothness_weight:
        sigma = crf.smoothness_sigma[0] * diameter_px, crf.smoothness_sigma[1] * diameter_px
        messages.append((crf.smoothness_weight, _Smoothness((height, width), sigma)))
    if crf.appearance_weight:
        sigma = crf.appearance_sigma[0] * diameter_px, crf.appearance_sigma[1] * diameter_px
        grid = _BilateralGrid(np.asarray(guide, np.float32), sigma, crf.guide_sigma)
        messages.append((crf.appearance_weight, grid))
    belief = softmax(unary, axis=0)
    for _ in range(crf.iterations):
        message = np.zeros_like(belief)
        for weight, kernel in messages:
            message += np.float32(weight) * kernel.message(belief, counts_itself=crf.counts_itself)
        belief = softmax(unary - np.tensordot(compatibility, message, axes=1), axis=0)
    return np.asarray(belief, np.float32)


class _Kernel:
    """A symmetric kernel between all pixels that can be applied to maps; normalised."""

    def sums(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """(k, h, w): for every pixel the sum over all pixels, itself included, of kernel times map."""
        raise NotImplementedError

    def _normalise(self, shape_yx: tuple[int, int], own: NDArray[np.float32] | float) -> None:
        """`own` is the kernel of each pixel with itself."""
        total = self.sums(np.ones((1, *shape_yx), np.float32))[0]
        self.root = np.sqrt(np.maximum(total, 1e-6)).astype(np.float32)
        self.own = np.asarray(own / self.root**2, np.float32)

    def message(self, belief: NDArray[np.float32], *, counts_itself: bool = False) -> NDArray[np.float32]:
        """(labels, h, w); without what a pixel sends itself, unless that counts."""
        received = self.sums(belief / self.root) / self.root
        return np.asarray(received if counts_itself else received - self.own * belief, np.float32)


class _Smoothness(_Kernel):
    """Gaussian of position alone: exact, one axis after the other."""

    def __init__(self, shape_yx: tuple[int, int], sigma_px: tuple[float, float]) -> None:
        self.taps = [_gaussian_taps(sigma) for sigma in sigma_px]
        self._normalise(shape_yx, 1.0)

    def sums(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        return _along_axes(maps, self.taps, first_axis=1)


class _BilateralGrid(_Kernel):
    """Gaussian of position and of a guide, on a grid over rows, columns and the guide's values.

    Values are spread linearly onto the nodes, blurred there and read off linearly. Nodes are one sigma apart; along an
    axis whose sigma is less than a pixel every pixel is a node.
    """

    def __init__(self, guide: NDArray[np.float32], sigma_px: tuple[float, float], guide_sigma: float) -> None:
        from scipy import sparse

        height, width = guide.shape
        axes = [
            _Axis(np.arange(height, dtype=np.float32), sigma_px[0], is_pixels=True),
            _Axis(np.arange(width, dtype=np.float32), sigma_px[1], is_pixels=True),
            _Axis(guide.ravel(), guide_sigma, is_pixels=False),
        ]
        rows, columns = (index.ravel() for index in np.mgrid[:height, :width])
        places = [rows, columns, np.arange(height * width)]
        self.taps = [axis.taps for axis in axes]
        self.nodes = tuple(axis.nodes for axis in axes)
        lower = [axis.lower[place] for axis, place in zip(axes, places, strict=True)]
        upper_share = [axis.upper_share[place] for axis, place in zip(axes, places, strict=True)]
        cells, shares = [], []
        for corner in np.ndindex(2, 2, 2):
            cell = np.ravel_multi_index(
                [np.minimum(low + c, n - 1) for low, c, n in zip(lower, corner, self.nodes, strict=True)], self.nodes
            )
            share = np.ones(height * width, np.float32)
            for up, c in zip(upper_share, corner, strict=True):
                share *= up if c else 1 - up
            cells.append(cell)
            shares.append(share)
        pixel = np.tile(np.arange(height * width), 8)
        size = height * width, int(np.prod(self.nodes))
        self.read: Any = sparse.csr_matrix((np.concatenate(shares), (pixel, np.concatenate(cells))), shape=size)
        self.spread: Any = self.read.T.tocsr()
        own = np.ones(height * width, np.float32)
        for up, taps in zip(upper_share, self.taps, strict=True):
            middle = len(taps) // 2
            beside = taps[middle + 1] if len(taps) > 1 else 0.0
            own *= (up**2 + (1 - up) ** 2) * taps[middle] + 2 * up * (1 - up) * beside
        self._normalise((height, width), own.reshape(height, width))

    def sums(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(maps)
        on_grid = self.spread @ maps.reshape(count, -1).T
        blurred = _along_axes(on_grid.reshape(*self.nodes, count), self.taps, first_axis=0)
        return np.asarray((self.read @ blurred.reshape(-1, count)).T.reshape(maps.shape), np.float32)


class _Axis:
    """One axis of the grid: the node below each value, and how much of it belongs to the node above."""

    def __init__(self, values: NDArray[np.float32], sigma: float, *, is_pixels: bool) -> None:
        if is_pixels and sigma < 1:
            self.lower, self.upper_share = values.astype(np.intp), np.zeros(len(values), np.float32)
            self.nodes, self.taps = len(values), _gaussian_taps(sigma)
            return
        place = (values - values.min()) / np.float32(sigma)
        self.lower = np.floor(place).astype(np.intp)
        self.upper_share = np.asarray(place - self.lower, np.float32)
        self.nodes = int(self.lower.max()) + 2
        taps = _gaussian_taps(float(np.sqrt(1 - _INTERPOLATION_VARIANCE)))
        self.taps = np.asarray(taps / taps.sum() * np.sqrt(2 * np.pi), np.float32)


def _gaussian_taps(sigma: float) -> NDArray[np.float32]:
    """1 in the middle."""
    reach = int(np.ceil(_TAPS * sigma))
    return np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)


def _along_axes(maps: NDArray[np.float32], taps: list[NDArray[np.float32]], *, first_axis: int) -> NDArray[np.float32]:
    from scipy.ndimage import correlate1d

    for axis, weights in enumerate(taps, start=first_axis):
        if len(weights) > 1:
            maps = correlate1d(maps, weights, axis=axis, mode="constant")
    return np.asarray(maps, np.float32)
