"""The pipeline of the abstract and of its notebooks: torchvision's network on pieces of the micrograph at full
resolution, then a random field, then connected regions; faults of the notebooks on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError, WeightsError
from cryopick.inference.device import chosen_bfloat16, chosen_device
from cryopick.io.weights import open_checkpoint
from cryopick.pickers.published_weights import read_published
from cryopick.pickers.segmentation_crf.dense_crf import DenseCrf, mean_field_in_bands
from cryopick.pickers.segmentation_crf.mixture_normalization import normalized_by_mixture
from cryopick.pickers.segmentation_crf.model import CORE_RADIUS
from cryopick.pickers.segmentation_crf.regions import Regions, connected_regions, find_regions
from cryopick.types import CLASS_MAP, PARTICLE_MAP, UNREFINED, Micrograph

CLIPPED = 1e-5
"""Smallest probability that the random field is given."""
TUNED, UNTUNED = "conv-published", "conv-published-untuned"
"""The published convolutional CRF behind logits, for networks that were trained with it, and behind probabilities."""


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """What is done with what the network says.

    Parameters
    ----------
    crf : `none`, `dense`, `TUNED` or `UNTUNED`
    dense : settings of the dense CRF, for maps at full resolution
    diameter_px : in which its lengths are told
    is_softmax_first : probabilities, not logits, are enlarged, as in the notebooks
    """

    crf: str = "none"
    dense: DenseCrf | None = None
    diameter_px: float = 1.0
    is_softmax_first: bool = False


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """A network of torchvision's, loaded.

    Parameters
    ----------
    network : in evaluation mode, on `device`
    classes : of its answer
    class_names : where the weights say them
    default_tile_px : side of the pieces that it learnt from
    """

    network: Any
    device: str
    is_bfloat16: bool
    backbone: str
    in_channels: int
    classes: int
    class_names: tuple[str, ...]
    particle_class: int | None
    default_tile_px: int

    @property
    def planes(self) -> int:
        """Of the probabilities: background and particle where the network has a single class."""
        return max(self.classes, 2)

    def maps(
        self, image: NDArray[np.float32], refinement: Refinement, *, tile_px: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(planes, h, w) probabilities before the random field and after it; the same array where there is none.

        Parameters
        ----------
        image : (h, w) normalised
        tile_px : side of the pieces, a multiple of 8; those at the far borders are filled with 0
        """
        import torch

        tile_px = tile_px or self.default_tile_px
        before = np.empty((self.planes, *image.shape), np.float32)
        in_tiles = refinement.crf in (TUNED, UNTUNED)
        after = np.empty_like(before) if in_tiles else before
        with torch.inference_mode():
            for rows, columns in tiles(image.shape, tile_px):
                tile = np.zeros((tile_px, tile_px), np.float32)
                part = image[rows.start : rows.start + tile_px, columns.start : columns.start + tile_px]
                tile[: part.shape[0], : part.shape[1]] = part
                own, refined = self._seen(torch.from_numpy(tile), refinement)
                inside = np.s_[:, : rows.stop - rows.start, : columns.stop - columns.start]
                before[:, rows, columns] = own[inside]
                if in_tiles:
                    after[:, rows, columns] = refined[inside]
        if refinement.crf == "dense":
            if refinement.dense is None:
                raise ValueError("the dense CRF has no settings")
            log_probability = np.log(np.maximum(before, CLIPPED))
            after = mean_field_in_bands(log_probability, image, refinement.dense, diameter_px=refinement.diameter_px)
        return before, after

    def _seen(self, tile: Any, refinement: Refinement) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(planes, t, t) probabilities of one piece, (t, t), before and after a CRF that is part of the network."""
        import torch

        from cryopick.pickers.segmentation_crf.conv_crf import published_conv_crf

        x = tile.to(self.device)[None, None]
        seen = x.expand(-1, self.in_channels, -1, -1)
        seen = seen.to(torch.bfloat16) if self.is_bfloat16 else seen
        if refinement.is_softmax_first and refinement.crf != TUNED:
            answer = self.network(seen, is_softmax_first=True).float()
            probability = answer if self.classes > 1 else torch.cat([1 - answer, answer], dim=1)
            unary = probability
        else:
            answer = self.network(seen).float()
            logits = answer if self.classes > 1 else torch.cat([torch.zeros_like(answer), answer], dim=1)
            probability = logits.softmax(dim=1)
            unary = logits if refinement.crf == TUNED else probability
        own = np.asarray(probability[0].cpu().numpy(), np.float32)
        if refinement.crf not in (TUNED, UNTUNED):
            return own, own
        refined = published_conv_crf(unary, x).softmax(dim=1)
        return own, np.asarray(refined[0].cpu().numpy(), np.float32)


def tiles(shape_yx: tuple[int, ...], tile_px: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns that each piece answers for; it sees `tile_px` from where they begin, so pieces overlap by what
    is left over, and nothing is blended."""

    def along(size: int) -> list[slice]:
        step = -(-size // -(-size // tile_px))
        return [slice(start, min(start + step, size)) for start in range(0, size, step)]

    for rows in along(shape_yx[0]):
        for columns in along(shape_yx[1]):
            yield rows, columns


def load_published(weights: Path | str, *, device: str = "auto", precision: str = "float32") -> PublishedModel:
    """The network of a file of torchvision's names, of `cryopick import-weights` or of `cryopick train --as`.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds a network of ours.
    """
    import torch

    from cryopick.pickers.segmentation_crf.published_network import NETWORK, TILE_PX, build_published

    reader = partial(read_published, picker="segmentation-crf")
    with open_checkpoint(weights, picker="segmentation-crf", published=reader) as checkpoint:
        architecture, after = checkpoint.card.architecture, checkpoint.card.postprocessing
        if architecture.get("network") != NETWORK:
            raise WeightsError(
                f"{checkpoint.path}: weights of our own network ({architecture.get('backbone')}); the "
                "published pipeline takes torchvision's FCN or DeepLabv3: a .pth file, or what `cryopick train "
                "segmentation-crf --as article` made; leave --as out to pick with these"
            )
        network = checkpoint.build(build_published)
        device = chosen_device(device)
        is_bfloat16 = chosen_bfloat16(device, precision)
        network = network.eval().to(device, dtype=torch.bfloat16 if is_bfloat16 else torch.float32)
        particle = after.get("particle_class")
        return PublishedModel(
            network=network,
            device=device,
            is_bfloat16=is_bfloat16,
            backbone=f"{architecture['head']}-resnet{architecture['depth']}",
            in_channels=int(architecture["in_channels"]),
            classes=int(architecture["classes"]),
            class_names=tuple(after.get("class_names", ())),
            particle_class=None if particle is None else int(particle),
            default_tile_px=int(checkpoint.card.preprocessing.get("tile_px", TILE_PX[architecture["head"]])),
        )


@dataclass(frozen=True, eq=False)
class Seen:
    """The maps of one micrograph.

    Parameters
    ----------
    before, after : (planes, h, w) probabilities inside the rim, before the random field and after it
    particle : number of the particle's plane
    rim_px : pixels left out at every border
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    particle: int
    rim_px: int

    def regions(self, *, diameter_px: float | None) -> Regions:
        """Where the particle is the likeliest class: connected regions, or, with a diameter, parted by the distance to
        the background. Places are those of the micrograph."""
        is_particle = self.after.argmax(axis=0) == self.particle
        if diameter_px is None:
            found = connected_regions(is_particle, self.after[self.particle])
        else:
            every = find_regions(self.after[self.particle], None, diameter_px=diameter_px, core_radius=CORE_RADIUS)
            x, y = np.rint(every.xy_px).astype(np.intp).T
            is_seen = is_particle[y.clip(0, is_particle.shape[0] - 1), x.clip(0, is_particle.shape[1] - 1)]
            found = replace(
                every, xy_px=every.xy_px[is_seen], score=every.score[is_seen], area_px=every.area_px[is_seen]
            )
        return replace(found, xy_px=found.xy_px + self.rim_px)

    def pictures(self) -> dict[str, NDArray[np.float32]]:
        """Maps by name, of the size of the micrograph: 0 in the rim."""
        stages = {"": self.after} if self.after is self.before else {"": self.after, UNREFINED: self.before}
        maps = {}
        for ending, planes in stages.items():
            maps[PARTICLE_MAP + ending] = self._whole(planes[self.particle])
            if len(planes) > 2:
                maps |= {CLASS_MAP.format(i) + ending: self._whole(one) for i, one in enumerate(planes)}
        return maps

    def _whole(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.pad(values, self.rim_px), np.float32)


def see_published(
    micrograph: Micrograph,
    model: PublishedModel,
    refinement: Refinement,
    *,
    particle: int,
    tile_px: int | None = None,
    rim_px: int = 0,
) -> Seen | None:
    """The maps of a micrograph, normalised whole and seen without its rim; None where it has one value everywhere.

    Raises
    ------
    SettingsError
        If the rim leaves nothing.
    """
    height, width = micrograph.shape_yx
    if min(height, width) <= 2 * rim_px:
        raise SettingsError(
            f"{micrograph.name}: is {width} x {height}, of which a rim of {rim_px} px leaves nothing; give --rim-px 0"
        )
    image = normalized_by_mixture(micrograph.pixels)[rim_px : height - rim_px, rim_px : width - rim_px]
    if not image.any():
        return None
    before, after = model.maps(np.ascontiguousarray(image), refinement, tile_px=tile_px)
    return Seen(before, after, particle, rim_px)
