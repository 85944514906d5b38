"""Lengths with units: `180A`, `18nm`, `108px`, and ranges of them: `150-200A`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cryopick.errors import SettingsError, UnknownPixelSizeError

_ANGSTROM_PER = {"A": 1.0, "Å": 1.0, "nm": 10.0, "um": 1e4, "µm": 1e4}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_LENGTH = re.compile(rf"^\s*({_NUMBER})(?:\s*-\s*({_NUMBER}))?\s*([A-Za-zÅµ]*)\s*$")


@dataclass(frozen=True)
class Length:
    """A length or a range of lengths, in Å or in pixels of the micrograph as stored.

    Parameters
    ----------
    low, high : positive; equal when the length is a single number
    unit : "A" or "px"
    """

    low: float
    high: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in ("A", "px"):
            raise SettingsError(f"unit of a length is {self.unit!r}, expected 'A' or 'px'")
        if not (math.isfinite(self.high) and 0 < self.low <= self.high):
            raise SettingsError(f"length {self.low:g}-{self.high:g}{self.unit}: expected 0 < low <= high, both finite")

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

    def to_px(self, pixel_size_angstrom: float | None) -> tuple[float, float]:
        """(low, high) in pixels; an Å length needs the pixel size."""
        if self.unit == "px":
            return self.low, self.high
        if pixel_size_angstrom is None:
            raise UnknownPixelSizeError(
                f"length {self} is in Å but the pixel size of the micrograph is unknown; "
                "give --pixel-size (Å per pixel), or the length in pixels, for example 108px"
            )
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


def parse_length(text: str) -> Length:
    """Read `180A`, `18nm`, `108px` or a range such as `150-200A`; a bare number is Å."""
    match = _LENGTH.match(text)
    if match is None:
        raise SettingsError(f"length {text!r} not understood; expected for example 180A, 18nm, 108px or 150-200A")
    first, second, unit = match.groups()
    low, high = float(first), float(second or first)
    if unit in ("px", "pix", "pixel", "pixels"):
        return Length(low, high, "px")
    if unit in ("", "a", "angstrom", "Angstrom"):
        unit = "A"
    if unit not in _ANGSTROM_PER:
        raise SettingsError(f"length {text!r} has unknown unit {unit!r}; use A, nm, um or px")
    return Length(low * _ANGSTROM_PER[unit], high * _ANGSTROM_PER[unit], "A")


def angstrom_to_px(length_angstrom: float, pixel_size_angstrom: float) -> float:
    return length_angstrom / pixel_size_angstrom


def px_to_angstrom(length_px: float, pixel_size_angstrom: float) -> float:
    return length_px * pixel_size_angstrom
