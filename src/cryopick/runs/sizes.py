"""Particle and box sizes of a run, for each pixel size of its micrographs: pixels of two magnifications do not mix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cryopick.geometry.units import Length
from cryopick.pickers.survey import Survey
from cryopick.runs.boxes import suggest_boxes
from cryopick.types import Picks

SAME_PIXEL_SIZE = 1.005
"""Ratio up to which pixel sizes are one magnification, rounded or calibrated differently; no box changes by it."""


@dataclass(frozen=True, kw_only=True)
class SizesAtPixelSize:
    """What holds for the micrographs of one pixel size; None where unknown."""

    pixel_size_angstrom: float | None
    """The median of sizes that are the same but for rounding."""
    micrographs: int
    first_micrograph: str
    diameter_px: float | None
    diameter_angstrom: float | None
    box_px: int | None
    binned_box_px: int | None
    binned_pixel_size_angstrom: float | None


def run_diameter(picker: Any, survey: Survey | None) -> Length | None:
    """The particle diameter of a run, as given or as measured; None where it is unknown."""
    given: Length | None = getattr(picker, "diameter", None)
    return given if given is not None or survey is None else survey.particle_size


def sizes_of_run(kept: Iterable[Picks], diameter: Length | None) -> tuple[SizesAtPixelSize, ...]:
    """One entry per pixel size of the micrographs, the smallest first, unknown last; one of no micrograph without any.

    Parameters
    ----------
    kept : the kept picks of each finished micrograph
    diameter : of the run, see `run_diameter`
    """
    seen = SizesSeen(diameter)
    for picks in kept:
        seen.add(picks)
    return seen.sizes()


class SizesSeen:
    """Collects what `sizes_of_run` tells from one micrograph after the other; does not grow with their number.

    Of the picks' own diameters, where these are needed, it counts how often each occurs: run folders keep them to
    0.01 px.
    """

    def __init__(self, diameter: Length | None) -> None:
        self._diameter = diameter
        self._seen: dict[float | None, _Seen] = {}

    def add(self, kept: Picks) -> None:
        """Take the kept picks of one more micrograph into account."""
        pixel_size = kept.pixel_size_angstrom or None
        seen = self._seen.setdefault(pixel_size, _Seen())
        is_first = not seen.micrographs or kept.micrograph_name < seen.first_micrograph
        seen.first_micrograph = kept.micrograph_name if is_first else seen.first_micrograph
        seen.micrographs += 1
        if _known(self._diameter, pixel_size) is None or (self._diameter is not None and self._diameter.is_range):
            seen.diameters.update(kept.diameter_px[np.isfinite(kept.diameter_px)].tolist())

    def sizes(self) -> tuple[SizesAtPixelSize, ...]:
        """As `sizes_of_run`."""
        groups: list[list[float]] = []
        for size in sorted(size for size in self._seen if size is not None):
            if groups and size <= groups[-1][0] * SAME_PIXEL_SIZE:
                groups[-1].append(size)
            else:
                groups.append([size])
        sizes = [self._sizes_of(group) for group in groups]
        return tuple([*sizes, self._sizes_of([None])] if None in self._seen or not groups else sizes)

    def _sizes_of(self, group: Sequence[float | None]) -> SizesAtPixelSize:
        seen = [self._seen.get(size, _Seen()) for size in group]
        known = {size: one.micrographs for size, one in zip(group, seen, strict=True) if size is not None}
        pixel_size = _median(known) if known else None
        diameters = sum((one.diameters for one in seen), Counter[float]())
        diameter_px = _diameter_px(diameters, self._diameter, pixel_size)
        boxes = None if diameter_px is None else suggest_boxes(diameter_px, pixel_size)
        return SizesAtPixelSize(
            pixel_size_angstrom=pixel_size,
            micrographs=sum(one.micrographs for one in seen),
            first_micrograph=min(one.first_micrograph for one in seen),
            diameter_px=None if diameter_px is None else round(diameter_px, 2),
            diameter_angstrom=None if diameter_px is None or pixel_size is None else round(diameter_px * pixel_size, 1),
            box_px=None if boxes is None else boxes.box_px,
            binned_box_px=None if boxes is None else boxes.binned_box_px,
            binned_pixel_size_angstrom=None if boxes is None else boxes.binned_pixel_size_angstrom,
        )


@dataclass
class _Seen:
    """Micrographs of one pixel size."""

    micrographs: int = 0
    first_micrograph: str = ""
    diameters: Counter[float] = field(default_factory=Counter)
    """How many picks have which diameter, px."""


def sizes_at(sizes: Sequence[SizesAtPixelSize], pixel_size_angstrom: float | None) -> SizesAtPixelSize:
    """The entry of `sizes_of_run` that holds for a micrograph of this pixel size."""
    known = [one for one in sizes if one.pixel_size_angstrom is not None]
    if not pixel_size_angstrom or not known:
        return sizes[-1]
    return min(known, key=lambda one: abs(np.log((one.pixel_size_angstrom or 1.0) / pixel_size_angstrom)))


def doubt_of_sizes(sizes: Sequence[SizesAtPixelSize], diameter: Length | None) -> str:
    """What a user must know of a run whose micrographs have several pixel sizes; "" where they have one."""
    if len(sizes) < 2:
        return ""
    groups = "; ".join(_group_text(one) for one in sizes)
    text = f"the micrographs have different pixel sizes and need different boxes: {groups}; extract them separately"
    if any(one.pixel_size_angstrom is None for one in sizes):
        text += ", and give --pixel-size if they are of one magnification"
    if diameter is not None and diameter.unit == "px":
        text += f"; the diameter {diameter.as_typed} is another length at each of them, better give it in Å"
    return text


def box_doubt(sizes: Sequence[SizesAtPixelSize], survey: Survey) -> str:
    """What is said beside a box that was suggested for a diameter that does not fit what is seen; "" where it does."""
    seen = survey.size_seen
    if seen is None:
        return ""
    fitting = []
    for one in sizes:
        if seen.unit == "px" or one.pixel_size_angstrom is not None:
            boxes = suggest_boxes(seen.middle_px(one.pixel_size_angstrom), one.pixel_size_angstrom)
            fitting.append(f"{boxes.box_px} px" + (f" at {pixel_size_text(one)}" if len(sizes) > 1 else ""))
    box = f", which need a box of {', '.join(fitting)}" if fitting else ""
    return f"the box is for the given diameter; particles look about {seen.middle:g} {seen.unit_symbol} wide{box}"


def size_line(one: SizesAtPixelSize) -> str:
    """Diameter and suggested boxes in one line; "" where no diameter is known."""
    if one.diameter_px is None or one.box_px is None:
        return ""
    angstrom = "" if one.diameter_angstrom is None else f" ({one.diameter_angstrom:g} Å)"
    binned = ""
    if one.binned_box_px is not None:
        binned = f", binned {one.binned_box_px} px at {one.binned_pixel_size_angstrom:.3g} Å"
    return f"diameter {one.diameter_px:g} px{angstrom}; suggested box {one.box_px} px{binned}"


def pixel_size_text(one: SizesAtPixelSize) -> str:
    return "unknown pixel size" if one.pixel_size_angstrom is None else f"{one.pixel_size_angstrom:.4g} Å per pixel"


def _group_text(one: SizesAtPixelSize) -> str:
    box = "" if one.box_px is None else f", box {one.box_px} px"
    if one.micrographs == 1:
        return f"{pixel_size_text(one)} ({one.first_micrograph}{box})"
    return f"{pixel_size_text(one)} ({one.micrographs} micrographs such as {one.first_micrograph}{box})"


def _known(diameter: Length | None, pixel_size: float | None) -> Length | None:
    """The diameter where it can be had in pixels."""
    return None if diameter is not None and diameter.unit == "A" and pixel_size is None else diameter


def _diameter_px(picked: Mapping[float, int], given: Length | None, pixel_size: float | None) -> float | None:
    """The diameter that was given or measured for the run; where it is a range or unknown, the median of the picks.

    What a picker reads off single particles is often less than what people count as the diameter, to the tips of the
    longest view, and boxes are suggested for the latter.

    Parameters
    ----------
    picked : how many picks have which diameter, px
    """
    known = _known(given, pixel_size)
    if known is not None and not known.is_range:
        return float(known.middle_px(pixel_size))
    if picked:
        return _median(picked, np.float32)
    return None if known is None else float(known.middle_px(pixel_size))


def _median(count_of: Mapping[float, int], kind: type[np.floating] = np.float64) -> float:
    """The median of values of which each occurs so many times, in the precision `kind`."""
    values = sorted(count_of)
    until = np.cumsum([count_of[value] for value in values])
    middle = [(int(until[-1]) - 1) // 2, int(until[-1]) // 2]  # the same place twice where their number is odd
    places = np.searchsorted(until, middle, side="right")
    return float(np.median(np.array([values[place] for place in places], kind)))
