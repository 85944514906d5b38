"""ResNets with frozen norms: the backbones of the detection transformer, with the parameter names of torchvision.

A frozen norm is a fixed line for each channel, so it is folded into the convolution before it whenever that runs: one
pass over the features instead of two.

References
----------
K. He et al., CVPR 2016; N. Carion et al., ECCV 2020 (frozen norms).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

BACKBONE_DEPTHS: Mapping[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BASIC_BACKBONES = ("resnet18", "resnet34")
"""Two 3 x 3 convolutions per block and a quarter of the channels; the others have bottlenecks."""
STRIDE_PX = 32
STEM_CHANNELS = 64
"""Of the published ones."""
_WIDENING = 4
"""Channels that leave a bottleneck over those inside it."""
_EPSILON = 1e-5


class FrozenNorm(nn.Module):
    """A batch norm whose numbers never change: `weight * (x - running_mean) / deviation + bias`, by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))
        self.is_measuring = False
        """Whether the next features set mean and variance."""

    def line(self) -> tuple[Tensor, Tensor]:
        """Factor and summand of each channel."""
        factor = self.weight * (self.running_var + _EPSILON).rsqrt()
        return factor, self.bias - self.running_mean * factor

    def measure(self, features: Tensor) -> None:
        """Take mean and variance from (b, c, h, w) features."""
        variance, mean = torch.var_mean(features.float(), dim=(0, 2, 3))
        self.running_mean.copy_(mean)
        self.running_var.copy_(variance)


def normed(features: Tensor, convolution: nn.Conv2d, norm: FrozenNorm) -> Tensor:
    """`norm(convolution(features))` in one pass."""
    if norm.is_measuring:
        norm.measure(convolution(features))
    factor, summand = norm.line()
    weight = convolution.weight * factor[:, None, None, None]
    # `stride` and `padding` of a convolution made with numbers are pairs
    stride, padding = convolution.stride, convolution.padding
    return conv2d(features, weight, summand, (stride[0], stride[1]), (int(padding[0]), int(padding[1])))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(channels_in, channels, size=3, stride=stride), FrozenNorm(channels)
        self.conv2, self.bn2 = _convolution(channels, channels, size=3), FrozenNorm(channels)
        self.downsample = _shortcut(channels_in, channels, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        inside = relu(normed(features, self.conv1, self.bn1))
        return relu(normed(inside, self.conv2, self.bn2) + _shortened(features, self.downsample))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, *, stride: int) -> None:
        super().__init__()
        out = channels * _WIDENING
        self.conv1, self.bn1 = _convolution(channels_in, channels, size=1), FrozenNorm(channels)
        self.conv2, self.bn2 = _convolution(channels, channels, size=3, stride=stride), FrozenNorm(channels)
        self.conv3, self.bn3 = _convolution(channels, out, size=1), FrozenNorm(out)
        self.downsample = _shortcut(channels_in, out, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        inside = relu(normed(features, self.conv1, self.bn1))
        inside = relu(normed(inside, self.conv2, self.bn2))
        return relu(normed(inside, self.conv3, self.bn3) + _shortened(features, self.downsample))


class ResNet(nn.Module):
    """(b, 3, h, w) images to (b, `channels`, h / 32, w / 32) features, sizes rounded up.

    Stem and first stage never learn.

    Parameters
    ----------
    name : one of `BACKBONE_DEPTHS`
    width : channels that leave the stem; all later ones go with it
    """

    def __init__(self, name: str, *, width: int = STEM_CHANNELS) -> None:
        super().__init__()
        if name not in BACKBONE_DEPTHS:
            raise ValueError(f"backbone is {name!r}, expected one of: {', '.join(BACKBONE_DEPTHS)}")
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if name in BASIC_BACKBONES else Bottleneck
        widening = 1 if block is BasicBlock else _WIDENING
        self.conv1, self.bn1 = _convolution(3, width, size=7, stride=2), FrozenNorm(width)
        before, stages = width, []
        for number, depth in enumerate(BACKBONE_DEPTHS[name]):
            inside = width << number
            blocks = []
            for place in range(depth):
                stride = 2 if number > 0 and place == 0 else 1
                blocks.append(block(before, inside, stride=stride))
                before = inside * widening
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.channels = before
        for part in (self.conv1, self.layer1):
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        features = max_pool2d(relu(normed(images, self.conv1, self.bn1)), 3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        return features

    def set_norms(self, images: Tensor, *, but: Collection[str] = ()) -> None:
        """Give the norms the mean and variance that (b, 3, h, w) images have there; but those of these names."""
        named = self.named_modules()
        norms = [module for name, module in named if isinstance(module, FrozenNorm) and name not in but]
        for norm in norms:
            norm.is_measuring = True
        try:
            with torch.no_grad():
                self(images)
        finally:
            for norm in norms:
                norm.is_measuring = False


def _convolution(channels_in: int, channels: int, *, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, size, stride=stride, padding=size // 2, bias=False)


def _shortcut(channels_in: int, channels: int, *, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels:
        return None
    return nn.Sequential(_convolution(channels_in, channels, size=1, stride=stride), FrozenNorm(channels))


def _shortened(features: Tensor, shortcut: nn.Sequential | None) -> Tensor:
    if shortcut is None:
        return features
    convolution, norm = shortcut
    if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, FrozenNorm):
        raise TypeError("a shortcut is a convolution and a norm")
    return normed(features, convolution, norm)
