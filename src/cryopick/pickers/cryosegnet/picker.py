"""`cryosegnet`: an attention-gated U-Net marks particles, Segment Anything cuts them out of its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.inference.device import PRECISIONS
from cryopick.inference.models import HoldsModels
from cryopick.io.weights import files_of_weights
from cryopick.pickers.cryosegnet.map_masks import (
    CALIBRATED_FILTERS,
    DENOISED_MAP,
    MASKS_MAP,
    PARTICLE_MAP,
    disc_share,
    fate_pictures,
    mask_scores,
    refused_peaks,
    segment_map,
)
from cryopick.pickers.cryosegnet.mask_generation import GeneratorSettings
from cryopick.pickers.cryosegnet.masks import (
    corrected_selection,
    particle_centres,
    with_reason,
)
from cryopick.pickers.cryosegnet.model import ParticleMapper, load_mapper, map_peaks
from cryopick.pickers.cryosegnet.published import published_picks
from cryopick.pickers.cryosegnet.segmenter import LoadedSam, files_of_sam, load_segmenter
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, Survey, holding_with_general, survey_with_general
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
class CryoSegNetPicker(HoldsModels, ChoosesByExpectedF1):
    """Attention-gated U-Net and Segment Anything (R. Gyawali et al., Brief. Bioinform. 25(4), 2024, bbae282).

    The U-Net maps particles. Its maxima are the picks, or (`segmenter` sam) Segment Anything cuts each one out of that
    map, asked at the maxima, and masks that are empty, doubtful, of the wrong size or inside better ones are dropped.
    The score is the calibrated probability that a pick is right, from the map and from what the mask says of itself.
    """

    score_meaning: ClassVar[str] = (
        "probability that the pick is right, 0 to 1, calibrated on simulation; predicted IoU where post-processing is "
        "published or none"
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
    prompts: Annotated[
        Literal["peaks", "grid"], "where Segment Anything is asked: maxima of the map, or the published point grid"
    ] = "peaks"
    points_per_side: Annotated[int, "points of that grid along each side; published 32"] = 32
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
    jittered_duplicates: Annotated[
        bool,
        "with published post-processing: repeat picks of predicted IoU above 0.9999 at random places, as published",
    ] = False
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "auto, float32 or bfloat16; auto takes bfloat16 where the hardware has it"] = "auto"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"cryosegnet: precision is {self.precision!r}, expected {' or '.join(PRECISIONS)}")
        if not 1 <= self.points_per_side <= LARGEST_GRID:
            raise SettingsError(f"cryosegnet: points_per_side is {self.points_per_side}, expected 1 to {LARGEST_GRID}")
        if self.jittered_duplicates and self.postprocessing != "published":
            raise SettingsError("cryosegnet: jittered_duplicates needs --postprocessing published")

    # ------------------------------------------------------------------------------------------------- the threshold

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation."""
        score = None if self.segmenter == "none" else self._sam().score
        return self._mapper().calibration if score is None else score.calibration

    @property
    def has_calibrated_scores(self) -> bool:
        """Whether scores are probabilities; of masks that are not scored anew they are predicted IoUs."""
        return self.postprocessing == "corrected" or self.segmenter == "none"

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """As for all calibrated pickers; masks that the published filters pass are all kept."""
        if not self.has_calibrated_scores:
            return 0.0
        return super().choose_threshold(scores, survey, target_precision=target_precision)

    # ------------------------------------------------------------------------------------------------------- picking

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
        if self.diameter is not None and (self._mapper().view.is_squeezed or self.working_diameter is not None):
            return Survey(particle_size=self.diameter, working_size=self.working_diameter)
        general = kept_model(self._models, device=self.device, precision=self.precision)
        return survey_with_general(general, micrographs, diameter=self.diameter)

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates of one micrograph, best first; `maps` holds each step's picture.

        `maps`: the denoised micrograph, the U-Net's particle map, all masks, those that became candidates, and those
        that were dropped, by reason; the junk probability where the network maps it.
        """
        mapper = self._mapper()
        if self.segmenter == "sam":
            self._sam()  # missing weights are told before anything is computed
        if is_blank(micrograph.pixels):
            return Picks.none_on(micrograph)
        seen = self.survey([micrograph]) if survey is None else survey
        working = seen.working_size or seen.particle_size
        if working is None and not mapper.view.is_squeezed:  # nothing particle-like at any size
            return Picks.none_on(micrograph)
        working_px = None if working is None else working.middle_px(micrograph.pixel_size_angstrom)
        size = seen.particle_size
        diameter_px = np.nan if size is None else size.middle_px(micrograph.pixel_size_angstrom)
        denoised, scale = mapper.view.show(micrograph.pixels, diameter_px=working_px)
        if working_px is None or mapper.view.is_squeezed:
            maps = mapper.maps(denoised[None])
        else:
            maps = mapper.mean_maps(micrograph.pixels, diameter_px=working_px)
        pictures = {DENOISED_MAP: denoised, PARTICLE_MAP: maps[0]}
        if len(maps) > 1:
            pictures[JUNK_MAP] = maps[1]
        particle_px = NOMINAL_PARTICLE_PX if working_px is None else working_px * scale.factor
        if self.segmenter == "none":
            xy_px, height = map_peaks(maps[0], particle_px=particle_px)
            score = mapper.calibration(height)
            return Picks.of_candidates(micrograph, scale.to_stored_xy(xy_px), score, diameter_px, maps=pictures)
        if self.postprocessing == "corrected" and working_px is None:
            raise SettingsError(
                f"{micrograph.name}: corrected post-processing needs the particle diameter, and none was found: give "
                "--diameter, or use --postprocessing published"
            )
        return self._pick_masks(
            micrograph, maps[0], pictures, scale=scale, particle_px=particle_px, diameter_px=diameter_px
        )

    def _pick_masks(
        self,
        micrograph: Micrograph,
        probability: NDArray[np.float32],
        pictures: dict[str, NDArray[np.float32]],
        *,
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
        masks = segment_map(
            probability,
            sam,
            particle_px=particle_px,
            settings=self._filters(sam, particle_px=particle_px),
            grid=self.points_per_side if self.prompts == "grid" else None,
            is_stretched=self.postprocessing == "published",
            # the compact model knows particles of one size only
            is_whole=self._mapper().view.is_squeezed and sam.score is None,
        )
        pictures = {**pictures, MASKS_MAP: masks.draw(probability.shape)}
        if self.postprocessing == "published":
            random = np.random.default_rng(0) if self.jittered_duplicates else None
            found = published_picks(
                masks, map_shape_yx=probability.shape, shape_yx=micrograph.shape_yx, duplicates=random
            )
            pictures |= fate_pictures(with_reason(masks, found.reason), probability.shape)
            diameter_px = max(found.diameter_px, 1.0)
            return Picks.of_candidates(micrograph, found.xy_px, found.score, diameter_px, maps=pictures)
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

    def _filters(self, sam: LoadedSam, *, particle_px: float) -> GeneratorSettings:
        """What the generator drops: as published; of the compact model hardly any, as its predicted IoUs are lower."""
        is_scored = sam.score is not None and self.postprocessing != "published"
        filters = CALIBRATED_FILTERS if is_scored else GeneratorSettings()
        given = {
            name: getattr(self, name) for name in ("predicted_iou", "stability") if getattr(self, name) is not None
        }
        if self.postprocessing == "corrected":
            disc_px2 = np.pi / 4 * (disc_share(self._mapper()) * particle_px) ** 2
            given["smallest_region_px"] = SMALLEST_REGION_SHARE * float(disc_px2)
        return replace(filters, **given)

    def _mapper(self) -> ParticleMapper:
        files = files_of_weights(self.weights or "cryosegnet")
        return self._models.get(load_mapper, files, self.weights, device=self.device, precision=self.precision)

    def _sam(self) -> LoadedSam:
        files = files_of_sam(self.sam)
        return self._models.get(load_segmenter, files, self.sam, device=self.device, precision=self.precision)


def is_blank(pixels: NDArray[np.float32]) -> bool:
    """Whether an image shows nothing but the rounding of one value."""
    filled = fill_non_finite(pixels)
    low, high = float(filled.min()), float(filled.max())
    return not high - low > BLANK_SPREAD * max(abs(low), abs(high))
