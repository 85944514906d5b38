"""One grey value per pixel from images that were stored in colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_grey(pixels: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Drop or average colour channels: (h, w), (h, w, 1 to 4) to (h, w), and a warning where something is lost.

    Channels are grey, grey + alpha, three colours, or three colours + alpha, in this order; which colour is first does
    not matter, since equal channels are one image and unequal ones are averaged.
    """
    if pixels.ndim == 2:
        return pixels, ()
    n_channels = pixels.shape[2]
    warnings: tuple[str, ...] = ()
    if n_channels in (2, 4):
        alpha = pixels[..., -1]
        if alpha.min() != alpha.max():
            warnings += ("the image has a transparency channel, which is ignored",)
        pixels = pixels[..., :-1]
    if pixels.shape[2] == 1:
        return pixels[..., 0], warnings
    first = pixels[..., 0]
    if all(np.array_equal(first, pixels[..., i]) for i in range(1, pixels.shape[2])):
        return first, warnings
    warnings += ("the image is in colour; its channels are averaged to grey",)
    return pixels.mean(axis=2, dtype=np.float32), warnings
