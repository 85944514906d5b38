"""`segmentation-crf`: every pixel is called particle or not, a random field tidies the map, regions become particles.

`--pipeline ours` is our own; `article` and `program` are the published one, on weights of torchvision's networks.

References
----------
S.-C. Chung, P.-C. Chou, A Novel Particle Picking Pipeline for Cryo-EM Using Semantic Segmentation and Conditional
Random Field (extended abstract). Implemented from its description and that of the authors' notebooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError, WeightsError
from cryopick.geometry.units import Length
from cryopick.heatmap.emptiness import thinned_scores
from cryopick.inference.computing import RunsNetworks
from cryopick.inference.device import PRECISIONS
from cryopick.io.weights import files_of_weights, find_weights, is_published_file
from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.published_weights import files_of
from cryopick.pickers.registry import register_picker
from cryopick.pickers.segmentation_crf.dense_crf import PUBLISHED_DIAMETER_PX, DenseCrf, published_crf
from cryopick.pickers.segmentation_crf.model import (
    CELLS_PER_DIAMETER,
    CORE_RADIUS,
    DENSE,
    JUNK,
    VIEW_COUNTS,
    SegmentationModel,
    core_map,
    load_segmentation,
    particle_map,
)
from cryopick.pickers.segmentation_crf.published import (
    TUNED,
    UNTUNED,
    PublishedModel,
    Refinement,
    load_published,
    see_published,
)
from cryopick.pickers.segmentation_crf.published_configurations import ANY_AREA, CONFIGURATIONS, OF_WEIGHTS
from cryopick.pickers.segmentation_crf.recentring import recentred
from cryopick.pickers.segmentation_crf.regions import find_regions
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, LooksThroughGeneral, Survey, survey_of_size
from cryopick.processing.normalize import robust_spread
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, ScaleMap, gaussian_blur, network_planes, resample
from cryopick.types import JUNK_MAP, PARTICLE_MAP, UNREFINED, Micrograph, Picks

Backbone = Literal[
    "small",
    "deeplabv3-small",
    "fcn-resnet50",
    "fcn-resnet101",
    "deeplabv3-resnet50",
    "deeplabv3-resnet101",
    "of-weights",
]
"""`small` and `deeplabv3-small` are the FCN and the DeepLabv3 head of one light network, which is shipped;
`of-weights`, of the published pipeline alone, is what the weights hold."""
BACKBONES: tuple[Backbone, ...] = tuple(one for one in get_args(Backbone) if one != OF_WEIGHTS)
OUR_CRFS, PUBLISHED_CRFS = ("none", "dense", "conv", "learned"), ("none", "dense", TUNED, UNTUNED)

CENTRING_SCORE = 0.4
"""Candidates that are likelier to be particles make the average to which all are aligned."""
TRIED_NOISE = (4.0, 16.0)
"""Standard deviations of the noise that may be added, in those of the micrograph's own."""
NOISE_GAIN, LEAST_WORTH = 2.0, 3.0
"""It is added where the picks are then worth so many times as much, and no less than so many right ones."""
NEARLY = 0.9
"""Less noise is taken where the picks are worth this share of the most: their scores are expectations."""
PROBED_MICROGRAPHS, PROBED_DIAMETERS = 3, 20.0
"""Tried on the middle of a few micrographs, so many diameters wide."""


class _ScoreMeaning:
    """What the score is, which the pipeline decides; of the class: that of ours."""

    def __get__(self, picker: SegmentationCrfPicker | None, owner: type[Any]) -> str:
        if picker is None or picker.pipeline == "ours":
            return "probability that the pick is right, 0 to 1, calibrated on simulation"
        return "mean probability of a particle over the pixels of the region, 0 to 1, as the network gives it"


@register_picker("segmentation-crf")
@dataclass(frozen=True, kw_only=True)
class SegmentationCrfPicker(LooksThroughGeneral, RunsNetworks, ChoosesByExpectedF1):
    """Our light network that calls every pixel particle or not, after the idea of S.-C. Chung and P.-C. Chou.

    A network gives for every place the probability of a particle, of its core, of junk and of background; a conditional
    random field may refine the map; each connected region, split where particles touch, gives one particle at the
    centroid of its core. The score is the calibrated probability that the pick is right. The published pipeline, on
    torchvision's FCN or DeepLabv3 at full resolution, runs by `--as article` or `--as program` with your own weights.
    """

    score_meaning: ClassVar[Any] = _ScoreMeaning()
    configurations: ClassVar[Mapping[ConfigurationName, Configuration]] = CONFIGURATIONS
    default_threshold: ClassVar[float] = 0.2
    """Where there is no run to choose a threshold for: discs and other shapes unlike proteins score low."""
    fills_machine: ClassVar[bool] = True
    """One process uses all cores; a second one would hold the network and its buffers again."""
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS | {"is_empty"}

    diameter: Annotated[
        Length | None,
        "particle diameter, for example 180A or 108px; measured when not given; the published pipeline needs none",
    ] = None
    pipeline: Annotated[
        Literal["ours", "article", "program"],
        "ours, or the published one with torchvision's networks: as the article has it, or as its program, faults "
        "included; --as article and --as program set it with all that belongs to it",
    ] = "ours"
    backbone: Annotated[
        Backbone,
        "network; small (FCN) and deeplabv3-small are shipped, the others need --weights of your own training; the "
        "published pipeline takes that of the weights",
    ] = "small"
    crf: Annotated[
        Literal["none", "dense", "conv", "learned", "conv-published", "conv-published-untuned"],
        "conditional random field on the map: none, fully connected, convolutional, on learned features; or, in the "
        "published pipeline, the convolutional one of the notebooks, on logits or (untuned) on probabilities",
    ] = "none"
    crf_parameters: Annotated[
        Literal["default", "published", "published-with-axis-fault"],
        "of the dense CRF: ours, those published, or those with the published mix-up of rows and columns",
    ] = "default"
    views: Annotated[int, "mirror images of the micrograph whose maps are averaged: 1, 2 or 4"] = VIEW_COUNTS[-1]
    split: Annotated[
        Literal["core", "distance", "components"],
        "touching particles are told apart by learned cores or by the distance transform, or stay one (components)",
    ] = "core"
    min_area: Annotated[float, "smallest region, as a fraction of the area of a disc of the diameter"] = 0.08
    max_area: Annotated[float, "largest region, likewise"] = 2.5
    recentre: Annotated[bool, "align particles to their own rotational average"] = True
    weights: Annotated[Path | None, "checkpoint to use instead of the shipped one"] = None
    particle_class: Annotated[
        int | None, "published pipeline: number of the particle's class, from 0; of two classes it is 1 where not given"
    ] = None
    tile_px: Annotated[
        int | None,
        "published pipeline: side of the pieces that the network sees, a multiple of 8; 512 for FCN and 1024 for "
        "DeepLabv3 where not given, or as the weights were trained",
    ] = None
    rim_px: Annotated[int, "published pipeline: pixels left out at every border; nothing is found there"] = 0
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "auto, float32 or bfloat16; auto takes bfloat16 where the hardware has it"] = "auto"

    added_noise: Annotated[
        float | None,
        "white noise added before the network, in units of the micrograph's own, for particles of higher contrast than "
        "the network knows; measured on the run when not given",
    ] = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision is {self.precision!r}, expected {', '.join(PRECISIONS)}")
        if self.crf_parameters != "default" and self.crf != "dense" and self.pipeline == "ours":
            raise SettingsError(f"crf_parameters {self.crf_parameters!r} are of the dense CRF, but crf is {self.crf!r}")
        if self.views not in VIEW_COUNTS:
            raise SettingsError(f"views is {self.views}, expected one of: {', '.join(map(str, VIEW_COUNTS))}")
        if self.added_noise is not None and not 0 <= self.added_noise < np.inf:
            raise SettingsError(f"added_noise is {self.added_noise:g}, expected 0 or more")
        if not 0 <= self.min_area < self.max_area:
            raise SettingsError(
                f"min_area is {self.min_area:g} and max_area {self.max_area:g}, expected 0 <= min_area < max_area"
            )
        if self.diameter is not None and self.diameter.is_range:
            raise SettingsError(
                f"diameter is the range {self.diameter}; segmentation-crf looks at one size, give one diameter"
            )
        self._refuse_what_the_pipeline_has_not()

    def _refuse_what_the_pipeline_has_not(self) -> None:
        """Nothing that is given is passed over: what belongs to the other pipeline is an error."""
        if self.pipeline == "ours":
            wrong = {
                "backbone": self.backbone == OF_WEIGHTS,
                "crf": self.crf not in OUR_CRFS,
                "split": self.split == "components",
                "particle_class": self.particle_class is not None,
                "tile_px": self.tile_px is not None,
                "rim_px": self.rim_px != 0,
            }
            hint = "it belongs to the published pipeline; give --as article or --as program, or leave it out"
        else:
            wrong = {
                "backbone": self.backbone.endswith("small"),
                "crf": self.crf not in PUBLISHED_CRFS,
                "views": self.views != 1,
                "split": self.split == "core",
                "recentre": self.recentre,
                "added_noise": bool(self.added_noise),
            }
            hint = "the published pipeline has no such thing; --as article and --as program set what it has"
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise SettingsError(f"{name} is {getattr(self, name)!r}, but pipeline is {self.pipeline!r}: {hint}")
        if self.pipeline == "ours":
            return
        if self.tile_px is not None and (self.tile_px < 32 or self.tile_px % 8):
            raise SettingsError(f"tile_px is {self.tile_px}, expected a multiple of 8 from 32")
        if self.rim_px < 0:
            raise SettingsError(f"rim_px is {self.rim_px}, expected 0 or more")
        if self.diameter is None:
            needing = {
                f"min_area {self.min_area:g}": self.min_area > 0,
                f"max_area {self.max_area:g}": self.max_area < ANY_AREA,
                f"split {self.split!r}": self.split == "distance",
                "crf_parameters 'default'": self.crf == "dense" and self.crf_parameters == "default",
            }
            for name, is_needed in needing.items():
                if is_needed:
                    raise SettingsError(f"{name} is told in diameters; give --diameter, for example 180A or 108px")

    @property
    def needs_survey(self) -> bool:
        """Whether a run looks at some micrographs first; the published pipeline measures nothing."""
        return self.pipeline == "ours"

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """Measure diameter and noise to be added on a few micrographs, unless given; see whether what is given fits."""
        if not self.needs_survey:
            return NOTHING_SEEN if self.diameter is None else Survey(particle_size=self.diameter)
        if not micrographs:
            return NOTHING_SEEN
        return self._with_noise(survey_of_size(self._general(), micrographs, diameter=self.diameter), micrographs)

    def _with_noise(self, sized: Survey, micrographs: Sequence[Micrograph]) -> Survey:
        from cryopick.heatmap.diameter import middle_pieces

        if sized.particle_size is None:
            return sized
        probes = middle_pieces(micrographs, sized.particle_size, count=PROBED_MICROGRAPHS, diameters=PROBED_DIAMETERS)
        noise = self._fitting_noise(probes, sized) if self.added_noise is None else self.added_noise
        return replace(sized, noise_level=noise)

    def _fitting_noise(self, probes: Sequence[Micrograph], sized: Survey) -> float:
        """The least noise with which the picks that would be kept are worth most, if that is far more than without.

        Training shows particles up to some signal-to-noise ratio; far beyond it the network takes them for dirt. Picks
        are worth the right ones among them less the wrong ones, as their probabilities say: too much noise gives many
        unlikely ones.
        """
        worth = {}
        for noise in (0.0, *TRIED_NOISE):
            scores = np.concatenate(self._quick_scores(probes, replace(sized, noise_level=noise)))
            kept = scores[scores >= np.float32(self.choose_threshold(scores, sized))]
            worth[noise] = float((2 * kept - 1).sum())
        best = max(worth.values())
        if best < max(NOISE_GAIN * worth[0.0], LEAST_WORTH):
            return 0.0
        return next(noise for noise in TRIED_NOISE if worth[noise] >= NEARLY * best)

    def _quick_scores(self, probes: Sequence[Micrograph], seen: Survey) -> list[NDArray[np.float32]]:
        """Of each micrograph's candidates, after selection, with one view and no CRF."""
        quick = replace(self, views=1, crf="none", crf_parameters="default", recentre=False)
        return [thinned_scores(quick.pick(probe, seen)) for probe in probes]

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation."""
        return self.model().calibrations[self.crf]

    @property
    def has_calibrated_scores(self) -> bool:
        """Whether scores are probabilities that picks are right; those of the published pipeline are not."""
        return self.pipeline == "ours"

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """The cut with the highest expected F1; none in the published pipeline."""
        if self.pipeline == "ours":
            return super().choose_threshold(scores, survey, target_precision=target_precision)
        if target_precision is not None:
            raise SettingsError(
                "a target precision needs calibrated probabilities, which the published pipeline has not"
            )
        return 0.0

    @property
    def dense_crf(self) -> DenseCrf:
        """Settings of the dense CRF."""
        if self.crf_parameters == "default":
            return DENSE if self.pipeline == "ours" else replace(DENSE, compatible=())
        with_fault = self.crf_parameters == "published-with-axis-fault"
        if self.pipeline != "ours":
            return published_crf(with_axis_fault=with_fault, counts_itself=self.pipeline == "program")
        return replace(published_crf(with_axis_fault=with_fault), compatible=DENSE.compatible)

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates of one micrograph, best first; `maps` holds the particle and the junk probability."""
        if self.pipeline != "ours":
            return self._published_picks(micrograph)
        seen = self._seen_on(micrograph) if survey is None else survey
        if seen.particle_size is None:  # nothing particle-like at any size
            return Picks.none_on(micrograph)
        diameter_px = seen.particle_size.middle_px(micrograph.pixel_size_angstrom)
        noise = seen.noise_level if self.added_noise is None else self.added_noise
        working, scale = self.working_image(micrograph, diameter_px=diameter_px, added_noise=noise or 0.0)
        before, maps = self.model().before_and_after(working, crf=self.crf, dense_crf=self.dense_crf, views=self.views)
        picks = self.read_particles(maps, micrograph, scale, diameter_px=diameter_px)
        if self.crf == "none":
            return picks
        unrefined = self._spanning(particle_map(before), micrograph, scale)
        return replace(picks, maps={**picks.maps, PARTICLE_MAP + UNREFINED: unrefined})

    def shipped_weights(self) -> Mapping[str, str]:
        """Of the network, and of `general`, through which a run is looked at; of the published pipeline none are."""
        if self.pipeline != "ours":
            return {}
        used = {"weights": "segmentation-crf"} if self.weights is None else {}
        return {**used, "general": "general"}

    def _seen_on(self, micrograph: Micrograph) -> Survey:
        """What one micrograph says for itself; a given diameter is not doubted where there is no run to warn."""
        if self.diameter is None:
            return self.survey([micrograph])
        return self._with_noise(Survey(particle_size=self.diameter), [micrograph])

    def working_image(
        self, micrograph: Micrograph, *, diameter_px: float, added_noise: float = 0.0
    ) -> tuple[NDArray[np.float32], ScaleMap]:
        """The micrograph at working scale, with white noise of so many times its own."""
        particle_px = self.model().particle_px
        working, scale = resample(micrograph.pixels, factor=particle_px / diameter_px)
        if not added_noise:
            return working, scale
        _, spread = robust_spread(working - gaussian_blur(working, sigma_px=1.5 * particle_px))
        noise = np.random.default_rng(0).standard_normal(working.shape, dtype=np.float32)
        return working + np.float32(added_noise * spread) * noise, scale

    def read_particles(
        self, maps: NDArray[np.float32], micrograph: Micrograph, scale: ScaleMap, *, diameter_px: float
    ) -> Picks:
        """All candidates of a map of class probabilities, best first.

        Parameters
        ----------
        maps : (5, h, w), see `SegmentationModel.probabilities`
        micrograph : that they are of
        scale : from its pixels to working pixels
        diameter_px : of particles, stored pixels
        """
        model = self.model()
        particle = particle_map(maps)
        regions = find_regions(
            particle,
            core_map(maps) if self.split == "core" else None,
            diameter_px=CELLS_PER_DIAMETER,
            core_radius=CORE_RADIUS,
        )
        xy_px = scale.to_stored_xy((regions.xy_px + 0.5) * model.stride_px - 0.5)
        score = model.calibrations[self.crf](regions.score)
        if self.recentre:
            xy_px = _recentred(micrograph, xy_px, score, diameter_px=diameter_px)
        area = regions.area_px / (np.pi / 4 * CELLS_PER_DIAMETER**2)
        is_valid = (area >= self.min_area) & (area <= self.max_area)
        pictures = {
            PARTICLE_MAP: self._spanning(particle, micrograph, scale),
            JUNK_MAP: self._spanning(maps[JUNK], micrograph, scale),
        }
        return Picks.of_candidates(micrograph, xy_px[is_valid], score[is_valid], diameter_px, maps=pictures)

    # ---------------------------------------------------------------------------------------- the published pipeline

    def _published_picks(self, micrograph: Micrograph) -> Picks:
        """Regions of what the network, and the random field behind it, call a particle."""
        model = self.published_model()
        in_px = None if self.diameter is None else self.diameter.middle_px(micrograph.pixel_size_angstrom)
        guide_px = in_px if self.crf_parameters == "default" and in_px is not None else PUBLISHED_DIAMETER_PX
        refinement = Refinement(
            crf=self.crf,
            dense=self.dense_crf if self.crf == "dense" else None,
            diameter_px=guide_px,
            is_softmax_first=self.pipeline == "program",
        )
        seen = see_published(
            micrograph,
            model,
            refinement,
            particle=self.particle_number(model),
            tile_px=self.tile_px,
            rim_px=self.rim_px,
        )
        if seen is None:
            return Picks.none_on(micrograph)
        regions = seen.regions(diameter_px=in_px if self.split == "distance" else None)
        sizes = 2 * np.sqrt(regions.area_px / np.pi) if in_px is None else np.full(len(regions.score), in_px)
        area = np.ones(len(sizes)) if in_px is None else regions.area_px / (np.pi / 4 * in_px**2)
        is_valid = (area >= self.min_area) & (area <= self.max_area)
        return Picks.of_candidates(
            micrograph,
            regions.xy_px[is_valid],
            regions.score[is_valid].astype(np.float32),
            sizes[is_valid],
            maps=seen.pictures(),
        )

    def published_model(self) -> PublishedModel:
        """torchvision's network of the weights.

        Raises
        ------
        WeightsError
            If there are none, or they are of another backbone than is asked for.
        """
        if self.weights is None:
            raise WeightsError(
                "the authors publish no weights, so none are shipped; train them with `cryopick train segmentation-crf "
                "--as article --data SET`, or give --weights with a state dict of torchvision's FCN or DeepLabv3 (.pth)"
            )
        path = find_weights(self.weights)
        files = files_of(path, picker="segmentation-crf")
        model = self._models.get(load_published, files, path, device=self.device, precision=self.precision)
        if self.backbone not in (OF_WEIGHTS, model.backbone):
            raise WeightsError(
                f"{path}: weights of {model.backbone}, but backbone is {self.backbone!r}; leave --backbone out"
            )
        return model

    def particle_number(self, model: PublishedModel) -> int:
        """Of the plane of the network's probabilities that is the particle.

        Raises
        ------
        SettingsError
            If there are several classes and nobody says which, with the choices.
        """
        from cryopick.data.mask_folders import particle_class

        given = self.particle_class if self.particle_class is not None else model.particle_class
        number = particle_class(model.classes, model.class_names, where=f"{self.weights}", given=given)
        return number if model.classes > 1 else 1  # of a single class the first plane is what it leaves

    def _spanning(self, values: NDArray[np.float32], micrograph: Micrograph, scale: ScaleMap) -> NDArray[np.float32]:
        """A map cut to the micrograph: its last cells may reach over the border."""
        height, width = (
            side * factor / self.model().stride_px
            for side, factor in zip(micrograph.shape_yx, scale.factor_yx, strict=True)
        )
        if (height, width) == values.shape:
            return values
        import cv2

        ratio_y, ratio_x = height / values.shape[0], width / values.shape[1]
        matrix = np.array([[ratio_x, 0, 0.5 * ratio_x - 0.5], [0, ratio_y, 0.5 * ratio_y - 0.5]])
        size, flags = (values.shape[1], values.shape[0]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(
            cv2.warpAffine(values, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32
        )

    def model(self) -> SegmentationModel:
        """The network that the settings ask for."""
        is_small = self.backbone.endswith("small")
        if self.weights is not None and is_published_file(find_weights(self.weights)):
            raise WeightsError(
                f"{self.weights}: is a file of torchvision's network, which the published pipeline runs; give --as "
                "article or --as program with it"
            )
        if self.weights is None and not is_small:
            raise WeightsError(
                f"no weights of backbone {self.backbone!r} are shipped; train them with "
                "`cryopick train segmentation-crf --preset large` and give --weights, or use --backbone small"
            )
        head = "deeplabv3" if self.backbone.startswith("deeplabv3") else "fcn"
        backbone = "small" if is_small else self.backbone
        weights = self.weights or "segmentation-crf"
        return self._models.get(
            load_segmentation,
            files_of_weights(weights),
            weights,
            backbone=backbone,
            head=head,
            device=self.device,
            precision=self.precision,
        )


def _recentred(
    micrograph: Micrograph, xy_px: NDArray[np.float64], score: NDArray[np.float32], *, diameter_px: float
) -> NDArray[np.float64]:
    """Stored centres, improved on the micrograph itself, without noise that the network was shown."""
    image, scale = resample(micrograph.pixels, factor=NOMINAL_PARTICLE_PX / diameter_px)
    detail = network_planes(image, particle_px=NOMINAL_PARTICLE_PX)[0]
    weight = np.where(score >= CENTRING_SCORE, score, 0)
    return scale.to_stored_xy(recentred(detail, scale.to_working_xy(xy_px), weight, diameter_px=NOMINAL_PARTICLE_PX))
