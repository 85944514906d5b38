"""Mean field of the dense CRF by its definition: every pair of pixels summed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.segmentation_crf.dense_crf import DenseCrf


def mean_field_exact(
    log_probability: NDArray[np.floating], guide: NDArray[np.floating], crf: DenseCrf, *, diameter_px: float
) -> NDArray[np.float64]:
    """Mean field with every pair of pixels summed: the definition, for images of a few thousand pixels.

    Parameters
    ----------
    log_probability : (labels, h, w), the unary potentials with opposite sign; need not be normalised
    guide : (h, w), in its standard deviations
    diameter_px : pixels of these maps per particle diameter

    Returns
    -------
    probability : (labels, h, w), sums to 1 over labels
    """
    labels, height, width = log_probability.shape
    unary = np.asarray(log_probability, np.float64).reshape(labels, -1)
    y, x = (axis.ravel().astype(np.float64) for axis in np.mgrid[:height, :width])
    value = np.asarray(guide, np.float64).ravel()

    def pairs(sigma: tuple[float, float]) -> NDArray[np.float64]:
        rows, columns = sigma[0] * diameter_px, sigma[1] * diameter_px
        exponent = ((y[:, None] - y) / rows) ** 2 + ((x[:, None] - x) / columns) ** 2
        return np.asarray(np.exp(-0.5 * exponent))

    appearance = pairs(crf.appearance_sigma) * np.exp(-0.5 * ((value[:, None] - value) / crf.guide_sigma) ** 2)
    kernel = crf.appearance_weight * _normalised(appearance)
    kernel += crf.smoothness_weight * _normalised(pairs(crf.smoothness_sigma))
    compatibility = crf.compatibility(labels).astype(np.float64)
    belief = _softmax(unary)
    for _ in range(crf.iterations):
        belief = _softmax(unary - compatibility @ (belief @ kernel))
    return belief.reshape(labels, height, width)


def _normalised(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each pair divided by the square roots of both pixels' sums, so that weights mean the same for any reach; a pixel
    sends itself no message."""
    root = np.sqrt(kernel.sum(axis=1))
    scaled = kernel / root[:, None] / root
    np.fill_diagonal(scaled, 0)
    return np.asarray(scaled)


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the labels."""
    risen = np.exp(values - values.max(axis=0))
    return np.asarray(risen / risen.sum(axis=0))
