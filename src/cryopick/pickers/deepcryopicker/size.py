"""How large particles are and how much of them is dark, from the micrographs alone and without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.units import Length
from cryopick.processing.normalize import normalize_locally
from cryopick.processing.peaks import vertex_offset
from cryopick.processing.profiles import SCALE_STEP, WORKING_DIAMETER_PX, dark_and_bright_matches, middle_piece
from cryopick.processing.scale import resample
from cryopick.processing.spread import evenly_taken
from cryopick.types import Micrograph

SMALLEST_PX = 12.0
LARGEST_SHARE = 0.25
"""Largest diameter tried, as a share of the shorter side: fewer particles than would fit then are no population."""
PIECE_DIAMETERS = 32.0
"""Side of the middle piece that is looked at; it holds several hundred particles of a crowded micrograph."""
MICROGRAPHS = 4
EDGE_WIDTH_RADII = 2 / WORKING_DIAMETER_PX
MINIMUM_EVIDENCE = 0.02
"""Share of the area that dark matches explain beyond bright ones. Micrographs without particles stay below 0.005 at
every size, those of the two experimental sets that this was looked at on reach 0.1 and 0.15."""
SIGMAS = 3.0

BODIES: dict[str, tuple[float, float]] = {
    "core": (0.40, 0.0),
    "solid": (0.70, 0.0),
    "shell": (1.0, 0.60),
    "rim": (1.0, 0.80),
}
"""Outer and inner radius of the dark part, in particle radii."""


@dataclass(frozen=True)
class ParticleSize:
    """What a scale-space search found.

    Parameters
    ----------
    diameter_px : of the circle around the particle; in pixels as stored, or Å where every micrograph has a pixel size
    body : diameter of the dark part over that of the particle
    is_hollow : whether the dark part is a ring
    evidence : see `MINIMUM_EVIDENCE`; the best of all sizes
    """

    diameter: Length
    body: float
    is_hollow: bool
    evidence: float


def measure_size(micrographs: Sequence[Micrograph], *, diameter: Length | None) -> ParticleSize | None:
    """Diameter of the commonest particles, and the shape of their dark part; None where nothing stands out.

    At every size of a geometric series, micrographs are correlated with dark discs and rings. Noise matches dark and
    bright ones alike, so what the dark side has in excess is evidence. Matches are weighted with the area that they
    explain (T. Lindeberg's scale selection, with areas in the place of derivatives), so that grain, which is plentiful
    but small, does not win.

    Parameters
    ----------
    micrographs : a few; particles dark
    diameter : where it is given, only the dark part is measured and nothing is refused
    """
    if not micrographs:
        return None
    unit = "A" if all(m.pixel_size_angstrom is not None for m in micrographs) else "px"
    per_px = [float(m.pixel_size_angstrom or 1.0) if unit == "A" else 1.0 for m in micrographs]
    chosen = evenly_taken(range(len(micrographs)), MICROGRAPHS)
    if diameter is not None:
        sizes = [0.0]
    else:
        shortest = min(min(m.shape_yx) * scale for m, scale in zip(micrographs, per_px, strict=True))
        smallest = SMALLEST_PX * max(per_px)
        if LARGEST_SHARE * shortest < smallest:
            return None
        steps = int(np.log(LARGEST_SHARE * shortest / smallest) / np.log(SCALE_STEP))
        sizes = [smallest * SCALE_STEP**step for step in range(steps + 1)]
    table = np.zeros((len(sizes), len(BODIES), 2))  # evidence and its variance
    for row, size in enumerate(sizes):
        for index in chosen:
            micrograph = micrographs[index]
            size_px = size / per_px[index]
            if diameter is not None:
                size_px = diameter.middle_px(micrograph.pixel_size_angstrom)
            table[row] += _evidence(micrograph.pixels, size_px) / len(chosen)
    evidence, spread = table[..., 0], np.sqrt(table[..., 1] / len(chosen))
    certain = evidence - SIGMAS * spread
    best = int(np.argmax(certain if diameter is None else evidence))
    row, column = divmod(best, len(BODIES))
    outer, inner = list(BODIES.values())[column]
    if diameter is not None:
        return ParticleSize(diameter, outer, inner > 0, float(evidence[row, column]))
    if not certain[row, column] > 0 or evidence[row, column] < MINIMUM_EVIDENCE:
        return None
    size = sizes[row] * SCALE_STEP ** _peak_offset(evidence[:, column], row)
    if inner > 0:  # rings of both widths answer at neighbouring sizes, and the ring lies between them
        hollow = evidence[:, 2:].clip(0).sum(axis=1)
        peak = int(np.argmax(hollow))
        near = slice(max(0, peak - 2), peak + 3)
        size = float(np.exp(np.average(np.log(sizes[near]), weights=hollow[near])))
    return ParticleSize(Length(float(size), float(size), unit), outer, inner > 0, float(evidence[row, column]))


def _evidence(pixels: NDArray[np.float32], diameter_px: float) -> NDArray[np.float64]:
    """(bodies, 2): area explained by dark minus bright matches, as a share of the image, and its variance."""
    piece = middle_piece(pixels, max(1, round(PIECE_DIAMETERS * diameter_px)))
    working, scale = resample(piece, factor=min(1.0, WORKING_DIAMETER_PX / diameter_px))
    size = diameter_px * scale.factor
    result = np.zeros((len(BODIES), 2))
    if min(working.shape) < size:
        return result
    image = normalize_locally(working, diameter_px=size)
    matches = dark_and_bright_matches(image, list(BODIES.values()), diameter_px=size, edge_width=EDGE_WIDTH_RADII)
    for row, both in enumerate(matches):
        for sign, score in zip((1.0, -1.0), both, strict=True):
            explained = score**2 * size**2 / image.size
            result[row] += [sign * explained.sum(), (explained**2).sum()]
    return result


def _peak_offset(values: NDArray[np.float64], index: int) -> float:
    """Offset of a parabola's vertex through a maximum and its neighbours, in steps; 0 at the ends."""
    if not 0 < index < len(values) - 1:
        return 0.0
    return float(vertex_offset(*values[index - 1 : index + 2]))
