"""Particle and box sizes of a run, for each pixel size of its micrographs: pixels of two magnifications do not mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def sizes_of_run(kept: Sequence[Picks], diameter: Length | None) -> tuple[SizesAtPixelSize, ...]:
    """One entry per pixel size of the micrographs, the smallest first, unknown last; one of no micrograph without any.

    Parameters
    ----------
    kept : the kept picks of each finished micrograph
    diameter : of the run, see `run_diameter`
    """
    groups: list[list[Picks]] = []
    known = [picks for picks in kept if picks.pixel_size_angstrom]
    for picks in sorted(known, key=lambda one: one.pixel_size_angstrom or 0.0):
        first = groups[-1][0].pixel_size_angstrom if groups else None
        if first is not None and (picks.pixel_size_angstrom or 0.0) <= first * SAME_PIXEL_SIZE:
            groups[-1].append(picks)
        else:
            groups.append([picks])
    unknown = [picks for picks in kept if not picks.pixel_size_angstrom]
    if unknown or not groups:
        groups.append(unknown)
    return tuple(_sizes(group, diameter) for group in groups)


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


def _sizes(group: Sequence[Picks], diameter: Length | None) -> SizesAtPixelSize:
    sizes = [picks.pixel_size_angstrom for picks in group if picks.pixel_size_angstrom]
    pixel_size = float(np.median(sizes)) if sizes else None
    diameter_px = _diameter_px(group, diameter, pixel_size)
    boxes = None if diameter_px is None else suggest_boxes(diameter_px, pixel_size)
    return SizesAtPixelSize(
        pixel_size_angstrom=pixel_size,
        micrographs=len(group),
        first_micrograph=min((picks.micrograph_name for picks in group), default=""),
        diameter_px=None if diameter_px is None else round(diameter_px, 2),
        diameter_angstrom=None if diameter_px is None or pixel_size is None else round(diameter_px * pixel_size, 1),
        box_px=None if boxes is None else boxes.box_px,
        binned_box_px=None if boxes is None else boxes.binned_box_px,
        binned_pixel_size_angstrom=None if boxes is None else boxes.binned_pixel_size_angstrom,
    )


def _diameter_px(kept: Sequence[Picks], known: Length | None, pixel_size: float | None) -> float | None:
    """The diameter that was given or measured for the run; where it is a range or unknown, the median of the picks.

    What a picker reads off single particles is often less than what people count as the diameter, to the tips of the
    longest view, and boxes are suggested for the latter.
    """
    if known is not None and known.unit == "A" and pixel_size is None:
        known = None
    if known is not None and not known.is_range:
        return float(known.middle_px(pixel_size))
    diameters = np.concatenate([picks.diameter_px for picks in kept]) if kept else np.empty(0, np.float32)
    diameters = diameters[np.isfinite(diameters)]
    if len(diameters):
        return float(np.median(diameters))
    return None if known is None else float(known.middle_px(pixel_size))
