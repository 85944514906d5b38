"""Training crops from labelled micrographs: which one comes at which step is a function of the seed and the step."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import Dataset, LabelledMicrograph
from cryopick.errors import SettingsError
from cryopick.processing.scale import resample
from cryopick.training.augment import LabelledCrop, dihedral, jitter_intensity

CACHE_BYTES = 2**30
"""Memory for micrographs at working scale; those used longest ago are read again when they are needed."""


def epoch_index(position: int, count: int, *, seed: int) -> int:
    """The item at `position` of an endless sequence in which every epoch is a new permutation of `count` items.

    A function of its arguments alone, so that a sequence can be entered anywhere.
    """
    epoch, place = divmod(position, count)
    return int(np.random.default_rng([seed, epoch]).permutation(count)[place])


@dataclass(frozen=True, eq=False)
class _Working:
    """A micrograph resampled so that particles have the nominal size."""

    image: NDArray[np.float32]
    xy_px: NDArray[np.float64]
    is_uncertain: NDArray[np.bool_]


class CropSampler:
    """Draws augmented crops from a data set, particles near a nominal size.

    Parameters
    ----------
    dataset : labelled, with known particle diameters
    crop_px : side of a crop in working pixels
    particle_px : diameter of particles in working pixels
    scale_range : factors by which particles are larger or smaller than nominal, log-uniform
    particle_share : share of the crops that are centred near a labelled particle; the others lie anywhere
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        crop_px: int,
        particle_px: float,
        seed: int = 0,
        scale_range: tuple[float, float] = (0.85, 1.18),
        particle_share: float = 0.7,
    ) -> None:
        self.items = dataset.labelled().items
        unknown = [item.name for item in self.items if item.diameter_px is None]
        if unknown:
            raise SettingsError(f"{unknown[0]}: the particle diameter is unknown; give it (--diameter 180A or 108px)")
        self.crop_px, self.particle_px, self.seed = crop_px, particle_px, seed
        self.scale_range, self.particle_share = scale_range, particle_share
        self._cache: OrderedDict[int, _Working] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": OrderedDict()}  # worker processes read their own micrographs

    def crop(self, position: int, rng: np.random.Generator) -> LabelledCrop:
        """Crop number `position`: micrographs in turn, places and augmentation from `rng`."""
        index = epoch_index(position, len(self.items), seed=self.seed)
        working = self._working(index)
        height, width = working.image.shape
        scale = float(np.exp(rng.uniform(*np.log(self.scale_range))))
        side = self.crop_px / scale  # of the window before it is resized
        certain = working.xy_px[~working.is_uncertain]
        if len(certain) and rng.random() < self.particle_share:
            centre = certain[rng.integers(len(certain))] + rng.uniform(-0.35, 0.35, 2) * side
        else:
            centre = rng.uniform((0, 0), (width, height))
        left, top = (round(float(value)) for value in centre - side / 2)
        left, top = _kept_inside(left, side, width), _kept_inside(top, side, height)
        crop = cut(working.image, working.xy_px, working.is_uncertain, left=left, top=top, side=round(side))
        crop = scaled(
            crop, crop_px=self.crop_px, particle_px=self.particle_px, is_complete=self.items[index].is_complete
        )
        return jitter_intensity(dihedral(crop, int(rng.integers(8))), rng)

    def whole(self, index: int) -> LabelledCrop:
        """Micrograph `index` at working scale, for validation."""
        working = self._working(index)
        return LabelledCrop(
            image=working.image,
            xy_px=working.xy_px,
            diameter_px=np.full(len(working.xy_px), self.particle_px),
            is_uncertain=working.is_uncertain,
            is_complete=self.items[index].is_complete,
        )

    def _working(self, index: int) -> _Working:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        working = _resampled(self.items[index], particle_px=self.particle_px)
        self._cache[index] = working
        while len(self._cache) > 1 and sum(one.image.nbytes for one in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return working


def _resampled(item: LabelledMicrograph, *, particle_px: float) -> _Working:
    if item.labels is None or item.diameter_px is None:
        raise ValueError(f"{item.name}: has no labels with a diameter")
    image, scale = resample(item.read().pixels, factor=particle_px / item.diameter_px)
    return _Working(image, scale.to_working_xy(item.labels.xy_px), item.labels.is_uncertain)


def _kept_inside(start: int, side: float, size: int) -> int:
    """Move a window inside the image where it fits."""
    return int(np.clip(start, 0, max(0, size - round(side))))


def cut(
    image: NDArray[np.float32],
    xy_px: NDArray[np.float64],
    is_uncertain: NDArray[np.bool_],
    *,
    left: int,
    top: int,
    side: int,
) -> LabelledCrop:
    """A square window; what lies outside the image is filled with the image's median. Diameters are set later."""
    window = image[max(top, 0) : top + side, max(left, 0) : left + side]
    if window.shape != (side, side):
        filled = np.full((side, side), np.median(image), dtype=np.float32)
        row, column = max(-top, 0), max(-left, 0)
        filled[row : row + window.shape[0], column : column + window.shape[1]] = window
        window = filled
    moved = xy_px - [left, top]
    inside = ((moved >= -0.5) & (moved < side - 0.5)).all(axis=1)
    return LabelledCrop(
        np.ascontiguousarray(window), moved[inside], np.zeros(int(inside.sum())), is_uncertain[inside], True
    )


def scaled(crop: LabelledCrop, *, crop_px: int, particle_px: float, is_complete: bool) -> LabelledCrop:
    """The window resized to `crop_px`, its particles with it."""
    import cv2

    side = crop.image.shape[0]
    factor = crop_px / side
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = crop.image if side == crop_px else cv2.resize(crop.image, (crop_px, crop_px), interpolation=method)
    return LabelledCrop(
        image=np.asarray(image, dtype=np.float32),
        xy_px=(crop.xy_px + 0.5) * factor - 0.5,
        diameter_px=np.full(len(crop.xy_px), particle_px * factor),
        is_uncertain=crop.is_uncertain,
        is_complete=is_complete,
    )
