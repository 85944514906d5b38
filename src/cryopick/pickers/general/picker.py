"""`general`: a pretrained scale-normalised network; needs no labels and no settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from cryopick.errors import SettingsError
from cryopick.geometry.selection import merged_best_first, stand_apart
from cryopick.geometry.units import Length
from cryopick.heatmap.diameter import (
    Sizes,
    empty_run,
    filled_share,
    find_sizes,
    look_at_pieces,
    looks_empty,
)
from cryopick.heatmap.doubts import doubts_about_sample
from cryopick.heatmap.model import GENERAL_PRECISIONS, HeatmapModel, kept_model, picks_at_scale, precision_in_force
from cryopick.inference.looks import LOOKS, ONE_LOOK
from cryopick.inference.models import HoldsModels
from cryopick.inference.runtime import runtime_on
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, Survey, holding_with_general
from cryopick.processing.probability import Calibration
from cryopick.types import Micrograph, Picks

LOOKS_BY_COUNT = {1: ONE_LOOK, 3: LOOKS}
"""What `looks` stands for: one at the size itself, or all three, by which scores are calibrated."""


@register_picker("general")
@dataclass(frozen=True, kw_only=True)
class GeneralPicker(HoldsModels, ChoosesByExpectedF1):
    """Pretrained network on scale-normalised micrographs; measures the diameter when none is given.

    Trained on simulated micrographs alone. The score is the calibrated probability that a pick is a particle within a
    quarter of a diameter; the threshold of a run maximises the expected F1.
    """

    score_meaning: ClassVar[str] = "probability that the pick is right, 0 to 1, calibrated on simulation"
    marked_power: ClassVar[float] = 1.0
    """Of 0 to 3 best on one real set, as good as any on the other; 0 would serve simulation a little better."""
    fills_machine: ClassVar[bool] = True
    """One process uses all cores; a second one would hold the network and its buffers again."""
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS | {"particle_size", "is_empty"}

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    working_diameter: Annotated[
        Length | None, "size at which the network looks; where not set, fitted near the diameter on the micrographs"
    ] = None
    weights: Annotated[Path | None, "checkpoint to use instead of the shipped one"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    looks: Annotated[
        int, "times that each micrograph is shown to the network: 3, or 1, which is faster and finds a little less"
    ] = 3
    precision: Annotated[str, "auto, float32, bfloat16 or int8; auto takes the fastest that the hardware has"] = "auto"

    def __post_init__(self) -> None:
        if self.precision not in GENERAL_PRECISIONS:
            raise SettingsError(f"precision is {self.precision!r}, expected {', '.join(GENERAL_PRECISIONS)}")
        if self.looks not in LOOKS_BY_COUNT:
            raise SettingsError(f"looks is {self.looks}, expected {' or '.join(map(str, LOOKS_BY_COUNT))}")

    def holding_particles(self, micrographs: Sequence[Micrograph]) -> list[int]:
        """On which of them the `general` network sees particles, of the given diameter or of any."""
        return holding_with_general(self._model(), micrographs, diameter=self.diameter)

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """Measure the diameter on a few micrographs of the run unless it is given, and fit the working scale."""
        if not micrographs:
            return NOTHING_SEEN
        sizes = self._sizes(micrographs)
        seen = Survey(
            particle_size=sizes.diameter,
            size_uncertainty=sizes.uncertainty,
            working_size=sizes.working,
            sentence=sizes.sentence,
        ).with_doubts(doubts_about_sample(self._model(), micrographs, given=self.diameter, measured=sizes.diameter))
        looked_at = sizes.working or sizes.diameter
        if looked_at is None:
            return seen
        pieces = look_at_pieces(self._model(), micrographs, looked_at)
        filled, sentence = filled_share(pieces), sizes.sentence
        if sizes.working is None or sizes.working.is_range:
            return seen
        is_empty = looks_empty(pieces, filled=filled, calibrated_share=self.calibration.share)
        if sentence and sizes.diameter is not None and is_empty:
            sentence = empty_run(sizes.diameter)
        return replace(seen, filled_share=filled, sentence=sentence)

    def _sizes(self, micrographs: Sequence[Micrograph]) -> Sizes:
        if self.diameter is not None and (self.working_diameter is not None or self.diameter.is_range):
            return Sizes(diameter=self.diameter, working=self.working_diameter)
        return find_sizes(self._model(), micrographs, self.diameter)

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation."""
        return self._model().calibration

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates of one micrograph, best first; `maps` holds the centre heat and the junk probability."""
        seen = self.survey([micrograph]) if survey is None else survey
        working = seen.working_size or seen.particle_size
        if working is None:  # nothing particle-like at any size
            return Picks.none_on(micrograph)
        scales_px = _scales_px(*working.to_px(micrograph.pixel_size_angstrom))
        looks = LOOKS_BY_COUNT[self.looks]
        found = [
            picks_at_scale(self._model(), micrograph, diameter_px=diameter_px, looks=looks) for diameter_px in scales_px
        ]
        return found[0] if len(found) == 1 else _merge_scales(found)

    def precision_on(self, device: str) -> str:
        """The number format on a device: `auto` is the fastest that it and the weights have."""
        return precision_in_force(self.weights, device=device, precision=self.precision)

    def runtime_on(self, device: str) -> str:
        """The library that runs the network on a device."""
        return runtime_on(device)

    def shipped_weights(self) -> Mapping[str, str]:
        """Of the network that it looks through."""
        return {"weights": "general"} if self.weights is None else {}

    def _model(self) -> HeatmapModel:
        return kept_model(self._models, self.weights, device=self.device, precision=self.precision)


def _scales_px(low_px: float, high_px: float) -> list[float]:
    """Diameters to run at for a range: the network covers a factor of 1.5 around each."""
    count = 1 + int(np.ceil(np.log(high_px / low_px) / np.log(1.5)) if high_px > low_px else 0)
    if count == 1:
        return [float(np.sqrt(low_px * high_px))]
    return [float(d) for d in np.geomspace(low_px, high_px, count)]


def _merge_scales(found: Sequence[Picks]) -> Picks:
    """Candidates of several scales as one list; of those closer than a quarter diameter the best is kept."""
    merged = merged_best_first(found, like=found[0])
    reach_px = 0.25 * merged.diameter_px
    return merged.take(
        stand_apart(merged.xy_px, lambda better, _: reach_px[better], reach_px=float(reach_px.max(initial=0.0)))
    )
