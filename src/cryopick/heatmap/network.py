"""A small residual U-Net that predicts particle centres, sizes and junk from a scale-normalised micrograph."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from typing import Any, TypeVar

from torch import Tensor, nn

from cryopick.heatmap.layout import HEAD_CHANNELS, OUTPUTS, SHAPE_OUTPUTS, STRIDE_PX, TRUNK_STRIDE_PX
from cryopick.inference.channels_last import channels_last

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around an identity (He et al., CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        out: Tensor = self.activation(x + y)
        return out


class HeatmapUNet(nn.Module):
    """Fully convolutional: (b, in_channels, h, w) to (b, 5, h / 2, w / 2), the planes named in `OUTPUTS`.

    Parameters
    ----------
    in_channels : planes of the input
    widths : channels at strides 4, 8 and 16
    depths : residual blocks of the encoder at each of them
    has_shape : whether the planes of `SHAPE_OUTPUTS` follow, 8 in all

    Notes
    -----
    `centre`, `junk` and `particle` are logits; offsets are in units of the output pixel; `log_size` is the natural
    logarithm of the particle's diameter over the nominal one; `inward_x` and `inward_y` are in quarters of the
    particle's diameter.
    """

    def __init__(
        self,
        *,
        in_channels: int = 2,
        widths: tuple[int, int, int] = (64, 96, 128),
        depths: tuple[int, int, int] = (2, 2, 2),
        has_shape: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.has_shape = in_channels, has_shape
        self.unshuffle = nn.PixelUnshuffle(TRUNK_STRIDE_PX)
        self.stem = _conv_norm(in_channels * TRUNK_STRIDE_PX**2, widths[0])
        self.encoder = nn.ModuleList(
            nn.Sequential(*[ResidualBlock(width) for _ in range(depth)])
            for width, depth in zip(widths, depths, strict=True)
        )
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(_conv_norm(fine, coarse, stride=2) for fine, coarse in pairs)
        self.lateral = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(ResidualBlock(width) for width in widths[:-1])
        upscale = TRUNK_STRIDE_PX // STRIDE_PX
        outputs = len(OUTPUTS) + (len(SHAPE_OUTPUTS) if has_shape else 0)
        self.head = nn.Sequential(
            _conv_norm(widths[0], widths[0]),
            nn.Conv2d(widths[0], outputs * upscale**2, 1),
            nn.PixelShuffle(upscale),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.unshuffle(x))
        skips = []
        for level, encode in enumerate(self.encoder):
            x = encode(x if level == 0 else self.down[level - 1](x))
            skips.append(x)
        for level in reversed(range(len(self.decoder))):
            coarse = self.lateral[level](x)
            x = self.decoder[level](skips[level] + nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        out: Tensor = self.head(x)
        return out


def build_heatmap_unet(architecture: Mapping[str, Any]) -> HeatmapUNet:
    """The network that a card's `architecture` describes, channels last in memory (fast on CPUs)."""
    network = HeatmapUNet(
        in_channels=architecture["in_channels"],
        widths=tuple(architecture["widths"]),
        depths=tuple(architecture["depths"]),
        has_shape=architecture.get("has_shape", False),
    )
    return channels_last(network)


def _conv_norm(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def fold_batch_norm(network: AnyNetwork) -> AnyNetwork:
    """A copy of a network of these blocks, for evaluation, batch norms folded into the convolutions before them."""
    folded = deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ResidualBlock):
            module.conv1 = _fused(module.conv1, module.norm1)
            module.conv2 = _fused(module.conv2, module.norm2)
            module.norm1 = module.norm2 = nn.Identity()
        elif isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            module[0] = _fused(module[0], module[1])
            module[1] = nn.Identity()
    return folded


def without_shape(network: HeatmapUNet) -> HeatmapUNet:
    """A copy that gives the planes of `OUTPUTS` alone, unchanged."""
    trimmed = deepcopy(network)
    trimmed.has_shape = False
    last = trimmed.head.get_submodule("1")
    for name, tensor in list(last.named_parameters()):
        setattr(last, name, nn.Parameter(tensor.detach()[:HEAD_CHANNELS].clone()))
    return trimmed


def _fused(convolution: nn.Module, norm: nn.Module) -> nn.Conv2d:
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
        raise TypeError(f"expected a convolution and its batch norm, got {type(convolution)} and {type(norm)}")
    return fuse_conv_bn_eval(convolution, norm)
