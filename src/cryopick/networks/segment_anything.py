"""Segment Anything: Meta's models and a compact one of the same class, through the `transformers` library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import MissingExtraError, WeightsError
from cryopick.extras import missing_extra

if TYPE_CHECKING:
    from torch import Tensor, nn

PIXEL_MEAN, PIXEL_SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of the red, green and blue channels that Meta's models were trained on."""
META_SIZES: Mapping[str, dict[str, Any]] = {
    "vit_b": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "global_attn_indexes": [2, 5, 8, 11],
    },
    "vit_l": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "global_attn_indexes": [5, 11, 17, 23],
    },
    "vit_h": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
    },
}
"""The three published image encoders; everything else is the same for all."""
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


def meta_config(size: str) -> Any:
    """`SamConfig` of one of `META_SIZES`."""
    sam = _transformers()
    return sam.SamConfig(vision_config={**META_SIZES[size], "mlp_dim": 4 * META_SIZES[size]["hidden_size"]})


def compact_config(size: CompactSamSize) -> Any:
    """`SamConfig` of a small model."""
    sam = _transformers()
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
    model: nn.Module = _transformers().SamModel(compact_config(size))
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
    """A `SamModel` that segments by points, as `cryopick.processing.mask_generation` wants it.

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

    @property
    def parameter_count(self) -> int:
        """Of the whole model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

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


def load_sam(path_or_name: str) -> nn.Module:
    """Meta's Segment Anything from a file or a folder, or by name.

    Parameters
    ----------
    path_or_name : Meta's own checkpoint (`sam_vit_b_01ec64.pth`, or the same tensors as `.safetensors`); a folder in
        the layout of `transformers`; or a name such as `facebook/sam-vit-base`, which is downloaded where it is not in
        the cache

    Raises
    ------
    WeightsError
        If there is no such file, it is damaged, or it holds something else.
    """
    path = Path(path_or_name)
    if path.is_file():
        return _from_meta_file(path)
    sam = _transformers()
    if (path.suffix in (".pth", ".pt", ".safetensors") or path.is_absolute()) and not path.is_dir():
        raise WeightsError(f"{path}: no such file or folder; expected a checkpoint of Segment Anything")
    try:
        model: nn.Module
        model, found = sam.SamModel.from_pretrained(path_or_name, output_loading_info=True)
    except Exception as error:  # of two libraries that document none: OSError, SafetensorError, KeyError, TypeError, …
        raise WeightsError(
            f"{path_or_name}: cannot be loaded as Segment Anything ({_first_line(error)}); expected Meta's "
            "sam_vit_*.pth, a folder with config.json and model.safetensors, or a name such as facebook/sam-vit-base "
            "and a connection"
        ) from error
    lacking = sorted(map(str, found["missing_keys"])) + sorted(map(str, found.get("mismatched_keys", ())))
    if lacking:  # the library would go on with random numbers there
        raise WeightsError(
            f"{path_or_name}: has no fitting weights for {', '.join(lacking[:3])} ({len(lacking)} in all); config.json "
            "and the weights do not belong together, or the file is damaged; download both again"
        )
    return model


# ------------------------------------------------------------------------------------------------- Meta's own files

_META_NAMES: tuple[tuple[str, str], ...] = (
    (r"image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"image_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_encoder.layers.\1.layer_norm\2."),
    (r"image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"image_encoder\.", "vision_encoder."),
    (
        r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix",
        "prompt_encoder.shared_embedding.positional_embedding",
    ),
    (r"prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"(mask_decoder\.transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
    (r"mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"(mask_decoder\.output_hypernetworks_mlps\.\d+|mask_decoder\.iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
)
"""Names in Meta's checkpoints and in `transformers`; what is not listed has one name in both."""


def from_meta_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of Meta's checkpoint under the names of `transformers`."""
    renamed = {}
    for name, tensor in tensors.items():
        renamed[_renamed(name, _last_layer(name, tensors))] = tensor
    positions = "prompt_encoder.shared_embedding.positional_embedding"
    if positions in renamed:
        renamed["shared_image_embedding.positional_embedding"] = renamed[positions]
    return renamed


_MLP = re.compile(r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.(\d+)\.(.*)")


def _last_layer(name: str, names: Mapping[str, Any]) -> int:
    """Number of the last layer of the small network that a tensor belongs to; -1 for other tensors."""
    mine = _MLP.fullmatch(name)
    if mine is None:
        return -1
    others = (_MLP.fullmatch(other) for other in names)
    return max(int(other[2]) for other in others if other is not None and other[1] == mine[1])


def _renamed(name: str, last_layer: int) -> str:
    part = _MLP.fullmatch(name)
    if part is not None and int(part[2]) == last_layer:
        return f"{part[1]}.proj_out.{part[3]}"
    if part is not None and int(part[2]) > 0:
        return f"{part[1]}.layers.{int(part[2]) - 1}.{part[3]}"
    for old, new in _META_NAMES:
        found, count = re.subn(f"^{old}", new, name)
        if count:
            return found
    return name


def _from_meta_file(path: Path) -> nn.Module:
    """A model from one of Meta's files; its sizes are read off the tensors."""
    import torch

    tensors = _read_meta_file(path)
    sam = _transformers()
    try:
        config = _config_of(tensors)
        with torch.device("meta"):  # sizes only: a damaged file may name such as fit in no memory
            own = sam.SamModel(config).state_dict()
    except KeyError as error:
        raise WeightsError(f"{path}: is no checkpoint of Segment Anything: it lacks {error}") from error
    except Exception as error:  # sizes that make no network, which fails in as many ways as it has layers
        raise WeightsError(
            f"{path}: holds tensors whose sizes make no Segment Anything ({_first_line(error)}); download it again"
        ) from error
    renamed = from_meta_names(tensors)
    missing, unknown = [name for name in own if name not in renamed], [name for name in renamed if name not in own]
    if missing or unknown:
        raise WeightsError(
            f"{path}: does not fit Segment Anything: lacks {', '.join(missing[:3]) or 'nothing'}, has unknown "
            f"{', '.join(unknown[:3]) or 'nothing'}; expected Meta's sam_vit_*.pth (not SAM 2, MobileSAM or SAM-HQ)"
        )
    for name, tensor in renamed.items():
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{path}: {name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}; the file is damaged, "
                "download it again"
            )
    model: nn.Module = sam.SamModel(config)
    model.load_state_dict(renamed)
    return model


def _read_meta_file(path: Path) -> dict[str, Tensor]:
    import torch
    from safetensors.torch import load_file

    try:
        # `weights_only`: tensors and plain containers; nothing in the file can run
        is_plain = path.suffix == ".safetensors"
        found: Any = load_file(path) if is_plain else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both document none: SafetensorError, EOFError, IndexError, KeyError, struct.error, …
        raise WeightsError(
            f"{path}: cannot be read as a checkpoint of Segment Anything ({_first_line(error)}); it is damaged or "
            "holds something else; expected Meta's sam_vit_*.pth, download it again"
        ) from error
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in found.items()
    ):
        raise WeightsError(f"{path}: holds no tensors by name; expected Meta's sam_vit_*.pth")
    return dict(found)


def _first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__


def _config_of(tensors: Mapping[str, Tensor]) -> Any:
    """`SamConfig` with the sizes of Meta's tensors."""
    patch = tensors["image_encoder.patch_embed.proj.weight"]
    width, patch_px = int(patch.shape[0]), int(patch.shape[-1])
    grid = int(tensors["image_encoder.pos_embed"].shape[1])
    blocks = [name for name in tensors if re.fullmatch(r"image_encoder\.blocks\.\d+\.attn\.rel_pos_h", name)]
    reach = {int(name.split(".")[2]): int(tensors[name].shape[0] + 1) // 2 for name in blocks}
    if not reach:
        raise KeyError("image_encoder.blocks.0.attn.rel_pos_h")
    first = tensors[blocks[0]]
    windows = {size for size in reach.values() if size != grid}
    channels = int(tensors["image_encoder.neck.0.weight"].shape[0])
    decoder = "mask_decoder.transformer.layers"
    layers = {name.split(".")[3] for name in tensors if name.startswith(f"{decoder}.")}
    return _transformers().SamConfig(
        vision_config={
            "hidden_size": width,
            "output_channels": channels,
            "num_hidden_layers": len(reach),
            "num_attention_heads": width // int(first.shape[1]),
            "image_size": grid * patch_px,
            "patch_size": patch_px,
            "window_size": max(windows, default=0),
            "global_attn_indexes": sorted(number for number, size in reach.items() if size == grid),
            "num_pos_feats": channels // 2,
            "mlp_dim": int(tensors["image_encoder.blocks.0.mlp.lin1.weight"].shape[0]),
        },
        prompt_encoder_config={
            "hidden_size": channels,
            "image_size": grid * patch_px,
            "patch_size": patch_px,
            "mask_input_channels": int(tensors["prompt_encoder.mask_downscaling.3.weight"].shape[0]),
        },
        mask_decoder_config={
            "hidden_size": channels,
            "mlp_dim": int(tensors[f"{decoder}.0.mlp.lin1.weight"].shape[0]),
            "num_hidden_layers": len(layers),
            "num_multimask_outputs": int(tensors["mask_decoder.mask_tokens.weight"].shape[0]) - 1,
            "iou_head_hidden_dim": int(tensors["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0]),
        },
    )


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"{missing_extra('sam', 'Segment Anything')}, or pick with the U-Net alone (--segmenter none)"
        ) from error
    return transformers
