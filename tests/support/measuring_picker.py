"""A picker that measures sizes and chooses a threshold, fast, and whose candidates depend on what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from scipy import ndimage

from cryopick.geometry.units import Length
from cryopick.pickers.blob import BlobPicker
from cryopick.pickers.survey import TOLD_FIELDS, Survey
from cryopick.types import Micrograph, Picks

DARK = -0.5
SMALLEST_PX = 6.0


@dataclass(frozen=True, kw_only=True)
class MeasuringPicker:
    """Looks for discs of the size that most dark areas have; `general` in small."""

    name: ClassVar[str] = "measuring"
    score_meaning: ClassVar[str] = "as of blob"
    default_threshold: ClassVar[float] = 6.0
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS | {"particle_size", "is_empty"}

    diameter: Annotated[Length | None, "particle diameter"] = None
    working_diameter: Annotated[Length | None, "size at which it looks"] = None

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        if self.diameter is not None and self.working_diameter is not None:
            return Survey(particle_size=self.diameter, working_size=self.working_diameter)
        sizes = [size for one in micrographs for size in dark_diameters_px(one)]
        if not sizes:
            return Survey(sentence="nothing looks like a disc")
        size = float(np.round(np.median(sizes), 1))
        return Survey(
            particle_size=Length(size, size, "px"),
            working_size=Length(np.round(0.9 * size), np.round(0.9 * size), "px"),
            filled_share=len(sizes) * size**2 / sum(one.pixels.size for one in micrographs),
            sentence=f"discs of {size} px on {len(micrographs)} micrographs",
        )

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        seen = self.survey([micrograph]) if survey is None else survey
        if seen.working_size is None:
            return Picks.none_on(micrograph)
        blob = BlobPicker(diameter=seen.working_size)
        return blob.pick(micrograph, blob.survey([micrograph]))

    def choose_threshold(self, scores, survey: Survey, *, target_precision: float | None = None) -> float:
        """Between the discs and the rest, at a place that depends a little on all scores."""
        high = scores[scores > 3]
        return float(0.5 * np.median(high)) if len(high) else self.default_threshold


def dark_diameters_px(micrograph: Micrograph) -> list[float]:
    """Of the dark areas, by their size."""
    dark = ndimage.gaussian_filter(np.nan_to_num(micrograph.pixels), 1.5) < DARK
    labels, count = ndimage.label(dark)
    areas = ndimage.sum_labels(dark, labels, range(1, count + 1)) if count else []
    return [size for area in areas if (size := 2 * float(np.sqrt(area / np.pi))) >= SMALLEST_PX]
