"""The heatmap network in 8-bit integers: nearly twice as fast as bfloat16 on CPUs that multiply them (VNNI)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cryopick.networks.heatmap_unet import HeatmapUNet, ResidualBlock

TAIL = 1e-4
"""Share of an activation's values on either side that may lie outside its range, and be cut."""
VALUES = 50_000
"""Of an activation that are looked at in one image."""
STEPS = 255


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

    def note_output(name: str, _module: nn.Module, _given: Any, value: Tensor) -> None:
        note(name, value)

    def note_input(name: str, _module: nn.Module, given: tuple[Tensor]) -> None:
        note(name, given[0])

    hooks = [module.register_forward_hook(partial(note_output, name)) for name, module in _rounded(folded)]
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


def _rounded(folded: HeatmapUNet) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose outputs are rounded, by name."""
    for name in ("unshuffle", "stem", "head.0"):
        yield name, folded.get_submodule(name)
    for name, module in folded.named_modules():
        if isinstance(module, ResidualBlock):
            yield from ((name, module), (f"{name}.conv1", module.conv1), (f"{name}.conv2", module.conv2))
        elif name.startswith(("down.", "lateral.")) and name.count(".") == 1:
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
        self._depths = [len(list(level.children())) for level in folded.encoder]
        self._step = {name: _step(low, high) for name, (low, high) in ranges.items()}
        self._kernel = {
            name: _Kernel(module)
            for name, module in folded.named_modules()
            if isinstance(module, nn.Conv2d) and name != "head.1"
        }

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) float32 to what `HeatmapUNet` gives, float32."""
        step = self._step["unshuffle"]
        x = self.unshuffle(x).mul_(1 / step.width).round_().add_(step.zero).clamp_(0, STEPS).to(torch.uint8)
        x = self._rectified("stem.0", x, given="unshuffle", out="stem")
        given, skips = "stem", []
        for level, depth in enumerate(self._depths):
            if level:
                x = self._rectified(f"down.{level - 1}.0", x, given=given, out=f"down.{level - 1}")
                given = f"down.{level - 1}"
            for number in range(depth):
                x = self._block(f"encoder.{level}.{number}", x, given=given)
                given = f"encoder.{level}.{number}"
            skips.append((x, given))
        for level in reversed(range(len(skips) - 1)):
            skip, skip_name = skips[level]
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")  # before a 1 x 1 convolution or after
            out = f"decoder.{level}.input"
            x = self._added(f"lateral.{level}", x, skip, given=given, added=skip_name, out=out, is_rectified=False)
            x = self._block(f"decoder.{level}", x, given=out)
            given = f"decoder.{level}"
        x = self._rectified("head.0.0", x, given=given, out="head.0")
        step = self._step["head.0"]
        result: Tensor = self.last((x.float() - step.zero) * step.width)
        return result

    def _block(self, name: str, x: Tensor, *, given: str) -> Tensor:
        inner = f"{name}.conv1"
        y = self._rectified(inner, x, given=given, out=inner)
        return self._added(f"{name}.conv2", y, x, given=inner, added=given, out=name, is_rectified=True)

    def _rectified(self, name: str, x: Tensor, *, given: str, out: str) -> Tensor:
        step, out_step = self._step[given], self._step[out]
        convolve = torch.ops.onednn.qconv2d_pointwise.default
        result: Tensor = convolve(x, *step, *self._kernel[name].arguments(step), *out_step, torch.uint8, "relu", [], "")
        return result

    def _added(
        self, name: str, x: Tensor, onto: Tensor, *, given: str, added: str, out: str, is_rectified: bool
    ) -> Tensor:
        """The convolution of `x` plus `onto`, whose memory is used for the result."""
        step, out_step, onto_step = (self._step[which] for which in (given, out, added))
        weight, *others = self._kernel[name].arguments(step)
        convolve = torch.ops.onednn.qconv2d_pointwise.binary
        unary = "relu" if is_rectified else "none"
        result: Tensor = convolve(
            x,
            *step,
            weight,
            others[0],
            others[1],
            onto,
            *others[2:],
            *out_step,
            torch.uint8,
            *onto_step,
            "sum",
            1.0,
            unary,
            [],
            "",
        )
        return result


class _Kernel:
    """Rounded weights of a convolution, packed for a given step of its input."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        weight = convolution.weight.detach()
        self.width = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-8) / 127
        self.weight = (weight / self.width[:, None, None, None]).round().to(torch.int8)
        self.bias = None if convolution.bias is None else convolution.bias.detach()
        self.zero = torch.zeros(len(self.width), dtype=torch.long)
        layout = (convolution.stride, convolution.padding, convolution.dilation)
        self.layout = [list(one) for one in layout]
        self.groups = convolution.groups
        self.packed: Tensor | None = None

    def arguments(self, step: _Step) -> tuple[Any, ...]:
        if self.packed is None:
            self.packed = torch.ops.onednn.qconv_prepack(
                self.weight, self.width, *step, *self.layout, self.groups, None
            )
        return self.packed, self.width, self.zero, self.bias, *self.layout, self.groups


def is_int8_fast() -> bool:
    """True where the CPU multiplies 8-bit integers exactly and fast, and this torch can make it do so."""
    check = getattr(torch.cpu, "_is_vnni_supported", None)
    return check is not None and bool(check()) and hasattr(torch.ops.onednn, "qconv2d_pointwise")


class _Step(NamedTuple):
    """Rounding of an activation: the width of a step, and the integer that stands for 0."""

    width: float
    zero: int


def _step(low: float, high: float) -> _Step:
    low, high = min(low, 0.0), max(high, 0.0)
    width = max((high - low) / STEPS, 1e-8)
    return _Step(width, round(-low / width))
