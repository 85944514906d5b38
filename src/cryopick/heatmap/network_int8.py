"""The heatmap network in 8-bit integers: nearly twice as fast as bfloat16 on CPUs that multiply them (VNNI)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cryopick.heatmap.network import HeatmapUNet, ResidualBlock

TAIL = 1e-4
"""Share of an activation's values on either side that may lie outside its range, and be cut."""
VALUES = 50_000
"""Of an activation that are looked at in one image."""
STEPS = 255
KEPT_SHAPES = 8
"""Shapes of inputs for which weights are kept packed: in a run, those of its tiles at each look."""


def activation_ranges(folded: HeatmapUNet, images: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """Where the values of every activation lie that `Int8HeatmapUNet` rounds.

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


class Int8HeatmapUNet(nn.Module):
    """A folded `HeatmapUNet` whose convolutions run in 8-bit integers; the last one, which is small, in float32.

    Parameters
    ----------
    folded : float32, in evaluation mode, batch norms folded
    ranges : of `activation_ranges`

    Notes
    -----
    Weights are rounded channel by channel, symmetric around 0; an activation has one step for all its values
    (B. Jacob et al., CVPR 2018, section 2).
    """

    def __init__(self, folded: HeatmapUNet, ranges: Mapping[str, Sequence[float]]) -> None:
        super().__init__()
        self.in_channels = folded.in_channels
        self.unshuffle = folded.unshuffle
        self.last = folded.head[1:]
        missing = sorted(_rounded_names(folded) - set(ranges))
        if missing:
            raise ValueError(f"the ranges of {len(missing)} activations are missing, the first being {missing[0]}")
        self._depths = [len(list(level.children())) for level in folded.encoder]
        self._step = {
            name: _step(0.0 if name.endswith(".conv1") else low, high)  # it is rectified before it is rounded
            for name, (low, high) in ranges.items()
        }
        self._kernel = {
            name: _Kernel(module)
            for name, module in folded.named_modules()
            if isinstance(module, nn.Conv2d) and name != "head.1"
        }

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, h, w) float32 to what `HeatmapUNet` gives, float32."""
        x = _rounded(self.unshuffle(image), self._step["unshuffle"])
        x = self._rectified("stem.0", x, out="stem")
        skips = []
        for level, depth in enumerate(self._depths):
            if level:
                x = self._rectified(f"down.{level - 1}.0", x, out=f"down.{level - 1}")
            for number in range(depth):
                x = self._block(f"encoder.{level}.{number}", x)
            skips.append(x)
        for level in reversed(range(len(skips) - 1)):
            # a 1 x 1 convolution gives the same before and after; after, it can be added in one go
            larger = nn.functional.interpolate(x.values, scale_factor=2.0, mode="nearest")
            x = self._added(f"lateral.{level}", _Rounded(larger, x.step), skips[level], out=f"decoder.{level}.input")
            x = self._block(f"decoder.{level}", x)
        x = self._rectified("head.0.0", x, out="head.0")
        result: Tensor = self.last((x.values.float() - x.step.zero) * x.step.width)
        return result

    def _block(self, name: str, x: _Rounded) -> _Rounded:
        inner = self._rectified(f"{name}.conv1", x, out=f"{name}.conv1")
        return self._added(f"{name}.conv2", inner, x, out=name, then="relu")

    def _rectified(self, name: str, x: _Rounded, *, out: str) -> _Rounded:
        step = self._step[out]
        convolved = torch.ops.onednn.qconv2d_pointwise.default(
            x.values, *x.step, *self._kernel[name].weights(x), *self._kernel[name].layout, *step, torch.uint8,
            "relu", [], "",
        )  # fmt: skip
        return _Rounded(convolved, step)

    def _added(self, name: str, x: _Rounded, onto: _Rounded, *, out: str, then: str = "none") -> _Rounded:
        """The convolution of `x` plus `onto`, whose memory is used for the result."""
        step, (*weights, bias) = self._step[out], self._kernel[name].weights(x)
        convolved = torch.ops.onednn.qconv2d_pointwise.binary(
            x.values, *x.step, *weights, onto.values, bias, *self._kernel[name].layout, *step, torch.uint8, *onto.step,
            "sum", 1.0, then, [], "",
        )  # fmt: skip
        return _Rounded(convolved, step)


class _Kernel:
    """Rounded weights of a convolution, packed for the shape of each input: with another's they are slow on small ones.

    All inputs of a convolution have the same step.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        weight = convolution.weight.detach()
        self._width = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-8) / 127
        self._weight = (weight / self._width[:, None, None, None]).round().to(torch.int8)
        self._zero = torch.zeros(len(self._width), dtype=torch.long)
        self._bias = None if convolution.bias is None else convolution.bias.detach()
        sides = (convolution.stride, convolution.padding, convolution.dilation)
        self.layout = (*(list(side) for side in sides), convolution.groups)
        self._packed: dict[tuple[int, ...], Tensor] = {}

    def weights(self, x: _Rounded) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        shape = tuple(x.values.shape)
        packed = self._packed.get(shape)
        if packed is None:
            if len(self._packed) >= KEPT_SHAPES:
                self._packed.clear()
            packed = torch.ops.onednn.qconv_prepack(self._weight, self._width, *x.step, *self.layout, list(shape))
            self._packed[shape] = packed
        return packed, self._width, self._zero, self._bias


def is_int8_fast() -> bool:
    """True where the CPU multiplies 8-bit integers exactly and fast, and this torch can make it do so."""
    check = getattr(torch.cpu, "_is_vnni_supported", None)
    return check is not None and bool(check()) and hasattr(torch.ops.onednn, "qconv2d_pointwise")


class _Step(NamedTuple):
    """Rounding of an activation: the width of a step, and the integer that stands for 0."""

    width: float
    zero: int


class _Rounded(NamedTuple):
    values: Tensor
    step: _Step


def _step(low: float, high: float) -> _Step:
    low, high = min(low, 0.0), max(high, 0.0)
    width = max((high - low) / STEPS, 1e-8)
    return _Step(width, round(-low / width))


def _rounded(values: Tensor, step: _Step) -> _Rounded:
    return _Rounded((values / step.width).round_().add_(step.zero).clamp_(0, STEPS).to(torch.uint8), step)
