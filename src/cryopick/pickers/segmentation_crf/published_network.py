"""torchvision's FCN and DeepLabv3 as the published pipeline has them: any number of planes in and classes out.

References
----------
J. Long et al., Fully Convolutional Networks, CVPR 2015. L.-C. Chen et al., Rethinking Atrous Convolution,
arXiv:1706.05587 (DeepLabv3). S.-C. Chung, P.-C. Chou, extended abstract and notebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from cryopick.errors import MissingExtraError

NETWORK = "torchvision"
"""What a card's architecture calls such a network."""
HEADS, DEPTHS = ("fcn", "deeplabv3"), (50, 101)
TILE_PX: Mapping[str, int] = {"fcn": 512, "deeplabv3": 1024}
"""Side of the crops that the published networks learnt from and look at, by head."""


class PublishedSegmentation(nn.Module):
    """torchvision's network, whose tensors keep their names; without auxiliary head, which answers nothing.

    Parameters
    ----------
    head, depth : `fcn` or `deeplabv3`; 50 or 101, of the ResNet
    in_channels : planes of the input; the micrograph itself, repeated where there are several
    classes : of the answer
    dropout : of the FCN head (published: 0.5)
    """

    def __init__(self, *, head: str, depth: int, in_channels: int = 1, classes: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        try:
            from torchvision.models import segmentation
        except ImportError as error:
            raise MissingExtraError(
                "segmentation networks need torchvision; install it with: pip install torchvision"
            ) from error
        model = getattr(segmentation, f"{head}_resnet{depth}")(
            weights=None, weights_backbone=None, num_classes=classes, aux_loss=False
        )
        self.in_channels, self.classes = in_channels, classes
        self.backbone, self.classifier = model.backbone, model.classifier
        if in_channels != self.backbone.conv1.in_channels:
            self.backbone.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        if head == "fcn":
            for module in self.classifier.modules():
                if isinstance(module, nn.Dropout):
                    module.p = dropout

    def forward(self, x: Tensor, *, is_softmax_first: bool = False) -> Tensor:
        """(b, in_channels, h, w) to (b, classes, h, w): logits, or, as the notebooks have it, probabilities.

        Parameters
        ----------
        is_softmax_first : the softmax is part of the classifier, before its answer is enlarged to the size of `x`
        """
        answer = self.classifier(self.backbone(x)["out"])
        if is_softmax_first:
            answer = probabilities_of(answer)
        return functional.interpolate(answer, size=x.shape[-2:], mode="bilinear", align_corners=False)


def probabilities_of(logits: Tensor) -> Tensor:
    """(b, classes, ...) softmax over the classes; of a single class its logistic function."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def build_published(architecture: Mapping[str, Any]) -> PublishedSegmentation:
    """The network that a card's architecture describes."""
    return PublishedSegmentation(
        head=architecture["head"],
        depth=architecture["depth"],
        in_channels=architecture["in_channels"],
        classes=architecture["classes"],
        dropout=architecture.get("dropout", 0.5),
    )


def published_architecture(
    *, head: str, depth: int, in_channels: int, classes: int, dropout: float = 0.5
) -> dict[str, Any]:
    """For a card; see `PublishedSegmentation`."""
    return {
        "network": NETWORK,
        "head": head,
        "depth": depth,
        "in_channels": in_channels,
        "classes": classes,
        "dropout": dropout,
    }
