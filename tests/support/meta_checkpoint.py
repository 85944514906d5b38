"""A checkpoint of Segment Anything in the layout of Meta's program, small and random."""

from __future__ import annotations

import torch


def meta_tensors(*, width=32, depth=2, heads=2, grid=4, patch=8, window=2, channels=16, mlp=64):
    """A checkpoint with the tensor names and shapes of Meta's program at a tenth of its size, random."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "image_encoder.pos_embed": (1, grid, grid, width),
        "image_encoder.patch_embed.proj.weight": (width, 3, patch, patch),
        "image_encoder.patch_embed.proj.bias": (width,),
        "image_encoder.neck.0.weight": (channels, width, 1, 1),
        "image_encoder.neck.1.weight": (channels,),
        "image_encoder.neck.1.bias": (channels,),
        "image_encoder.neck.2.weight": (channels, channels, 3, 3),
        "image_encoder.neck.3.weight": (channels,),
        "image_encoder.neck.3.bias": (channels,),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, channels // 2),
        "prompt_encoder.not_a_point_embed.weight": (1, channels),
        "prompt_encoder.no_mask_embed.weight": (1, channels),
        "prompt_encoder.mask_downscaling.0.weight": (4, 1, 2, 2),
        "prompt_encoder.mask_downscaling.0.bias": (4,),
        "prompt_encoder.mask_downscaling.1.weight": (4,),
        "prompt_encoder.mask_downscaling.1.bias": (4,),
        "prompt_encoder.mask_downscaling.3.weight": (16, 4, 2, 2),
        "prompt_encoder.mask_downscaling.3.bias": (16,),
        "prompt_encoder.mask_downscaling.4.weight": (16,),
        "prompt_encoder.mask_downscaling.4.bias": (16,),
        "prompt_encoder.mask_downscaling.6.weight": (channels, 16, 1, 1),
        "prompt_encoder.mask_downscaling.6.bias": (channels,),
        "mask_decoder.iou_token.weight": (1, channels),
        "mask_decoder.mask_tokens.weight": (4, channels),
        "mask_decoder.output_upscaling.0.weight": (channels, channels // 4, 2, 2),
        "mask_decoder.output_upscaling.0.bias": (channels // 4,),
        "mask_decoder.output_upscaling.1.weight": (channels // 4,),
        "mask_decoder.output_upscaling.1.bias": (channels // 4,),
        "mask_decoder.output_upscaling.3.weight": (channels // 4, channels // 8, 2, 2),
        "mask_decoder.output_upscaling.3.bias": (channels // 8,),
        "mask_decoder.transformer.norm_final_attn.weight": (channels,),
        "mask_decoder.transformer.norm_final_attn.bias": (channels,),
    }
    for number in range(4):
        shapes[f"prompt_encoder.point_embeddings.{number}.weight"] = (1, channels)
    for number in range(depth):
        block = f"image_encoder.blocks.{number}"
        side = grid if number == depth - 1 else window  # the last block attends to everything
        shapes |= {
            f"{block}.attn.rel_pos_h": (2 * side - 1, width // heads),
            f"{block}.attn.rel_pos_w": (2 * side - 1, width // heads),
            f"{block}.attn.qkv.weight": (3 * width, width),
            f"{block}.attn.qkv.bias": (3 * width,),
            f"{block}.attn.proj.weight": (width, width),
            f"{block}.attn.proj.bias": (width,),
            f"{block}.mlp.lin1.weight": (4 * width, width),
            f"{block}.mlp.lin1.bias": (4 * width,),
            f"{block}.mlp.lin2.weight": (width, 4 * width),
            f"{block}.mlp.lin2.bias": (width,),
        }
        shapes |= {f"{block}.norm{n}.{kind}": (width,) for n in (1, 2) for kind in ("weight", "bias")}
    attention = {
        **{f"layers.{n}.self_attn": channels for n in (0, 1)},
        **{f"layers.{n}.cross_attn_token_to_image": channels // 2 for n in (0, 1)},
        **{f"layers.{n}.cross_attn_image_to_token": channels // 2 for n in (0, 1)},
        "final_attn_token_to_image": channels // 2,
    }
    for name, inner in attention.items():
        for part in ("q_proj", "k_proj", "v_proj"):
            shapes[f"mask_decoder.transformer.{name}.{part}.weight"] = (inner, channels)
            shapes[f"mask_decoder.transformer.{name}.{part}.bias"] = (inner,)
        shapes[f"mask_decoder.transformer.{name}.out_proj.weight"] = (channels, inner)
        shapes[f"mask_decoder.transformer.{name}.out_proj.bias"] = (channels,)
    for number in (0, 1):
        layer = f"mask_decoder.transformer.layers.{number}"
        shapes |= {f"{layer}.norm{n}.{kind}": (channels,) for n in (1, 2, 3, 4) for kind in ("weight", "bias")}
        shapes[f"{layer}.mlp.lin1.weight"], shapes[f"{layer}.mlp.lin1.bias"] = (mlp, channels), (mlp,)
        shapes[f"{layer}.mlp.lin2.weight"], shapes[f"{layer}.mlp.lin2.bias"] = (channels, mlp), (channels,)
    heads_out = {f"output_hypernetworks_mlps.{n}": channels // 8 for n in range(4)} | {"iou_prediction_head": 4}
    for name, out in heads_out.items():
        for n, size in enumerate((channels, channels, out)):
            shapes[f"mask_decoder.{name}.layers.{n}.weight"] = (size, channels)
            shapes[f"mask_decoder.{name}.layers.{n}.bias"] = (size,)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
