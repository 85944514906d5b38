"""The physical limit of picking: a detector that is told each projection, its orientation, the CTF and the noise.

No picker can do better on average than this whitened matched filter, because it knows everything but the positions. It
is also told where the dirt is, and is not judged there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import distance_transform_edt, maximum_filter

from cryopick.errors import SettingsError
from cryopick.geometry.pairing import pair_points
from cryopick.simulation.micrograph import SimulatedMicrograph
from cryopick.simulation.scene.layout import keep_apart, sample_nearest
from cryopick.simulation.scene.optics import contrast_transfer
from cryopick.simulation.specimens.imaging import SpecimenImager

FRINGE_ANGSTROM = 80.0
"""How far from junk its fringes disturb: neither filled in nor judged by the ideal detector."""


@dataclass(frozen=True, eq=False)
class IdealDetection:
    """Peaks of the ideal filter and the best that a threshold on them gives.

    Parameters
    ----------
    xy_px : (m, 2) float64, peaks
    score : (m,) float32, log-likelihood ratio of "this particle is here" against "nothing is here"
    f1, precision, recall : at the best threshold
    threshold : that threshold
    """

    xy_px: NDArray[np.float64]
    score: NDArray[np.float32]
    f1: float
    precision: float
    recall: float
    threshold: float


def ideal_detection(
    simulated: SimulatedMicrograph,
    imagers: Sequence[SpecimenImager],
    *,
    tolerance: float = 0.25,
    workers: int = 1,
) -> IdealDetection:
    """Detect with a bank of the true projections, and score at the best threshold.

    Parameters
    ----------
    simulated : with the raw look; band-passes and 8 bits would need another filter
    imagers : those that it was simulated with
    tolerance : largest distance of a hit, in particle diameters
    workers : threads for Fourier transforms

    Returns
    -------
    detection : scored one-to-one against the pickable particles; peaks near junk or on particles that are not to be
        picked do not count

    Notes
    -----
    Each true view k gives x . s_k - |s_k|²/2 at every place, products whitened by the noise spectrum; the score is the
    greatest over k (the position is found by exhaustive search, the view is chosen from the true ones).

    Raises
    ------
    SettingsError
        No particle, or a look other than raw.
    """
    look = simulated.conditions.look
    if look.is_8_bit or look.shortest_px is not None or look.longest_px is not None or look.coarser < 1:
        raise SettingsError(f"the ideal detector is for raw micrographs, this one has the look {look}")
    if len(simulated.xy_px) == 0:
        raise SettingsError("the ideal detector is given the true views, and this micrograph has no particle")
    shape = simulated.micrograph.shape_yx
    pixel_size = simulated.micrograph.pixel_size_angstrom or 1.0
    transfer = contrast_transfer(shape, pixel_size, simulated.ctf) * _camera_blur(simulated, shape)
    signal, templates = _signal_and_templates(simulated, imagers, shape, transfer, workers)
    scale = float(np.mean(simulated.micrograph.pixels))
    contrast = simulated.micrograph.pixels / np.float32(scale) - 1
    near_junk = _near_junk(simulated)
    contrast[near_junk] = 0
    whitening = _inverse_noise_power(contrast - np.where(near_junk, 0, signal), share=float(1 - near_junk.mean()))
    spectrum = fft.rfft2(contrast, workers=workers) * whitening
    best = np.full(shape, -np.inf, dtype=np.float32)
    for image in templates:
        template = fft.rfft2(image, s=shape, workers=workers) * transfer
        response = fft.irfft2(spectrum * template.conj(), s=shape, workers=workers)
        energy = np.abs(template) ** 2 * whitening
        total = (2 * energy.sum() - energy[:, 0].sum()) / (shape[0] * shape[1])
        response -= np.float32(total / 2)
        middle = image.shape[0] // 2  # the template's centre, relative to its corner at the origin
        np.maximum(best, np.roll(response, (middle, middle), axis=(0, 1)), out=best)
    diameter = float(np.median(simulated.diameter_px))
    xy_px, score = _peaks(best, radius_px=0.25 * diameter, min_distance_px=0.5 * diameter)
    return _scored(simulated, xy_px, score, tolerance_px=tolerance * diameter)


def _camera_blur(simulated: SimulatedMicrograph, shape: tuple[int, int]) -> NDArray[np.float32]:
    """What the camera did to the signal: its transfer before counting and half of it again after."""
    y = np.abs(fft.fftfreq(shape[0]).astype(np.float32))[:, None] * 2
    x = fft.rfftfreq(shape[1]).astype(np.float32)[None, :] * 2
    exponent = np.float32(1.5 * np.log(simulated.conditions.mtf_nyquist))
    return np.asarray(np.exp(exponent * (y * y + x * x)), dtype=np.float32)


def _signal_and_templates(
    simulated: SimulatedMicrograph,
    imagers: Sequence[SpecimenImager],
    shape: tuple[int, int],
    transfer: NDArray[np.float32],
    workers: int,
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """The noiseless contrast of all particles, and each one's projected potential."""
    potential = np.zeros(shape, dtype=np.float32)
    templates = []
    for number, imager in enumerate(imagers):
        members = np.flatnonzero(simulated.species == number)
        exact, whole = simulated.xy_px[members], simulated.coordinates_px[members]
        images = imager.images(simulated.euler_deg[members], exact - whole)
        templates += list(imager.images(simulated.euler_deg[members], np.zeros((len(members), 2))))
        half = imager.size_px // 2
        for image, (x, y) in zip(images, whole.tolist(), strict=True):
            rows = slice(max(0, y - half), min(shape[0], y - half + imager.size_px))
            columns = slice(max(0, x - half), min(shape[1], x - half + imager.size_px))
            top, left = y - half, x - half
            potential[rows, columns] += image[
                rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
    signal = fft.irfft2(fft.rfft2(potential, workers=workers) * transfer, s=shape, workers=workers)
    return np.asarray(signal, dtype=np.float32), templates


def _near_junk(simulated: SimulatedMicrograph) -> NDArray[np.bool_]:
    """(h, w) junk and what its fringes reach."""
    if not simulated.junk.any():
        return simulated.junk
    reach_px = FRINGE_ANGSTROM / (simulated.micrograph.pixel_size_angstrom or 1.0)
    return np.asarray(distance_transform_edt(~simulated.junk) <= reach_px)


def _inverse_noise_power(noise: NDArray[np.float32], *, share: float) -> NDArray[np.float32]:
    """1 / (noise power per frequency), averaged over rings, on the grid of `scipy.fft.rfft2`; 0 at zero frequency.

    `share` of the pixels hold noise, the others are 0.
    """
    power = np.abs(fft.rfft2(noise)) ** 2 / (noise.size * max(share, 1e-3))
    y = fft.fftfreq(noise.shape[0])[:, None]
    x = fft.rfftfreq(noise.shape[1])[None, :]
    ring = np.rint(np.hypot(y, x) * min(noise.shape) / 2).astype(np.int64)  # two Fourier pixels wide
    mean = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    inverse = 1 / np.maximum(mean[ring], 1e-20)
    inverse[0, 0] = 0
    return np.asarray(inverse, dtype=np.float32)


def _peaks(
    response: NDArray[np.float32], *, radius_px: float, min_distance_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Local maxima, best first, none closer than `min_distance_px` to a better one."""
    size = 2 * max(1, round(radius_px)) + 1
    is_peak = (response == maximum_filter(response, size=size)) & (response > 0)
    rows, columns = np.nonzero(is_peak)
    order = np.argsort(-response[rows, columns], kind="stable")
    xy_px = np.stack([columns, rows], axis=1)[order].astype(np.float64)
    is_kept = keep_apart(xy_px, min_distance_px=min_distance_px)
    return xy_px[is_kept], response[rows, columns][order][is_kept]


def _scored(
    simulated: SimulatedMicrograph, xy_px: NDArray[np.float64], score: NDArray[np.float32], *, tolerance_px: float
) -> IdealDetection:
    """One-to-one against the pickable particles; what lies on others or on junk is left out."""
    near_junk = _near_junk(simulated)
    is_judged = simulated.is_pickable & ~sample_nearest(near_junk, simulated.xy_px)
    pickable, others = simulated.xy_px[is_judged], simulated.xy_px[~is_judged]
    pairs = pair_points(xy_px, pickable, max_distance=tolerance_px)
    is_hit = np.zeros(len(xy_px), dtype=bool)
    is_hit[pairs.first] = True
    is_ignored = sample_nearest(near_junk, xy_px)
    if len(others):
        distance = np.hypot(*(xy_px[:, None] - others[None]).transpose(2, 0, 1)).min(axis=1)
        is_ignored = is_ignored | (distance <= tolerance_px)
    keep = is_hit | ~is_ignored
    xy_px, score, is_hit = xy_px[keep], score[keep], is_hit[keep]
    hits = np.cumsum(is_hit)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + len(pickable))
    if len(f1) == 0:
        return IdealDetection(xy_px, score, 0.0, 0.0, 0.0, 0.0)
    at = int(np.argmax(f1))
    return IdealDetection(
        xy_px=xy_px,
        score=score,
        f1=float(f1[at]),
        precision=float(hits[at] / (at + 1)),
        recall=float(hits[at] / max(len(pickable), 1)),
        threshold=float(score[at]),
    )
