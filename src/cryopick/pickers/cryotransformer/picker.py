"""`cryotransformer`: particles as a set, predicted by a detection transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.inference.computing import RunsNetworks
from cryopick.inference.device import PRECISIONS
from cryopick.io.weights import open_checkpoint
from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.cryotransformer.detr_model import NETWORK as DETR_NETWORK
from cryopick.pickers.cryotransformer.detr_model import (
    Behaviour,
    Denoising,
    DetrModel,
    build_detr,
    detr_model,
    needs_diameter,
)
from cryopick.pickers.cryotransformer.model import LocalSetModel, build_local, local_model
from cryopick.pickers.cryotransformer.published import PublishedChain, above_percentile
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.published_weights import files_of, is_calibrated, read_published
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, LooksThroughGeneral, Survey, survey_with_general
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, resample
from cryopick.types import JUNK_MAP, Micrograph, Picks

NAME = "cryotransformer"
CONFIGURATIONS: Mapping[ConfigurationName, Configuration] = {
    "article": Configuration(
        about=(
            "CryoTransformer as the article describes it: every micrograph whole, two classes, the 25th to 100th "
            "percentile of each micrograph's own confidences, nothing suppressed; needs weights of `cryopick train "
            "cryotransformer --as article`, or the authors'"
        ),
        settings={"behaviour": "article", "keep": "percentile", "percentile": 25.0, "as_found": True},
        departs=(
            "the article has a class for nothing, its program trains particles as that one: the authors' weights give "
            "boxes, but confidences that tell nothing, whichever class is read",
            "the article does not say that its Wiener filter moves the content; centres are moved back",
            "boxes that reach over the border stay whole and their centres are not rounded; the article says neither",
        ),
    ),
    "program": Configuration(
        about=(
            "CryoTransformer as its released program does it, faults included: micrographs upside down, the boxes of "
            "the first three quarters of the queries whatever they say, with the scores of others, and non-maximum "
            "suppression at 0.7; needs the authors' weights (--weights FILE.pth), or those of `cryopick train "
            "cryotransformer --as program`"
        ),
        settings={"behaviour": "published", "percentile": 25.0, "as_found": True},
        departs=(
            "centres are the numbers of the program's .star, half a pixel to one off as there; the few beyond the last "
            "row are left out",
            "a run mends uneven illumination and dead pixels before any picker sees a micrograph; the program does not",
            "the option of the program that doubles picks at random places is left out",
        ),
    ),
}


def load_set_model(weights: Path | None, *, device: str = "auto", precision: str = "auto") -> LocalSetModel | DetrModel:
    """The network of a checkpoint (None: the one shipped with the package), on its device.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another architecture.
    """
    published = partial(read_published, picker=NAME)
    with open_checkpoint(weights or NAME, picker=NAME, published=published) as checkpoint:
        card = checkpoint.card
        knots = card.postprocessing.get("calibration")
        if card.architecture.get("network") == DETR_NETWORK:
            calibration = None if knots is None else Calibration.from_list(knots)
            network = checkpoint.build(build_detr)
            return detr_model(network, card.preprocessing, calibration, device=device, precision=precision)
        calibration = Calibration.from_list(card.postprocessing["calibration"])
        return local_model(checkpoint.build(build_local), calibration, device=device, precision=precision)


class _ScoreMeaning:
    """What the score is: of the class, that of the shipped weights; of a picker, that of its weights and behaviour."""

    def __get__(self, picker: CryoTransformerPicker | None, owner: type[Any]) -> str:
        if picker is None or picker.has_calibrated_scores:
            return "probability that the pick is right, 0 to 1, calibrated on simulation"
        if picker.behaviour == "published":
            return "logistic values of all answers by rank, 0 to 1, as the program writes them; not calibrated"
        return "the network's own confidence, 0 to 1; not calibrated"


@register_picker("cryotransformer")
@dataclass(frozen=True, kw_only=True)
class CryoTransformerPicker(LooksThroughGeneral, RunsNetworks, ChoosesByExpectedF1):
    """Our light transformer that finds particles as a set, after A. Dhakal et al. (Bioinformatics 40, 2024, btae109).

    The article's own system runs by `--as article`. Ours: one query answers for one particle, so nothing is suppressed
    afterwards. The shipped weights learnt from simulated micrographs alone. The score is the calibrated probability
    that a pick is a particle within a quarter of a diameter; the threshold of a run maximises the expected F1.
    """

    score_meaning: ClassVar[_ScoreMeaning] = _ScoreMeaning()
    configurations: ClassVar[Mapping[ConfigurationName, Configuration]] = CONFIGURATIONS
    fills_machine: ClassVar[bool] = True
    """One process uses all cores; a second one would hold the network and its buffers again."""
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS | {"particle_size", "is_empty"}

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    working_diameter: Annotated[
        Length | None, "size at which the network looks; where not set, fitted near the diameter on the micrographs"
    ] = None
    keep: Annotated[
        Literal["calibrated", "percentile"] | None,
        "calibrated: a threshold from the probabilities of the run; percentile: the article's share of each "
        "micrograph; where not set, calibrated where the scores of the weights are",
    ] = None
    percentile: Annotated[float, "with keep = percentile: the lowest part of the answers that is dropped, in %"] = 25.0
    behaviour: Annotated[
        Behaviour,
        "article: answers of whole micrographs, chosen by the article's rule; published: as the program selects and "
        "writes them, faults included; corrected: as the weights were trained",
    ] = "corrected"
    denoising: Annotated[
        Denoising | None,
        "of what the published network sees: as its weights were trained where not set; as_is for 8-bit pictures that "
        "are denoised already",
    ] = None
    weights: Annotated[Path | None, "checkpoint to use instead of the shipped one"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "auto, float32 or bfloat16; auto takes bfloat16 where the hardware has it"] = "auto"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision is {self.precision!r}, expected {', '.join(PRECISIONS)}")
        if not 0 <= self.percentile < 100:
            raise SettingsError(f"percentile is {self.percentile:g}, expected 0 to less than 100")
        if self.keep == "calibrated" and self.behaviour != "corrected":
            raise SettingsError(
                f"behaviour = {self.behaviour} keeps a percentile of each micrograph, and keep is calibrated; leave "
                "one of them out"
            )

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """Measure on a few micrographs what is not given: diameter, working scale, share of the area filled.

        Networks that see micrographs whole and at full size need nothing of it.
        """
        if not self.needs_survey:
            return Survey(particle_size=self.diameter)
        if not micrographs:
            return NOTHING_SEEN
        if self.diameter is not None and (self.working_diameter is not None or self.diameter.is_range):
            return Survey(particle_size=self.diameter, working_size=self.working_diameter)
        return survey_with_general(self._general(), micrographs, diameter=self.diameter)

    @property
    def needs_survey(self) -> bool:
        """Whether the network can look only where the diameter is known.

        Raises
        ------
        SettingsError
            If a published behaviour is asked of weights of the small network.
        """
        if self.weights is None and self.behaviour == "corrected" and self.denoising is None:
            return True  # the shipped network; nothing is loaded to find that out
        model = self._model()
        if not isinstance(model, DetrModel):
            asked = "behaviour" if self.behaviour != "corrected" else "denoising"
            if self.behaviour != "corrected" or self.denoising is not None:
                raise SettingsError(
                    f"{asked} is {getattr(self, asked)}, but these weights are not of the published network; give the "
                    "authors' file or weights of `cryopick train cryotransformer --as article` (or program) with "
                    "--weights"
                )
            return True
        behaviour = model.behaviour if self.behaviour == "corrected" else self.behaviour
        return needs_diameter(behaviour, self.denoising or model.denoising)

    def _alone(self, micrograph: Micrograph) -> Survey:
        """What is gone by where no run was surveyed: the sizes as given, else those of this micrograph."""
        if self.diameter is None:
            return self.survey([micrograph])
        return Survey(particle_size=self.diameter, working_size=self.working_diameter)

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation.

        Raises
        ------
        SettingsError
            If nobody has calibrated the weights.
        """
        calibration = self._model().calibration
        if calibration is None:
            raise self._lack_of_calibration()
        return calibration

    def _lack_of_calibration(self) -> SettingsError:
        return SettingsError(
            f"{self.weights}: the scores of these weights are not calibrated; leave out keep = calibrated"
        )

    @property
    def has_calibrated_scores(self) -> bool:
        """Whether scores are probabilities; under a published behaviour they are its network's own numbers."""
        if self.behaviour != "corrected":
            return False
        return self.weights is None or is_calibrated(self.weights)

    @property
    def _keeps_percentile(self) -> bool:
        return not self.has_calibrated_scores if self.keep is None else self.keep == "percentile"

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """The cut with the highest expected F1; none where percentiles or the published program select."""
        if not self._keeps_percentile:
            if not self.has_calibrated_scores:
                raise self._lack_of_calibration()
            return super().choose_threshold(scores, survey, target_precision=target_precision)
        if target_precision is not None:
            raise SettingsError(
                "a target precision needs calibrated probabilities; leave out keep = percentile and a behaviour other "
                "than corrected, and use weights with a calibration"
            )
        return 0.0

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All answers of the network, best first; `maps` holds the centre heat and the junk probability."""
        needs_size, model = self.needs_survey, self._model()
        quantile = self.percentile / 100 if self._keeps_percentile else None
        published = PublishedChain(behaviour=self.behaviour, denoising=self.denoising, quantile=quantile)
        if not needs_size and isinstance(model, DetrModel):
            return published.picks(model, micrograph, diameter_px=None)
        seen = self._alone(micrograph) if survey is None else survey
        working = seen.working_size or seen.particle_size
        if working is None:  # nothing particle-like at any size
            return Picks.none_on(micrograph)
        low_px, high_px = working.to_px(micrograph.pixel_size_angstrom)
        diameter_px = float(np.sqrt(low_px * high_px))
        if isinstance(model, DetrModel):
            return published.picks(model, micrograph, diameter_px=diameter_px)
        picks = local_picks(model, micrograph, diameter_px=diameter_px)
        if quantile is None:
            return picks
        return picks.take(above_percentile(picks.score.astype(np.float64), quantile=quantile))

    def shipped_weights(self) -> Mapping[str, str]:
        """Of the network, and of `general`, through which a run is looked at."""
        used = {"weights": NAME} if self.weights is None else {}
        return {**used, "general": "general"} if self.needs_survey else used

    def _model(self) -> LocalSetModel | DetrModel:
        files = files_of(self.weights or NAME, picker=NAME)
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
