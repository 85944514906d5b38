"""Convolutional conditional random field: mean field whose messages come from a small window, so that it can learn.

References
----------
M. Teichmann and R. Cipolla, Convolutional CRFs for Semantic Segmentation, BMVC 2019: truncated Gaussian kernels.
P. Krähenbühl and V. Koltun, NeurIPS 2011, algorithm 1: mean field with a compatibility matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvCrf(nn.Module):
    """Mean field over windows of a map, everything in it trainable.

    `Q_i(l)` becomes proportional to `exp(u log p_i(l) - sum_k C(l, k) m_i(k))`, where the message `m` is the mean of
    the neighbours' `Q`, weighted by position alone plus weighted by position and likeness of features; a pixel gives
    itself no message.

    Parameters
    ----------
    labels : classes of the map
    features : planes of the guide
    window : side of the window in pixels, odd
    iterations : of mean field
    position_sigma : of the Gaussian kernel of position at the start, pixels, the same for rows and columns
    feature_sigma : of the Gaussian kernel of features at the start, in their units
    position_weight, feature_weight : of both messages at the start
    compatible : pairs of labels that do not repel each other at the start (all other pairs do, as in Potts' model)
    """

    def __init__(
        self,
        *,
        labels: int,
        features: int,
        window: int = 7,
        iterations: int = 3,
        position_sigma: float = 1.5,
        feature_sigma: float = 1.0,
        position_weight: float = 0.5,
        feature_weight: float = 1.0,
        compatible: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__()
        if window % 2 != 1 or window < 3:
            raise ValueError(f"window is {window}, expected an odd number from 3")
        self.window, self.iterations = window, iterations
        reach = window // 2
        along = torch.arange(-reach, reach + 1, dtype=torch.float32) ** 2 / (2 * position_sigma**2)
        self.log_position = nn.Parameter(-(along[:, None] + along[None, :]).repeat(2, 1, 1))  # (kernel, window, window)
        self.log_inverse_sigma = nn.Parameter(torch.full((features,), -math.log(feature_sigma)))
        self.log_weight = nn.Parameter(torch.tensor([position_weight, feature_weight]).log())
        self.log_unary = nn.Parameter(torch.zeros(()))
        compatibility = 1 - torch.eye(labels)
        for one, other in compatible:
            compatibility[one, other] = compatibility[other, one] = 0
        self.compatibility = nn.Parameter(compatibility)

    def forward(self, logits: Tensor, features: Tensor) -> Tensor:
        """(b, labels, h, w) logits and (b, features, h, w) guide to refined logits, of the same shape."""
        unary = self.log_unary.exp() * functional.log_softmax(logits, dim=1)
        kernels = self._kernels(features)
        belief = functional.softmax(logits, dim=1)
        refined = unary
        for _ in range(self.iterations):
            message = window_message(belief, kernels)
            refined = unary - torch.einsum("lk,bkyx->blyx", self.compatibility, message)
            belief = functional.softmax(refined, dim=1)
        return refined

    def _kernels(self, features: Tensor) -> Tensor:
        """(b, window², h, w): weight of each neighbour; each of both kernels sums to its weight inside the image."""
        scaled = features * self.log_inverse_sigma.exp()[:, None, None]
        inside = torch.ones_like(features[:, :1])
        position, likeness = [], []
        middle = self.window // 2
        positions = self.log_position.exp()
        for row, column, near in _shifted(torch.cat([scaled, inside], dim=1), self.window):
            if (row, column) == (middle, middle):
                nothing = torch.zeros_like(inside)
                position.append(nothing)
                likeness.append(nothing)
                continue
            difference = (near[:, :-1] - scaled).square().sum(1, keepdim=True)
            position.append(positions[0, row, column] * near[:, -1:])
            likeness.append(positions[1, row, column] * near[:, -1:] * torch.exp(-0.5 * difference))
        weights = self.log_weight.exp()
        by_position, by_likeness = torch.cat(position, dim=1), torch.cat(likeness, dim=1)
        by_position = by_position / by_position.sum(1, keepdim=True).clamp(min=1e-6)
        # divided by what alike neighbours would weigh, so that pixels unlike all their neighbours get no message
        full = positions[1].sum() - positions[1, middle, middle]
        return weights[0] * by_position + weights[1] * by_likeness / full.clamp(min=1e-6)


def window_message(belief: Tensor, kernels: Tensor) -> Tensor:
    """Sum over a window of the neighbours' values times their weights; outside the image there is nothing.

    Parameters
    ----------
    belief : (b, labels, h, w)
    kernels : (b, window², h, w), row by row
    """
    window = round(kernels.shape[1] ** 0.5)
    message = torch.zeros_like(belief)
    for row, column, near in _shifted(belief, window):
        number = row * window + column
        message = message + kernels[:, number : number + 1] * near
    return message


def _shifted(x: Tensor, window: int) -> Iterator[tuple[int, int, Tensor]]:
    """Row and column in the window, and the image in which each pixel is replaced by that neighbour."""
    reach, (height, width) = window // 2, x.shape[2:]
    padded = functional.pad(x, (reach, reach, reach, reach))
    for row in range(window):
        for column in range(window):
            yield row, column, padded[:, :, row : row + height, column : column + width]


# ------------------------------------------------------------------------------------------------- as published


def published_position_kernel(window: int = 7, sigma: float = 3.0) -> Tensor:
    """(window, window) Gaussian of position on the pooled grid, centre included."""
    along = torch.arange(window, dtype=torch.float32) - window // 2
    one = torch.exp(-0.5 * (4 * along / sigma) ** 2)  # sigma is in image pixels, four of them per cell of that grid
    return one[:, None] * one[None, :]


def published_conv_crf(
    logits: Tensor, intensity: Tensor, *, iterations: int = 5, weight: float = 0.2, window: int = 7, blur: int = 4
) -> Tensor:
    """The convolutional CRF as the segmentation + CRF pipeline ran it, quirks included; for comparison only.

    Its first message is made of log-probabilities, a pixel sends a message to itself, nothing is normalised, and what
    it returns is no probability. Position kernel: sigma 3 px, weight 3; intensity kernel: sigma 0.5, weight 1.

    Parameters
    ----------
    logits : (b, labels, h, w); height and width multiples of `blur`
    intensity : (b, 1, h, w), standard deviation about 1
    """
    unary = functional.log_softmax(logits, dim=1)
    pooled = functional.avg_pool2d(intensity, blur)
    likeness = [torch.exp(-0.5 * ((near - pooled) / 0.5) ** 2) for _, _, near in _shifted(pooled, window)]
    inside = [near for _, _, near in _shifted(torch.ones_like(pooled), window)]
    by_intensity = torch.cat(likeness, dim=1) * torch.cat(inside, dim=1)
    kernels = 3 * published_position_kernel(window).reshape(1, -1, 1, 1).to(logits) + by_intensity
    belief = unary
    for iteration in range(iterations):
        message = window_message(functional.avg_pool2d(belief, blur), kernels.expand_as(by_intensity))
        message = functional.interpolate(message, scale_factor=float(blur), mode="bilinear", align_corners=False)
        belief = (1 - weight) * unary + weight * message
        if iteration < iterations - 1:
            belief = functional.softmax(belief, dim=1)
    return belief
