"""Training crops from labelled micrographs: which one comes at which step is a function of the seed and the step."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import Dataset, LabelledMicrograph
from cryopick.data.prepared_cache import GIGABYTE
from cryopick.errors import SettingsError
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, ScaleMap, resample
from cryopick.training.augment import LabelledCrop, dihedral, jitter_intensity
from cryopick.training.workers import WORKER_START, prepare_worker

_logger = logging.getLogger(__name__)


class WithImage(Protocol):
    """A micrograph at working scale, with whatever a system knows of it."""

    @property
    def image(self) -> NDArray[Any]:
        """(h, w)"""


W = TypeVar("W", bound=WithImage)


def epoch_index(position: int, count: int, *, seed: int) -> int:
    """The item at `position` of an endless sequence in which every epoch is a new permutation of `count` items.

    A function of its arguments alone, so that a sequence can be entered anywhere.
    """
    epoch, place = divmod(position, count)
    return int(np.random.default_rng([seed, epoch]).permutation(count)[place])


class MicrographSampler(Generic[W]):
    """The micrographs of a data set at working scale; those used longest ago are read again when they are needed."""

    cache_bytes = 2**30
    """Memory for their images, where the data set sets no limit (`Dataset.prepared`)."""

    def __init__(self, dataset: Dataset, *, seed: int = 0) -> None:
        self.items, self.seed = dataset.labelled().items, seed
        self.prepared = dataset.prepared
        if self.prepared.memory_bytes is not None:
            self.cache_bytes = self.prepared.memory_bytes
        self._cache: OrderedDict[int, W] = OrderedDict()
        self._has_said_it = False

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": OrderedDict()}  # worker processes read their own micrographs

    def at_working_scale(self, item: LabelledMicrograph) -> W:
        """A micrograph read and resampled, with its labels."""
        raise NotImplementedError

    def crop(self, position: int, rng: np.random.Generator) -> W:
        """What is learnt from at `position` of an endless sequence; all that is random comes from `rng`."""
        raise NotImplementedError

    def whole(self, index: int) -> W:
        """Micrograph `index` at working scale."""
        if index not in self._cache:
            self._cache[index] = self.at_working_scale(self.items[index])
            while len(self._cache) > 1 and sum(one.image.nbytes for one in self._cache.values()) > self.cache_bytes:
                self._cache.popitem(last=False)
                self._say_that_it_makes_again()
        self._cache.move_to_end(index)
        return self._cache[index]

    def _say_that_it_makes_again(self) -> None:
        """Once, in one process of several: what follows takes longer than it need."""
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        if not self._has_said_it and self.prepared.cache is None and (worker is None or worker.id == 0):
            _logger.warning(
                "%d micrographs do not fit into the %.3g GB of memory for them in each process, and are prepared anew "
                "whenever they are needed; give more with --memory, or --cache-dir FOLDER to keep them on disk",
                *(len(self.items), self.cache_bytes / GIGABYTE),
            )
        self._has_said_it = True

    def index_at(self, position: int) -> int:
        """The micrograph that crop `position` is of."""
        return epoch_index(position, len(self.items), seed=self.seed)


def prepare_all(samplers: Sequence[MicrographSampler[Any]], tell: Callable[[int, int], None]) -> None:
    """Prepare the micrographs of several samplers side by side, on all cores, for the cache on disk.

    Without such a cache nothing is done: what worker processes hold in memory is their own. What they found whole on
    disk this process believes, and so do the workers that it starts later: checksums of 100 GB take minutes.

    Parameters
    ----------
    tell : gets how many of how many are done
    """
    import torch
    from torch.utils.data import DataLoader

    asked = [
        (sampler, number)
        for sampler in samplers
        if sampler.prepared.cache is not None
        for number in range(len(sampler.items))
    ]
    if not asked:
        return
    processes = min(torch.get_num_threads(), len(asked))
    items: Any = _Preparations([sampler for sampler, _ in asked], [number for _, number in asked])
    loader = DataLoader(
        items,
        sampler=range(len(asked)),
        batch_size=None,
        num_workers=processes if processes > 1 else 0,
        worker_init_fn=prepare_worker,
        multiprocessing_context=WORKER_START if processes > 1 else None,
    )
    tell(0, len(asked))
    for done, (has_room, found_whole) in enumerate(loader, start=1):
        cache = asked[done - 1][0].prepared.cache
        if cache is not None:
            cache.believe(found_whole)
        tell(done if has_room else len(asked), len(asked))
        if not has_room:
            break


@dataclass(frozen=True)
class _Preparations:
    """Micrographs that are prepared when they are asked for; what comes back is whether the cache has room for more,
    and which entries were found whole for it."""

    samplers: Sequence[MicrographSampler[Any]]
    numbers: Sequence[int]

    def __getitem__(self, index: int) -> tuple[bool, frozenset[str]]:
        sampler, number = self.samplers[index], self.numbers[index]
        cache = sampler.prepared.cache
        before: frozenset[str] = frozenset() if cache is None else cache.found_whole()
        sampler.at_working_scale(sampler.items[number])
        return (True, before) if cache is None else (not cache.is_full, cache.found_whole() - before)


class CropSampler(MicrographSampler[LabelledCrop]):
    """Draws augmented crops from a data set, particles near a nominal size.

    Parameters
    ----------
    dataset : labelled, with known particle diameters
    crop_px : side of a crop in working pixels
    particle_px : diameter of particles in working pixels
    scale_range : factors by which particles are larger or smaller than nominal, log-uniform
    particle_share : share of the crops that are centred near a labelled particle, or near a place that is labelled as
        background; the others lie anywhere
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        crop_px: int,
        particle_px: float = NOMINAL_PARTICLE_PX,
        seed: int = 0,
        scale_range: tuple[float, float] = (0.85, 1.18),
        particle_share: float = 0.7,
    ) -> None:
        super().__init__(dataset, seed=seed)
        unknown = [item.name for item in self.items if item.diameter_px is None]
        if unknown:
            raise SettingsError(f"{unknown[0]}: the particle diameter is unknown; give it (--diameter 180A or 108px)")
        self.crop_px, self.particle_px = crop_px, particle_px
        self.scale_range, self.particle_share = scale_range, particle_share

    def crop(self, position: int, rng: np.random.Generator) -> LabelledCrop:
        """Crop number `position`: micrographs in turn, places and augmentation from `rng`."""
        working = self.whole(self.index_at(position))
        height, width = working.image.shape
        scale = float(np.exp(rng.uniform(*np.log(self.scale_range))))
        side = self.crop_px / scale  # of the window before it is resized
        certain = np.concatenate([working.xy_px[~working.is_uncertain], working.background_xy_px])
        if len(certain) and rng.random() < self.particle_share:
            centre = certain[rng.integers(len(certain))] + rng.uniform(-0.35, 0.35, 2) * side
        else:
            centre = rng.uniform((0, 0), (width, height))
        left, top = (round(float(value)) for value in centre - side / 2)
        left, top = _kept_inside(left, side, width), _kept_inside(top, side, height)
        crop = scaled(cut(working, left=left, top=top, side=round(side)), crop_px=self.crop_px)
        return jitter_intensity(dihedral(crop, int(rng.integers(8))), rng)

    def at_working_scale(self, item: LabelledMicrograph) -> LabelledCrop:
        """All of a micrograph; particles have the nominal size."""
        if item.labels is None or item.diameter_px is None:
            raise ValueError(f"{item.name}: has no labels with a diameter")
        factor = self.particle_px / item.diameter_px
        settings = {"of": "resampled", "version": 1, "factor": factor}
        image = self.prepared.of(item, settings, lambda: resample(item.read().pixels, factor=factor)[0])
        scale = ScaleMap((image.shape[0] / item.shape_yx[0], image.shape[1] / item.shape_yx[1]))
        return LabelledCrop(
            image=image,
            xy_px=scale.to_working_xy(item.labels.xy_px),
            diameter_px=np.full(len(item.labels), self.particle_px),
            is_uncertain=item.labels.is_uncertain,
            is_complete=item.is_complete,
            background_xy_px=scale.to_working_xy(item.labels.background_xy_px),
        )


def _kept_inside(start: int, side: float, size: int) -> int:
    """Move a window inside the image where it fits."""
    return int(np.clip(start, 0, max(0, size - round(side))))


def cut(crop: LabelledCrop, *, left: int, top: int, side: int) -> LabelledCrop:
    """A square window; what lies outside the image is filled with the image's median."""
    window = crop.image[max(top, 0) : top + side, max(left, 0) : left + side]
    if window.shape != (side, side):
        filled = np.full((side, side), np.median(crop.image), dtype=np.float32)
        row, column = max(-top, 0), max(-left, 0)
        filled[row : row + window.shape[0], column : column + window.shape[1]] = window
        window = filled
    moved = crop.xy_px - [left, top]
    inside = ((moved >= -0.5) & (moved < side - 0.5)).all(axis=1)
    background = crop.background_xy_px - [left, top]
    return replace(
        crop,
        image=np.ascontiguousarray(window),
        xy_px=moved[inside],
        diameter_px=crop.diameter_px[inside],
        is_uncertain=crop.is_uncertain[inside],
        background_xy_px=background[((background >= -0.5) & (background < side - 0.5)).all(axis=1)],
    )


def scaled(crop: LabelledCrop, *, crop_px: int) -> LabelledCrop:
    """The window resized to `crop_px`, its particles with it."""
    import cv2

    side = crop.image.shape[0]
    factor = crop_px / side
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = crop.image if side == crop_px else cv2.resize(crop.image, (crop_px, crop_px), interpolation=method)
    return replace(
        crop,
        image=np.asarray(image, dtype=np.float32),
        xy_px=(crop.xy_px + 0.5) * factor - 0.5,
        background_xy_px=(crop.background_xy_px + 0.5) * factor - 0.5,
        diameter_px=crop.diameter_px * factor,
    )
