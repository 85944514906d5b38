"""Networks that say of every place of a micrograph what it shows: particle, its core, junk or background.

The large ones are torchvision's FCN and DeepLabv3 on dilated residual networks. The small one has the trunk of
`HeatmapUNet` under the same two heads, so that it trains and runs on a few CPU cores.

References
----------
J. Long et al., Fully Convolutional Networks, CVPR 2015. L.-C. Chen et al., Rethinking Atrous Convolution,
arXiv:1706.05587 (DeepLabv3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, autocast, cat, nn

from cryopick.errors import MissingExtraError
from cryopick.heatmap.layout import TRUNK_STRIDE_PX
from cryopick.heatmap.network import HeatmapUNet, fold_batch_norm
from cryopick.pickers.segmentation_crf.conv_crf import ConvCrf

CLASSES = ("background", "rim", "core", "hollow", "junk")
"""A small disc around a particle's centre is its `core` where its silhouette is, and `hollow` where it is not (shells,
bent rods); `rim` is the rest of the silhouette. The discs of neighbours that touch stay apart."""
ALIKE = ((1, 2), (0, 3), (2, 3))
"""Pairs of classes that do not repel each other in the CRFs: they differ by place, not by what is seen there."""
HEADS = ("fcn", "deeplabv3")
ALL_HEADS = "all"
HEAD_CHANNELS = 128
EMBEDDING = 6
"""Features by which the learned CRF compares places."""
SMALL_RATES = (4, 9, 13)
"""Dilations of DeepLabv3, in trunk pixels: 0.9, 1.8 and 2.7 diameters, as 12, 24 and 36 are at stride 8 on a particle
of 108 pixels."""
POOLING = 16
"""Side, in trunk pixels, of the fields over which DeepLabv3's image-level features are averaged: 3 diameters. An
average over the whole image would make the answer depend on how an image is cut into tiles."""
CRF_LABELS = len(CLASSES)


class _Segmentation(nn.Module):
    """What both networks share: several heads and the CRFs behind them.

    Attributes
    ----------
    in_channels : planes of the input
    head : which of `head_names` answers, or `all`, one after the other (for training)
    crf : `conv` compares intensities, `learned` the network's features
    """

    in_channels: int
    head_names: tuple[str, ...]
    head: str
    crf: nn.ModuleDict

    def maps(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits by head, for those that `head` asks for, and the features of the learned CRF."""
        raise NotImplementedError

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Any:
        """(b, in_channels, h, w) to (b, 5 per head + features, h / stride, w / stride): logits, then features.

        With a guide, (k <= b, 1, h / stride, w / stride) intensities, also what the CRFs make of the first k images,
        (k, 10, ...): logits of `conv`, then of `learned`. Heads take turns under them.
        """
        logits, features = self.maps(x)
        maps = cat([*logits.values(), features], dim=1)
        if guide is None:
            return maps
        with autocast(x.device.type, enabled=False):
            turns = list(logits.values())
            unary = cat([turns[i % len(turns)][i : i + 1] for i in range(len(guide))]).float()
            by_intensity = self.crf["conv"](unary, guide.float())
            by_features = self.crf["learned"](unary, features[: len(guide)].float())
        return maps, cat([by_intensity, by_features], dim=1)


class SmallSegmentation(_Segmentation):
    """The trunk of `HeatmapUNet` under torchvision's heads; maps at stride 2.

    Parameters
    ----------
    in_channels : planes of the input
    widths, depths : of `HeatmapUNet`
    """

    stride_px = 2
    multiple_px = TRUNK_STRIDE_PX * POOLING
    head_names = HEADS

    def __init__(
        self,
        *,
        in_channels: int = 2,
        widths: tuple[int, int, int] = (64, 96, 128),
        depths: tuple[int, int, int] = (2, 2, 2),
    ) -> None:
        super().__init__()
        aspp, fcn_head = _torchvision_heads()
        self.in_channels, self.head = in_channels, ALL_HEADS
        self.trunk = HeatmapUNet(in_channels=in_channels, widths=widths, depths=depths)
        self.trunk.head = nn.Sequential()
        width, upscale = widths[0], TRUNK_STRIDE_PX // self.stride_px
        planes = len(CLASSES) * upscale**2
        self.heads = nn.ModuleDict(
            {
                "fcn": nn.Sequential(_conv_norm(width, HEAD_CHANNELS, kernel=1), fcn_head(HEAD_CHANNELS, planes)),
                "deeplabv3": nn.Sequential(
                    _local(aspp(width, SMALL_RATES, out_channels=width), width),
                    _conv_norm(width, width, kernel=3),
                    nn.Conv2d(width, planes, 1),
                ),
            }
        )
        self.embedding = nn.Conv2d(width, EMBEDDING * upscale**2, 1)
        self.shuffle = nn.PixelShuffle(upscale)
        self.crf = make_crfs()

    def maps(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(x)
        names = HEADS if self.head == ALL_HEADS else (self.head,)
        return {name: self.shuffle(self.heads[name](features)) for name in names}, self.shuffle(
            self.embedding(features)
        )


class LargeSegmentation(_Segmentation):
    """torchvision's FCN or DeepLabv3 on ResNet-50 or -101; maps at stride 8.

    Parameters
    ----------
    in_channels : planes of the input
    head, depth : `fcn` or `deeplabv3`; 50 or 101
    dropout : of the head (published: 0.5)
    """

    stride_px = 8
    multiple_px = 64

    def __init__(self, *, in_channels: int = 2, head: str = "fcn", depth: int = 50, dropout: float = 0.5) -> None:
        super().__init__()
        model = _torchvision_model(f"{head}_resnet{depth}")(
            weights=None, weights_backbone=None, num_classes=len(CLASSES), aux_loss=False
        )
        self.in_channels, self.head_names, self.head = in_channels, (head,), head
        self.backbone, self.classifier = model.backbone, model.classifier
        self.backbone.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        for module in self.classifier.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self.embedding = nn.Conv2d(2048, EMBEDDING, 1)
        self.crf = make_crfs()

    def maps(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features = self.backbone(x)["out"]
        return {self.head_names[0]: self.classifier(features)}, self.embedding(features)


def make_crfs() -> nn.ModuleDict:
    """The two trainable CRFs, `conv` with one plane of intensity and `learned` with the network's features."""
    return nn.ModuleDict(
        {
            "conv": ConvCrf(labels=CRF_LABELS, features=1, compatible=ALIKE),
            "learned": ConvCrf(labels=CRF_LABELS, features=EMBEDDING, compatible=ALIKE),
        }
    )


def build_segmentation(architecture: Mapping[str, Any]) -> SmallSegmentation | LargeSegmentation:
    """The network that a card's architecture describes.

    Raises
    ------
    MissingExtraError
        Without torchvision.
    """
    if architecture["backbone"] == "small":
        return SmallSegmentation(
            in_channels=architecture["in_channels"],
            widths=tuple(architecture["widths"]),
            depths=tuple(architecture["depths"]),
        )
    head, _, depth = architecture["backbone"].partition("-resnet")
    return LargeSegmentation(
        in_channels=architecture["in_channels"], head=head, depth=int(depth), dropout=architecture["dropout"]
    )


def folded(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode, batch norms folded into the convolutions before them where that is known how."""
    return fold_batch_norm(network)


class _LocalPooling(nn.Module):
    """Image-level features of ASPP, averaged over fields of the image instead of all of it."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(POOLING, ceil_mode=True, count_include_pad=False)
        self.convolution = _conv_norm(channels_in, channels_out, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        fields = self.convolution(self.pool(x))
        wide: Tensor = nn.functional.interpolate(fields, scale_factor=float(POOLING), mode="bilinear")
        return wide[:, :, : x.shape[2], : x.shape[3]]


def _local(aspp: nn.Module, channels: int) -> nn.Module:
    """torchvision's ASPP with its global pooling replaced by `_LocalPooling`."""
    branches: Any = aspp.convs
    branches[-1] = _LocalPooling(channels, channels)
    return aspp


def _conv_norm(channels_in: int, channels_out: int, *, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def _torchvision_heads() -> tuple[Any, Any]:
    try:
        from torchvision.models.segmentation.deeplabv3 import ASPP
        from torchvision.models.segmentation.fcn import FCNHead
    except ImportError as error:
        raise MissingExtraError(_INSTALL) from error
    return ASPP, FCNHead


def _torchvision_model(name: str) -> Any:
    try:
        from torchvision.models import segmentation
    except ImportError as error:
        raise MissingExtraError(_INSTALL) from error
    return getattr(segmentation, name)


_INSTALL = "segmentation networks need torchvision; install it with: pip install torchvision"
