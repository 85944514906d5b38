"""The ranges of the heat-map network's activations, by which `heatmap.graph` runs it in 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from cryopick.heatmap.network import HeatmapUNet, ResidualBlock

TAIL = 1e-4
"""Share of an activation's values on either side that may lie outside its range, and be cut."""
VALUES = 50_000
"""Of an activation that are looked at in one image."""


def activation_ranges(folded: HeatmapUNet, images: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """Where the values of every activation lie that are rounded in 8-bit integers.

    Parameters
    ----------
    folded : float32, in evaluation mode, batch norms folded
    images : (1, c, h, w) each, such as the network will see

    Returns
    -------
    lowest and highest value by name; the widest of the images, each without its outermost `TAIL`
    """
    found: dict[str, tuple[float, float]] = {}

    def note(name: str, value: Tensor) -> None:
        few = value.flatten()[:: max(1, value.numel() // VALUES)]
        low, high = (float(torch.quantile(few, share)) for share in (TAIL, 1 - TAIL))
        if name in found:
            low, high = min(low, found[name][0]), max(high, found[name][1])
        found[name] = low, high

    def note_output(name: str, _module: nn.Module, _given: tuple[Tensor, ...], value: Tensor) -> None:
        note(name, value)

    def note_input(name: str, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        note(name, given[0])

    hooks = [module.register_forward_hook(partial(note_output, name)) for name, module in _rounded_outputs(folded)]
    hooks += [
        module.register_forward_pre_hook(partial(note_input, f"decoder.{level}.input"))
        for level, module in enumerate(folded.decoder)
    ]
    try:
        with torch.inference_mode():
            for image in images:
                folded(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _rounded_names(folded: HeatmapUNet) -> set[str]:
    """Every activation whose range must be known."""
    inputs = {f"decoder.{level}.input" for level in range(len(folded.decoder))}
    return inputs | {name for name, _ in _rounded_outputs(folded)}


def _rounded_outputs(folded: HeatmapUNet) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose outputs are rounded, by name."""
    for name in ("unshuffle", "stem", "head.0"):
        yield name, folded.get_submodule(name)
    for name, module in folded.named_modules():
        if isinstance(module, ResidualBlock):
            yield from ((name, module), (f"{name}.conv1", module.conv1))
        elif name.startswith("down.") and name.count(".") == 1:
            yield name, module
