"""From the U-Net's map to masks of particles, and their scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryosegnet.mask_generation import GeneratorSettings, Masks, generate_masks, point_grid
from cryopick.pickers.cryosegnet.masks import height_at, score_features
from cryopick.pickers.cryosegnet.model import PEAK_BLUR, ParticleMapper, map_peaks
from cryopick.pickers.cryosegnet.segmenter import LoadedSam
from cryopick.pickers.cryosegnet.zoomed_crops import CropSettings, masks_by_grid
from cryopick.processing.scale import ScaleMap, gaussian_blur

CALIBRATED_FILTERS = GeneratorSettings(predicted_iou=0.05, stability=0.2)
"""Where the score knows what predicted IoU and stability are worth, only hopeless masks are dropped."""
MASK_REACH = 0.4
"""A maximum of the map belongs to a mask whose centroid is closer than this many diameters."""
MASKS_MAP, KEPT_MAP = "masks", "masks kept"


def segment_map(
    probability: NDArray[np.float32],
    sam: LoadedSam,
    *,
    particle_px: float,
    settings: GeneratorSettings,
    grid: CropSettings | None = None,
    is_stretched: bool = False,
    is_whole: bool = False,
) -> Masks:
    """Masks of a particle map, in its pixels, by descending predicted IoU.

    Parameters
    ----------
    probability : (h, w) in [0, 1]
    particle_px : diameter of a particle in pixels of the map
    grid : of points to ask at, with zoomed crops besides a whole map; None asks at the map's maxima
    is_stretched : stretch the map to whole numbers from 0 to 255, as published; faint maps then look like strong ones
    is_whole : squeeze the map into the one square that Segment Anything sees, as published. Else it is shown in tiles,
        at the particle size that suits the model
    """
    import cv2

    height, width = probability.shape
    side = sam.segmenter.image_px
    picture = np.asarray(255 * probability, np.float32)
    if is_stretched:
        span = float(probability.max() - probability.min())
        picture = np.floor((probability - probability.min()) * (255 / span if span > 0 else 0.0))
    if grid is not None and is_whole:
        return masks_by_grid(sam.segmenter, picture, settings, grid)
    factor = sam.segmenter.particle_px / particle_px
    size = (side, side) if is_whole else (max(1, round(width * factor)), max(1, round(height * factor)))
    if size != (width, height):
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.float32)
    shown = ScaleMap((size[1] / height, size[0] / width))
    if grid is None:
        prompts = shown.to_working_xy(map_peaks(probability, particle_px=particle_px)[0])
    else:
        prompts = point_grid((size[1], size[0]), points_per_side=grid.points_per_side)
    settings = replace(settings, smallest_region_px=settings.smallest_region_px * shown.factor**2)
    masks = generate_masks(sam.segmenter, picture, prompts, settings)
    return masks if size == (width, height) else rescaled(masks, shown)


def rescaled(masks: Masks, shown: ScaleMap) -> Masks:
    """Masks of a resized picture in pixels of the map that it was made from."""
    import cv2

    factor_y, factor_x = shown.factor_yx
    box, patches, area = masks.box_xyxy_px.copy(), [], masks.area_px.copy()
    for i, patch in enumerate(masks.patches):
        if not patch.size:
            patches.append(patch)
            continue
        left, top, right, bottom = masks.box_xyxy_px[i].tolist()
        first = shown.to_stored_xy(np.array([[left - 0.5, top - 0.5]]))[0]
        last = shown.to_stored_xy(np.array([[right + 0.5, bottom + 0.5]]))[0]
        low = np.floor(first + 0.5).astype(int)
        high = np.maximum(np.ceil(last - 0.5).astype(int), low)
        columns, rows = (np.arange(low[axis], high[axis] + 1) for axis in (0, 1))
        # each pixel of the map asks for the value at its middle
        x = ((columns + 0.5) * factor_x - 0.5 - left).astype(np.float32)
        y = ((rows + 0.5) * factor_y - 0.5 - top).astype(np.float32)
        grid_x, grid_y = np.meshgrid(x, y)
        sampled = cv2.remap(
            patch.astype(np.float32), grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
        box[i] = low[0], low[1], high[0], high[1]
        patches.append(np.asarray(sampled >= 0.5))
        area[i] = round(int(area[i]) / (factor_x * factor_y))
    return replace(
        masks,
        prompt_xy_px=shown.to_stored_xy(masks.prompt_xy_px),
        centroid_xy_px=shown.to_stored_xy(masks.centroid_xy_px),
        box_xyxy_px=box,
        area_px=area,
        patches=tuple(patches),
    )


def disc_share(mapper: ParticleMapper) -> float:
    """Diameter of the discs that the U-Net marks, over the particle's."""
    return float(mapper.entries.get("disc_share", 1.0))


def mask_scores(
    probability: NDArray[np.float32], masks: Masks, sam: LoadedSam, mapper: ParticleMapper, *, particle_px: float
) -> NDArray[np.float32]:
    """(n,) probability that each mask is a particle; from the map alone for a Segment Anything not calibrated here."""
    smooth = gaussian_blur(probability, sigma_px=PEAK_BLUR * particle_px)
    height = height_at(smooth, masks.centroid_xy_px)
    if sam.score is None:
        return mapper.calibration(height)
    return sam.score(score_features(height, masks, particle_px=disc_share(mapper) * particle_px))


def refused_peaks(
    probability: NDArray[np.float32], masks_xy_px: NDArray[np.float64], *, particle_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Maxima of the map, (n, 2) and their heights, that no mask stands near: Segment Anything gave none that is usable.

    They stay candidates, worth what such maxima were worth on simulation, so that no particle is missed for lack of a
    mask either.
    """
    from scipy.spatial import cKDTree

    xy_px, height = map_peaks(probability, particle_px=particle_px)
    if len(masks_xy_px) == 0 or len(xy_px) == 0:
        return xy_px, height
    gap, _ = cKDTree(masks_xy_px).query(xy_px)
    is_free = gap > MASK_REACH * particle_px
    return xy_px[is_free], height[is_free]


def mask_pictures(masks: Masks, shape_yx: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    """Pictures of all masks, of those that are kept, and of those that are not, one per reason."""
    height, width = shape_yx
    pictures = {MASKS_MAP: masks.draw((height, width)), KEPT_MAP: masks.kept().draw((height, width))}
    for reason in np.unique(masks.reason[masks.reason != ""]).tolist():
        dropped = masks.take(masks.reason == reason)
        if dropped.area_px.any():
            pictures[f"masks dropped: {reason}"] = dropped.draw((height, width))
    return pictures
