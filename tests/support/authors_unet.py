"""A U-Net in the layout of CryoSegNet's program, narrow and random."""

from __future__ import annotations

import torch

WIDTHS = (4, 5, 6, 7, 8, 9)


def authors_unet(widths=WIDTHS, *, gates=True, seed=0):
    """Random tensors by the authors' names: encoders e1 to eL, the bottleneck b1, decoders d1 (coarsest) to dL."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}

    def convolution(name, out, into, size):
        scale = 1.2 / (into * size**2) ** 0.5
        tensors[f"{name}.weight"] = scale * torch.randn(out, into, size, size, generator=generator)
        tensors[f"{name}.bias"] = 0.1 * torch.randn(out, generator=generator)

    def norm(name, channels):
        tensors[f"{name}.weight"] = 1 + 0.2 * torch.randn(channels, generator=generator)
        tensors[f"{name}.bias"] = 0.2 * torch.randn(channels, generator=generator)
        tensors[f"{name}.running_mean"] = 0.2 * torch.randn(channels, generator=generator)
        tensors[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=generator)
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def block(name, into, out):
        convolution(f"{name}.conv.0", out, into, 3)
        norm(f"{name}.conv.1", out)
        convolution(f"{name}.conv.3", out, out, 3)
        norm(f"{name}.conv.4", out)

    *levels, deepest = widths
    for number, (into, out) in enumerate(zip((1, *levels), levels, strict=False), 1):
        block(f"e{number}.conv", into, out)
    block("b1", levels[-1], deepest)
    for number, (fine, coarse) in enumerate(zip(levels[::-1], (deepest, *levels[::-1]), strict=False), 1):
        if gates:
            convolution(f"d{number}.ag.Wg.0", fine, coarse, 1)
            norm(f"d{number}.ag.Wg.1", fine)
            convolution(f"d{number}.ag.Ws.0", fine, fine, 1)
            norm(f"d{number}.ag.Ws.1", fine)
            convolution(f"d{number}.ag.output.0", fine, fine, 1)
        block(f"d{number}.c1", coarse + fine, fine)
    convolution("output", 1, levels[0], 1)
    tensors["output.weight"] *= 0.5
    return tensors
