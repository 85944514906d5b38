"""The attention-gated U-Net of CryoSegNet, at its published size or smaller."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cryopick.inference.channels_last import channels_last
from cryopick.pickers.cryosegnet.configurations import PAPER_WIDTHS


class ConvBlock(nn.Module):
    """Two times 3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm1: nn.Module = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.norm2: nn.Module = nn.BatchNorm2d(channels_out)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm1(self.conv1(x)))
        out: Tensor = self.activation(self.norm2(self.conv2(x)))
        return out


class AttentionGate(nn.Module):
    """Lets those features of a skip connection pass that the coarser level asks for.

    `skip * sigmoid(conv(relu(norm(conv(gate)) + norm(conv(skip)))))` with 1 x 1 convolutions. Unlike the usual gate it
    has one weight per pixel and channel, and both inputs have the same size.

    Parameters
    ----------
    gate_channels : of the coarser level, upsampled
    skip_channels : of the skip connection, and of the result
    """

    def __init__(self, gate_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.gate_conv = nn.Conv2d(gate_channels, skip_channels, 1)
        self.gate_norm: nn.Module = nn.BatchNorm2d(skip_channels)
        self.skip_conv = nn.Conv2d(skip_channels, skip_channels, 1)
        self.skip_norm: nn.Module = nn.BatchNorm2d(skip_channels)
        self.weight_conv = nn.Conv2d(skip_channels, skip_channels, 1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, gate: Tensor, skip: Tensor) -> Tensor:
        asked = self.activation(self.gate_norm(self.gate_conv(gate)) + self.skip_norm(self.skip_conv(skip)))
        out: Tensor = skip * torch.sigmoid(self.weight_conv(asked))
        return out


class DecoderLevel(nn.Module):
    """Upsample twofold, gate the skip connection (or let all of it pass), join both, convolve."""

    def __init__(self, coarse_channels: int, channels: int, *, align_corners: bool, gates: bool = True) -> None:
        super().__init__()
        self.gate = AttentionGate(coarse_channels, channels) if gates else None
        self.block = ConvBlock(coarse_channels + channels, channels)
        self.align_corners = align_corners

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        up = nn.functional.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=self.align_corners)
        passed = skip if self.gate is None else self.gate(up, skip)
        out: Tensor = self.block(torch.cat([up, passed], dim=1))
        return out


class AttentionUNet(nn.Module):
    """Fully convolutional: (b, in_channels, h, w) to (b, out_channels, h, w) logits.

    Parameters
    ----------
    in_channels, out_channels : planes of the input; maps of the output (the paper has one of each)
    widths : channels per level, finest first; the last is the bottleneck's
    patch_px : side of the blocks of pixels that become channels before the first level and pixels again after the last;
        1, as published, has none. A small network is four times as fast with 2
    align_corners : of the upsampling; published True. With False the answer does not depend on the size of the image,
        so that tiles agree with the whole
    gates : whether attention gates stand in the skip connections; without them it is a plain U-Net, as in the article's
        ablation

    References
    ----------
    R. Gyawali et al., Brief. Bioinform. 25(4), bbae282, 2024 (architecture); O. Oktay et al.,
    arXiv:1804.03999 (gates).
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: tuple[int, ...] = PAPER_WIDTHS,
        patch_px: int = 1,
        align_corners: bool = True,
        gates: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"widths are {widths}, expected at least one level and the bottleneck")
        self.unshuffle = nn.PixelUnshuffle(patch_px)
        steps = list(pairwise((in_channels * patch_px**2, *widths)))
        self.encoder = nn.ModuleList(ConvBlock(*step) for step in steps[:-1])
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = ConvBlock(*steps[-1])
        self.decoder = nn.ModuleList(
            DecoderLevel(coarse, fine, align_corners=align_corners, gates=gates) for fine, coarse in pairwise(widths)
        )
        """Finest level first, like the encoder."""
        self.head = nn.Conv2d(widths[0], out_channels * patch_px**2, 1)
        self.shuffle = nn.PixelShuffle(patch_px)
        self.total_stride_px = patch_px * 2 ** (len(widths) - 1)
        """Heights and widths must be multiples of it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.unshuffle(x)
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for level, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            x = level(x, skip)
        out: Tensor = self.shuffle(self.head(x))
        return out


NETWORK_NAME = "attention_unet"


def architecture_of(
    *,
    in_channels: int,
    out_channels: int,
    widths: tuple[int, ...],
    patch_px: int,
    align_corners: bool,
    gates: bool = True,
) -> dict[str, Any]:
    """What a card says of an `AttentionUNet`; of gates only where there are none, as older cards do not name them."""
    return {
        "network": NETWORK_NAME,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "widths": list(widths),
        "patch_px": patch_px,
        "align_corners": align_corners,
        **({} if gates else {"gates": False}),
    }


def build_attention_unet(architecture: Mapping[str, Any]) -> AttentionUNet:
    """The network that a card's architecture describes, channels last in memory (fast on CPUs)."""
    if architecture.get("network") != NETWORK_NAME:
        raise ValueError(f"architecture names {architecture.get('network')!r}, expected {NETWORK_NAME!r}")
    network = AttentionUNet(
        in_channels=architecture["in_channels"],
        out_channels=architecture["out_channels"],
        widths=tuple(architecture["widths"]),
        patch_px=architecture["patch_px"],
        align_corners=architecture["align_corners"],
        gates=architecture.get("gates", True),
    )
    return channels_last(network)


def fold_batch_norm(network: AttentionUNet) -> AttentionUNet:
    """A copy in evaluation mode whose batch norms are folded into the convolutions before them; same outputs."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    folded = deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvBlock):
            pairs = (("conv1", "norm1"), ("conv2", "norm2"))
        elif isinstance(module, AttentionGate):
            pairs = (("gate_conv", "gate_norm"), ("skip_conv", "skip_norm"))
        else:
            continue
        for convolution, norm in pairs:
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
            setattr(module, norm, nn.Identity())
    return folded
