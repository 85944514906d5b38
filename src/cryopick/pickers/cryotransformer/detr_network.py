"""The detection transformer of the CryoTransformer article: DETR with a ResNet backbone.

Its parameters have the names of the authors' checkpoints but for the prefix of the backbone, and belong to this package
alone: saved weights depend on no library. The outputs of all decoder layers are taken before the final layer norm and
each is normalised on its own, as in DETR.

Initial weights are Xavier-random, as the article says, with the frozen norms of the backbone set from a first batch:
with mean 0 and variance 1 a random ResNet-152 multiplies its signal by millions. The queries, which are no weights of a
layer, start standard normal, as in DETR: Xavier's rule would make them almost equal (standard deviation 0.05), and
equal queries all answer for the same particles.

References
----------
A. Dhakal et al., Bioinformatics 40(3), 2024, btae109; N. Carion et al., ECCV 2020 (DETR).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from cryopick.pickers.cryotransformer.resnet import BACKBONE_DEPTHS, STEM_CHANNELS, STRIDE_PX, ResNet

__all__ = ["BACKBONE_DEPTHS", "CLASSES", "STRIDE_PX", "DetectionTransformer", "normalized", "sine_position"]

CLASSES = 2
"""Particle, and nothing; the article's network has both whichever way they are numbered."""
TEMPERATURE = 10000.0
"""Longest wave of the position code over the shortest."""


class DetectionTransformer(nn.Module):
    """(b, 3, h, w) images to a fixed number of answers each.

    Parameters
    ----------
    backbone, backbone_width : one of `BACKBONE_DEPTHS`, and the channels that leave its stem
    queries : answers per image
    width, heads, layers, feed_width, dropout : of encoder and decoder, which have `layers` layers each
    """

    def __init__(
        self,
        *,
        backbone: str = "resnet152",
        backbone_width: int = STEM_CHANNELS,
        queries: int = 600,
        width: int = 256,
        heads: int = 8,
        layers: int = 6,
        feed_width: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = ResNet(backbone, width=backbone_width)
        self.input_proj = nn.Conv2d(self.backbone.channels, width, 1)
        self.query_embed = nn.Embedding(queries, width)
        self.transformer = Transformer(width=width, heads=heads, layers=layers, feed_width=feed_width, dropout=dropout)
        self.class_embed = nn.Linear(width, CLASSES)
        self.bbox_embed = BoxHead(width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.query_embed.weight)

    @property
    def queries(self) -> int:
        """Answers per image."""
        return self.query_embed.num_embeddings

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """Logits (b, q, 2) and boxes (b, q, 4) of every decoder layer, the last one last.

        Parameters
        ----------
        images : see `normalized`
        mask : (b, h, w), 1 on the image and 0 on padding

        Returns
        -------
        answers : boxes are centre and size in 0..1 of the padded image
        """
        features = self.input_proj(self.backbone(images.contiguous(memory_format=torch.channels_last)))
        if mask is None:
            mask = torch.ones_like(images[:, 0])
        is_image = interpolate(mask[:, None].float(), size=features.shape[-2:])[:, 0] > 0.5  # (b, h / 32, w / 32)
        place = sine_position(is_image, channels=features.shape[1]).to(features.dtype)
        states = self.transformer(
            features.flatten(2).transpose(1, 2),  # (b, tokens, width)
            place.flatten(2).transpose(1, 2),
            self.query_embed.weight.expand(len(images), -1, -1),
            # without padding no mask, which takes attention's quicker way
            None if bool(is_image.all()) else ~is_image.flatten(1),
        )
        return [(self.class_embed(state), self.bbox_embed(state).sigmoid()) for state in states]

    def set_norms(self, images: Tensor, *, but: Collection[str] = ()) -> None:
        """Give the frozen norms of the backbone the mean and variance that these images have there (b, 3, h, w); but
        those of these names."""
        self.backbone.set_norms(images.contiguous(memory_format=torch.channels_last), but=but)


class BoxHead(nn.Module):
    """Three layers from a state to four numbers, logits of centre and size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)])

    def forward(self, state: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            state = relu(layer(state))
        logits: Tensor = self.layers[-1](state)
        return logits


class Transformer(nn.Module):
    """Encoder and decoder, norms after each sum, places added to what is compared and not to what is passed on."""

    def __init__(self, *, width: int, heads: int, layers: int, feed_width: int, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(
            EncoderLayer(width=width, heads=heads, feed_width=feed_width, dropout=dropout) for _ in range(layers)
        )
        self.decoder = Decoder(
            (DecoderLayer(width=width, heads=heads, feed_width=feed_width, dropout=dropout) for _ in range(layers)),
            width=width,
        )

    def forward(self, tokens: Tensor, place: Tensor, queries: Tensor, padding: Tensor | None) -> list[Tensor]:
        """(b, q, width) states of the queries after every decoder layer, each through the final norm.

        Parameters
        ----------
        tokens, place : (b, t, width)
        queries : (b, q, width)
        padding : (b, t) True where a token is none, or None
        """
        for layer in self.encoder.layers:
            tokens = layer(tokens, place, padding)
        state, states = torch.zeros_like(queries), []
        for layer in self.decoder.layers:
            state = layer(state, queries, tokens, place, padding)
            states.append(self.decoder.norm(state))
        return states


class Encoder(nn.Module):
    """Layers of tokens."""

    def __init__(self, layers: Iterable[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Decoder(nn.Module):
    """Layers of queries, and the norm of every layer's output."""

    def __init__(self, layers: Iterable[DecoderLayer], *, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)


class EncoderLayer(nn.Module):
    """Tokens look at each other."""

    def __init__(self, *, width: int, heads: int, feed_width: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feed_width), nn.Linear(feed_width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, place: Tensor, padding: Tensor | None) -> Tensor:
        placed = tokens + place
        seen = _attend(self.self_attn, placed, placed, tokens, padding)
        tokens = self.norm1(tokens + self.dropout(seen))
        fed = self.linear2(self.dropout(relu(self.linear1(tokens))))
        normed: Tensor = self.norm2(tokens + self.dropout(fed))
        return normed


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the tokens."""

    def __init__(self, *, width: int, heads: int, feed_width: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feed_width), nn.Linear(feed_width, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, queries: Tensor, tokens: Tensor, place: Tensor, padding: Tensor | None) -> Tensor:
        asked = state + queries
        state = self.norm1(state + self.dropout(_attend(self.self_attn, asked, asked, state, None)))
        seen = _attend(self.multihead_attn, state + queries, tokens + place, tokens, padding)
        state = self.norm2(state + self.dropout(seen))
        fed = self.linear2(self.dropout(relu(self.linear1(state))))
        normed: Tensor = self.norm3(state + self.dropout(fed))
        return normed


def _attend(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None
) -> Tensor:
    seen: Tensor = attention(query, key, value, key_padding_mask=padding, need_weights=False)[0]
    return seen


def normalized(grey: Tensor) -> Tensor:
    """(b, h, w) grey images in 0..1 as three equal channels, normalised like the pictures of ImageNet."""
    mean = grey.new_tensor([0.485, 0.456, 0.406])[None, :, None, None]
    deviation = grey.new_tensor([0.229, 0.224, 0.225])[None, :, None, None]
    return (grey[:, None] - mean) / deviation


def sine_position(is_image: Tensor, *, channels: int = 256) -> Tensor:
    """(b, channels, h, w) The fixed position code of the encoder.

    The first half of the channels codes y, the second x: sine on even, cosine on odd channels, of
    `(place from 1 on / (size + 1e-6)) * 2 pi / 10000^(2 floor(i / 2) / (channels / 2))`.

    Parameters
    ----------
    is_image : (b, h, w) False on padding, which counts for no place
    """
    half = channels // 2
    steps = torch.arange(half, device=is_image.device)
    wave = TEMPERATURE ** (2 * torch.div(steps, 2, rounding_mode="floor") / half)
    halves = []
    for axis in (1, 2):
        place = is_image.float().cumsum(axis)
        place = place / (place.select(axis, -1).unsqueeze(axis) + 1e-6) * (2 * math.pi)
        phase = place[..., None] / wave  # (b, h, w, half)
        halves.append(torch.where(steps % 2 == 0, phase.sin(), phase.cos()))
    return torch.cat(halves, dim=3).permute(0, 3, 1, 2)
