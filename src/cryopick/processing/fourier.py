"""What Fourier transforms make cheap: correlation without wraparound, and noise with the spectrum of an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.normalize import typical_variance

WINDOW_VARIANCE_FLOOR = 0.5
"""Part of the median window variance below which a window counts as flat and its correlation is drawn to 0."""


def normalized_correlation(
    image: NDArray[np.float32], templates: Iterable[NDArray[np.float32]], *, window: NDArray[np.bool_]
) -> Iterator[NDArray[np.float32]]:
    """Correlate an image with templates, each place normalised by the image inside the same window.

    The image is continued by reflection, so nothing wraps around. One Fourier transform per template.

    Parameters
    ----------
    image : (h, w) float32, finite, of variance near 1
    templates : of (t, t) float32, t odd; only what lies inside the window counts, minus its mean
    window : (t, t) True where a template is compared

    Yields
    ------
    correlation : (h, w) float32 in [-1, 1], for each template, at the template's centre; 0 for a template without
        contrast. Where the window's variance is below `WINDOW_VARIANCE_FLOOR` of its median, the floor takes its
        place, so that a flat window does not turn rounding noise into a match.

    References
    ----------
    A. M. Roseman, Ultramicroscopy 94 (2003) 225-236: correlation normalised locally under a mask, by FFT. The floor of
    the variance is ours.
    """
    correlate = _Correlator(image, window.shape[0])
    weight = window / np.count_nonzero(window)  # (t, t)
    mean = correlate(image, weight)
    variance = correlate(image * image, weight) - mean * mean
    scale = 1.0 / np.sqrt(np.maximum(variance, WINDOW_VARIANCE_FLOOR * typical_variance(variance)))
    transform = correlate.transform(image)
    for template in templates:
        contrast = np.where(window, template - template[window].mean(), 0.0)
        norm = np.sqrt(np.count_nonzero(window)) * np.linalg.norm(contrast)
        if norm < 1e-12:
            yield np.zeros_like(image)
            continue
        yield np.clip(correlate.apply(transform, contrast / norm) * scale, -1.0, 1.0)


def chance_spread(bright: NDArray[np.float32], *, limits: tuple[float, float]) -> float:
    """Spread of the correlations that noise gives by chance, measured where there are no particles.

    Parameters
    ----------
    bright : (h, w) float32, correlation with the inverted template, or the highest of those with several. Noise
        correlates with it as with the template itself, dark particles do not.
    limits : what the spread may be. The lower one is that of white noise; what exceeds the upper one comes from the
        particles and their halos (crowded, band-passed or denoised micrographs) and not from chance.

    Returns
    -------
    spread : root mean square of the positive correlations: the standard deviation, where their distribution is normal
    """
    positive = bright[bright > 0].astype(np.float64)
    spread = np.sqrt(np.mean(positive**2)) if positive.size else 0.0
    return float(np.clip(spread, *limits))


class _Correlator:
    """Correlates images of one shape with kernels of one odd size."""

    def __init__(self, image: NDArray[np.float32], kernel_px: int) -> None:
        from scipy.fft import next_fast_len

        if kernel_px % 2 == 0:
            raise ValueError(f"templates of {kernel_px} px: expected an odd size, which has a centre pixel")
        self.shape_yx = image.shape
        self.half = kernel_px // 2
        # numpy's "symmetric" repeats as often as needed, so a template may be wider than the image
        self.fft_shape = tuple(next_fast_len(n + 2 * self.half, real=True) for n in image.shape)

    def __call__(self, image: NDArray[np.float32], kernel: NDArray[np.floating]) -> NDArray[np.float32]:
        return self.apply(self.transform(image), kernel)

    def transform(self, image: NDArray[np.float32]) -> NDArray[np.complex64]:
        from scipy.fft import rfft2

        padded = np.pad(image, self.half, mode="symmetric")
        return np.asarray(rfft2(padded, self.fft_shape))

    def apply(self, transform: NDArray[np.complex64], kernel: NDArray[np.floating]) -> NDArray[np.float32]:
        from scipy.fft import irfft2, rfft2

        product = transform * np.conj(rfft2(kernel.astype(np.float32), self.fft_shape))
        # the kernel starts at the padded image's first pixel, so its centre lies on the image's first pixel
        height, width = self.shape_yx
        return np.asarray(irfft2(product, self.fft_shape, overwrite_x=True)[:height, :width], np.float32)
