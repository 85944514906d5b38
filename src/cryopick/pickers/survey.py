"""What a run sees on a few of its micrographs before it picks, apart from what is asked and from what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cryopick.geometry.units import Length
from cryopick.inference.models import HoldsModels
from cryopick.settings import as_plain, convert_settings
from cryopick.types import Micrograph

if TYPE_CHECKING:
    from cryopick.heatmap.doubts import Doubts
    from cryopick.heatmap.model import HeatmapModel

SURVEYED_MICROGRAPHS = 6
"""Micrographs, spread evenly over the run, that a picker is shown, unless it says `sample_size`."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Facts about a run's micrographs that were measured, not asked; a picker fills in those that it goes by.

    Its fields are none of any picker's settings, so what the user asked and what was seen are never mixed up. A new
    fact is one more field: it is kept in the run folder and given to `pick` at once.
    """

    particle_size: Annotated[Length | None, "diameter of the particles: the given one, else as measured"] = None
    size_uncertainty: Annotated[float | None, "standard error of a measured diameter, in its unit"] = None
    working_size: Annotated[Length | None, "size at which the network looks"] = None
    filled_share: Annotated[float | None, "share of the area that likely particles cover, 0 to 1"] = None
    is_empty: Annotated[bool, "whether `general` would keep nothing at that size"] = False
    decoy_share: Annotated[float | None, "likely picks on negatives over those on micrographs, of runs of 0.1"] = None
    noise_level: Annotated[float | None, "white noise to add, in units of the micrographs' own"] = None
    dark_part: Annotated[float | None, "diameter of the dark part over that of the particle"] = None
    radial_profile: Annotated[str | None, "radial profile that the particles match best"] = None
    trained_model: Annotated[Path | None, "weights that were trained on the run's own micrographs"] = None
    contrast_doubt: Annotated[str | None, "why particles may be bright where they should be dark"] = None
    size_doubt: Annotated[str | None, "why the given diameter may not be that of the particles"] = None
    size_seen: Annotated[Length | None, "diameter read off the micrographs, where the given one is doubted"] = None
    prepared_settings: Annotated[str | None, "settings that a picker of version 0.1 filled in, as JSON"] = None
    sentence: Annotated[str, "what was found, for the user"] = ""

    @property
    def doubts(self) -> tuple[str, ...]:
        """What does not fit between what the user says and what is seen: warnings about the whole run."""
        return tuple(doubt for doubt in (self.contrast_doubt, self.size_doubt) if doubt)

    def with_doubts(self, doubts: Doubts) -> Survey:
        """The same with what `doubts_about_sample` says."""
        return replace(self, contrast_doubt=doubts.contrast, size_doubt=doubts.size, size_seen=doubts.size_seen)

    def to_plain(self) -> dict[str, Any]:
        """Numbers and texts for a TOML section; what was not measured is left out."""
        nothing = as_plain(Survey())
        return {name: value for name, value in as_plain(self).items() if nothing.get(name) != value}

    @classmethod
    def from_plain(cls, given: Mapping[str, Any], *, where: str) -> Survey:
        """The survey that `to_plain` gave; an unknown name or a wrong type is a `SettingsError`."""
        return cls(**convert_settings(cls, given, section=where))


TOLD_FIELDS = frozenset(
    {"size_uncertainty", "contrast_doubt", "size_doubt", "size_seen", "decoy_share", "filled_share", "sentence"}
)
"""What none of our pickers looks by: it is told, and goes into thresholds and tables at most."""
NOTHING_SEEN = Survey()
"""Of a run of which nothing was measured."""


def holding_with_general(
    model: HeatmapModel, micrographs: Sequence[Micrograph], *, diameter: Length | None
) -> list[int]:
    """On which of the micrographs the `general` network sees particles, of the given diameter or of any."""
    from cryopick.heatmap.diameter import holding_particles

    return holding_particles(model, micrographs, diameter)


class LooksThroughGeneral(HoldsModels):
    """Gives a picker the `general` network, in the numbers that it computes in itself, and `holding_particles`."""

    diameter: Length | None
    device: str
    precision: str

    def holding_particles(self, micrographs: Sequence[Micrograph]) -> list[int]:
        """On which of them the `general` network sees particles, of the given diameter or of any."""
        return holding_with_general(self._general(), micrographs, diameter=self.diameter)

    def _general(self) -> HeatmapModel:
        from cryopick.heatmap.model import kept_model

        return kept_model(self._models, device=self.device, precision=self.precision)


def survey_with_general(model: HeatmapModel, micrographs: Sequence[Micrograph], *, diameter: Length | None) -> Survey:
    """Diameter (unless given), working size, filled share and emptiness, as the `general` network sees them.

    Where nothing looks like a particle at any size, the sentence alone.
    """
    from cryopick.heatmap.diameter import (
        empty_run,
        filled_share,
        find_sizes,
        look_at_pieces,
        looks_empty,
    )
    from cryopick.heatmap.doubts import doubts_about_sample

    found = find_sizes(model, micrographs, diameter)
    doubts = doubts_about_sample(model, micrographs, given=diameter, measured=found.diameter)
    if found.diameter is None or found.working is None:
        return Survey(sentence=found.sentence).with_doubts(doubts)
    pieces = look_at_pieces(model, micrographs, found.working)
    filled = filled_share(pieces)
    is_empty = looks_empty(pieces, filled=filled, calibrated_share=model.calibration.share)
    return Survey(
        particle_size=found.diameter,
        size_uncertainty=found.uncertainty,
        working_size=found.working,
        filled_share=filled,
        is_empty=is_empty,
        sentence=empty_run(found.diameter) if is_empty and diameter is None else found.sentence,
    ).with_doubts(doubts)


def survey_of_size(model: HeatmapModel, micrographs: Sequence[Micrograph], *, diameter: Length | None) -> Survey:
    """The diameter, measured with the `general` network unless it is given, and whether what is given fits."""
    from cryopick.heatmap.diameter import measured_size
    from cryopick.heatmap.doubts import doubts_about_sample

    if diameter is None:
        found = measured_size(model, micrographs)
        seen = Survey(particle_size=found.diameter, size_uncertainty=found.uncertainty, sentence=found.sentence)
    else:
        seen = Survey(particle_size=diameter)
    return seen.with_doubts(doubts_about_sample(model, micrographs, given=diameter, measured=seen.particle_size))
