"""Showing one micrograph to a network several times, larger and smaller and turned round, and averaging its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.inference.dense import DenseNetwork
from cryopick.processing.scale import ScaleMap, resample


@dataclass(frozen=True, kw_only=True)
class Look:
    """One way in which a micrograph is shown.

    Parameters
    ----------
    factor : size that particles are taken for, over the working diameter; below 1 they look larger
    step_yx : -1 turns rows or columns round
    """

    factor: float = 1.0
    step_yx: tuple[int, int] = (1, 1)


ONE_LOOK = (Look(),)
TWO_LOOKS = (Look(), Look(factor=1.25, step_yx=(1, -1)))
LOOKS = (Look(), Look(factor=1.12, step_yx=(-1, -1)), Look(factor=1.3, step_yx=(1, -1)))
"""Looks whose answers are averaged; the first one's grid is that of the maps. Noise misleads each of them differently.
Of fourteen sets of one to three looks this one found most on simulation; larger views would cost more."""


def mean_of_looks(
    pixels: NDArray[np.float32],
    see: Callable[[NDArray[np.float32], Look], NDArray[np.float32]],
    *,
    diameter_px: float,
    nominal_px: float,
    looks: Sequence[Look] = LOOKS,
    first_view: tuple[NDArray[np.float32], ScaleMap] | None = None,
) -> tuple[NDArray[np.float32], ScaleMap]:
    """The mean of what `see` answers to every look, on the grid of the first.

    Parameters
    ----------
    pixels : (h, w) micrograph as stored
    see : a working image and its look to (c, h', w') maps over the same area, in units that all looks share
    diameter_px : working diameter, stored pixels
    nominal_px : diameter that particles are resampled to
    looks : at least one; the first has factor 1
    first_view : the working image of the first look and its scale, as `resample` gives them, where they are there

    Returns
    -------
    maps : (c, h', w')
    scale : of the first look's working image
    """
    first, *others = looks
    working, scale = first_view or resample(pixels, factor=nominal_px / diameter_px)
    maps = see(working, first)
    for look in others:
        working, its_scale = resample(pixels, factor=nominal_px / (diameter_px * look.factor))
        maps = maps + _on_grid(see(working, look), its_scale, scale, shape_yx=maps.shape[1:])
    return maps / np.float32(len(looks)), scale


def seen_turned(dense: DenseNetwork, planes: NDArray[np.float32], step_yx: tuple[int, int]) -> NDArray[np.float32]:
    """What a network answers to planes whose axes are turned round where the step is -1, turned back.

    Parameters
    ----------
    planes : (c, h, w)

    Returns
    -------
    maps : (m, ceil(h / stride), ceil(w / stride)); signs of vectors are those of the turned image
    """
    if step_yx == (1, 1):
        return dense(planes)
    height, width = planes.shape[1:]
    # whole blocks, so that both ways round the network's grid lies on the same pixels
    added = (0, 0), (0, -height % dense.multiple_px), (0, -width % dense.multiple_px)
    padded = np.pad(planes, added, mode="symmetric")
    turn = np.s_[:, :: step_yx[0], :: step_yx[1]]
    maps = dense(np.ascontiguousarray(padded[turn]))[turn]
    return np.ascontiguousarray(maps[:, : -(-height // dense.stride_px), : -(-width // dense.stride_px)])


def _on_grid(
    maps: NDArray[np.float32], its_scale: ScaleMap, scale: ScaleMap, *, shape_yx: tuple[int, ...]
) -> NDArray[np.float32]:
    """Maps of one working image read off at the pixels of another's."""
    import cv2

    ratio_y, ratio_x = (mine / other for mine, other in zip(its_scale.factor_yx, scale.factor_yx, strict=True))
    matrix = np.array([[ratio_x, 0, 0.5 * ratio_x - 0.5], [0, ratio_y, 0.5 * ratio_y - 0.5]])
    size, flags = (shape_yx[1], shape_yx[0]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = [cv2.warpAffine(plane, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE) for plane in maps]
    return np.stack(warped).astype(np.float32, copy=False)
