"""Segmentation maps to learn from: of simulated crops, and of labelled micrographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import Dataset, LabelledMicrograph
from cryopick.errors import FormatError, SettingsError
from cryopick.pickers.segmentation_crf.model import (
    BACKGROUND,
    CLASS_COUNT,
    CORE,
    CORE_RADIUS,
    HOLLOW,
    JUNK,
    RIM,
    intensity_guide,
    working_particle_px,
)
from cryopick.processing.scale import network_planes, resample
from cryopick.processing.targets import density_instances, disc_mask
from cryopick.simulation.crops import Crop
from cryopick.training.augment import P, dihedral_pixels, jittered_pixels
from cryopick.training.counted_sizes import counted_sizes
from cryopick.training.sampling import MicrographSampler

LEAST_VISIBLE = 0.3
"""Particles of which less is to be seen are left out of the loss."""


@dataclass(frozen=True, eq=False)
class Example:
    """What the network sees and should answer, at its stride.

    Parameters
    ----------
    planes : (input_planes, h, w), see `network_planes`
    guide : (1, h / stride, w / stride), see `intensity_guide`
    target : (5, h / stride, w / stride) share of each class
    weight : (h / stride, w / stride), 0 where a cell is left out of the loss
    is_complete : False where unlabelled places may hold particles
    """

    planes: NDArray[np.float32]
    guide: NDArray[np.float32]
    target: NDArray[np.float32]
    weight: NDArray[np.float32]
    is_complete: bool = True

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for a batch."""
        return {**vars(self), "is_complete": np.array(self.is_complete)}


def painted(
    is_particle: NDArray[np.bool_], xy_px: NDArray[np.float64], diameter_px: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """(h, w) class of every pixel, from the union of silhouettes and the particles' centres; no junk yet.

    Parameters
    ----------
    xy_px, diameter_px : (n, 2) and (n,)
    """
    classes = np.where(is_particle, RIM, BACKGROUND).astype(np.uint8)
    if len(xy_px):
        shape_yx = is_particle.shape[0], is_particle.shape[1]
        is_middle = disc_mask(xy_px, 2 * CORE_RADIUS * diameter_px, shape_yx=shape_yx)
        classes[is_middle] = np.where(is_particle[is_middle], CORE, HOLLOW)
    return classes


def shares(classes: NDArray[np.uint8], *, stride_px: int) -> NDArray[np.float32]:
    """(5, h / stride, w / stride): the part of each cell that is of each class."""
    height, width = classes.shape
    blocks = classes.reshape(height // stride_px, stride_px, width // stride_px, stride_px)
    return np.stack([(blocks == number).mean(axis=(1, 3)) for number in range(CLASS_COUNT)]).astype(np.float32)


def crop_example(crop: Crop, *, stride_px: int, input_planes: int = 2) -> Example:
    """A simulated crop. Silhouettes that are not to be picked, hardly visible or of undecided size are left out."""
    is_in, is_undecided = counted_sizes(crop.diameter_px, nominal_px=working_particle_px(stride_px))
    is_far = ~(is_in | is_undecided)
    is_seen = crop.visibility >= LEAST_VISIBLE
    n = len(crop.xy_px)
    # by instance number: to be found, left out, or background (0 and far sizes); reaching in from outside: left out
    number = np.full(max(int(crop.instances.max(initial=0)), n) + 1, 2, np.uint8)
    number[0] = 0
    number[1 : n + 1] = np.where(is_far, 0, np.where(is_in & is_seen, 1, 2))
    if n and is_far.any() and is_far.mean() > 0.5:
        number[n + 1 :] = 0  # their unseen neighbours are of the same species
    kind = number[crop.instances]
    chosen = is_in & is_seen
    classes = painted(kind == 1, crop.xy_px[chosen], crop.diameter_px[chosen].astype(np.float64))
    classes[crop.junk & (classes == BACKGROUND)] = JUNK
    is_out = (kind == 2) & (classes == BACKGROUND)
    return _example(crop.image, classes, is_out, stride_px=stride_px, input_planes=input_planes)


def _example(
    image: NDArray[np.float32],
    classes: NDArray[np.uint8],
    is_out: NDArray[np.bool_],
    *,
    stride_px: int,
    input_planes: int,
    is_complete: bool = True,
) -> Example:
    height, width = (side // stride_px for side in classes.shape)
    planes = network_planes(image, particle_px=working_particle_px(stride_px), count=input_planes)
    out = is_out.reshape(height, stride_px, width, stride_px).mean(axis=(1, 3))
    return Example(
        planes=planes,
        guide=intensity_guide(planes[0], stride_px=stride_px)[None],
        target=shares(classes, stride_px=stride_px),
        weight=(1 - out).astype(np.float32),
        is_complete=is_complete,
    )


# ---------------------------------------------------------------------------------------- labelled micrographs


@dataclass(frozen=True, eq=False)
class WorkingMap:
    """A labelled micrograph at working scale, and the class of each of its pixels.

    Parameters
    ----------
    image : (h, w) float32
    classes : (h, w) uint8
    is_out : (h, w) True where labels are uncertain
    xy_px : (n, 2) certain particles; of a part of a micrograph they are not told
    is_complete : False where unlabelled places may hold particles
    """

    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    is_out: NDArray[np.bool_]
    xy_px: NDArray[np.float64]
    is_complete: bool


def map_example(part: WorkingMap, *, stride_px: int, input_planes: int = 2) -> Example:
    """A part of a labelled micrograph, or all of it cut to whole cells."""
    height, width = (side // stride_px * stride_px for side in part.image.shape)
    cut = np.s_[:height, :width]
    return _example(
        part.image[cut],
        part.classes[cut],
        part.is_out[cut],
        stride_px=stride_px,
        input_planes=input_planes,
        is_complete=part.is_complete,
    )


def working_map(item: LabelledMicrograph, *, stride_px: int) -> WorkingMap:
    """Silhouettes are those drawn or exact where the data set has them (masks, simulation), else segmented around each
    coordinate. Classes of a mask other than the particle's are background.

    Raises
    ------
    SettingsError
        If the particle diameter is unknown.
    FormatError
        If the mask has another size than the micrograph.
    """
    if item.labels is None or item.diameter_px is None:
        raise SettingsError(f"{item.name}: the particle diameter is unknown; give it (--diameter 180A or 108px)")
    import cv2

    from cryopick.io.images.raster import read_raster_image

    particle_px = working_particle_px(stride_px)
    image, scale = resample(item.read().pixels, factor=particle_px / item.diameter_px)
    certain = ~item.labels.is_uncertain
    xy_px = scale.to_working_xy(item.labels.xy_px)
    if item.drawing is not None:
        kind = _drawn_kinds(item, shape_yx=(image.shape[0], image.shape[1]))
        is_left_out = disc_mask(xy_px[~certain], particle_px, shape_yx=(image.shape[0], image.shape[1]))
        kind[is_left_out & (kind == 0)] = 2
    elif item.instances_path is not None and item.region_px is None:
        stored = read_raster_image(item.instances_path).pixels
        if stored.shape != tuple(item.shape_yx):
            raise FormatError(f"{item.instances_path}: is {stored.shape}, its micrograph {tuple(item.shape_yx)}")
        size = image.shape[1], image.shape[0]
        small = cv2.resize(stored.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        instances = np.rint(small).astype(np.int32)
        number = np.concatenate([[0], np.where(certain, 1, 2), np.full(max(int(instances.max()) - len(xy_px), 0), 2)])
        kind = number[instances]
    else:
        instances = density_instances(image, xy_px[certain], particle_px).labels
        kind = (instances > 0).astype(np.int64)
        if (~certain).any():
            shape_yx = image.shape[0], image.shape[1]
            kind[disc_mask(xy_px[~certain], particle_px, shape_yx=shape_yx) & (kind == 0)] = 2
    found = xy_px[certain]
    classes = painted(kind == 1, found, np.full(len(found), particle_px))
    return WorkingMap(image, classes, (kind == 2) & (classes == BACKGROUND), found, item.is_complete)


def _drawn_kinds(item: LabelledMicrograph, *, shape_yx: tuple[int, int]) -> NDArray[np.int64]:
    """(h, w) at working scale: 1 particle, 2 left out, 0 all else, by the item's mask."""
    import cv2

    if item.drawing is None:
        raise ValueError(f"{item.name}: has no mask")
    size = shape_yx[1], shape_yx[0]

    def shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5)

    kind = shrunk(item.drawing.classes(item.region_px) == item.drawing.particle).astype(np.int64)
    ignored = item.drawing.is_ignored(item.region_px)
    if ignored is not None:
        kind[shrunk(ignored) & (kind == 0)] = 2
    return kind


class MapSampler(MicrographSampler[WorkingMap]):
    """Augmented parts of a data set's segmentation maps; which one comes depends on its position and `rng`."""

    def __init__(self, dataset: Dataset, *, crop_px: int, stride_px: int) -> None:
        super().__init__(dataset)
        self.crop_px, self.stride_px = crop_px, stride_px

    def at_working_scale(self, item: LabelledMicrograph) -> WorkingMap:
        return working_map(item, stride_px=self.stride_px)

    def crop(self, position: int, rng: np.random.Generator) -> WorkingMap:
        """Micrographs in turn; the place, one of eight symmetries and the intensity from `rng`."""
        index = self.index_at(position)
        whole = self.whole(index)
        side, (height, width) = self.crop_px, whole.image.shape
        if min(height, width) < side:
            raise SettingsError(
                f"{self.items[index].name}: {width} x {height} working pixels, less than crop_px {side}; "
                "set a smaller crop_px under [task]"
            )
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        symmetry = int(rng.integers(8))

        def part(pixels: NDArray[P]) -> NDArray[P]:
            return dihedral_pixels(pixels[top : top + side, left : left + side], symmetry)

        image = jittered_pixels(part(whole.image), rng)
        return WorkingMap(image, part(whole.classes), part(whole.is_out), np.zeros((0, 2)), whole.is_complete)
