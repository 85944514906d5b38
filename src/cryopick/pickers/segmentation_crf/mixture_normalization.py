"""A micrograph's grey values in units of its ice, as topaz normalises them, which the published pipeline uses.

The values are taken for a mixture of two Gaussians of one width, fitted by expectation maximisation from eleven starts,
with a Beta(900, 1) prior that most pixels belong to the brighter one; a single Gaussian competes. The best fit's
brighter component becomes mean 0 and standard deviation 1.

References
----------
T. Bepler et al., Topaz-Denoise: general deep denoising models for cryoEM and cryoET, Nature Communications 11, 2020;
the program topaz, command `preprocess`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHA, BETA = 900.0, 1.0
"""Of the prior on the share of the brighter component."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Of the brighter component at the start."""
ITERATIONS = 100
TOLERANCE = 1e-3
"""Fitting ends when the logarithm of the posterior grows by no more."""
SAMPLED = 10
"""Every so many pixels one is looked at."""
GROUPS = 8192
"""Pixels of like value are fitted as one group, by number, mean and variance; topaz fits each by itself."""


@dataclass(frozen=True)
class _Grouped:
    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    """Mean of the squares."""

    def total(self, share: NDArray[np.float64]) -> tuple[float, float, float]:
        """Pixels, their sum and that of their squares, each counted by its share."""
        weight = self.count * share
        return float(weight.sum()), float(weight @ self.mean), float(weight @ self.square)


def normalized_by_mixture(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) float32: values less the mean of the brighter component, over the common standard deviation.

    Pixels that are not finite count as the median, and a micrograph of one value becomes 0.
    """
    from cryopick.processing.scale import fill_non_finite

    filled = fill_non_finite(np.asarray(pixels, np.float32))
    mean, spread = mixture_of(filled)
    if not spread > 0:
        return np.zeros_like(filled)
    return np.asarray((filled - np.float32(mean)) / np.float32(spread), np.float32)


def mixture_of(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of the brighter component."""
    values = np.asarray(pixels, np.float64).ravel()
    scale = 1.0
    if values.size > SAMPLED * GROUPS:
        chosen = np.random.default_rng(0).integers(0, values.size, values.size // SAMPLED)
        scale, values = values.size / len(chosen), values[chosen]
    if np.ptp(values) == 0:
        return float(values.mean()), 0.0
    ordered = np.sort(values)
    grouped = _grouped(ordered)
    everything = np.ones(len(grouped.count))
    n, total, square = grouped.total(everything)
    mean, variance = total / n, square / n - (total / n) ** 2
    # the program adds the prior's density here, not its logarithm
    single = -scale * n * 0.5 * (1 + np.log(2 * np.pi * variance)) + ALPHA
    fits = [(single, mean, variance)]
    for share in SHARES:
        split = float(np.quantile(ordered, 1 - share))
        fits.append(_fitted(grouped, share, split, scale=scale))
    _, mean, variance = max(fits, key=lambda fit: fit[0])
    return float(mean), float(np.sqrt(max(variance, 0.0)))


def _grouped(ordered: NDArray[np.float64]) -> _Grouped:
    starts = np.unique(np.linspace(0, len(ordered), min(GROUPS, len(ordered)), endpoint=False).astype(np.intp))
    count = np.diff(np.append(starts, len(ordered))).astype(np.float64)
    mean = np.add.reduceat(ordered, starts) / count
    square = np.add.reduceat(ordered**2, starts) / count
    return _Grouped(count, mean, square)


def _fitted(grouped: _Grouped, share: float, split: float, *, scale: float) -> tuple[float, float, float]:
    """Logarithm of the posterior, mean of the brighter component and the common variance."""
    is_bright = (grouped.mean > split).astype(np.float64)
    dark, bright, variance = _moments(grouped, is_bright)
    log_posterior, belief = _expected(grouped, share, dark, bright, variance, scale=scale)
    for _ in range(ITERATIONS):
        n_bright = float(grouped.count @ belief)
        a, b = ALPHA + n_bright, BETA + float(grouped.count.sum()) - n_bright
        share = (a - 1) / (a + b - 2)
        dark, bright, variance = _moments(grouped, belief)
        if not variance > 0 or not 0 < share < 1:
            break
        found, belief = _expected(grouped, share, dark, bright, variance, scale=scale)
        gain, log_posterior = found - log_posterior, found
        if gain <= TOLERANCE:
            break
    return log_posterior, bright, variance


def _moments(grouped: _Grouped, belief: NDArray[np.float64]) -> tuple[float, float, float]:
    """Means of the darker and the brighter component, and their common variance."""
    n1, sum1, square1 = grouped.total(belief)
    n0, sum0, square0 = grouped.total(1 - belief)
    overall = (sum0 + sum1) / (n0 + n1)
    dark, bright = sum0 / n0 if n0 > 0 else overall, sum1 / n1 if n1 > 0 else overall
    spread = square0 - 2 * dark * sum0 + n0 * dark**2 + square1 - 2 * bright * sum1 + n1 * bright**2
    return dark, bright, spread / (n0 + n1)


def _expected(
    grouped: _Grouped, share: float, dark: float, bright: float, variance: float, *, scale: float
) -> tuple[float, NDArray[np.float64]]:
    """Logarithm of the posterior, and how far each group belongs to the brighter component."""
    from scipy.stats import beta

    constant = -0.5 * np.log(2 * np.pi * variance)
    log_dark = constant + np.log1p(-share) - (grouped.square - 2 * dark * grouped.mean + dark**2) / (2 * variance)
    log_bright = constant + np.log(share) - (grouped.square - 2 * bright * grouped.mean + bright**2) / (2 * variance)
    log_sum = np.logaddexp(log_dark, log_bright)
    prior = float(beta.logpdf(share, ALPHA, BETA))
    return scale * float(grouped.count @ log_sum) + prior, np.exp(log_bright - log_sum)
