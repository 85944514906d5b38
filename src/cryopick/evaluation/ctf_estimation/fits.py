"""What is searched for the CTF of a micrograph, what a fit says, and which fits are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryopick.errors import SettingsError
from cryopick.evaluation.usage import last_line
from cryopick.processing.ctf import CtfParameters

COARSEST_ANGSTROM = 30.0
"""Where the fit begins: coarser Thon rings lie in the background (RELION's `--ResMin`)."""
FINEST_ANGSTROM = 5.0
"""Where it ends, for pixels that reach so far (RELION's `--ResMax`)."""
PIXELS_OF_FINEST = 2.1
"""Where pixels do not: a little before Nyquist, since images fall off there."""
COARSEST_PIXEL_ANGSTROM = 9.0
"""Of which 1.5 fits into the range between `COARSEST_ANGSTROM` and Nyquist; beyond there is nothing to fit."""
LEAST_DEFOCUS_UM, MOST_DEFOCUS_UM = 0.3, 5.0
DEFOCUS_STEP_UM = 0.05
"""Of the search (RELION's `--FStep`); a fit nearer to a bound than this lies at it."""


@dataclass(frozen=True, kw_only=True)
class Microscope:
    """What an estimate needs and no image says.

    Parameters
    ----------
    see `CtfParameters`
    """

    voltage_kv: float
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1

    def __post_init__(self) -> None:
        self.ctf(CtfFit(defocus_u_um=1, defocus_v_um=1, astigmatism_angle_deg=0, correlation=1))  # is checked there

    def ctf(self, fit: CtfFit) -> CtfParameters:
        """The CTF of a micrograph that was taken here."""
        return CtfParameters(
            defocus_u_um=fit.defocus_u_um,
            defocus_v_um=fit.defocus_v_um,
            astigmatism_angle_deg=fit.astigmatism_angle_deg,
            phase_shift_deg=fit.phase_shift_deg,
            voltage_kv=self.voltage_kv,
            spherical_aberration_mm=self.spherical_aberration_mm,
            amplitude_contrast=self.amplitude_contrast,
        )


@dataclass(frozen=True, kw_only=True)
class CtfSearch:
    """Where a fit is looked for.

    Parameters
    ----------
    pixel_size_angstrom : of the micrograph as stored
    finest_angstrom, coarsest_angstrom : range of the spectrum that is fitted
    least_defocus_um, most_defocus_um, step_um : underfocus
    """

    pixel_size_angstrom: float
    finest_angstrom: float
    coarsest_angstrom: float = COARSEST_ANGSTROM
    least_defocus_um: float = LEAST_DEFOCUS_UM
    most_defocus_um: float = MOST_DEFOCUS_UM
    step_um: float = DEFOCUS_STEP_UM


@dataclass(frozen=True, kw_only=True)
class CtfFit:
    """What an estimator says of a micrograph.

    Parameters
    ----------
    defocus_u_um, defocus_v_um, astigmatism_angle_deg, phase_shift_deg : see `CtfParameters`
    correlation : of spectrum and fit; each estimator has a scale of its own
    resolution_angstrom : to which rings were fitted; None where the estimator does not say, infinite where none was
    """

    defocus_u_um: float
    defocus_v_um: float
    astigmatism_angle_deg: float
    correlation: float
    phase_shift_deg: float = 0.0
    resolution_angstrom: float | None = None

    @property
    def defocus_um(self) -> float:
        """Mean of the two."""
        return (self.defocus_u_um + self.defocus_v_um) / 2


class CtfEstimator(Protocol):
    """Fits the CTF of one micrograph after another.

    Attributes
    ----------
    name : for people
    least_correlation : fits below are refused
    """

    @property
    def name(self) -> str: ...

    @property
    def least_correlation(self) -> float: ...

    def record(self) -> Mapping[str, object]:
        """What of it decides a fit; another record makes fits anew."""
        ...

    def estimate(self, image: Path, folder: Path, *, microscope: Microscope, search: CtfSearch) -> CtfFit:
        """Fit one micrograph; what the program writes stays in `folder`.

        Raises
        ------
        ProgramFailedError
            If there is no fit, in one sentence.
        """
        ...


def search_for(pixel_size_angstrom: float) -> CtfSearch:
    """The search for micrographs of this pixel size.

    Raises
    ------
    SettingsError
        If the pixels are too coarse for Thon rings.
    """
    if pixel_size_angstrom > COARSEST_PIXEL_ANGSTROM:
        raise SettingsError(
            f"pixels of {pixel_size_angstrom:g} Å are too coarse to estimate a CTF from ({COARSEST_PIXEL_ANGSTROM:g} Å "
            "at most); give the micrographs as they were taken, not binned, or a table of their CTF (--ctf FILE)"
        )
    return CtfSearch(
        pixel_size_angstrom=pixel_size_angstrom,
        finest_angstrom=max(FINEST_ANGSTROM, PIXELS_OF_FINEST * pixel_size_angstrom),
    )


def said_last(output: Path) -> str:
    """The last words of an estimator's output, for a message."""
    return last_line(output.read_text(encoding="utf-8", errors="replace"))[:200] or "it said nothing"


def refusal(fit: CtfFit, search: CtfSearch, *, least_correlation: float) -> str:
    """Why a fit is not believed, in a few words; "" where it is."""
    if not all(map(math.isfinite, (fit.defocus_u_um, fit.defocus_v_um, fit.correlation))):
        return "no fit"
    if fit.correlation < least_correlation:
        return f"correlation {fit.correlation:.3f} below {least_correlation:g}"
    for defocus_um in (fit.defocus_u_um, fit.defocus_v_um):
        least_um, most_um = search.least_defocus_um, search.most_defocus_um
        for bound_um, inside_um in ((least_um, defocus_um - least_um), (most_um, most_um - defocus_um)):
            if inside_um < search.step_um:  # at the bound, or beyond
                return f"defocus {defocus_um:.2f} µm at the bound of the search, {bound_um:g} µm"
    if fit.resolution_angstrom is not None and not fit.resolution_angstrom < search.coarsest_angstrom:
        return "no rings fitted"
    return ""
