"""How far off the centres of a run are, where its picker estimates that on each micrograph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from cryopick.runs.sizes import SAME_PIXEL_SIZE


class CentringSeen:
    """Collects the estimates of one micrograph after the other; does not grow with their number."""

    def __init__(self) -> None:
        self._picks: dict[float | None, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._squares: dict[float | None, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, errors_px: Mapping[str, float], *, pixel_size_angstrom: float | None, picks: int) -> None:
        """Take the estimates of a micrograph into account, as often as it has kept picks."""
        for whose, error_px in errors_px.items() if picks else ():
            self._picks[pixel_size_angstrom][whose] += picks
            self._squares[pixel_size_angstrom][whose] += picks * error_px**2

    def errors_px(self, pixel_size_angstrom: float | None) -> dict[str, float]:
        """Over the micrographs of this pixel size, but for its rounding; by whose the centres are."""
        known = [size for size in self._picks if _is_same(size, pixel_size_angstrom)]
        picks, squares = defaultdict[str, int](int), defaultdict[str, float](float)
        for size in known:
            for whose, count in self._picks[size].items():
                picks[whose] += count
                squares[whose] += self._squares[size][whose]
        return {whose: round(float(np.sqrt(squares[whose] / picks[whose])), 3) for whose in picks}


def _is_same(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return max(first, second) <= min(first, second) * SAME_PIXEL_SIZE


def in_angstrom(errors_px: Mapping[str, float], pixel_size_angstrom: float | None) -> dict[str, float]:
    """The same in Å; empty where the pixel size is unknown."""
    if pixel_size_angstrom is None:
        return {}
    return {whose: round(error * pixel_size_angstrom, 2) for whose, error in errors_px.items()}


def centring_text(whose: str, errors_px: Mapping[str, float], errors_angstrom: Mapping[str, float]) -> str:
    """One estimate, such as `1.6 px (2.0 Å)`; "" where there is none."""
    if whose not in errors_px:
        return ""
    angstrom = f" ({errors_angstrom[whose]:.1f} Å)" if whose in errors_angstrom else ""
    return f"{errors_px[whose]:.2g} px{angstrom}"
