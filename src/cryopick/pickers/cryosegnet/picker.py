"""`cryosegnet`: an attention-gated U-Net marks particles, Segment Anything cuts them out of its map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.inference.computing import RunsNetworks
from cryopick.inference.device import PRECISIONS
from cryopick.inference.models import HoldsModels
from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.cryosegnet.configurations import CONFIGURATIONS, OF_PROGRAM, OF_SAM
from cryopick.pickers.cryosegnet.map_masks import (
    CALIBRATED_FILTERS,
    DENOISED_MAP,
    MASKS_MAP,
    ON_A_PARTICLE,
    PARTICLE_MAP,
    disc_share,
    fate_pictures,
    map_regions,
    mask_scores,
    refused_peaks,
    segment_map,
    why_no_masks,
)
from cryopick.pickers.cryosegnet.mask_generation import GeneratorSettings, Masks
from cryopick.pickers.cryosegnet.masks import (
    corrected_selection,
    particle_centres,
    with_reason,
)
from cryopick.pickers.cryosegnet.model import (
    Denoising,
    ParticleMapper,
    View,
    load_mapper,
    map_peaks,
)
from cryopick.pickers.cryosegnet.published import PUBLISHED_IOU, box_centres, disc_diameters, published_picks
from cryopick.pickers.cryosegnet.segmenter import LoadedSam, files_of_sam, load_segmenter
from cryopick.pickers.cryosegnet.zoomed_crops import MOST_LAYERS
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.published_weights import files_of, is_calibrated
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, Survey, holding_with_general, survey_with_general
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, ScaleMap, fill_non_finite
from cryopick.types import JUNK_MAP, Micrograph, Picks

SMALLEST_REGION_SHARE = 0.05
"""Holes and islands below this share of a particle's disc are removed from masks."""
LARGEST_GRID = 512
BLANK_SPREAD = 1e-6
"""Range of grey values, over the largest, up to which an image is one value and its rounding."""


@register_picker("cryosegnet")
@dataclass(frozen=True, kw_only=True)
class CryoSegNetPicker(HoldsModels, RunsNetworks, ChoosesByExpectedF1):
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
        Literal["all", "unet", "unet+sam", "sam"],
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
        Literal["corrected", "published", "none"],
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
        if not 1 <= self.points_per_side <= LARGEST_GRID:
            raise SettingsError(f"cryosegnet: points_per_side is {self.points_per_side}, expected 1 to {LARGEST_GRID}")
        if not 0 <= self.crop_layers <= MOST_LAYERS:
            raise SettingsError(f"cryosegnet: crop_layers is {self.crop_layers}, expected 0 to {MOST_LAYERS}")
        if not 0 <= self.nms_iou <= 1:
            raise SettingsError(f"cryosegnet: nms_iou is {self.nms_iou}, expected 0 to 1")
        if self.smallest_region_px is not None and not self.smallest_region_px >= 0:
            raise SettingsError(f"cryosegnet: smallest_region_px is {self.smallest_region_px}, expected 0 or more")
        if self.segmenter == "none":
            idle = [one.name for one in fields(self) if one.name in OF_SAM and getattr(self, one.name) != one.default]
            if idle:
                told = f"{', '.join(idle)} {'say' if len(idle) > 1 else 'says'} how Segment Anything is used"
                raise SettingsError(
                    f"cryosegnet: {told}, and segmenter is none, which leaves it out; give --segmenter sam, or leave "
                    "them out (the U-Net of a published system alone: --segmenter sam --modules unet)"
                )
        if self.postprocessing != "published":
            idle = [
                one.name for one in fields(self) if one.name in OF_PROGRAM and getattr(self, one.name) != one.default
            ]
            if idle:
                raise SettingsError(f"cryosegnet: {idle[0]} needs --postprocessing published")
        if self.crop_layers and self.prompts != "grid":
            raise SettingsError("cryosegnet: crop_layers are asked at a grid in each crop; give --prompts grid")
        if self.modules == "sam" and (self.postprocessing == "corrected" or self.prompts != "grid"):
            raise SettingsError(
                "cryosegnet: without the U-Net's map there are no maxima to ask at and nothing to score masks by; for "
                "--modules sam give --prompts grid and --postprocessing published or none"
            )

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

    # ------------------------------------------------------------------------------------------------- the threshold

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation."""
        score = None if self.segmenter == "none" else self._sam().score
        return self._mapper().calibration if score is None else score.calibration

    @property
    def has_calibrated_scores(self) -> bool:
        """Whether scores are probabilities: of masks that are not scored anew they are predicted IoUs, and those of
        weights that were trained as published, or by others, are what the network says."""
        if self.modules != "all" or self.postprocessing != "corrected":
            return False
        if self.segmenter == "sam" and self._sam().score is not None:
            return True
        return is_calibrated(self.weights or "cryosegnet")

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
        return ON_A_PARTICLE if self.modules == "all" and self.postprocessing == "corrected" else 0.0

    # ------------------------------------------------------------------------------------------------------- picking

    def holding_particles(self, micrographs: Sequence[Micrograph]) -> list[int]:
        """On which of them the `general` network sees particles, of the given diameter or of any."""
        from cryopick.heatmap.model import kept_model

        return holding_with_general(
            kept_model(self._models, device=self.device, precision=self.precision), micrographs, diameter=self.diameter
        )

    @property
    def needs_survey(self) -> bool:
        """Whether the particle's diameter changes what is found: not in the published view with published steps."""
        if self.modules == "sam":
            return False
        has_own_sizes = self.modules != "all" or self.postprocessing == "published"
        return not (has_own_sizes and self._mapper().view.is_squeezed)

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """Measure on a few micrographs what is not given: diameter, working scale, share of the area filled."""
        from cryopick.heatmap.model import kept_model

        if not micrographs:
            return NOTHING_SEEN
        if not self.needs_survey or (
            self.diameter is not None and (self._mapper().view.is_squeezed or self.working_diameter is not None)
        ):
            return Survey(particle_size=self.diameter, working_size=self.working_diameter)
        general = kept_model(self._models, device=self.device, precision=self.precision)
        return survey_with_general(general, micrographs, diameter=self.diameter)

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates of one micrograph, best first; `maps` holds each step's picture.

        `maps`: the denoised micrograph, the U-Net's particle map, all masks, those that became candidates, and those
        that were dropped, by reason; the junk probability where the network maps it.
        """
        if self._asks_sam:
            self._sam()  # missing weights are told before anything is computed
        if self.modules == "sam":
            return self._pick_without_unet(micrograph)
        mapper, view = self._mapper(), self._view(micrograph.path)
        if is_blank(micrograph.pixels):
            return Picks.none_on(micrograph)
        seen = self.survey([micrograph]) if survey is None else survey
        working = seen.working_size or seen.particle_size
        if working is None and not view.is_squeezed:  # nothing particle-like at any size
            return Picks.none_on(micrograph)
        working_px = None if working is None else working.middle_px(micrograph.pixel_size_angstrom)
        size = seen.particle_size
        diameter_px = np.nan if size is None else size.middle_px(micrograph.pixel_size_angstrom)
        denoised, scale = view.show(micrograph.pixels, diameter_px=working_px)
        if working_px is None or view.is_squeezed:
            maps = mapper.maps(denoised[None], is_upside_down=view.is_upside_down)
        else:
            maps = mapper.mean_maps(micrograph.pixels, diameter_px=working_px)
        pictures = {DENOISED_MAP: denoised, PARTICLE_MAP: maps[0]}
        if len(maps) > 1:
            pictures[JUNK_MAP] = maps[1]
        particle_px = NOMINAL_PARTICLE_PX if working_px is None else working_px * scale.factor
        if self.modules == "unet" and view.is_squeezed:
            xy_px, score, area_px = map_regions(maps[0], smallest_px=self.smallest_region_px or 0.0)
            sizes = disc_diameters(area_px, factor_xy=(1 / scale.factor_yx[1], 1 / scale.factor_yx[0]))
            return Picks.of_candidates(micrograph, scale.to_stored_xy(xy_px), score, sizes, maps=pictures)
        if not self._asks_sam:
            xy_px, height = map_peaks(maps[0], particle_px=particle_px)
            score = mapper.calibration(height)
            return Picks.of_candidates(micrograph, scale.to_stored_xy(xy_px), score, diameter_px, maps=pictures)
        if self.postprocessing == "corrected" and working_px is None:
            raise SettingsError(
                f"{micrograph.name}: corrected post-processing needs the particle diameter, and none was found: give "
                "--diameter, or use --postprocessing published"
            )
        return self._pick_masks(
            micrograph, maps[0], pictures, view=view, scale=scale, particle_px=particle_px, diameter_px=diameter_px
        )

    def _pick_masks(
        self,
        micrograph: Micrograph,
        probability: NDArray[np.float32],
        pictures: dict[str, NDArray[np.float32]],
        *,
        view: View,
        scale: ScaleMap,
        particle_px: float,
        diameter_px: float,
    ) -> Picks:
        """Segment the map and make picks of the masks.

        Parameters
        ----------
        particle_px : size at which the U-Net looked, in pixels of the map
        diameter_px : of the particle, stored pixels
        """
        sam = self._sam()
        is_whole = view.is_squeezed and sam.score is None  # the compact model knows particles of one size only
        if self.crop_layers and not is_whole:
            raise SettingsError(
                f"{micrograph.name}: crop_layers zoom into the whole picture of the published view; give weights of "
                "that view and Meta's Segment Anything, or leave crop_layers out"
            )
        masks = segment_map(
            probability,
            sam,
            particle_px=particle_px,
            settings=self._filters(sam, particle_px=particle_px),
            grid=self.points_per_side if self.prompts == "grid" else None,
            is_stretched=self.postprocessing == "published",
            is_whole=is_whole,
            layers=self.crop_layers,
        )
        pictures = {**pictures, MASKS_MAP: masks.draw(probability.shape)}
        if self.postprocessing == "published" or self.modules != "all":
            return self._picks_as_published(micrograph, masks, pictures, map_shape_yx=probability.shape)
        mask_px = disc_share(self._mapper()) * particle_px
        if self.postprocessing == "none":
            score = np.clip(masks.predicted_iou, 0, 1)
        else:
            score = mask_scores(probability, masks, sam, self._mapper(), particle_px=particle_px)
            masks = with_reason(masks, corrected_selection(masks, score, particle_px=mask_px))
        pictures |= fate_pictures(masks, probability.shape)
        kept = masks.reason == ""
        sizes = 2 * np.sqrt(masks.area_px[kept] / np.pi) / disc_share(self._mapper()) / scale.factor
        is_peak = self.prompts == "peaks" and self.postprocessing == "corrected"
        xy_px = particle_centres(masks.take(kept), particle_px=particle_px, is_peak=is_peak)
        score = score[kept]
        if self.postprocessing == "corrected" and self.prompts == "peaks" and sam.score and sam.score.refused:
            free_px, height = refused_peaks(probability, xy_px, particle_px=particle_px)
            xy_px, score = np.concatenate([xy_px, free_px]), np.concatenate([score, sam.score.refused(height)])
            sizes = np.concatenate([sizes, np.full(len(free_px), diameter_px)])
        return Picks.of_candidates(micrograph, scale.to_stored_xy(xy_px), score, sizes, maps=pictures)

    def _picks_as_published(
        self,
        micrograph: Micrograph,
        masks: Masks,
        pictures: dict[str, NDArray[np.float32]],
        *,
        map_shape_yx: tuple[int, ...],
    ) -> Picks:
        """Of masks that the generator kept, those of the published post-processing, or all where it is left out."""
        rows, columns = map_shape_yx
        (height, width) = micrograph.shape_yx
        factor_xy = width / columns, height / rows
        warnings: tuple[str, ...] = ()
        if self.modules == "unet+sam" or self.postprocessing == "none":
            kept = masks.kept()
            xy_px, score = box_centres(kept, factor_xy=factor_xy), kept.predicted_iou
            sizes: NDArray[np.float64] | float = disc_diameters(kept.area_px, factor_xy=factor_xy)
            pictures |= fate_pictures(masks, map_shape_yx)
        else:
            # the program does not seed; ours repeats itself
            random = np.random.default_rng(crc32(micrograph.name.encode())) if self.jittered_duplicates else None
            found = published_picks(
                masks,
                map_shape_yx=(rows, columns),
                shape_yx=micrograph.shape_yx,
                kept_iou=self.kept_iou,
                duplicates=random,
            )
            masks = with_reason(masks, found.reason)
            pictures |= fate_pictures(masks, map_shape_yx)
            xy_px, score = found.xy_px, found.score
            sizes = max(found.diameter_px if self.box_diameter else found.disc_diameter_px, 1.0)
        if len(xy_px) == 0:
            warnings = (why_no_masks(masks, is_compact=self.sam is None or self._sam().score is not None),)
        return Picks.of_candidates(micrograph, xy_px, score, sizes, maps=pictures, warnings=warnings)

    def _pick_without_unet(self, micrograph: Micrograph) -> Picks:
        """Segment Anything on the denoised micrograph, squeezed as the U-Net would see it."""
        if is_blank(micrograph.pixels):
            return Picks.none_on(micrograph)
        sam, view = self._sam(), self._view(micrograph.path)
        denoised, _ = view.show(micrograph.pixels, diameter_px=None)
        masks = segment_map(
            denoised,
            sam,
            particle_px=NOMINAL_PARTICLE_PX,
            settings=self._filters(sam, particle_px=NOMINAL_PARTICLE_PX),
            grid=self.points_per_side,
            is_whole=True,
            layers=self.crop_layers,
        )
        pictures = {DENOISED_MAP: denoised, MASKS_MAP: masks.draw(denoised.shape)}
        return self._picks_as_published(micrograph, masks, pictures, map_shape_yx=denoised.shape)

    def _filters(self, sam: LoadedSam, *, particle_px: float) -> GeneratorSettings:
        """What the generator drops: as published; of the compact model hardly any, as its predicted IoUs are lower."""
        is_scored = sam.score is not None and self.postprocessing != "published" and self.modules == "all"
        filters = CALIBRATED_FILTERS if is_scored else GeneratorSettings()
        given = {
            name: getattr(self, name) for name in ("predicted_iou", "stability") if getattr(self, name) is not None
        }
        given["nms_iou"] = self.nms_iou
        if self.smallest_region_px is not None:
            given["smallest_region_px"] = self.smallest_region_px
        elif self.postprocessing == "corrected":
            disc_px2 = np.pi / 4 * (disc_share(self._mapper()) * particle_px) ** 2
            given["smallest_region_px"] = SMALLEST_REGION_SHARE * float(disc_px2)
        return replace(filters, **given)

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
