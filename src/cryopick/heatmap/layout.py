"""What the heat-map network takes and gives, whichever library runs it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

STRIDE_PX = 2
"""Input pixels per output pixel."""
TRUNK_STRIDE_PX = 4
"""Input pixels per pixel of the finest features; each holds a block of input pixels, so that no detail is lost."""
TOTAL_STRIDE_PX = 16
"""Input heights and widths must be multiples of it; tiles must start at multiples of it to equal the whole."""
OUTPUTS = ("centre", "offset_x", "offset_y", "log_size", "junk")
"""What picking needs."""
SHAPE_OUTPUTS = ("particle", "inward_x", "inward_y")
"""What a network may be taught besides: which pixels belong to particles, and where from there the centre lies. Every
pixel of a particle then says something about it, so that fewer crops are needed."""

HEAD_CHANNELS = len(OUTPUTS) * (TRUNK_STRIDE_PX // STRIDE_PX) ** 2
"""Of the last convolution that belong to `OUTPUTS`, before its blocks of pixels are unfolded."""


def tensor_shapes(architecture: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the network that a card's `architecture` describes, as `HeatmapUNet` has them.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the architecture lacks an entry or one is no such number.
    """
    widths, depths = tuple(architecture["widths"]), tuple(architecture["depths"])
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, channels_in: int, channels_out: int, *, side_px: int = 3, has_bias: bool) -> None:
        shapes[f"{name}.weight"] = (channels_out, channels_in, side_px, side_px)
        if has_bias:
            shapes[f"{name}.bias"] = (channels_out,)

    def normalised(name: str, norm: str, channels_in: int, channels_out: int) -> None:
        convolution(name, channels_in, channels_out, has_bias=False)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (channels_out,)
        shapes[f"{norm}.num_batches_tracked"] = ()

    def block(name: str, channels: int) -> None:
        for number in (1, 2):
            normalised(f"{name}.conv{number}", f"{name}.norm{number}", channels, channels)

    normalised("stem.0", "stem.1", architecture["in_channels"] * TRUNK_STRIDE_PX**2, widths[0])
    for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for number in range(depth):
            block(f"encoder.{level}.{number}", width)
    for level, (fine, coarse) in enumerate(pairwise(widths)):
        normalised(f"down.{level}.0", f"down.{level}.1", fine, coarse)
        convolution(f"lateral.{level}", coarse, fine, side_px=1, has_bias=True)
        block(f"decoder.{level}", fine)
    normalised("head.0.0", "head.0.1", widths[0], widths[0])
    planes = len(OUTPUTS) + (len(SHAPE_OUTPUTS) if architecture.get("has_shape", False) else 0)
    convolution("head.1", widths[0], planes * (TRUNK_STRIDE_PX // STRIDE_PX) ** 2, side_px=1, has_bias=True)
    return shapes
