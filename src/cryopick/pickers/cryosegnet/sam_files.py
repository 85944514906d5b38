"""Segment Anything's weights from files: Meta's checkpoints, safetensors, transformers' folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryopick.errors import InputError, WeightsError
from cryopick.io.files.json_object import read_json_object
from cryopick.io.torch_files import read_torch_file
from cryopick.io.weights import read_tensors
from cryopick.pickers.cryosegnet.sam_network import _first_line, import_transformers

if TYPE_CHECKING:
    from torch import Tensor, nn

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
_MLP = re.compile(r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.(\d+)\.(.*)")


def meta_config(size: str) -> Any:
    """`SamConfig` of one of `META_SIZES`."""
    sam = import_transformers()
    return sam.SamConfig(vision_config={**META_SIZES[size], "mlp_dim": 4 * META_SIZES[size]["hidden_size"]})


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
    sam = import_transformers()
    if (path.suffix in (".pth", ".pt", ".safetensors") or path.is_absolute()) and not path.is_dir():
        raise WeightsError(f"{path}: no such file or folder; expected a checkpoint of Segment Anything")
    if path.is_dir():
        _require_possible_layers(path)
    try:
        model: nn.Module
        # safetensors alone: the library would read pickles (pytorch_model.bin) without the checks of `read_torch_file`
        model, found = sam.SamModel.from_pretrained(path_or_name, output_loading_info=True, use_safetensors=True)
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


def _require_possible_layers(folder: Path) -> None:
    """Refuse a folder whose `config.json` wants more layers than there are tensors: building them might never end."""
    from safetensors import SafetensorError, safe_open

    files = list(folder.glob("*.safetensors"))
    if not files:  # the library looks for them first, and says what is missing
        return
    file, tensors = folder / "config.json", 0
    try:
        config = read_json_object(file, what="the configuration of Segment Anything")
        for weights in files:
            with safe_open(weights, framework="numpy") as opened:
                tensors += len(opened.keys())
    except (InputError, OSError, SafetensorError) as error:
        raise WeightsError(f"{folder}: cannot be loaded as Segment Anything ({_first_line(error)})") from error
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, value in part.items():
            if ("layers" in name or "depth" in name) and isinstance(value, int) and value > tensors:
                raise WeightsError(
                    f"{file}: {name} is {str(value)[:20]}, but there are {tensors} tensors beside it; config.json and "
                    "the weights do not belong together, or the file is damaged; download both again"
                )


def from_meta_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of Meta's checkpoint under the names of `transformers`."""
    renamed = {}
    for name, tensor in tensors.items():
        renamed[_renamed(name, _last_layer(name, tensors))] = tensor
    positions = "prompt_encoder.shared_embedding.positional_embedding"
    if positions in renamed:
        renamed["shared_image_embedding.positional_embedding"] = renamed[positions]
    return renamed


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
    sam = import_transformers()
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

    found: Any = read_tensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in found.items()
    ):
        raise WeightsError(f"{path}: holds no tensors by name; expected Meta's sam_vit_*.pth")
    return dict(found)


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
    return import_transformers().SamConfig(
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
