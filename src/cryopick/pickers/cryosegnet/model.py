"""CryoSegNet's first half: a micrograph as its U-Net sees it, and the U-Net's particle map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError, WeightsError
from cryopick.inference.dense import DenseNetwork, sigmoid
from cryopick.inference.looks import TWO_LOOKS, Look, mean_of_looks, seen_turned
from cryopick.io.images.formats import is_image_name
from cryopick.io.weights import open_checkpoint
from cryopick.pickers.published_weights import read_published
from cryopick.processing.denoise.corrected import CorrectedSettings, denoise_corrected
from cryopick.processing.denoise.filters import to_8bit
from cryopick.processing.denoise.published import denoise_published
from cryopick.processing.peaks import find_peaks
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import (
    NOMINAL_PARTICLE_PX,
    PLANES,
    ScaleMap,
    fill_non_finite,
    gaussian_blur,
    network_planes,
    resample,
)
from cryopick.types import JUNK_MAP

if TYPE_CHECKING:
    from torch import nn

PAPER_SIDE_PX = 1024
"""Side of the square that the published program squeezes every micrograph into."""
LAST_ROW_FIRST = "last first"
"""What a card says of the rows of the authors' pictures."""
DENOISED_MAP, PARTICLE_MAP = "denoised", "particle map"
ON_A_PARTICLE = 0.5
"""Probability from which on a pixel of the map counts as of a particle."""
PEAK_FLOOR = 0.05
"""Lower maxima of the map are never prompts; far below any useful threshold."""
PEAK_BLUR = 0.15
"""Sigma in diameters: the discs of the map are flat, and a blur makes their middle the maximum."""
PEAK_RADIUS = 0.25
"""A peak is the highest place within so many diameters."""

InputKind = Literal["planes", "denoised", "published"]
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)
"""`planes`: detail and background at working scale. `denoised`: the corrected denoiser at working scale. `published`:
the published denoiser, squeezed into a square."""


Denoising = Literal["program", "article", "none", "done"]
"""Before a micrograph is squeezed. `program`: as the published program does it. `article`: as the article says, with
the guide of the last filter in place of what it filters. `none`: stretched to 256 levels by its extreme pixels. `done`:
it is a denoised picture of 256 levels already."""
DENOISINGS: tuple[Denoising, ...] = get_args(Denoising)


@dataclass(frozen=True)
class View:
    """How micrographs are shown to the network; part of the card of its weights.

    Parameters
    ----------
    kind : see `INPUT_KINDS`
    side_px : of the square, for `published` only
    in_channels : of the network: so many of `network_planes` for `planes`, else 1
    denoising : see `DENOISINGS`; for `published` only
    is_upside_down : whether the network sees the last row first, as the authors' pictures show MRC files; for
        `published` only
    """

    kind: InputKind
    side_px: int = PAPER_SIDE_PX
    in_channels: int = 1
    denoising: Denoising = "program"
    is_upside_down: bool = False

    @property
    def is_squeezed(self) -> bool:
        """Whether the size of the picture is fixed instead of that of the particle."""
        return self.kind == "published"

    def to_card(self) -> dict[str, Any]:
        """Plain JSON for a model card."""
        if self.is_squeezed:
            rows = LAST_ROW_FIRST if self.is_upside_down else "as stored"
            return {"input": self.kind, "side_px": self.side_px, "denoising": self.denoising, "rows": rows}
        planes = {"planes": ", ".join(PLANES[: self.in_channels])} if self.kind == "planes" else {}
        return {"input": self.kind, "particle_px": NOMINAL_PARTICLE_PX, **planes}

    @classmethod
    def from_card(cls, preprocessing: Mapping[str, Any], *, in_channels: int, where: str) -> Self:
        """The inverse of `to_card`, for a network with so many input channels."""
        kind = preprocessing.get("input")
        if kind not in INPUT_KINDS:
            raise WeightsError(
                f"{where}: its card names the input {kind!r}, expected one of {', '.join(INPUT_KINDS)}; use weights "
                "trained with `cryopick train cryosegnet`"
            )
        denoising = preprocessing.get("denoising", "program")  # older cards do not name it
        if denoising not in DENOISINGS:
            raise WeightsError(
                f"{where}: its card names the denoising {denoising!r}, expected one of {', '.join(DENOISINGS)}"
            )
        return cls(
            cast(InputKind, kind),
            int(preprocessing.get("side_px", PAPER_SIDE_PX)),
            in_channels,
            denoising=cast(Denoising, denoising),
            is_upside_down=preprocessing.get("rows") == LAST_ROW_FIRST,
        )

    def of_file(self, path: Path | None) -> Self:
        """For a micrograph of this file: the authors turn MRC files upside down, and take JPEG files as they are."""
        is_picture = path is not None and any(is_image_name(path.name, kind) for kind in ("JPEG", "PNG"))
        return replace(self, is_upside_down=False) if is_picture else self

    def planes(self, working: NDArray[np.float32]) -> NDArray[np.float32]:
        """(h, w) finite picture at working scale to the network's (c, h, w) input; not for `published`."""
        if self.kind == "planes":
            return network_planes(working, particle_px=NOMINAL_PARTICLE_PX, count=self.in_channels)
        return denoised_plane(working)[None]

    def show(self, pixels: NDArray[np.float32], *, diameter_px: float | None) -> tuple[NDArray[np.float32], ScaleMap]:
        """A micrograph denoised, for people; the `published` network sees the same, upside down where it is used to it.

        Parameters
        ----------
        pixels : (h, w), particles dark
        diameter_px : of a particle; not used by `published`

        Returns
        -------
        denoised : (h', w') float32 in [0, 1]
        scale : maps coordinates between the picture and the stored pixels
        """
        if self.is_squeezed:
            return squeeze_published(
                pixels, side_px=self.side_px, denoising=self.denoising, is_upside_down=self.is_upside_down
            )
        if diameter_px is None:
            raise ValueError("a picture at working scale needs the particle diameter")
        working, scale = resample(pixels, factor=NOMINAL_PARTICLE_PX / diameter_px)
        return np.asarray(denoised_plane(working) / (2 * DENOISED_GAIN) + 0.5, np.float32), scale


DENOISED_GAIN = 4.0
"""Denoised pictures lie in [0, 1] around 0.5; the network sees them around 0 and with a spread near 1."""


def denoised_plane(working: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) picture at working scale through the corrected denoiser; about -4 to 4, background near 0."""
    settings = CorrectedSettings(particle_px=NOMINAL_PARTICLE_PX)
    denoised, _ = denoise_corrected(working, diameter_px=NOMINAL_PARTICLE_PX, settings=settings)
    return np.asarray((denoised - 0.5) * 2 * DENOISED_GAIN, np.float32)


def squeeze_published(
    pixels: NDArray[np.float32], *, side_px: int, denoising: Denoising = "program", is_upside_down: bool = False
) -> tuple[NDArray[np.float32], ScaleMap]:
    """Denoise at full size as published and squeeze into a square, aspect ratio and all.

    Parameters
    ----------
    pixels : (h, w); for denoising "done" a picture from 0 to 255
    is_upside_down : work on the rows in reverse order, and turn the result back. The denoiser is not symmetric: its
        "Wiener" filter moves the content by four pixels

    Returns
    -------
    squeezed : (side, side) float32 in [0, 1], rows in the order of `pixels`
    scale : maps coordinates

    Raises
    ------
    InputError
        If the picture is said to be denoised and is no picture of 256 levels.
    """
    import cv2

    height, width = pixels.shape
    filled = fill_non_finite(pixels)
    denoised = denoised_8bit(filled[::-1] if is_upside_down else filled, denoising)
    squeezed = cv2.resize(denoised, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    squeezed = squeezed[::-1] if is_upside_down else squeezed
    return np.asarray(squeezed / np.float32(255), np.float32), ScaleMap((side_px / height, side_px / width))


def denoised_8bit(pixels: NDArray[np.float32], denoising: Denoising) -> NDArray[np.uint8]:
    """(h, w) finite pixels as a picture of 256 levels, denoised as `DENOISINGS` says."""
    if denoising == "none":
        return to_8bit(pixels)
    if denoising == "done":
        if float(pixels.min()) < 0 or float(pixels.max()) > 255:
            raise InputError(
                f"pixels from {pixels.min():g} to {pixels.max():g}: expected a denoised picture, 0 to 255, as "
                "denoising done says; for micrographs as they are take denoising program"
            )
        return np.rint(pixels).astype(np.uint8)
    return denoise_published(pixels, guide="equalized" if denoising == "article" else "wiener").image


def map_peaks(
    probability: NDArray[np.float32], *, particle_px: float, floor: float = PEAK_FLOOR
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Local maxima of a particle map: where particles may be, and prompts for Segment Anything.

    Parameters
    ----------
    probability : (h, w) in [0, 1]
    particle_px : diameter of a particle in pixels of the map

    Returns
    -------
    xy_px : (n, 2) to a fraction of a pixel, best first
    height : (n,) of the blurred map there
    """
    smooth = gaussian_blur(probability, sigma_px=PEAK_BLUR * particle_px)
    return find_peaks(smooth, min_score=floor, radius_px=max(1.0, PEAK_RADIUS * particle_px))


@dataclass(frozen=True, eq=False)
class Seen:
    """The picture of a micrograph in which particles are looked for.

    Parameters
    ----------
    picture : (h, w) in [0, 1], the particle map; where the U-Net is left out, the denoised micrograph
    scale : its pixels and those as stored
    pictures : those of the steps that led to it, by name
    is_squeezed : see `View`
    particle_px : size at which the U-Net looked, in pixels of the picture
    diameter_px : of the particle, stored pixels; NaN where nobody knows
    """

    picture: NDArray[np.float32]
    scale: ScaleMap
    pictures: dict[str, NDArray[np.float32]]
    is_squeezed: bool
    particle_px: float = NOMINAL_PARTICLE_PX
    diameter_px: float = np.nan


@dataclass(frozen=True, eq=False)
class ParticleMapper:
    """A U-Net ready to map micrographs.

    Parameters
    ----------
    network : the U-Net; one tile holds the whole of a published picture, whose upsampling depends on its size
    calibration : what a peak of the map alone is worth
    entries : the card's `postprocessing`
    sha256 : of the weights; empty where they are not from a file
    """

    view: View
    network: DenseNetwork
    calibration: Calibration
    entries: Mapping[str, Any]
    sha256: str = ""

    def maps(self, planes: NDArray[np.float32], *, is_upside_down: bool = False) -> NDArray[np.float32]:
        """(c, h, w) input to (m, h, w) probabilities: particles, and junk where the network knows it.

        Parameters
        ----------
        is_upside_down : show the network the last row first; input and answer have their rows in one order
        """
        if is_upside_down:
            return sigmoid(self.network(np.ascontiguousarray(planes[:, ::-1])))[:, ::-1]
        return sigmoid(self.network(planes))

    def mean_maps(self, pixels: NDArray[np.float32], *, diameter_px: float) -> NDArray[np.float32]:
        """The maps of a micrograph as stored, the mean of several looks; not for the published view, which has one."""

        def see(working: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
            return seen_turned(self.network, self.view.planes(working), look.step_yx)

        mean, _ = mean_of_looks(pixels, see, diameter_px=diameter_px, nominal_px=NOMINAL_PARTICLE_PX, looks=TWO_LOOKS)
        return sigmoid(mean)

    def see(
        self, pixels: NDArray[np.float32], view: View, *, working_px: float | None, diameter_px: float = np.nan
    ) -> Seen:
        """A micrograph as stored, shown as `view` has it; particles are `working_px` wide where that is known."""
        denoised, scale = view.show(pixels, diameter_px=working_px)
        if working_px is None or view.is_squeezed:
            maps = self.maps(denoised[None], is_upside_down=view.is_upside_down)
        else:
            maps = self.mean_maps(pixels, diameter_px=working_px)
        pictures = dict(zip((DENOISED_MAP, PARTICLE_MAP, JUNK_MAP), (denoised, *maps), strict=False))
        particle_px = NOMINAL_PARTICLE_PX if working_px is None else working_px * scale.factor
        return Seen(maps[0], scale, pictures, view.is_squeezed, particle_px, diameter_px)


def particle_mapper(
    network: nn.Module,
    view: View,
    calibration: Calibration,
    *,
    device: str = "auto",
    precision: str = "auto",
    entries: Mapping[str, Any] | None = None,
    sha256: str = "",
) -> ParticleMapper:
    """Fold the batch norms of an `AttentionUNet` and put it where it runs."""
    from cryopick.pickers.cryosegnet.network import AttentionUNet, fold_batch_norm

    if not isinstance(network, AttentionUNet):
        raise TypeError(f"expected an AttentionUNet, got {type(network)}")
    stride = network.total_stride_px
    tile_px = view.side_px if view.is_squeezed else 1024
    dense = DenseNetwork.loaded(
        fold_batch_norm(network),
        device=device,
        precision=precision,
        channels=network.head.out_channels // network.unshuffle.downscale_factor**2,
        stride_px=1,
        multiple_px=stride,
        tile_px=-(-tile_px // stride) * stride,
        halo_px=-(-HALO_PX // stride) * stride,
    )
    return ParticleMapper(view, dense, calibration, entries or {}, sha256)


HALO_PX = 192
"""Read around a tile; more than half the receptive field of the small network."""


PICKER = "cryosegnet"


def load_mapper(weights: Path | None, *, device: str = "auto", precision: str = "auto") -> ParticleMapper:
    """The U-Net of a checkpoint (None: the one shipped with the package).

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another architecture.
    """
    from cryopick.pickers.cryosegnet.network import NETWORK_NAME, build_attention_unet

    published = partial(read_published, picker=PICKER)
    with open_checkpoint(weights or PICKER, picker=PICKER, published=published) as checkpoint:
        card, path = checkpoint.card, checkpoint.path
        if card.architecture.get("network") != NETWORK_NAME:
            raise WeightsError(f"{path}: holds {card.architecture.get('network')!r}, expected {NETWORK_NAME!r}")
        network = checkpoint.build(build_attention_unet)
        knots = card.postprocessing.get("calibration")
        return particle_mapper(
            network,
            View.from_card(card.preprocessing, in_channels=card.architecture["in_channels"], where=str(path)),
            Calibration.none() if knots is None else Calibration.from_list(knots),
            device=device,
            precision=precision,
            entries=card.postprocessing,
            sha256=card.sha256,
        )
