"""`cryotransformer`: particles as a set, predicted by a detection transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.inference.device import PRECISIONS
from cryopick.inference.models import HoldsModels
from cryopick.io.weights import files_of_weights, open_checkpoint
from cryopick.pickers.cryotransformer.detr_model import NETWORK as DETR_NETWORK
from cryopick.pickers.cryotransformer.detr_model import DetrModel, build_detr, detr_model, prepare_image
from cryopick.pickers.cryotransformer.model import (
    CANDIDATE_FLOOR,
    LocalSetModel,
    build_local,
    local_model,
)
from cryopick.pickers.cryotransformer.published import above_percentile, published_picks
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, Survey, holding_with_general, survey_with_general
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, resample
from cryopick.types import JUNK_MAP, Micrograph, Picks


def load_set_model(weights: Path | None, *, device: str = "auto", precision: str = "auto") -> LocalSetModel | DetrModel:
    """The network of a checkpoint (None: the one shipped with the package), on its device.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another architecture.
    """
    with open_checkpoint(weights or "cryotransformer", picker="cryotransformer") as checkpoint:
        card = checkpoint.card
        calibration = Calibration.from_list(card.postprocessing["calibration"])
        if card.architecture.get("network") == DETR_NETWORK:
            published = checkpoint.build(build_detr)
            return detr_model(published, card.preprocessing, calibration, device=device, precision=precision)
        network = checkpoint.build(build_local)
        return local_model(network, calibration, device=device, precision=precision)


@register_picker("cryotransformer")
@dataclass(frozen=True, kw_only=True)
class CryoTransformerPicker(HoldsModels, ChoosesByExpectedF1):
    """Particles as a set, predicted by a detection transformer (A. Dhakal et al., Bioinformatics 40, 2024, btae109).

    One query answers for one particle, so nothing is suppressed afterwards. The shipped weights learnt from simulated
    micrographs alone. The score is the calibrated probability that a pick is a particle within a quarter of a diameter;
    the threshold of a run maximises the expected F1.
    """

    score_meaning: ClassVar[str] = "probability that the pick is right, 0 to 1, calibrated on simulation"
    fills_machine: ClassVar[bool] = True
    """One process uses all cores; a second one would hold the network and its buffers again."""

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    working_diameter: Annotated[
        Length | None, "size at which the network looks; where not set, fitted near the diameter on the micrographs"
    ] = None
    keep: Annotated[
        Literal["calibrated", "percentile"],
        "calibrated: a threshold from the probabilities of the run; percentile: the article's share of each micrograph",
    ] = "calibrated"
    percentile: Annotated[float, "with keep = percentile: the lowest part of the answers that is dropped, in %"] = 25.0
    behaviour: Annotated[
        Literal["corrected", "published"],
        "published: answers of whole micrographs as the program selects and writes them, faults included",
    ] = "corrected"
    weights: Annotated[Path | None, "checkpoint to use instead of the shipped one"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "auto, float32 or bfloat16; auto takes bfloat16 where the hardware has it"] = "auto"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision is {self.precision!r}, expected {', '.join(PRECISIONS)}")
        if not 0 <= self.percentile < 100:
            raise SettingsError(f"percentile is {self.percentile:g}, expected 0 to less than 100")

    def holding_particles(self, micrographs: Sequence[Micrograph]) -> list[int]:
        """On which of them the `general` network sees particles, of the given diameter or of any."""
        from cryopick.heatmap.model import kept_model

        return holding_with_general(
            kept_model(self._models, device=self.device, precision=self.precision), micrographs, diameter=self.diameter
        )

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """Measure on a few micrographs what is not given: diameter, working scale, share of the area filled."""
        from cryopick.heatmap.model import kept_model

        if not micrographs:
            return NOTHING_SEEN
        if self.diameter is not None and (self.working_diameter is not None or self.diameter.is_range):
            return Survey(particle_size=self.diameter, working_size=self.working_diameter)
        general = kept_model(self._models, device=self.device, precision=self.precision)
        return survey_with_general(general, micrographs, diameter=self.diameter)

    def _alone(self, micrograph: Micrograph) -> Survey:
        """What is gone by where no run was surveyed: the sizes as given, else those of this micrograph."""
        if self.diameter is None:
            return self.survey([micrograph])
        return Survey(particle_size=self.diameter, working_size=self.working_diameter)

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation."""
        return self._model().calibration

    @property
    def has_calibrated_scores(self) -> bool:
        """Whether scores are probabilities; the published program's are its network's own numbers."""
        return self.behaviour == "corrected"

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """The cut with the highest expected F1; none where percentiles or the published program select."""
        if self.keep == "calibrated" and self.behaviour == "corrected":
            return super().choose_threshold(scores, survey, target_precision=target_precision)
        if target_precision is not None:
            raise SettingsError(
                "a target precision needs calibrated probabilities; leave out keep = percentile and behaviour = "
                "published"
            )
        return 0.0

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All answers of the network, best first; `maps` holds the centre heat and the junk probability."""
        seen = self._alone(micrograph) if survey is None else survey
        working = seen.working_size or seen.particle_size
        if working is None:  # nothing particle-like at any size
            return Picks.none_on(micrograph)
        low_px, high_px = working.to_px(micrograph.pixel_size_angstrom)
        diameter_px = float(np.sqrt(low_px * high_px))
        model = self._model()
        if isinstance(model, DetrModel):
            return self._detr_picks(model, micrograph, diameter_px=diameter_px)
        if self.behaviour == "published":
            raise SettingsError(
                "behaviour is published, but these weights are not of the published network; give weights of "
                "`cryopick train cryotransformer --preset paper`"
            )
        picks = local_picks(model, micrograph, diameter_px=diameter_px)
        return self._of_percentile(picks)

    def _detr_picks(self, model: DetrModel, micrograph: Micrograph, *, diameter_px: float) -> Picks:
        is_upside_down = model.behaviour == "published"
        pixels = np.ascontiguousarray(micrograph.pixels[::-1]) if is_upside_down else micrograph.pixels
        prepared = prepare_image(pixels, diameter_px=diameter_px, denoising=model.denoising)
        height = micrograph.shape_yx[0]
        if self.behaviour == "published":
            answers = model.answers(prepared.grey)
            xy_px, side_px, score = published_picks(
                answers, shape_yx=micrograph.shape_yx, quantile=self.percentile / 100
            )
            if not is_upside_down:  # the rule counts y from the other end
                xy_px[:, 1] = height - xy_px[:, 1]
            value = score.astype(np.float32)
        else:
            floor = CANDIDATE_FLOOR if self.keep == "calibrated" else 0.0
            if is_upside_down:
                xy_px, side_px, score = model.whole(prepared, floor=floor)
                xy_px[:, 1] = height - 1 - xy_px[:, 1]
            else:
                xy_px, side_px, score = model.in_tiles(prepared, diameter_px=diameter_px, floor=floor)
            value = model.calibration(score)
        picks = Picks.of_candidates(micrograph, xy_px, value, np.maximum(side_px, 1e-3), rank=score)
        return picks if self.behaviour == "published" else self._of_percentile(picks)

    def _of_percentile(self, picks: Picks) -> Picks:
        """With the article's rule only what lies above its percentile; else all."""
        if self.keep == "calibrated":
            return picks
        return picks.take(above_percentile(picks.score.astype(np.float64), quantile=self.percentile / 100))

    def _model(self) -> LocalSetModel | DetrModel:
        files = files_of_weights(self.weights or "cryotransformer")
        return self._models.get(load_set_model, files, self.weights, device=self.device, precision=self.precision)


def local_picks(model: LocalSetModel, micrograph: Micrograph, *, diameter_px: float) -> Picks:
    """All answers of the small network for particles about `diameter_px` wide, best first; none is suppressed."""
    working, scale = resample(micrograph.pixels, factor=NOMINAL_PARTICLE_PX / diameter_px)
    found = model(working)
    return Picks.of_candidates(
        micrograph,
        scale.to_stored_xy(found.xy_px),
        model.calibration(found.score),
        diameter_px * found.diameter_ratio,
        rank=found.score,
        maps={"centre probability": found.heat, JUNK_MAP: found.junk},
    )
