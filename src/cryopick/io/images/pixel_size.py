"""Which pixel size to believe: the caller's, then the optics table's, then the header's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

from cryopick.errors import SettingsError

SMALLEST_ANGSTROM = 0.2
LARGEST_ANGSTROM = 20.0
"""Outside this range (super-resolution at the highest magnification, atlas-like binning) a pixel size is doubted."""

_DISAGREEMENT = 0.01  # relative; magnification calibrations differ by less
_DISAGREEMENT_WITH_GIVEN = 0.05
"""Relative; a calibrated pixel size that is given for a nominal one differs by less."""
_SLIP_FITS = 0.1
"""Relative; how near to a slip's ratio a given pixel size must be for the slip to be named."""
_SLIPS = (
    (10.0, "ten times as much, as by a slip of the decimal point"),
    (0.1, "a tenth, as by a slip of the decimal point, or nm for Å"),
    (2.0, "twice as much, as of micrographs binned by 2"),
    (0.5, "half as much, as of super-resolution"),
)


def doubt_about(pixel_size_angstrom: float) -> str | None:
    """Why a pixel size is hard to believe, or None: exactly 1.0 (a default of many programs), or out of range."""
    if pixel_size_angstrom == 1.0:
        return "exactly 1 Å, which many programs write when they do not know"
    if not SMALLEST_ANGSTROM <= pixel_size_angstrom <= LARGEST_ANGSTROM:
        return f"{pixel_size_angstrom:g} Å, outside {SMALLEST_ANGSTROM:g} to {LARGEST_ANGSTROM:g} Å"
    return None


def choose_pixel_size(
    *, given_angstrom: float | None, optics_angstrom: float | None, header_angstrom: float | None
) -> tuple[float | None, tuple[str, ...]]:
    """The pixel size to use, in Å, and what is doubtful about it.

    The order of trust is: given by the caller, optics table of a STAR file, header of the image. A value of 0, or one
    that is negative or not finite, means unknown. A doubtful value is used, with a warning.

    Raises
    ------
    SettingsError
        If the caller gives a pixel size that is not a positive number.
    """
    if given_angstrom is not None:
        if not _is_positive(given_angstrom):
            raise SettingsError(f"pixel size is {given_angstrom!r}, expected a positive number of Å per pixel")
        return given_angstrom, (
            *_doubts(given_angstrom, "the pixel size given"),
            *_doubts_beside(given_angstrom, {"the optics table": optics_angstrom, "the header": header_angstrom}),
        )
    warnings: tuple[str, ...] = ()
    if optics_angstrom is not None:
        if _is_positive(optics_angstrom):
            warnings = _doubts(optics_angstrom, "the optics table's pixel size")
            if _is_sound(header_angstrom) and abs(header_angstrom - optics_angstrom) > _DISAGREEMENT * optics_angstrom:
                warnings += (
                    f"the optics table says {optics_angstrom:g} Å per pixel, the header {header_angstrom:g} Å; "
                    "the optics table is used; give --pixel-size to decide",
                )
            return optics_angstrom, warnings
        warnings = (f"the optics table's pixel size is {optics_angstrom:g} and is not used",)
    if header_angstrom is not None:
        if _is_positive(header_angstrom):
            return header_angstrom, warnings + _doubts(header_angstrom, "the header's pixel size")
        warnings += (f"the header's pixel size is {header_angstrom:g}, so it is unknown; give --pixel-size",)
    return None, warnings


def _is_sound(pixel_size_angstrom: float | None) -> TypeGuard[float]:
    """Whether a table or header says a pixel size that is worth comparing with."""
    if pixel_size_angstrom is None or not _is_positive(pixel_size_angstrom):
        return False
    return doubt_about(pixel_size_angstrom) is None


def _doubts_beside(given_angstrom: float, told_angstrom: Mapping[str, float | None]) -> tuple[str, ...]:
    """What table and header say, by their names, where neither says what the user does; and which slip that may be."""
    ratios = {whose: given_angstrom / told for whose, told in told_angstrom.items() if _is_sound(told)}
    if not ratios or min(abs(ratio - 1) for ratio in ratios.values()) <= _DISAGREEMENT_WITH_GIVEN:
        return ()
    told = " and ".join(f"{whose} {told_angstrom[whose]:.4g} Å" for whose in ratios)
    slips = [text for factor, text in _SLIPS if any(abs(r / factor - 1) <= _SLIP_FITS for r in ratios.values())]
    slip = f" (the given one is {' or '.join(slips)})" if slips else ""
    return (
        f"--pixel-size says {given_angstrom:g} Å per pixel, {told}{slip}; the given one is used; leave it out if it "
        "is wrong",
    )


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _doubts(pixel_size_angstrom: float, whose: str) -> tuple[str, ...]:
    doubt = doubt_about(pixel_size_angstrom)
    return () if doubt is None else (f"{whose} is {doubt}; check it, or give --pixel-size",)
