"""Which pixel size to believe: the caller's, then the optics table's, then the header's."""

from __future__ import annotations

import math

from cryopick.errors import SettingsError

SMALLEST_ANGSTROM = 0.2
LARGEST_ANGSTROM = 20.0
"""Outside this range (super-resolution at the highest magnification, atlas-like binning) a pixel size is doubted."""

_DISAGREEMENT = 0.01  # relative; magnification calibrations differ by less


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
        return given_angstrom, _doubts(given_angstrom, "the pixel size given")
    warnings: tuple[str, ...] = ()
    if optics_angstrom is not None:
        if _is_positive(optics_angstrom):
            warnings = _doubts(optics_angstrom, "the optics table's pixel size")
            is_header_sound = (
                header_angstrom is not None and _is_positive(header_angstrom) and doubt_about(header_angstrom) is None
            )
            if is_header_sound and abs(header_angstrom - optics_angstrom) > _DISAGREEMENT * optics_angstrom:  # type: ignore[operator]  # sound means not None
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


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _doubts(pixel_size_angstrom: float, whose: str) -> tuple[str, ...]:
    doubt = doubt_about(pixel_size_angstrom)
    return () if doubt is None else (f"{whose} is {doubt}; check it, or give --pixel-size",)
