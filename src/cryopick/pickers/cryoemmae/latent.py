"""From a micrograph to a map of latent vectors: pre-processing, crops, the encoder of Cryo-EMMAE, maps put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryoemmae.denoise import PICTURE_PX, SHIFT_XY_PX, prepare_as_written, prepare_cryoemmae
from cryopick.processing.denoise.corrected import CorrectedSettings, denoise_corrected
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, ScaleMap

if TYPE_CHECKING:
    from cryopick.pickers.cryoemmae.network import MaskedAutoencoder

Preprocessing = Literal["corrected", "article", "program"]
"""corrected: a working size, one scale, nothing shifted; article, program: 1024 x 1024 as either has it."""

SMALLEST_DIAMETER_PX = 4.0
"""Stored pixels; a smaller particle has no inside."""
CORRECTED = CorrectedSettings(particle_px=NOMINAL_PARTICLE_PX, nlm_strength=0.0, low_pass_diameters=0.06)
"""The intent of the article at a working size: local normalisation, low-pass, CLAHE as the guide of a guided filter."""
BATCH_CROPS = 32
PHASE_PX = 30
"""The second grid of crops starts so many pixels before the image: half a crop away but for half a patch."""


def preprocessing_named(name: str) -> Preprocessing:
    """One by its name, or by what version 0.1 called it: `published` for `program`.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    known = {**{one: one for one in get_args(Preprocessing)}, "published": "program"}
    if name not in known:
        raise ValueError(f"pre-processing {name!r}, expected {', '.join(known)}")
    found: Preprocessing = known[name]
    return found


@dataclass(frozen=True, eq=False)
class Prepared:
    """A pre-processed micrograph.

    Parameters
    ----------
    image : (h, w) float32 in [0, 1], particles dark
    scale : its pixels and those as stored
    diameter_px : of a particle in `image`
    shift_xy_px : where content lies from where it was, stored pixels; only the program's chain moves it
    is_upside_down : rows are in reverse, as the program has them
    shape_yx : of the micrograph as stored
    """

    image: NDArray[np.float32]
    scale: ScaleMap
    diameter_px: float
    shift_xy_px: tuple[float, float] = (0.0, 0.0)
    is_upside_down: bool = False
    shape_yx: tuple[int, int] = (0, 0)

    def to_stored_xy(self, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) centres in pixels of `image` to pixels of the micrograph as stored."""
        xy = np.asarray(self.scale.to_stored_xy(xy_px) - np.asarray(self.shift_xy_px), np.float64)
        return np.stack([xy[:, 0], self.shape_yx[0] - 1 - xy[:, 1]], axis=1) if self.is_upside_down else xy


def prepare_image(pixels: NDArray[np.float32], *, diameter_px: float, preprocessing: Preprocessing) -> Prepared | None:
    """What the encoder is to see of a micrograph; None where it is smaller than a particle or shows nothing.

    Parameters
    ----------
    pixels : (h, w), as stored, particles dark
    diameter_px : of a particle, stored pixels
    preprocessing : `corrected` (working size, nothing shifted), or 1024 x 1024: `article` (`prepare_as_written`) or
        `program` (`prepare_cryoemmae`, of the micrograph upside down)
    """
    if min(pixels.shape) < diameter_px or diameter_px < SMALLEST_DIAMETER_PX:
        return None
    if preprocessing == "corrected":
        prepared = _at_working_size(pixels, diameter_px)
    elif min(pixels.shape) <= 2 * round(diameter_px / 2) + 1:
        return None
    else:
        prepared = _as_published(pixels, diameter_px, is_program=preprocessing == "program")
    return prepared if np.ptp(prepared.image) > 0 else None


def _at_working_size(pixels: NDArray[np.float32], diameter_px: float) -> Prepared:
    import cv2

    image, scale = denoise_corrected(pixels, diameter_px=diameter_px, settings=CORRECTED)
    if diameter_px < NOMINAL_PARTICLE_PX:  # which is not enlarged, and the network knows no smaller particles
        factor = NOMINAL_PARTICLE_PX / diameter_px
        height, width = image.shape
        size = round(width * factor), round(height * factor)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.float32)
        scale = ScaleMap((size[1] / height, size[0] / width))
    return Prepared(image, scale, diameter_px * scale.factor)


def _as_published(pixels: NDArray[np.float32], diameter_px: float, *, is_program: bool) -> Prepared:
    if is_program:
        stages = prepare_cryoemmae(pixels[::-1], diameter_px=round(diameter_px))
    else:
        stages = prepare_as_written(pixels, diameter_px=diameter_px)
    scale = ScaleMap((PICTURE_PX / pixels.shape[0], PICTURE_PX / pixels.shape[1]))
    return Prepared(
        (stages.picture / 255).astype(np.float32),
        scale,
        # as the program has it: the larger of the two diameters that one squeezed particle has
        diameter_px * max(scale.factor_yx),
        SHIFT_XY_PX if is_program else (0.0, 0.0),
        is_upside_down=is_program,
        shape_yx=(pixels.shape[0], pixels.shape[1]),
    )


@dataclass(frozen=True, eq=False)
class LatentMap:
    """Latent vectors on a regular grid.

    Parameters
    ----------
    vectors : (h, w, c) float32
    step_px : image pixels between neighbours
    first_px : image pixel, along both axes, of the centre of vector (0, 0)
    """

    vectors: NDArray[np.float32]
    step_px: float
    first_px: float

    @property
    def flat(self) -> NDArray[np.float32]:
        """(h * w, c)."""
        return self.vectors.reshape(-1, self.vectors.shape[2])

    def to_image_xy(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) places on the grid, (0, 0) its first vector, to pixels of the image."""
        return np.asarray(xy, np.float64) * self.step_px + self.first_px


@dataclass(frozen=True, eq=False)
class Encoder:
    """A trained encoder with the standardisation that it was trained with.

    Parameters
    ----------
    network : in evaluation mode, on `device`
    mean, std : of the training pixels, images in [0, 1]
    """

    network: Any
    device: str
    is_bfloat16: bool
    mean: float
    std: float

    @classmethod
    def loaded(
        cls, network: MaskedAutoencoder, *, mean: float, std: float, device: str = "auto", precision: str = "auto"
    ) -> Self:
        """The network moved to its device and number format."""
        import torch

        from cryopick.inference.device import chosen_bfloat16, chosen_device

        device = chosen_device(device)
        is_bfloat16 = chosen_bfloat16(device, precision)
        network = network.eval().to(device, dtype=torch.bfloat16 if is_bfloat16 else torch.float32)
        return cls(network, device=device, is_bfloat16=is_bfloat16, mean=mean, std=std)

    def standardized(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pixels as the network sees them."""
        return ((image - np.float32(self.mean)) / np.float32(self.std)).astype(np.float32)

    def dense(self, image: NDArray[np.float32]) -> LatentMap:
        """A vector every half patch: the image is cut into crops four times, each time at another place and phase.

        The four cuts start at the image's corner, or `PHASE_PX` before it, along each axis. Neighbouring vectors come
        from different cuts, so that a mean over neighbours has no seam where one cut's crops end.

        Parameters
        ----------
        image : (h, w) in [0, 1]
        """
        patch = self.network.patch_px
        height, width = image.shape
        rows, columns = -(-height // patch), -(-width // patch)
        out = np.empty((2 * rows, 2 * columns, self.network.width), np.float32)
        standard = self.standardized(image)
        for down in (0, 1):
            for right in (0, 1):
                codes = self._cut(standard, before_yx=(PHASE_PX * down, PHASE_PX * right))
                # 30 px before the image are seven and a half patches: vector 8 is half a patch after the first one
                skip_y, skip_x = (PHASE_PX // patch + 1) * down, (PHASE_PX // patch + 1) * right
                part = codes[skip_y : skip_y + rows, skip_x : skip_x + columns]
                out[down::2, right::2] = part
        step_px, first_px = patch / 2, (patch - 1) / 2
        inside = [int((size - 1 - first_px + 1e-6) // step_px) + 1 for size in (height, width)]
        return LatentMap(np.ascontiguousarray(out[: max(inside[0], 1), : max(inside[1], 1)]), step_px, first_px)

    def tokens(self, image: NDArray[np.float32]) -> LatentMap:
        """A vector per patch from crops that do not overlap, as published; sides must be multiples of the crop's."""
        codes = self._cut(self.standardized(image), before_yx=(0, 0))
        patch = self.network.patch_px
        height, width = image.shape[0] // patch, image.shape[1] // patch
        return LatentMap(codes[:height, :width], patch, (patch - 1) / 2)

    def _cut(self, image: NDArray[np.float32], *, before_yx: tuple[int, int]) -> NDArray[np.float32]:
        """(patches down, patches across, c) of the image, reflected to so many pixels before it and to whole crops."""
        crop, side = self.network.image_px, self.network.side
        # a cut that starts earlier also ends later, so that the vectors between patches exist at the end too
        after = [self.network.patch_px + 2 if before else 0 for before in before_yx]
        ends = [
            -(-(size + before + behind) // crop) * crop
            for size, before, behind in zip(image.shape, before_yx, after, strict=True)
        ]
        index = [
            _reflected(np.arange(-before, end - before), size)
            for size, before, end in zip(image.shape, before_yx, ends, strict=True)
        ]
        padded = image[np.ix_(*index)]
        down, across = ends[0] // crop, ends[1] // crop
        crops = padded.reshape(down, crop, across, crop).transpose(0, 2, 1, 3).reshape(-1, crop, crop)
        codes = self.encode(crops).reshape(down, across, side, side, -1)
        return codes.transpose(0, 2, 1, 3, 4).reshape(down * side, across * side, -1)

    def encode(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, s, s) standardised crops to (n, patches, c) latent vectors."""
        import torch

        dtype = torch.bfloat16 if self.is_bfloat16 else torch.float32
        parts = []
        with torch.inference_mode():
            for first in range(0, len(crops), BATCH_CROPS):
                batch = torch.from_numpy(np.ascontiguousarray(crops[first : first + BATCH_CROPS]))
                parts.append(self.network.encode(batch.to(self.device, dtype)).float().cpu().numpy())
        return np.concatenate(parts)


def _reflected(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Places outside [0, size) reflected at the border pixels' outer edges, as often as it takes."""
    turned = np.mod(index, 2 * size)
    return np.where(turned < size, turned, 2 * size - 1 - turned)
