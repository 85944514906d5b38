"""Classifiers of fixed windows: the compact default, dense by construction, and the published AlexNet geometry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

ALEXNET_WINDOW_PX = 227
ALEXNET_STRIDE_PX = 32


class CompactClassifier(nn.Module):
    """Valid convolutions and one stride, so that a pass over an image equals a window slid over it pixel for pixel.

    Parameters
    ----------
    classes : number of classes
    widths : channels of the first layer, the second, and all others
    """

    window_px = 37
    stride_px = 2

    def __init__(self, *, classes: int, widths: tuple[int, int, int] = (24, 48, 64)) -> None:
        super().__init__()
        first, second, rest = widths

        def block(inputs: int, outputs: int, size: int, **options: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, size, bias=False, **options)  # type: ignore[arg-type]
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

        self.features = nn.Sequential(
            *block(1, first, 5, stride=2),  # window 37 -> 17
            *block(first, second, 3),  # 15
            *block(second, rest, 3),  # 13
            *block(rest, rest, 3, dilation=2),  # 9
            *block(rest, rest, 3, dilation=2),  # 5
            *block(rest, rest, 5),  # 1: what is fully connected in a window is a convolution over an image
        )
        self.dropout = nn.Dropout2d(0.2)
        self.classify = nn.Conv2d(rest, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(b, 1, h, w) to logits (b, classes, (h - 37) // 2 + 1, (w - 37) // 2 + 1); window 0 starts at pixel 0."""
        logits: Tensor = self.classify(self.dropout(self.features(image)))
        return logits


class AlexNetClassifier(nn.Module):
    """The published classifier: AlexNet's geometry without groups, one channel, 227 x 227 windows.

    The paper writes of sigmoids and of weights drawn from [0, 1]; with those nothing learns, so ReLU and He's weights
    are ours. Its padded convolutions make a pass over an image differ from a slid window, so windows are cut.

    Parameters
    ----------
    classes : number of classes
    activation : `relu` or `sigmoid`
    initial : weights and biases at the start: `he` (for ReLU; PyTorch's own for sigmoids), or `uniform`, from [0, 1]
    """

    window_px = ALEXNET_WINDOW_PX
    stride_px = ALEXNET_STRIDE_PX

    def __init__(self, *, classes: int, activation: str = "relu", initial: str = "he") -> None:
        super().__init__()
        active: type[nn.Module] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[activation]
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 96, 11, stride=4), active1=active(),
                pool1=nn.MaxPool2d(3, 2),
                conv2=nn.Conv2d(96, 256, 5, padding=2), active2=active(),
                pool2=nn.MaxPool2d(3, 2),
                conv3=nn.Conv2d(256, 384, 3, padding=1), active3=active(),
                conv4=nn.Conv2d(384, 384, 3, padding=1), active4=active(),
                conv5=nn.Conv2d(384, 256, 3, padding=1), active5=active(),
                pool3=nn.MaxPool2d(3, 2),
            )
        )  # fmt: skip
        self.connected = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(256 * 6 * 6, 4096), active(),
            nn.Dropout(0.5), nn.Linear(4096, 4096), active(),
            nn.Linear(4096, classes),
        )  # fmt: skip
        if initial not in ("he", "uniform"):
            raise ValueError(f"initial is {initial!r}, expected 'he' or 'uniform'")
        if initial == "uniform":
            for parameter in self.parameters():
                nn.init.uniform_(parameter, 0.0, 1.0)
        elif activation == "relu":
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, windows: Tensor) -> Tensor:
        """(b, 1, 227, 227) to logits (b, classes, 1, 1)."""
        logits: Tensor = self.connected(self.features(windows).flatten(1))
        return logits[..., None, None]


def build_classifier(architecture: Mapping[str, Any]) -> CompactClassifier | AlexNetClassifier:
    """The network that a card's architecture describes."""
    options = {name: value for name, value in architecture.items() if name != "network"}
    if architecture["network"] == "alexnet_picker":
        return AlexNetClassifier(**options)
    options["widths"] = tuple(options["widths"])
    return CompactClassifier(**options)


def fold_for_inference(network: CompactClassifier) -> CompactClassifier:
    """A copy in evaluation mode whose batch norms are part of the convolutions."""
    import copy

    from torch.nn.utils.fusion import fuse_conv_bn_eval

    folded = copy.deepcopy(network).eval()
    layers: list[nn.Module] = []
    for layer in folded.features:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)  # type: ignore[type-var]
        else:
            layers.append(layer)
    folded.features = nn.Sequential(*layers)
    return folded.requires_grad_(False)
