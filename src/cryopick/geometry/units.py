"""Lengths with units, `180A`, `18nm`, `108px`, and ranges of them, `150-200A`; and shares as people read them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryopick.errors import SettingsError, UnknownPixelSizeError
from cryopick.types import plain_number

Range = tuple[float, float]
"""Lowest and highest value; drawn uniformly, or uniformly in the logarithm where the field says so."""
_RANGE = re.compile(r"^\s*([0-9]*\.?[0-9]+)(?:\s*-\s*([0-9]*\.?[0-9]+))?\s*([A-Za-zÅµ/0-9]*)\s*$")


_NAMES_OF_UNIT: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("A", 1.0, ("", "a", "å", "angstrom", "angstroms", "angström", "ångström", "ångstrom", "ångströms")),
    ("A", 10.0, ("nm", "nanometer", "nanometers", "nanometre", "nanometres")),
    ("A", 1e4, ("um", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres")),
    ("px", 1.0, ("px", "pix", "pixel", "pixels")),
)
LONGEST = 1e9
"""Lengths from here on, in Å or px, are slips: 10 cm, and a million times a detector; arithmetic would overflow."""
_UNITS = {name: (unit, factor) for unit, factor, names in _NAMES_OF_UNIT for name in names}
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_UNIT = r"[^\W\d_]*"
_LENGTH = re.compile(rf"({_NUMBER})\s*({_UNIT})(?:\s*-\s*({_NUMBER})\s*({_UNIT}))?")
_DECIMAL_COMMA = re.compile(r"[0-9],[0-9]")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")


@dataclass(frozen=True)
class Length:
    """A length or a range of lengths, in Å or in pixels of the micrograph as stored.

    Parameters
    ----------
    low, high : positive; equal when the length is a single number
    unit : "A" or "px"
    typed : as the user wrote it, for messages; "" where it was computed
    """

    low: float
    high: float
    unit: str
    typed: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.unit not in ("A", "px"):
            raise SettingsError(f"unit of a length is {self.unit!r}, expected 'A' or 'px'")
        shown = self.typed or f"{self.low}-{self.high}{self.unit}"
        for name in ("low", "high"):
            object.__setattr__(self, name, plain_number(getattr(self, name), f"length {shown}"))
        if not 0 < self.low <= self.high:
            raise SettingsError(f"length {shown}: expected more than 0, and of a range the smaller number first")
        if self.high >= LONGEST:
            raise SettingsError(f"length {shown}: expected less than {LONGEST:g} {self.unit}; check the number")

    @property
    def is_range(self) -> bool:
        return self.low != self.high

    @property
    def unit_symbol(self) -> str:
        """The unit as people read it, Å or px."""
        return "Å" if self.unit == "A" else self.unit

    @property
    def middle(self) -> float:
        """The single length, or the geometric middle of the range, in `unit`."""
        return math.sqrt(self.low * self.high)

    @property
    def as_typed(self) -> str:
        """What the user wrote, `18nm` and not `180A`, so that a message shows what is to be corrected."""
        return self.typed or str(self)

    def to_px(self, pixel_size_angstrom: float | None) -> tuple[float, float]:
        """(low, high) in pixels; an Å length needs the pixel size."""
        if self.unit == "px":
            return self.low, self.high
        if pixel_size_angstrom is None:
            raise UnknownPixelSizeError(_unknown_pixel_size(f"length {self.as_typed}"))
        return angstrom_to_px(self.low, pixel_size_angstrom), angstrom_to_px(self.high, pixel_size_angstrom)

    def middle_px(self, pixel_size_angstrom: float | None) -> float:
        low_px, high_px = self.to_px(pixel_size_angstrom)
        return math.sqrt(low_px * high_px)

    def times(self, factor: float) -> Length:
        """The length or range, `factor` times as large."""
        return Length(self.low * factor, self.high * factor, self.unit)

    def __str__(self) -> str:
        number = f"{self.low:g}-{self.high:g}" if self.is_range else f"{self.low:g}"
        return f"{number}{self.unit}"


def _unknown_pixel_size(what: str) -> str:
    return (
        f"{what} is in Å but the pixel size of the micrograph is unknown; give --pixel-size (Å per pixel), or the "
        "length in pixels, for example 108px"
    )


def parse_length(text: str) -> Length:
    """Read `180A`, `18nm`, `108px` or a range such as `150-200A`; a bare number is Å.

    Signs that only look different, as texts pasted from papers have them (the Angstrom sign, an en dash, full-width
    digits), are the same.

    Raises
    ------
    SettingsError
        If it is anything else.
    """
    if not isinstance(text, str):
        raise SettingsError(f"length {text!r}: expected a text such as 180A, 18nm, 108px or 150-200A")
    plain = unicodedata.normalize("NFKC", text).translate(_DASHES).strip()
    match = _LENGTH.fullmatch(plain)
    if match is None:
        hint = "write decimals with a point and thousands without a mark: " if _DECIMAL_COMMA.search(plain) else ""
        raise SettingsError(f"length {text!r} not understood; {hint}expected for example 180A, 18nm, 108px or 150-200A")
    first, first_unit, second, second_unit = match.groups()
    if second and first_unit and _unit(first_unit, text) != _unit(second_unit, text):
        raise SettingsError(f"length {text!r} has two units; expected one for both ends, for example 150-200A")
    unit, factor = _unit(second_unit or first_unit, text)
    low, high = float(first) * factor, float(second or first) * factor
    return Length(low, high, unit, typed=text.strip())


def _unit(name: str, text: str) -> tuple[str, float]:
    """ "A" or "px", and how many of it one of the named unit is."""
    if name.lower() not in _UNITS:
        raise SettingsError(f"length {text!r} has unknown unit {name!r}; use A, nm, um or px")
    return _UNITS[name.lower()]


def as_length(value: Any) -> Length:
    """A `Length` from itself, from a text with its unit, or from a number, Python's or numpy's, which is Å."""
    if isinstance(value, Length):
        return value
    return parse_length(value if isinstance(value, str) else f"{plain_number(value, 'length')!r}")


def angstrom_to_px(length_angstrom: float, pixel_size_angstrom: float) -> float:
    return length_angstrom / pixel_size_angstrom


# ------------------------------------------------------------------------------------------ diameters that can be meant

SMALLEST_DIAMETER_PX = 4.0
"""Below it a particle is a few pixels, which nothing tells from noise; what enlarges it would need all memory."""
WIDE_SHARE = 0.4
"""Of the shorter side of a micrograph: a wider particle is possible, but more often a slip of the unit."""
USUAL_SHARES = (0.005, 0.25)
"""Of the shorter side of a micrograph, between which most particles are."""
MOST_ENLARGED_PIXELS = 2**27
"""Largest image that a micrograph is enlarged to, so that a slip does not take all memory and hours."""


def check_diameter(
    diameter: Length,
    *,
    shape_yx: tuple[int, int],
    pixel_size_angstrom: float | None,
    smallest_px: float = SMALLEST_DIAMETER_PX,
    enlarged_to_px: float = 0.0,
    what: str = "diameter",
) -> None:
    """Refuse a particle diameter that is too small to be meant, before anything is computed with it.

    Parameters
    ----------
    shape_yx, pixel_size_angstrom : of the micrograph
    smallest_px : smallest diameter that the picker can work with
    enlarged_to_px : width to which the picker enlarges smaller particles, and the whole micrograph with them
    what : the length's name in messages, with the micrograph's

    Raises
    ------
    SettingsError
        If it is too small, or in Å where the pixel size is unknown.
    """
    if diameter.unit == "A" and pixel_size_angstrom is None:
        raise UnknownPixelSizeError(_unknown_pixel_size(f"{what} {diameter.as_typed}"))
    low_px, _ = diameter.to_px(pixel_size_angstrom)
    least_px = max(smallest_px, enlarged_to_px * math.sqrt(math.prod(shape_yx) / MOST_ENLARGED_PIXELS))
    if low_px < least_px:
        raise SettingsError(
            f"{what} {diameter.as_typed} is {_in_px(diameter, low_px, pixel_size_angstrom)}, expected {least_px:.3g} "
            f"px or more on {shape_yx[1]} x {shape_yx[0]} px; {_meant_instead(diameter, shape_yx, pixel_size_angstrom)}"
            "check --diameter and the pixel size, or use micrographs that are binned less"
        )


def too_wide(diameter: Length, *, shape_yx: tuple[int, int], pixel_size_angstrom: float | None) -> str:
    """What is doubtful about a diameter of more than `WIDE_SHARE` of the micrograph's shorter side, else ""."""
    _, high_px = diameter.to_px(pixel_size_angstrom)
    share = high_px / min(shape_yx)
    if share <= WIDE_SHARE:
        return ""
    height, width = shape_yx
    of_it = "wider than" if share > 1 else f"{share_percent(share)} of the shorter side of"
    return (
        f"diameter {diameter.as_typed} is {_in_px(diameter, high_px, pixel_size_angstrom)}, {of_it} the micrograph "
        f"({width} x {height} px); {_meant_instead(diameter, shape_yx, pixel_size_angstrom)}"
        "check --diameter and the pixel size"
    )


def _in_px(diameter: Length, px: float, pixel_size_angstrom: float | None) -> str:
    number = f"{px:.0f} px" if px >= 1000 else f"{px:.3g} px"
    return number if diameter.unit == "px" else f"{number} at {pixel_size_angstrom:.4g} Å per pixel"


def _meant_instead(diameter: Length, shape_yx: tuple[int, int], pixel_size_angstrom: float | None) -> str:
    """The typed number in other units, or ten times as large or small, where that would be a usual size."""
    number, unit = _typed_number(diameter)
    candidates = [f"{number:g}{other}" for other in ("A", "nm", "px") if other != unit]
    candidates += [f"{number * factor:g}{unit}" for factor in (10, 0.1)]
    smallest, largest = (share * min(shape_yx) for share in USUAL_SHARES)
    meant = []
    for text, other in _lengths(candidates):
        if other.unit == "A" and pixel_size_angstrom is None:
            continue
        px = other.middle_px(pixel_size_angstrom)
        if max(smallest, 2 * SMALLEST_DIAMETER_PX) <= px <= largest:
            meant.append(text if other.unit == "px" else f"{text} ({px:.3g} px)")
    return f"was {' or '.join(meant)} meant? " if meant else ""


def _lengths(texts: Iterable[str]) -> Iterator[tuple[str, Length]]:
    """The texts and what they mean, those left out that no length has."""
    for text in texts:
        try:
            yield text, parse_length(text)
        except SettingsError:
            continue


SLIP_FITS = 1.3
"""Ratio of a size that was read off and a slip's up to which the slip may be what happened."""


def meant_by_slip(given: Length, seen: Length, *, pixel_size_angstrom: float | None) -> str:
    """Which slip would make `given` of a diameter of about `seen`: "perhaps ...; ", the likeliest first; else "".

    Slips of ten, Å for nm, px for Å, and the radius for the diameter or twice the diameter.

    Parameters
    ----------
    given, seen : in the same unit, of which the geometric middle counts
    pixel_size_angstrom : without it pixels and Å cannot be mixed up
    """
    number, unit = _typed_number(given)
    of_slip = {"the radius was given": 2 * given.middle, "twice the diameter was given": 0.5 * given.middle}
    written = [f"{number * factor:g}{unit}" for factor in (10, 0.1)]
    written += [f"{number:g}{other}" for other in ("A", "nm", "px") if other != unit]
    for text, other in _lengths(written):
        if other.unit == given.unit:
            of_slip[f"{text} was meant"] = other.middle
        elif pixel_size_angstrom is not None:
            px_or_angstrom = pixel_size_angstrom if given.unit == "A" else 1 / pixel_size_angstrom
            of_slip[f"{text} was meant"] = other.middle * px_or_angstrom
    distance = {text: abs(math.log(size / seen.middle)) for text, size in of_slip.items()}
    likely = [text for text in sorted(distance, key=distance.__getitem__) if distance[text] <= math.log(SLIP_FITS)]
    return f"perhaps {', or '.join(likely)}; " if likely else ""


def _typed_number(diameter: Length) -> tuple[float, str]:
    """The (smaller) number that the user wrote, and its unit: A, nm, um or px."""
    match = re.search(r"nm|um|μm", unicodedata.normalize("NFKC", diameter.typed))
    if match is None:
        return diameter.low, diameter.unit
    unit = match.group().replace("μ", "u")
    return diameter.low / _UNITS[unit][1], unit


# ------------------------------------------------------------------------------------------------------------- shares


def share_percent(share: float) -> str:
    """A share, 0 to 1, in percent: `100 %` is everything and `0 %` nothing, and nothing else is called so."""
    for digits in (0, 1):
        text = f"{100 * share:.{digits}f}"
        if (float(text) < 100 or share >= 1) and (float(text) > 0 or share <= 0):
            return f"{text} %"
    return "more than 99.9 %" if share > 0.5 else "less than 0.1 %"


def share_text(share: float) -> str:
    """An expected share, 0 to 1, in percent and in no more digits than an expectation has: `>99 %`, never `100 %`."""
    if share > 0.99:
        return ">99 %"
    return "<1 %" if share < 0.01 else f"{100 * share:.0f} %"


def share_range_text(low: float, high: float) -> str:
    """A range of an expected share, its ends worded as in `share_text`: `85 to 93 %`; one of them where they agree."""
    ends = share_text(low), share_text(high)
    return ends[0] if ends[0] == ends[1] else f"{ends[0].removesuffix(' %')} to {ends[1]}"


def share_decimal(share: float, digits: int = 3) -> str:
    """A share, 0 to 1, as a decimal number; as in `share_percent`, only everything is `1.000` and nothing `0.000`."""
    least = 10.0**-digits
    shown = share if share in (0, 1) else min(max(share, least), 1 - least)
    return f"{shown:.{digits}f}"


def parse_range(text: str, *, what: str, units: Mapping[str, float]) -> Range:
    """Read `0.8-2.5um` or `40`; the result is in the unit whose factor is 1.

    Parameters
    ----------
    what : name of the setting, for messages
    units : factor by unit, "" for a number without unit

    Raises
    ------
    SettingsError
        For anything else, an unknown unit, or a lowest value above the highest.
    """
    match = _RANGE.match(text)
    shown = ", ".join(unit for unit in units if unit) or "none"
    if match is None:
        raise SettingsError(
            f"{what} {text!r} not understood; expected a number or a range such as 0.8-2.5 (units: {shown})"
        )
    first, second, unit = match.groups()
    if unit not in units:
        raise SettingsError(f"{what} {text!r} has unknown unit {unit!r}; use one of: {shown}")
    low, high = float(first) * units[unit], float(second or first) * units[unit]
    if low > high:
        raise SettingsError(f"{what} {text!r}: the lowest value is above the highest; write {second}-{first}{unit}")
    return low, high
