"""Cryo-EMMAE's masked autoencoder: a vision transformer that learns without labels by filling in hidden patches.

Written from K. He et al., Masked autoencoders are scalable vision learners, CVPR 2022, with the sizes and the masking
of A. Zamanos et al., Cell Reports Methods 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

NORM_EPSILON = 1e-6


def sine_cosine_positions(width: int, side: int, *, is_column_first: bool = False) -> NDArray[np.float32]:
    """Fixed codes of the places of a square grid: half of the channels tell the row, half the column.

    Parameters
    ----------
    width : channels, a multiple of 4
    side : rows and columns of the grid
    is_column_first : the first half tells the column, as the authors' program has it; else the row

    Returns
    -------
    codes : (side * side, width), row by row; of each half the first half are sines, the others cosines, of the place
        times 10000^(-i / (width / 4))
    """
    if width % 4:
        raise ValueError(f"width is {width}, expected a multiple of 4: sine and cosine of row and column")
    rate = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    angle = np.arange(side)[:, None] * rate
    code = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    rows, columns = np.repeat(code, side, axis=0), np.tile(code, (side, 1))
    halves = (columns, rows) if is_column_first else (rows, columns)
    return np.concatenate(halves, axis=1).astype(np.float32)


def position_table(width: int, side: int, *, scale: float, is_column_first: bool) -> Tensor:
    """(1, 1 + side * side, width) what is added to the class token, which is nothing, and to the patches."""
    codes = scale * sine_cosine_positions(width, side, is_column_first=is_column_first)
    return torch.from_numpy(np.concatenate([np.zeros((1, width), np.float32), codes])[None])


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm and added to its input."""

    def __init__(self, width: int, *, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be shared by {heads} heads; expected a multiple")
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.expand = nn.Linear(width, int(mlp_ratio * width))
        self.contract = nn.Linear(int(mlp_ratio * width), width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, count, width)
        tokens = tokens + self.project(attended)
        out: Tensor = tokens + self.contract(gelu(self.expand(self.norm2(tokens))))
        return out


class MaskedAutoencoder(nn.Module):
    """Encoder of the visible patches, and a decoder that draws the hidden ones.

    Parameters
    ----------
    image_px, patch_px : sides of a crop and of a patch
    width, depth, heads : of the encoder
    decoder_width, decoder_depth, decoder_heads : of the decoder
    mlp_ratio : width of the perceptrons' hidden layer over that of the tokens, in both
    position_scale : factor of the encoder's position codes; small, so that what a patch shows decides its code
    stores_positions : position codes are stored with the weights, as the authors do, and begin with theirs (column
        first, see `sine_cosine_positions`); else they are not stored, and the row comes first

    The defaults are the published ones: 4,162,176 trainable parameters encode, 954,512 decode.
    """

    positions: Tensor
    decoder_positions: Tensor

    def __init__(
        self,
        *,
        image_px: int = 64,
        patch_px: int = 4,
        width: int = 192,
        depth: int = 14,
        heads: int = 1,
        decoder_width: int = 128,
        decoder_depth: int = 7,
        decoder_heads: int = 8,
        mlp_ratio: float = 2.0,
        position_scale: float = 0.08,
        stores_positions: bool = False,
    ) -> None:
        super().__init__()
        if image_px % patch_px:
            raise ValueError(f"image_px is {image_px}, expected a multiple of patch_px, {patch_px}")
        self.image_px, self.patch_px, self.width = image_px, patch_px, width
        self.side = image_px // patch_px
        self.embed = nn.Linear(patch_px * patch_px, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads=heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(decoder_width, heads=decoder_heads, mlp_ratio=mlp_ratio) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=NORM_EPSILON)
        self.predict = nn.Linear(decoder_width, patch_px * patch_px)
        codes = position_table(width, self.side, scale=position_scale, is_column_first=stores_positions)
        decoder_codes = position_table(decoder_width, self.side, scale=1.0, is_column_first=stores_positions)
        self.register_buffer("positions", codes, persistent=stores_positions)
        self.register_buffer("decoder_positions", decoder_codes, persistent=stores_positions)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    def to_patches(self, images: Tensor) -> Tensor:
        """(b, s, s) images to (b, n, p * p) patches, row by row, their pixels row by row."""
        return to_patches(images, patch_px=self.patch_px)

    def encode(self, images: Tensor) -> Tensor:
        """(b, s, s) standardised images to the latent vectors (b, n, width) of all patches, row by row."""
        return self._encode(self.embed(self.to_patches(images)) + self.positions[:, 1:])[:, 1:]

    def _encode(self, tokens: Tensor) -> Tensor:
        first = (self.class_token + self.positions[:, :1]).to(tokens.dtype)
        tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.norm(tokens)
        return out

    def forward(self, images: Tensor, *, order: Tensor, visible: int) -> Tensor:
        """What the decoder makes of images of which only some patches are shown.

        Parameters
        ----------
        images : (b, s, s) standardised
        order : (b, n) a permutation of each image's patches; the first `visible` ones are shown

        Returns
        -------
        drawn : (b, n, p * p) all patches, row by row
        """
        shown = order[:, :visible, None]
        tokens = self.embed(self.to_patches(images)) + self.positions[:, 1:]
        latent = self._encode(tokens.gather(1, shown.expand(-1, -1, tokens.shape[2])))
        codes = self.decoder_embed(latent)
        filled = self.mask_token.to(codes.dtype).expand(len(images), order.shape[1], -1)
        filled = filled.scatter(1, shown.expand(-1, -1, codes.shape[2]), codes[:, 1:])
        filled = torch.cat([codes[:, :1], filled], dim=1) + self.decoder_positions.to(codes.dtype)
        for block in self.decoder_blocks:
            filled = block(filled)
        drawn: Tensor = self.predict(self.decoder_norm(filled))[:, 1:]
        return drawn


def to_patches(images: Tensor, *, patch_px: int) -> Tensor:
    """(b, s, s) images to (b, n, p * p) patches, row by row, their pixels row by row."""
    side = images.shape[1] // patch_px
    cut = images.reshape(len(images), side, patch_px, side, patch_px).transpose(2, 3)
    return cut.reshape(len(images), side * side, patch_px * patch_px)


def hidden_error(drawn: Tensor, images: Tensor, *, order: Tensor, visible: int, patch_px: int) -> Tensor:
    """Mean squared error of the hidden patches alone.

    Parameters
    ----------
    drawn : (b, n, p * p) all patches as the decoder draws them
    order : (b, n) of which the first `visible` patches were shown
    """
    hidden = order[:, visible:, None].expand(-1, -1, patch_px**2)
    truth = to_patches(images, patch_px=patch_px)
    return (drawn.float().gather(1, hidden) - truth.float().gather(1, hidden)).square().mean()


def build_masked_autoencoder(architecture: Mapping[str, Any]) -> MaskedAutoencoder:
    """The network that a card's architecture describes."""
    settings = {name: value for name, value in architecture.items() if name != "network"}
    return MaskedAutoencoder(**settings)
