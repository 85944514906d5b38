"""The heat-map network as a graph of OpenVINO, made of the tensors of a weights file: no torch, no second copy.

The layers are those of `heatmap.network`, which learns; the tests hold both together. Batch norms are folded into the
convolutions before them. In 8-bit integers every activation has one step for all its values, and every channel of a
weight its own (B. Jacob et al., CVPR 2018, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.heatmap.layout import HEAD_CHANNELS, STRIDE_PX, TRUNK_STRIDE_PX
from cryopick.inference.runtime import load_openvino

if TYPE_CHECKING:
    from openvino import Model, Node

EPSILON = 1e-5
"""Added to variances by torch's batch norms."""
STEPS = 255
"""Of an activation in 8-bit integers: between 256 values."""
FLOAT32_LIMIT = float(np.finfo(np.float32).max)
WEIGHT_STEPS = 127
"""Of a weight on either side of 0."""


def heatmap_graph(
    tensors: Mapping[str, NDArray[Any]],
    architecture: Mapping[str, Any],
    *,
    ranges: Mapping[str, Sequence[float]] | None = None,
) -> Model:
    """(1, in_channels, h, w) `image` to (1, 5, h / 2, w / 2): the planes of `OUTPUTS`, for any h and w.

    Parameters
    ----------
    tensors : those of `tensor_shapes`, by name; they may be float16, and are computed with as float32
    architecture : of the card
    ranges : lowest and highest value of the activations, by name; where they are given, all but the last convolution,
        which is small, run in 8-bit integers

    Raises
    ------
    ValueError
        If the range of an activation is missing.
    """
    return _Graph(tensors, ranges).whole(
        in_channels=int(architecture["in_channels"]), depths=[int(depth) for depth in architecture["depths"]]
    )


class _Graph:
    def __init__(self, tensors: Mapping[str, NDArray[Any]], ranges: Mapping[str, Sequence[float]] | None) -> None:
        self.op: Any = load_openvino().opset13
        self.tensors, self.ranges = tensors, ranges

    def whole(self, *, in_channels: int, depths: Sequence[int]) -> Model:
        openvino = load_openvino()
        image = self.op.parameter([1, in_channels, -1, -1], np.float32, name="image")
        x = self.rounded(self.op.space_to_depth(image, "depth_first", TRUNK_STRIDE_PX), "unshuffle")
        x = self.normalised("stem.0", "stem.1", x, out="stem")
        skips = []
        for level, depth in enumerate(depths):
            if level:
                x = self.normalised(f"down.{level - 1}.0", f"down.{level - 1}.1", x, out=f"down.{level - 1}", stride=2)
            for number in range(depth):
                x = self.block(f"encoder.{level}.{number}", x)
            skips.append(x)
        for level in reversed(range(len(depths) - 1)):
            coarse = self.convolution(x, *self.plain(f"lateral.{level}"))
            x = self.rounded(self.op.add(skips[level], self.doubled(coarse)), f"decoder.{level}.input")
            x = self.block(f"decoder.{level}", x)
        x = self.normalised("head.0.0", "head.0.1", x, out="head.0")
        weight, bias = self.plain("head.1")
        maps = self.convolution(x, weight[:HEAD_CHANNELS], bias[:HEAD_CHANNELS], is_exact=True)
        maps = self.op.depth_to_space(maps, "depth_first", TRUNK_STRIDE_PX // STRIDE_PX)
        maps.output(0).get_tensor().set_names({"maps"})
        image.output(0).get_tensor().set_names({"image"})
        return openvino.Model([maps], [image], "heatmap")

    def block(self, name: str, x: Node) -> Node:
        """`ResidualBlock`."""
        inner = self.normalised(f"{name}.conv1", f"{name}.norm1", x, out=f"{name}.conv1")
        sum_ = self.op.add(self.convolution(inner, *self.folded(f"{name}.conv2", f"{name}.norm2")), x)
        return self.rounded(self.op.relu(sum_), name)

    def normalised(self, name: str, norm: str, x: Node, *, out: str, stride: int = 1) -> Node:
        """A convolution, its batch norm and what is below 0 cut off."""
        return self.rounded(self.op.relu(self.convolution(x, *self.folded(name, norm), stride=stride)), out)

    def convolution(
        self,
        x: Node,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        stride: int = 1,
        is_exact: bool = False,
    ) -> Node:
        margin = [weight.shape[2] // 2] * 2
        kernel = self.op.constant(weight) if is_exact or self.ranges is None else self.rounded_weight(weight)
        convolved = self.op.convolution(x, kernel, [stride, stride], margin, margin, [1, 1])
        return self.op.add(convolved, self.op.constant(bias.reshape(1, -1, 1, 1)))

    def doubled(self, x: Node) -> Node:
        """Every pixel twice in both directions."""
        factors = self.op.constant(np.array([2, 2], np.float32))
        axes = self.op.constant(np.array([2, 3], np.int64))
        return self.op.interpolate(
            x,
            factors,
            "nearest",
            "scales",
            axes=axes,
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def plain(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight, bias = (self.tensors[f"{name}.{part}"].astype(np.float32) for part in ("weight", "bias"))
        return weight, bias

    def folded(self, name: str, norm: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight and bias of a convolution that does what it and its batch norm did."""
        scale, shift, mean, variance = (
            self.tensors[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + EPSILON)
        weight = self.tensors[f"{name}.weight"] * factor[:, None, None, None]
        return weight.astype(np.float32), (shift - mean * factor).astype(np.float32)

    def rounded(self, x: Node, name: str) -> Node:
        """An activation to the nearest of its 256 values."""
        if self.ranges is None:
            return x
        if name not in self.ranges:
            raise ValueError(f"the range of the activation {name} is missing")
        low, high = self.ranges[name]
        if not -FLOAT32_LIMIT < low <= high < FLOAT32_LIMIT:
            raise ValueError(f"the range of the activation {name} is {low:g} to {high:g}")
        # an inner activation is rectified before it is rounded; 0 is always one of the values
        low, high = 0.0 if name.endswith(".conv1") else min(low, 0.0), max(high, 0.0)
        width = max((high - low) / STEPS, 1e-8)
        zero = round(-low / width)
        ends = [self.op.constant(np.float32(end)) for end in (-zero * width, (STEPS - zero) * width)]
        return self.op.fake_quantize(x, *ends, *ends, levels=STEPS + 1)

    def rounded_weight(self, weight: NDArray[np.float32]) -> Node:
        """Symmetric around 0, channel by channel."""
        width = np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True), 1e-8) / np.float32(WEIGHT_STEPS)
        steps = self.op.constant(np.round(weight / width).astype(np.int8))
        return self.op.multiply(self.op.convert(steps, "f32"), self.op.constant(width.astype(np.float32)))
