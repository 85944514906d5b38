"""Running the published network of CryoTransformer, or one of its kind, on micrographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.inference.device import chosen_bfloat16, chosen_device
from cryopick.pickers.cryotransformer.matching import NOTHING, PARTICLE
from cryopick.pickers.cryotransformer.tiles import OVERLAP_DIAMETERS, SAME_DIAMETERS, lay_tiles, owned, tile_side_px
from cryopick.processing.denoise.corrected import CorrectedSettings, denoise_corrected
from cryopick.processing.denoise.published import SHIFT_XY_PX, denoise_published
from cryopick.processing.normalize import robust_spread
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import ScaleMap, fill_non_finite, resample

if TYPE_CHECKING:
    from cryopick.pickers.cryotransformer.detr_network import DetectionTransformer

NETWORK = "detection_transformer"
Denoising = Literal["corrected", "article", "published", "none", "as_is"]
AT_FULL_SIZE: tuple[Denoising, ...] = ("article", "published", "as_is")
"""These give 8-bit pictures as large as the micrograph, and need no diameter."""
Behaviour = Literal["corrected", "article", "published"]
"""What a network is shown and taught. corrected: tiles in which the queries suffice, two classes, whole boxes; article:
whole micrographs, two classes; published: whole micrographs upside down, particles of the class of nothing, boxes cut
at the border and content left where the denoiser moved it, as the released program has them."""
SHORT_SIDE_PX, LONGEST_SIDE_PX = 800, 1333
LARGEST_GREY = 255
Grey = NDArray[np.uint8] | NDArray[np.float32]
"""(h, w) grey values: 8 bits, or in [0, 1]."""
GREY_SIGMA = 4.0
"""Without denoising, black and white lie this many standard deviations from the middle."""
_SETTINGS = CorrectedSettings(normalizes_locally=False)


def sees_wholes(behaviour: Behaviour) -> bool:
    """Whether a network sees micrographs whole, as one image each."""
    return behaviour != "corrected"


def is_upside_down(behaviour: Behaviour, denoising: Denoising) -> bool:
    """Whether micrographs are turned upside down first, as the program turns them before it denoises them."""
    return behaviour == "published" and denoising != "as_is"


def particle_class(behaviour: Behaviour) -> int:
    """Number of the class of particles; in the program it is that of nothing."""
    return NOTHING if behaviour == "published" else PARTICLE


def needs_diameter(behaviour: Behaviour, denoising: Denoising) -> bool:
    """Whether images can be made only where the particles' diameter is known."""
    return not sees_wholes(behaviour) or denoising == "corrected"


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A micrograph as the network's images are cut from it.

    Parameters
    ----------
    grey : (h, w) uint8, or float32 in [0, 1]
    scale : maps coordinates of `grey` and of the micrograph
    shift_xy_px : by how much the preparation moved the content, in pixels of the micrograph
    """

    grey: Grey
    scale: ScaleMap
    shift_xy_px: tuple[float, float] = (0.0, 0.0)

    def to_stored_xy(self, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.scale.to_stored_xy(xy_px) - np.array(self.shift_xy_px))

    def to_working_xy(self, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.scale.to_working_xy(np.asarray(xy_px, np.float64) + np.array(self.shift_xy_px))


def prepare_image(
    pixels: NDArray[np.float32], *, diameter_px: float | None, denoising: Denoising, name: str = ""
) -> PreparedImage:
    """Denoise a micrograph, or only stretch it.

    Parameters
    ----------
    pixels : (h, w), particles dark
    diameter_px : of a particle; `corrected` needs it
    denoising : `corrected` works at the scale of the particle and moves nothing; `article` and `published` are the
        chains of the article and of its program at full size, whose shift is undone here; `none` stretches the grey
        values, and shrinks as `corrected` does where a diameter is given; `as_is` takes 8-bit pictures that are
        denoised already
    name : of the micrograph, for errors

    Raises
    ------
    SettingsError
        If a diameter is needed and not given, or `as_is` meets anything but grey values from 0 to 255.
    """
    if denoising in AT_FULL_SIZE:
        shift = (0.0, 0.0) if denoising == "as_is" else SHIFT_XY_PX
        return PreparedImage(full_size_picture(pixels, denoising, name=name), ScaleMap((1.0, 1.0)), shift)
    if denoising == "corrected":
        if diameter_px is None:
            raise SettingsError(f"{name}: denoising corrected works at the scale of the particle; give its diameter")
        return PreparedImage(*denoise_corrected(pixels, diameter_px=diameter_px, settings=_SETTINGS))
    factor = 1.0 if diameter_px is None else min(1.0, _SETTINGS.particle_px / diameter_px)
    working, scale = resample(fill_non_finite(pixels), factor=factor)
    middle, spread = robust_spread(working)
    if not spread > 1e-6 * max(abs(middle), 1e-30):
        return PreparedImage(np.full_like(working, 0.5), scale)
    grey = np.clip(0.5 + (working - middle) / (2 * GREY_SIGMA * spread), 0, 1).astype(np.float32)
    return PreparedImage(grey, scale)


def full_size_picture(pixels: NDArray[np.float32], denoising: Denoising, *, name: str = "") -> NDArray[np.uint8]:
    """The 8-bit picture of one of the preparations `AT_FULL_SIZE`; see `prepare_image`."""
    if denoising == "as_is":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= LARGEST_GREY):
            raise SettingsError(
                f"{name}: denoising as_is takes 8-bit pictures that are denoised already, and grey values reach from "
                f"{low:g} to {high:g}; expected 0 to 255; give --denoising article or published for raw micrographs"
            )
        return np.rint(pixels).astype(np.uint8)
    return denoise_published(pixels, guide="equalized" if denoising == "article" else "wiener").image


def network_size(
    shape_yx: tuple[int, int], *, short_px: int = SHORT_SIDE_PX, longest_px: int = LONGEST_SIDE_PX
) -> tuple[int, int]:
    """Rows and columns at which the network sees an image: the shorter side `short_px`, unless the longer one would
    pass `longest_px`; the aspect ratio is kept to less than a pixel."""
    short, long = min(shape_yx), max(shape_yx)
    side = short_px if short_px * long / short <= longest_px else round(longest_px * short / long)
    other = max(1, int(side * long / short))
    return (side, other) if shape_yx[0] <= shape_yx[1] else (other, side)


def resized(grey: Grey, *, short_px: int, longest_px: int | None) -> Grey:
    """As `resized_to`, to the `network_size`; without `longest_px` the longer side has no limit."""
    shape = (grey.shape[0], grey.shape[1])
    limit = 2**30 if longest_px is None else longest_px
    return resized_to(grey, network_size(shape, short_px=short_px, longest_px=limit))


def resized_to(grey: Grey, shape_yx: tuple[int, int]) -> Grey:
    """Bilinear with a footprint as wide as the shrinkage, as Pillow does; 8-bit pictures stay such, as published."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(grey)).resize(shape_yx[::-1], Image.Resampling.BILINEAR)
    # copies, because what Pillow gives must not be written
    return np.array(picture, np.uint8) if grey.dtype == np.uint8 else np.array(picture, np.float32)


def as_shares(grey: Grey) -> NDArray[np.float32]:
    """Grey values in [0, 1]."""
    return (grey / np.float32(LARGEST_GREY)).astype(np.float32) if grey.dtype == np.uint8 else grey.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of one image, one row per query.

    Parameters
    ----------
    logits : (q, 2) of the two classes
    boxes : (q, 4) centre and size, in 0..1 of the image
    particle_class : number of the class that particles had in training; 1 with the published program, where that is
        the class of nothing as well
    """

    logits: NDArray[np.float64]
    boxes: NDArray[np.float64]
    particle_class: int = 0

    @property
    def probability(self) -> NDArray[np.float64]:
        """(q,) of the class particle, by softmax."""
        other, own = self.logits[:, 1 - self.particle_class], self.logits[:, self.particle_class]
        return np.asarray(1 / (1 + np.exp(np.clip(other - own, -60, 60))))


@dataclass(frozen=True, eq=False)
class DetrModel:
    """A loaded network with what it was trained for.

    Parameters
    ----------
    network : on `device`
    denoising, behaviour, short_px, longest_px : as in training
    calibration : of the class particle's probability; None where nobody measured what it is worth
    """

    network: DetectionTransformer
    device: str
    is_bfloat16: bool
    denoising: Denoising
    behaviour: Behaviour
    short_px: int
    longest_px: int
    queries: int
    calibration: Calibration | None

    def answers(self, grey: Grey) -> Answers:
        """All answers for one image."""
        import torch

        from cryopick.pickers.cryotransformer.detr_network import normalized

        image = torch.from_numpy(as_shares(resized(grey, short_px=self.short_px, longest_px=self.longest_px)))
        kind = torch.device(self.device).type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=self.is_bfloat16):
            logits, boxes = self.network(normalized(image[None].to(self.device)))[-1]
        return Answers(
            logits[0].double().cpu().numpy(), boxes[0].double().cpu().numpy(), particle_class(self.behaviour)
        )

    def whole(
        self, prepared: PreparedImage, *, floor: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """As `in_tiles`, of the micrograph as one image, as published."""
        found = self.answers(prepared.grey)
        size = np.array([prepared.grey.shape[1], prepared.grey.shape[0]])
        score = found.probability
        chosen = score >= floor
        centres = prepared.to_stored_xy(found.boxes[chosen, :2] * size - 0.5)
        sides = (found.boxes[chosen, 2:] * size).mean(axis=1) / prepared.scale.factor
        return centres, sides, score[chosen]

    def in_tiles(
        self,
        prepared: PreparedImage,
        *,
        diameter_px: float,
        floor: float,
        order: Sequence[int] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Centres (n, 2) and sides (n,) in pixels of the micrograph and probabilities (n,), each particle once.

        Parameters
        ----------
        diameter_px : of a particle, in pixels of the micrograph
        floor : answers less probable are left out
        order : in which the tiles are looked at; it makes no difference
        """
        particle_px = diameter_px * prepared.scale.factor
        shape_yx = prepared.grey.shape[0], prepared.grey.shape[1]
        side_px = max(tile_side_px(self.queries, diameter_px=particle_px), (OVERLAP_DIAMETERS + 1) * particle_px)
        tiles = lay_tiles(shape_yx, side_px=side_px, overlap_px=OVERLAP_DIAMETERS * particle_px)
        tiles = [tiles[i] for i in order] if order is not None else tiles
        centres, sides, scores = [], [], []
        for tile in tiles:
            left, top, right, bottom = tile.region
            found = self.answers(prepared.grey[top:bottom, left:right])
            size = np.array([right - left, bottom - top])
            centres.append(found.boxes[:, :2] * size - 0.5 + [left, top])
            sides.append((found.boxes[:, 2:] * size).mean(axis=1))
            scores.append(found.probability)
        # only what may be a particle can own one: the many answers that say nothing are left out first
        chosen = [np.flatnonzero(score >= floor) for score in scores]
        centres, sides, scores = (
            [values[index] for values, index in zip(each, chosen, strict=True)] for each in (centres, sides, scores)
        )
        stands = owned(tiles, centres, shape_yx=shape_yx, same_px=SAME_DIAMETERS * particle_px)
        xy_px, side, score = (
            np.concatenate([values[mask] for values, mask in zip(each, stands, strict=True)])
            for each in (centres, sides, scores)
        )
        return prepared.to_stored_xy(xy_px), side / prepared.scale.factor, score


def build_detr(architecture: Mapping[str, Any]) -> DetectionTransformer:
    """The network that a card's architecture describes."""
    from cryopick.pickers.cryotransformer.detr_network import DetectionTransformer

    return DetectionTransformer(**{name: value for name, value in architecture.items() if name != "network"})


def detr_model(
    network: DetectionTransformer,
    preprocessing: Mapping[str, Any],
    calibration: Calibration | None,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> DetrModel:
    """A network as the picker runs it; `preprocessing` is that of its card."""
    device = chosen_device(device)
    return DetrModel(
        network.eval().to(device),
        device=device,
        is_bfloat16=chosen_bfloat16(device, precision),
        denoising=preprocessing["denoising"],
        behaviour=preprocessing["behaviour"],
        short_px=preprocessing["short_px"],
        longest_px=preprocessing["longest_px"],
        queries=network.queries,
        calibration=calibration,
    )
