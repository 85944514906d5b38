"""`cryosegnet`: an attention-gated U-Net marks particles, Segment Anything cuts them out of its map."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.inference.computing import RunsNetworks
from cryopick.inference.device import PRECISIONS
from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.cryosegnet.configurations import CONFIGURATIONS, OF_PROGRAM, OF_SAM
from cryopick.pickers.cryosegnet.map_masks import (
    CALIBRATED_FILTERS,
    disc_share,
    mask_pictures,
    mask_scores,
    refused_peaks,
    segment_map,
)
from cryopick.pickers.cryosegnet.mask_generation import GeneratorSettings, Masks
from cryopick.pickers.cryosegnet.masks import corrected_selection, equivalent_diameter, particle_centres
from cryopick.pickers.cryosegnet.model import (
    DENOISED_MAP,
    ON_A_PARTICLE,
    Denoising,
    ParticleMapper,
    Seen,
    View,
    load_mapper,
    map_peaks,
)
from cryopick.pickers.cryosegnet.published import PUBLISHED_IOU, Modules, PostProcessing, PublishedChain, region_picks
from cryopick.pickers.cryosegnet.segmenter import LoadedSam, files_of_sam, load_segmenter
from cryopick.pickers.cryosegnet.zoomed_crops import CropSettings
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.published_weights import files_of, is_calibrated
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, LooksThroughGeneral, Survey, survey_with_general
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import fill_non_finite
from cryopick.types import Micrograph, Picks

SMALLEST_REGION_SHARE = 0.05
"""Holes and islands below this share of a particle's disc are removed from masks."""
BLANK_SPREAD = 1e-6
"""Range of grey values, over the largest, up to which an image is one value and its rounding."""


@register_picker("cryosegnet")
@dataclass(frozen=True, kw_only=True)
class CryoSegNetPicker(LooksThroughGeneral, RunsNetworks, ChoosesByExpectedF1):
    """Our attention-gated U-Net, after the idea of R. Gyawali et al. (Brief. Bioinform. 25(4), 2024, bbae282).

    The article's own system, with Segment Anything, runs by `--as article`. Ours: the U-Net maps particles. Its maxima
    are the picks, or (`segmenter` sam) Segment Anything cuts each one out of that map, asked at the maxima, and masks
    that are empty, doubtful, of the wrong size or inside better ones are dropped. The score is the calibrated
    probability that a pick is right, from the map and from what the mask says of itself.
    """

    score_meaning: ClassVar[str] = (
        "probability that the pick is right, 0 to 1, calibrated on simulation; predicted IoU where post-processing is "
        "published or none, and what the U-Net says where its weights are not calibrated"
    )
    fills_machine: ClassVar[bool] = True
    """One process uses all cores; a second one would hold both networks again."""

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    working_diameter: Annotated[
        Length | None, "size at which the U-Net looks; where not set, fitted near the diameter on the micrographs"
    ] = None
    weights: Annotated[Path | None, "U-Net checkpoint to use instead of the shipped one"] = None
    sam: Annotated[
        str | None,
        "Segment Anything to use instead of the shipped compact one: Meta's sam_vit_*.pth, a folder in the layout of "
        "transformers, a name such as facebook/sam-vit-huge, or weights trained with --preset sam",
    ] = None
    segmenter: Annotated[
        Literal["none", "sam"],
        "none: maxima of the U-Net's map are the picks; sam: Segment Anything cuts particles out of the map, "
        "which on real micrographs finds no more of them",
    ] = "none"
    modules: Annotated[
        Modules,
        "with segmenter sam, for comparisons: all; unet: regions of the U-Net's map; unet+sam: all masks, before "
        "post-processing; sam: Segment Anything on the denoised micrograph, without the U-Net",
    ] = "all"
    denoising: Annotated[
        Denoising | None,
        "for weights of the published view: program, article, none, or done where the micrographs are denoised "
        "pictures already; where not set, as the weights learnt",
    ] = None
    prompts: Annotated[
        Literal["peaks", "grid"], "where Segment Anything is asked: maxima of the map, or the published point grid"
    ] = "peaks"
    points_per_side: Annotated[int, "points of that grid along each side; published 32"] = 32
    crop_layers: Annotated[
        int,
        "with the grid on the published view: layers of zoomed crops, 2 x 2, then 4 x 4, each with a grid; program 0",
    ] = 0
    postprocessing: Annotated[
        PostProcessing,
        "corrected: size, overlap, calibrated score; published: the program's filters and arithmetic; none: all masks",
    ] = "corrected"
    predicted_iou: Annotated[
        float | None, "masks need a higher predicted IoU; where not set, 0.88 as published, or left to the score"
    ] = None
    stability: Annotated[
        float | None, "masks need this stability; where not set, 0.95 as published, or left to the score"
    ] = None
    nms_iou: Annotated[float, "of two masks whose boxes overlap more (IoU), the worse is dropped"] = 0.7
    smallest_region_px: Annotated[
        float | None,
        "smaller holes and islands of masks are removed, pixels of the map; where not set, 5 % of a particle's disc "
        "with corrected post-processing, else none",
    ] = None
    kept_iou: Annotated[
        float, "published post-processing: picks need a higher predicted IoU; one value per protein in the article"
    ] = PUBLISHED_IOU
    box_diameter: Annotated[
        bool, "published post-processing: picks have the diagonal of the commonest box as diameter, not that of a disc"
    ] = False
    jittered_duplicates: Annotated[
        bool,
        "with published post-processing: repeat picks of predicted IoU above 0.9999 at random places, as published",
    ] = False
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "auto, float32 or bfloat16; auto takes bfloat16 where the hardware has it"] = "auto"

    configurations: ClassVar[Mapping[ConfigurationName, Configuration]] = CONFIGURATIONS
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS | {"is_empty"}

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"cryosegnet: precision is {self.precision!r}, expected {' or '.join(PRECISIONS)}")
        # both say what is out of range
        CropSettings(points_per_side=self.points_per_side, layers=self.crop_layers)
        self._filters(GeneratorSettings())
        idle = self._changed(OF_SAM) if self.segmenter == "none" else []
        if idle:
            told = f"{', '.join(idle)} {'say' if len(idle) > 1 else 'says'} how Segment Anything is used"
            raise SettingsError(
                f"cryosegnet: {told}, and segmenter is none, which leaves it out; give --segmenter sam, or leave "
                "them out (the U-Net of a published system alone: --segmenter sam --modules unet)"
            )
        idle = self._changed(OF_PROGRAM) if self.postprocessing != "published" else []
        if idle:
            raise SettingsError(f"cryosegnet: {idle[0]} needs --postprocessing published")
        if self.crop_layers and self.prompts != "grid":
            raise SettingsError("cryosegnet: crop_layers are asked at a grid in each crop; give --prompts grid")
        if self.modules == "sam" and (self.postprocessing == "corrected" or self.prompts != "grid"):
            raise SettingsError(
                "cryosegnet: without the U-Net's map there are no maxima to ask at and nothing to score masks by; for "
                "--modules sam give --prompts grid and --postprocessing published or none"
            )

    def _changed(self, names: Collection[str]) -> list[str]:
        """Those of the settings that are not as they are where nothing is given."""
        return [one.name for one in fields(self) if one.name in names and getattr(self, one.name) != one.default]

    def require_files(self, configuration: ConfigurationName | None = None) -> None:
        """Raise where a file that picking needs is not given, missing or damaged; before a run begins.

        Parameters
        ----------
        configuration : the published system that it is run as
        """
        if configuration is not None and self.weights is None and self.modules != "sam":
            raise SettingsError(
                f"cryosegnet as {configuration} wants a U-Net of the published kind, and the one in the package is "
                "ours: give --weights with the authors' .pth, or with what `cryopick train cryosegnet --as "
                f"{configuration}` wrote"
            )
        if configuration is not None and self.sam is None and self._asks_sam:
            raise SettingsError(
                f"cryosegnet as {configuration} wants Meta's Segment Anything, and the one in the package is ours: "
                "give --sam sam_vit_h_4b8939.pth (2.6 GB, from Meta's repository segment-anything), or --modules unet"
            )
        if self._asks_sam:
            self._sam()
        if self.modules != "sam" or self.weights is not None:
            self._view(None)

    @property
    def _asks_sam(self) -> bool:
        return self.segmenter == "sam" and self.modules != "unet"

    @property
    def _published(self) -> PublishedChain | None:
        """The published chain, whole or in part; None where ours follows the U-Net."""
        if self.modules == "all" and self.postprocessing != "published":
            return None
        return PublishedChain(**{one.name: getattr(self, one.name) for one in fields(PublishedChain)})

    @property
    def _scores_anew(self) -> bool:
        """Whether scores are those of our chain."""
        return self._published is None and self.postprocessing == "corrected"

    # ------------------------------------------------------------------------------------------------- the threshold

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation."""
        score = self._sam().score if self._asks_sam else None
        return self._mapper().calibration if score is None else score.calibration

    @property
    def has_calibrated_scores(self) -> bool:
        """Whether scores are probabilities: of masks that are not scored anew they are predicted IoUs, and those of
        weights that were trained as published, or by others, are what the network says."""
        if not self._scores_anew:
            return False
        return (self._asks_sam and self._sam().score is not None) or is_calibrated(self.weights or "cryosegnet")

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """As for all calibrated pickers. Masks that the published filters pass, and regions of a map, are all kept, and
        of maxima of a map that is not calibrated those above one half."""
        if self.has_calibrated_scores:
            return super().choose_threshold(scores, survey, target_precision=target_precision)
        if target_precision is not None:
            raise SettingsError(
                "cryosegnet: with these weights and settings scores are not calibrated, so no threshold reaches a "
                "target precision; leave it out, or give --threshold"
            )
        return ON_A_PARTICLE if self._scores_anew else 0.0

    # ------------------------------------------------------------------------------------------------------- picking

    @property
    def needs_survey(self) -> bool:
        """Whether the particle's diameter changes what is found: not in the published view with published steps."""
        return self._published is None or not (self.modules == "sam" or self._mapper().view.is_squeezed)

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """Measure on a few micrographs what is not given: diameter, working scale, share of the area filled."""
        if not micrographs:
            return NOTHING_SEEN
        if not self.needs_survey or (
            self.diameter is not None and (self._mapper().view.is_squeezed or self.working_diameter is not None)
        ):
            return Survey(particle_size=self.diameter, working_size=self.working_diameter)
        return survey_with_general(self._general(), micrographs, diameter=self.diameter)

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates of one micrograph, best first; `maps` holds each step's picture.

        `maps`: the denoised micrograph, the U-Net's particle map, all masks, those that became candidates, and those
        that were dropped, by reason; the junk probability where the network maps it.
        """
        sam = self._sam() if self._asks_sam else None  # missing weights are told before anything is computed
        seen = self._seen(micrograph, survey)
        if seen is None:
            return Picks.none_on(micrograph)
        published = self._published
        if published is not None and (sam is not None or seen.is_squeezed):
            return self._published_picks(micrograph, seen, sam, published)
        return self._peak_picks(micrograph, seen) if sam is None else self._mask_picks(micrograph, seen, sam)

    def _seen(self, micrograph: Micrograph, survey: Survey | None) -> Seen | None:
        """A micrograph through the U-Net; None where it is blank, or shows nothing particle-like at any size."""
        view = self._view(micrograph.path)
        if is_blank(micrograph.pixels):
            return None
        if self.modules == "sam":
            denoised, scale = view.show(micrograph.pixels, diameter_px=None)
            return Seen(denoised, scale, {DENOISED_MAP: denoised}, is_squeezed=True)
        told = self.survey([micrograph]) if survey is None else survey
        working, size = told.working_size or told.particle_size, told.particle_size
        if working is None and not view.is_squeezed:
            return None
        if working is None and self._asks_sam and self.postprocessing == "corrected":
            raise SettingsError(
                f"{micrograph.name}: corrected post-processing needs the particle diameter, and none was found: give "
                "--diameter, or use --postprocessing published"
            )
        pixel_size = micrograph.pixel_size_angstrom
        return self._mapper().see(
            micrograph.pixels,
            view,
            working_px=None if working is None else working.middle_px(pixel_size),
            diameter_px=np.nan if size is None else size.middle_px(pixel_size),
        )

    def _published_picks(
        self, micrograph: Micrograph, seen: Seen, sam: LoadedSam | None, chain: PublishedChain
    ) -> Picks:
        """What the published chain, or the part of it that is asked for, makes of a picture."""
        if sam is None:
            return region_picks(micrograph, seen, smallest_px=self.smallest_region_px or 0.0)
        masks = self._masks(micrograph, seen, sam, GeneratorSettings(), is_stretched=chain.is_stretched)
        return chain.picks(micrograph, seen, masks, is_compact=self.sam is None or sam.score is not None)

    def _peak_picks(self, micrograph: Micrograph, seen: Seen) -> Picks:
        """The maxima of the map."""
        xy_px, height = map_peaks(seen.picture, particle_px=seen.particle_px)
        score, xy_px = self._mapper().calibration(height), seen.scale.to_stored_xy(xy_px)
        return Picks.of_candidates(micrograph, xy_px, score, seen.diameter_px, maps=seen.pictures)

    def _mask_picks(self, micrograph: Micrograph, seen: Seen, sam: LoadedSam) -> Picks:
        """What Segment Anything cuts out of the map, scored and selected anew; without post-processing all masks."""
        share = disc_share(self._mapper())
        own = GeneratorSettings() if sam.score is None else CALIBRATED_FILTERS
        masks, is_peak = self._masks(micrograph, seen, sam, own), self._scores_anew and self.prompts == "peaks"
        score = np.clip(masks.predicted_iou, 0, 1)
        if self._scores_anew:
            score = mask_scores(seen.picture, masks, sam, self._mapper(), particle_px=seen.particle_px)
            reason = corrected_selection(masks, score, particle_px=share * seen.particle_px)
            masks = replace(masks, reason=reason)
        kept, score = masks.kept(), score[masks.reason == ""]
        sizes = equivalent_diameter(kept.area_px) / share / seen.scale.factor
        xy_px = particle_centres(kept, particle_px=seen.particle_px, is_peak=is_peak)
        if is_peak and sam.score and sam.score.refused:
            free_px, height = refused_peaks(seen.picture, xy_px, particle_px=seen.particle_px)
            xy_px, score = np.concatenate([xy_px, free_px]), np.concatenate([score, sam.score.refused(height)])
            sizes = np.concatenate([sizes, np.full(len(free_px), seen.diameter_px)])
        pictures = seen.pictures | mask_pictures(masks, seen.picture.shape)
        return Picks.of_candidates(micrograph, seen.scale.to_stored_xy(xy_px), score, sizes, maps=pictures)

    def _masks(
        self, micrograph: Micrograph, seen: Seen, sam: LoadedSam, own: GeneratorSettings, *, is_stretched: bool = False
    ) -> Masks:
        """What Segment Anything finds as it is asked to, with the filters of the chain that it is asked for."""
        # the compact model knows particles of one size only
        is_whole = seen.is_squeezed and (sam.score is None or self.modules == "sam")
        if self.crop_layers and not is_whole:
            raise SettingsError(
                f"{micrograph.name}: crop_layers zoom into the whole picture of the published view; give weights of "
                "that view and Meta's Segment Anything, or leave crop_layers out"
            )
        if self.postprocessing == "corrected":
            disc_px2 = np.pi / 4 * (disc_share(self._mapper()) * seen.particle_px) ** 2
            own = replace(own, smallest_region_px=SMALLEST_REGION_SHARE * float(disc_px2))
        grid = CropSettings(points_per_side=self.points_per_side, layers=self.crop_layers)
        return segment_map(
            seen.picture,
            sam,
            particle_px=seen.particle_px,
            settings=self._filters(own),
            grid=grid if self.prompts == "grid" else None,
            is_stretched=is_stretched,
            is_whole=is_whole,
        )

    def _filters(self, own: GeneratorSettings) -> GeneratorSettings:
        """What the generator drops: as a chain has it, but for what is given."""
        names = ("predicted_iou", "stability", "nms_iou", "smallest_region_px")
        given = {name: getattr(self, name) for name in names}
        return replace(own, **{name: value for name, value in given.items() if value is not None})

    def _view(self, path: Path | None) -> View:
        """How a micrograph of this file is shown to the U-Net, or to Segment Anything where there is none."""
        if self.modules == "sam" and self.weights is None:
            view = View("published", self._sam().segmenter.image_px)
        else:
            view = self._mapper().view
        if view.is_squeezed:
            view = view if self.denoising is None else replace(view, denoising=self.denoising)
            return view.of_file(path)
        if self.denoising is not None or self.modules == "sam":
            raise SettingsError(
                f"cryosegnet: denoising and --modules sam are of the published view, and {self.weights or 'our U-Net'} "
                "sees micrographs in another way; leave them out, or give --weights of the published kind"
            )
        return view

    def shipped_weights(self) -> Mapping[str, str]:
        """Of the U-Net, of Segment Anything where it is asked, and of `general`, through which a run is looked at."""
        used = {}
        if self.weights is None and self.modules != "sam":
            used["weights"] = "cryosegnet"
        if self.sam is None and self._asks_sam:
            used["sam"] = "cryosegnet_sam"
        return {**used, "general": "general"} if self.needs_survey else used

    def _mapper(self) -> ParticleMapper:
        files = files_of(self.weights or "cryosegnet", picker="cryosegnet")
        return self._models.get(load_mapper, files, self.weights, device=self.device, precision=self.precision)

    def _sam(self) -> LoadedSam:
        files = files_of_sam(self.sam)
        return self._models.get(load_segmenter, files, self.sam, device=self.device, precision=self.precision)


def is_blank(pixels: NDArray[np.float32]) -> bool:
    """Whether an image shows nothing but the rounding of one value."""
    filled = fill_non_finite(pixels)
    low, high = float(filled.min()), float(filled.max())
    return not high - low > BLANK_SPREAD * max(abs(low), abs(high))
