"""Segment Anything: Meta's models and a compact one of the same class, through the `transformers` library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import MissingExtraError
from cryopick.extras import missing_extra

if TYPE_CHECKING:
    from torch import Tensor, nn

PIXEL_MEAN, PIXEL_SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of the red, green and blue channels that Meta's models were trained on."""
PATCHES_PER_PARTICLE = 2.5
"""Size at which particles are shown, in patches of the image encoder; masks have four pixels per patch."""
EMBEDDED_TOKENS = 16_384
"""Tiles are embedded together up to so many patches."""


@dataclass(frozen=True, kw_only=True)
class CompactSamSize:
    """Size of a small Segment Anything.

    Parameters
    ----------
    image_px : side of the pictures that it sees
    patch_px : side of the image encoder's patches; masks have a quarter of that
    width, depth, heads : of the image encoder; all layers attend to the whole picture
    decoder_width : channels of the image embedding and of the mask decoder, a multiple of 8
    masks_per_prompt : Meta's models give three: whole, part and sub-part. A particle has no parts
    """

    image_px: int = 96
    patch_px: int = 8
    width: int = 96
    depth: int = 4
    heads: int = 4
    decoder_width: int = 48
    masks_per_prompt: int = 1


def compact_config(size: CompactSamSize) -> Any:
    """`SamConfig` of a small model."""
    sam = import_transformers()
    return sam.SamConfig(
        vision_config={
            "hidden_size": size.width,
            "output_channels": size.decoder_width,
            "num_hidden_layers": size.depth,
            "num_attention_heads": size.heads,
            "image_size": size.image_px,
            "patch_size": size.patch_px,
            "window_size": 0,
            "global_attn_indexes": list(range(size.depth)),
            "num_pos_feats": size.decoder_width // 2,
            "use_rel_pos": False,  # positions within the picture are told once; relative ones double the time
        },
        prompt_encoder_config={
            "hidden_size": size.decoder_width,
            "image_size": size.image_px,
            "patch_size": size.patch_px,
        },
        mask_decoder_config={
            "hidden_size": size.decoder_width,
            "mlp_dim": 2 * size.decoder_width,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": size.decoder_width,
            "num_multimask_outputs": size.masks_per_prompt,
        },
    )


COMPACT_NAME = "compact_sam"
PLACE_GAIN = 2.0
"""Of the projections of queries and keys in new models: attention then tells places a particle apart."""
POSITION_SCALE = 2.0
"""Spread of the random spatial frequencies, per half picture: a small picture of small particles needs finer ones than
Meta's 1.0, and far coarser ones than the library's default for new models."""


def compact_architecture(size: CompactSamSize) -> dict[str, Any]:
    """What a card says of a compact model."""
    return {"network": COMPACT_NAME, **vars(size)}


def build_compact_sam(architecture: Mapping[str, Any]) -> nn.Module:
    """A new `SamModel` of the size that a card's architecture names."""
    import torch

    if architecture.get("network") != COMPACT_NAME:
        raise ValueError(f"architecture names {architecture.get('network')!r}, expected {COMPACT_NAME!r}")
    size = CompactSamSize(**{name: value for name, value in architecture.items() if name != "network"})
    model: nn.Module = import_transformers().SamModel(compact_config(size))
    # as Meta's models start; the library's weights for new models are so small that training hardly begins
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Embedding):
            module.reset_parameters()
    positions: Any = model.shared_image_embedding
    with torch.no_grad():
        positions.positional_embedding.normal_(std=POSITION_SCALE)
        encoder: Any = model.vision_encoder
        encoder.pos_embed.normal_(std=0.02)  # Meta's start at zero too, but learn for much longer
        # queries and keys hold the encoded place: with equal projections a prompt attends to its surroundings from the
        # start, which small models would otherwise take thousands of steps to find
        decoder: Any = model.mask_decoder
        transformer = decoder.transformer
        for layer in transformer.layers:
            _align(layer.cross_attn_token_to_image)
            _align(layer.cross_attn_image_to_token)
        _align(transformer.final_attn_token_to_image)
    # as in Meta's models, the frequencies are drawn once and stay
    positions.positional_embedding.requires_grad_(False)
    return model


def _align(attention: Any) -> None:
    from torch.nn.init import orthogonal_

    orthogonal_(attention.k_proj.weight, gain=PLACE_GAIN)
    attention.q_proj.weight.copy_(attention.k_proj.weight)


def segment(model: nn.Module, tiles: Tensor, xy_px: Tensor) -> tuple[Tensor, Tensor]:
    """Encode and decode in one call, for training.

    Parameters
    ----------
    tiles : (t, side, side) in 0..255
    xy_px : (t, n, 2) one positive point per prompt

    Returns
    -------
    logits : (t, n, m, 4 g, 4 g)
    predicted_iou : (t, n, m)
    """
    import torch

    ones = torch.ones(*xy_px.shape[:2], 1, dtype=torch.long, device=xy_px.device)
    out = model(
        pixel_values=_pixel_values(tiles), input_points=xy_px[:, :, None, :], input_labels=ones, multimask_output=True
    )
    return out.pred_masks, out.iou_scores


def encode(model: nn.Module, tiles: Tensor) -> Tensor:
    """(t, side, side) pictures in 0..255 to (t, c, g, g) embeddings."""
    encoder: Any = model.vision_encoder
    out: Tensor = encoder(_pixel_values(tiles)).last_hidden_state
    return out


def _pixel_values(tiles: Tensor) -> Tensor:
    """Three equal channels, normalised as Meta does."""
    import torch

    mean = torch.tensor(PIXEL_MEAN, device=tiles.device)[:, None, None]
    spread = torch.tensor(PIXEL_SPREAD, device=tiles.device)[:, None, None]
    return (tiles[:, None] - mean) / spread


def decode(model: nn.Module, embeddings: Tensor, xy_px: Tensor) -> tuple[Tensor, Tensor]:
    """One positive point per row of `embeddings`.

    Parameters
    ----------
    embeddings : (n, c, g, g)
    xy_px : (n, 2) pixels of the picture, `(0, 0)` the centre of the first one

    Returns
    -------
    logits : (n, m, 4 g, 4 g) masks at a quarter of a patch per pixel
    predicted_iou : (n, m)
    """
    import torch

    ones = torch.ones(len(xy_px), 1, 1, dtype=torch.long, device=xy_px.device)
    # a `SamModel` called with embeddings does not encode again
    out = model(
        image_embeddings=embeddings, input_points=xy_px[:, None, None, :], input_labels=ones, multimask_output=True
    )
    return out.pred_masks[:, 0], out.iou_scores[:, 0]


@dataclass(frozen=True, eq=False)
class SamSegmenter:
    """A `SamModel` that segments by points, as `cryopick.pickers.cryosegnet.mask_generation` wants it.

    Parameters
    ----------
    model : in evaluation mode, on `device`
    name : for people
    """

    model: Any
    device: str
    is_bfloat16: bool
    name: str

    @property
    def image_px(self) -> int:
        """Side of the square that it sees."""
        return int(self.model.config.vision_config.image_size)

    @property
    def patch_px(self) -> int:
        """Side of a patch."""
        return int(self.model.config.vision_config.patch_size)

    @property
    def particle_px(self) -> float:
        """Diameter at which particles are best shown to it."""
        return PATCHES_PER_PARTICLE * self.patch_px

    def embed(self, tiles: NDArray[np.float32]) -> Tensor:
        """(t, side, side) in 0..255 to embeddings."""
        import torch

        at_once = max(1, EMBEDDED_TOKENS // (self.image_px // self.patch_px) ** 2)
        with torch.inference_mode(), self._autocast():
            pictures = torch.from_numpy(tiles)
            starts = range(0, len(pictures), at_once)
            return torch.cat([encode(self.model, pictures[i : i + at_once].to(self.device)) for i in starts])

    def decode(
        self, embeddings: object, tile: NDArray[np.intp], xy_px: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n, m, side, side) logits and (n, m) predicted IoUs."""
        import torch
        from torch.nn.functional import interpolate

        if not isinstance(embeddings, torch.Tensor):
            raise TypeError(f"expected what `embed` returned, got {type(embeddings)}")
        points = torch.from_numpy(np.asarray(xy_px, np.float32)).to(self.device)
        with torch.inference_mode(), self._autocast():
            logits, predicted = decode(self.model, embeddings[torch.from_numpy(tile).to(self.device)], points)
        side = self.image_px
        full = interpolate(logits.float(), size=(side, side), mode="bilinear", align_corners=False)
        return full.cpu().numpy(), predicted.float().cpu().numpy()

    def _autocast(self) -> Any:
        import torch

        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.is_bfloat16)


# ------------------------------------------------------------------------------------------------- Meta's own files


def _first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__


def import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"{missing_extra('sam', 'Segment Anything')}, or pick with the U-Net alone (--segmenter none)"
        ) from error
    return transformers
