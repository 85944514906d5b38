"""`blob`: particles as dark discs, cores or hollow shells of a given diameter; needs nothing but the diameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import TOLD_FIELDS, Survey
from cryopick.processing.fourier import chance_spread
from cryopick.processing.normalize import normalize_locally
from cryopick.processing.peaks import find_peaks
from cryopick.processing.profiles import (
    SCALE_STEP,
    WORKING_DIAMETER_PX,
    dark_and_bright_peaks,
    middle_piece,
    profile_correlations,
)
from cryopick.processing.scale import ScaleMap, resample
from cryopick.types import Micrograph, Picks

ProfileName = Literal["auto", "small-core", "core", "solid", "wide", "disc", "shell", "thin-shell"]

PROFILES: dict[ProfileName, tuple[float, float]] = {
    "small-core": (0.40, 0.0),
    "core": (0.50, 0.0),
    "solid": (0.70, 0.0),
    "wide": (0.85, 0.0),
    "disc": (1.0, 0.0),
    "shell": (1.0, 0.60),
    "thin-shell": (1.0, 0.80),
}
"""Outer and inner radius of the dark part, in particle radii. The diameter that people give is that of the circle
around every view, or of the mask; the dark core of an elongated or domed particle is smaller than that."""

EDGE_WIDTH_RADII = 0.12
"""Softness of the profile's edges: about one working pixel."""
SPREAD_LIMITS = (0.06, 0.10)
"""Of chance correlations, see `chance_spread`."""
CANDIDATE_FLOOR = 2.5
"""Candidates have at least this score; in noise alone there are many of them."""
EVIDENCE_PX = 1024
"""Side of the middle piece, in working pixels, that the choice looks at: more than eighty diameters are plenty."""
PLACE_DIAMETERS = 0.8
"""Radius of the place of one particle in the choice of a profile, in diameters."""
OPPOSITE_FACTOR, OPPOSITE_EVIDENCE = 4.0, 4.0
"""Bright matches beat dark ones this many times, and by so much, where the contrast is doubted. On sets of simulated
and
real micrographs, without particles too, they did so at most 2.4 times."""


@register_picker("blob")
@dataclass(frozen=True, kw_only=True)
class BlobPicker:
    """Correlates the micrograph with dark radial profiles of the particle's diameter.

    Scale-space blob detection (T. Lindeberg, Int. J. Computer Vision 30 (1998) 79-116) with normalised correlation in
    the place of the Laplacian, which makes scores comparable between micrographs, and with a family of profiles, solid
    and hollow, in the place of a single one, so that a shell is marked at its centre rather than on its rim.

    Noise correlates as often with the bright as with the dark profile. So the bright side of a micrograph tells the
    spread of chance, the unit of the score; and of all profiles that one is taken, per micrograph or per run, whose
    dark particles explain most beyond its bright ones.
    """

    name: ClassVar[str]
    score_meaning: ClassVar[str] = (
        "correlation with a dark disc or shell, in standard deviations of chance; 0 to about 15"
    )
    default_threshold: ClassVar[float] = 4.2
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS | {"particle_size"}

    diameter: Annotated[Length | None, "particle diameter, or a range of diameters such as 150-200A"] = None
    profile: Annotated[
        ProfileName, "radial profile of the particle: auto chooses; core for dense, shell for hollow particles"
    ] = "auto"

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """The profile that suits these micrographs, so that a run uses one profile throughout."""
        if self.profile != "auto" or not micrographs:
            return Survey(particle_size=self.diameter)
        total: dict[ProfileName, float] = dict.fromkeys(PROFILES, 0.0)
        explained: dict[ProfileName, float] = dict.fromkeys(PROFILES, 0.0)
        for micrograph in micrographs:
            for name, correlation, diameter_px in _matches(self._scaled(micrograph)):
                total[name] += _evidence(correlation, diameter_px)
                explained[name] += _explained(correlation, diameter_px)
        return Survey(
            particle_size=self.diameter, radial_profile=_strongest(explained), contrast_doubt=_contrast_doubt(total)
        )

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates with a score above `CANDIDATE_FLOOR`; `maps` holds the correlation."""
        scaled = self._scaled(micrograph)
        profile = self.profile
        if profile == "auto":
            seen = None if survey is None else survey.radial_profile
            profile = _strongest_alone(scaled) if seen is None else cast(ProfileName, seen)
        correlations = [
            next(
                profile_correlations(
                    image.pixels,
                    [PROFILES[profile]],
                    diameter_px=image.working_diameter_px,
                    edge_width=EDGE_WIDTH_RADII,
                )
            )
            for image in scaled
        ]
        found = [
            find_peaks(correlation / chance_spread(-correlation, limits=SPREAD_LIMITS), min_score=CANDIDATE_FLOOR)
            for correlation in correlations
        ]
        xy_px = np.concatenate([image.scale.to_stored_xy(xy) for image, (xy, _) in zip(scaled, found, strict=True)])
        score = np.concatenate([score for _, score in found])
        diameter_px = np.concatenate(
            [np.full(len(score), image.diameter_px) for image, (_, score) in zip(scaled, found, strict=True)]
        )
        return Picks.of_candidates(micrograph, xy_px, score, diameter_px, maps={"correlation": _overview(correlations)})

    def _scaled(self, micrograph: Micrograph) -> list[_ScaledImage]:
        """The normalised working image for each diameter."""
        scaled = []
        for diameter_px in _diameters_px(self.diameter, micrograph):
            factor = min(WORKING_DIAMETER_PX / diameter_px, 1.0)  # growing an image adds pixels but no information
            working, scale = resample(micrograph.pixels, factor=factor)
            working = normalize_locally(working, diameter_px=diameter_px * scale.factor)
            scaled.append(_ScaledImage(working, scale, float(diameter_px)))
        return scaled


@dataclass(frozen=True, eq=False)
class _ScaledImage:
    """A micrograph at the working size of one diameter.

    Parameters
    ----------
    pixels : (h, w) float32, locally of zero mean and unit variance
    scale : between these pixels and the stored ones
    diameter_px : in stored pixels
    """

    pixels: NDArray[np.float32]
    scale: ScaleMap
    diameter_px: float

    @property
    def working_diameter_px(self) -> float:
        return self.diameter_px * self.scale.factor


def _matches(scaled: Sequence[_ScaledImage]) -> Iterator[tuple[ProfileName, NDArray[np.float32], float]]:
    """Each profile, its correlation with the middle of each image, and the diameter there, in working pixels."""
    for image in scaled:
        middle, diameter_px = middle_piece(image.pixels, EVIDENCE_PX), image.working_diameter_px
        correlations = profile_correlations(
            middle, list(PROFILES.values()), diameter_px=diameter_px, edge_width=EDGE_WIDTH_RADII
        )
        for name, correlation in zip(PROFILES, correlations, strict=True):
            yield name, correlation, diameter_px


def _evidence(correlation: NDArray[np.float32], diameter_px: float) -> float:
    """Squared correlation of strong dark peaks minus that of strong bright ones."""
    dark, bright = dark_and_bright_peaks(correlation, radius_px=0.5 * diameter_px)
    return float(np.sum(dark**2)) - float(np.sum(bright**2))


def _explained(correlation: NDArray[np.float32], diameter_px: float) -> float:
    """How much better dark particles explain the image than bright ones do.

    Particles do not overlap, so a place of nearly a diameter has one, and what it explains is the logarithm of what is
    left: one good ring counts more than the four pieces of its wall that a small core fits.
    """
    dark, bright = (
        float(np.log1p(-(np.minimum(score, 0.98) ** 2)).sum())
        for score in dark_and_bright_peaks(correlation, radius_px=PLACE_DIAMETERS * diameter_px)
    )
    return bright - dark


def _contrast_doubt(evidence: dict[ProfileName, float]) -> str | None:
    """A sentence where far more matches are bright than dark; else None."""
    dark, bright = max(evidence.values()), -min(evidence.values())
    if bright < max(OPPOSITE_EVIDENCE, OPPOSITE_FACTOR * dark):
        return None
    return (
        "particles look as if they had the opposite contrast: far more bright than dark discs of their diameter are "
        "seen. If they are brighter than their surroundings, as in negative stain, pick again with --contrast "
        "bright; if that is what was given, leave it out"
    )


def _diameters_px(diameter: Length | None, micrograph: Micrograph) -> NDArray[np.float64]:
    """The diameters to look for, in stored pixels: one, or steps of at most `SCALE_STEP` from low to high."""
    if diameter is None:
        raise SettingsError("picker blob needs a diameter; give --diameter, for example 180A, 108px or 150-200A")
    low_px, high_px = diameter.to_px(micrograph.pixel_size_angstrom)
    steps = int(np.ceil(np.log(high_px / low_px) / np.log(SCALE_STEP)))
    return np.geomspace(low_px, high_px, steps + 1)


def _strongest_alone(scaled: Sequence[_ScaledImage]) -> ProfileName:
    """The profile that explains one micrograph best."""
    explained: dict[ProfileName, float] = dict.fromkeys(PROFILES, 0.0)
    for name, correlation, diameter_px in _matches(scaled):
        explained[name] += _explained(correlation, diameter_px)
    return _strongest(explained)


def _strongest(evidence: dict[ProfileName, float]) -> ProfileName:
    return max(evidence, key=lambda profile: evidence[profile])


def _overview(correlations: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(h, w) the highest positive correlation over all diameters, at the working size of the smallest."""
    import cv2

    highest = np.maximum(correlations[0], 0)
    for correlation in correlations[1:]:
        highest = np.maximum(highest, cv2.resize(correlation, highest.shape[::-1], interpolation=cv2.INTER_LINEAR))
    return highest
