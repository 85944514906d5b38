"""What the heat-map network learns: its target maps and its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryopick.heatmap.layout import OUTPUTS, STRIDE_PX
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, network_planes
from cryopick.simulation.crops import Crop
from cryopick.training.augment import LabelledCrop
from cryopick.training.counted_sizes import counted_sizes

if TYPE_CHECKING:
    from torch import Tensor

TARGET_RADIUS = 0.2
"""The centre map is the probability that a particle centre lies within this many diameters."""
BACKGROUND_DIAMETERS = 0.25
"""Diameter of the disc that a person's mark "no particle here" makes background, in particle diameters."""


def centre_targets(
    xy_px: NDArray[np.float64], diameter_px: NDArray[np.float64], *, shape_yx: tuple[int, int], stride_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the network should answer for particles at `xy_px` in a working image.

    Parameters
    ----------
    xy_px, diameter_px : (n, 2) and (n,), working pixels
    shape_yx : of the output grid
    stride_px : working pixels per output pixel

    Returns
    -------
    centre : (h, w), 1 within `TARGET_RADIUS` diameters of a centre, else 0
    geometry : (3, h, w), x and y offset to that centre in output pixels and log(diameter / nominal)
    """
    height, width = shape_yx
    centre = np.zeros(shape_yx, np.float32)
    geometry = np.zeros((3, height, width), np.float32)
    grid_xy = (np.asarray(xy_px, np.float64).reshape(-1, 2) + 0.5) / stride_px - 0.5
    diameter = np.asarray(diameter_px, np.float64)
    radius = np.maximum(TARGET_RADIUS * diameter / stride_px, 1.0)
    reach = int(np.ceil(radius.max(initial=0)))
    around = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    cell_xy = np.rint(grid_xy).astype(np.intp)[:, None] + around
    to_centre = (grid_xy[:, None] - cell_xy).astype(np.float32)  # (n, cells, 2)
    squared = np.square(to_centre).sum(axis=2)
    is_near = squared <= np.square(radius)[:, None]
    is_near &= ((cell_xy >= 0) & (cell_xy < (width, height))).all(axis=2)
    particle, cell = np.nonzero(is_near)
    order = np.lexsort((-particle, -squared[particle, cell]))  # the nearest last, so that its answer stays
    particle, cell = particle[order], cell[order]
    column, row = cell_xy[particle, cell].T
    centre[row, column] = 1.0
    geometry[:2, row, column] = to_centre[particle, cell].T
    geometry[2, row, column] = np.log(diameter / NOMINAL_PARTICLE_PX)[particle]
    return centre, geometry


def example(crop: Crop, input_planes: int = 2) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A crop as the network sees it, and what it should answer.

    Returns
    -------
    planes : (input_planes, h, w), see `network_planes`
    targets : (10, h / 2, w / 2): centre, offset x, offset y, log size, junk share, weight of the centre loss, and those
        of `shape_targets`
    """
    planes = network_planes(crop.image, particle_px=NOMINAL_PARTICLE_PX, count=input_planes)
    shape_yx = crop.image.shape[0] // STRIDE_PX, crop.image.shape[1] // STRIDE_PX
    is_picked, is_undecided = counted_sizes(crop.diameter_px)
    diameter_px = crop.diameter_px.astype(np.float64)
    centre, geometry = centre_targets(
        crop.xy_px[is_picked], diameter_px[is_picked], shape_yx=shape_yx, stride_px=STRIDE_PX
    )
    undecided, _ = centre_targets(
        crop.xy_px[is_undecided], diameter_px[is_undecided], shape_yx=shape_yx, stride_px=STRIDE_PX
    )
    weight = 1 - undecided * (1 - centre)
    targets = np.stack([centre, *geometry, covered_share(crop.junk), weight])
    return planes, np.concatenate([targets, shape_targets(crop)])


def covered_share(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(h / 2, w / 2): share of each pixel of the network's maps that a mask of working pixels covers."""
    import cv2

    height, width = mask.shape
    share = cv2.resize(mask.astype(np.float32), (width // STRIDE_PX, height // STRIDE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(share, np.float32)


def shape_targets(crop: Crop) -> NDArray[np.float32]:
    """Which pixels belong to particles, and where from there the centre lies.

    Returns
    -------
    (4, h / 2, w / 2): share of the pixel that any particle covers; inward x and y, from the pixel's middle to the
    centre of the particle on it, in quarters of its diameter; and 1 where that is known: on particles to be picked
    """
    height, width = (side // STRIDE_PX for side in crop.image.shape)
    number = crop.instances[::STRIDE_PX, ::STRIDE_PX]
    is_known = (number > 0) & (number <= len(crop.xy_px))
    row, column = np.nonzero(is_known)
    which = number[row, column] - 1
    here = np.column_stack([column, row]) * STRIDE_PX + (STRIDE_PX - 1) / 2
    inward = np.zeros((2, height, width), np.float32)
    inward[:, row, column] = (4 * (crop.xy_px[which] - here) / crop.diameter_px[which, None]).T
    return np.stack([covered_share(crop.instances > 0), *inward, is_known.astype(np.float32)])


def heatmap_loss(maps: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Binary cross-entropy of centres and junk (so that both are probabilities), L1 of offsets and sizes at centres.

    Parameters
    ----------
    maps : (b, 5 or 8, h, w) logits and regressions of `HeatmapUNet`; 8 with shapes, of which the same is asked
    targets : (b, 10, h, w) of `example`
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    centre, weight = targets[:, 0], targets[:, 5]
    per_pixel = binary_cross_entropy_with_logits(maps[:, 0], centre, reduction="none")
    centre_loss = (per_pixel * weight).sum() / weight.sum().clamp(min=1)
    at_centres = centre.sum().clamp(min=1)
    offset_loss = ((maps[:, 1:3] - targets[:, 1:3]).abs().sum(1) * centre).sum() / at_centres
    size_loss = ((maps[:, 3] - targets[:, 3]).abs() * centre).sum() / at_centres
    junk_loss = binary_cross_entropy_with_logits(maps[:, 4], targets[:, 4])
    loss = centre_loss + 0.02 * offset_loss + 0.05 * size_loss + 0.2 * junk_loss
    parts = {"centre": centre_loss, "offset": offset_loss, "size": size_loss, "junk": junk_loss}
    if maps.shape[1] > len(OUTPUTS):
        inside = targets[:, 9]
        particle_loss = binary_cross_entropy_with_logits(maps[:, 5], targets[:, 6])
        inward_loss = ((maps[:, 6:8] - targets[:, 7:9]).abs().sum(1) * inside).sum() / inside.sum().clamp(min=1)
        loss = loss + 0.3 * particle_loss + 0.1 * inward_loss
        parts |= {"particle": particle_loss, "inward": inward_loss}
    return {"loss": loss, **parts}


def crop_targets(crop: LabelledCrop) -> NDArray[np.float32]:
    """(6, h / stride, w / stride): centre, offset x, offset y, log size, weight, and 1 where background is labelled.

    Uncertain labels weigh nothing. Where a person saw no particle, a disc of a quarter of a diameter is background.
    """
    shape_yx = crop.image.shape[0] // STRIDE_PX, crop.image.shape[1] // STRIDE_PX
    certain = ~crop.is_uncertain
    centre, geometry = centre_targets(
        crop.xy_px[certain], crop.diameter_px[certain], shape_yx=shape_yx, stride_px=STRIDE_PX
    )
    uncertain, _ = centre_targets(
        crop.xy_px[~certain], crop.diameter_px[~certain], shape_yx=shape_yx, stride_px=STRIDE_PX
    )
    size = float(np.median(crop.diameter_px)) if len(crop.diameter_px) else NOMINAL_PARTICLE_PX
    seen = np.full(len(crop.background_xy_px), size * BACKGROUND_DIAMETERS / (2 * TARGET_RADIUS))
    background, _ = centre_targets(crop.background_xy_px, seen, shape_yx=shape_yx, stride_px=STRIDE_PX)
    weight = 1 - uncertain * (1 - centre)
    return np.stack([centre, *geometry, weight, background * (1 - centre)]).astype(np.float32)
