"""A network of torch that is shown one tile at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.inference.channels_last import channels_last
from cryopick.inference.device import chosen_bfloat16, chosen_device


@dataclass(frozen=True, eq=False)
class TorchNetwork:
    """A network of torch, ready to be run.

    Parameters
    ----------
    module : in evaluation mode, on `device`, channels last; (b, c, h, w) to (b, channels, h / stride, w / stride)
    device : as torch names it
    is_bfloat16 : whether its weights are, so that tiles must be too
    """

    module: Any
    device: str
    is_bfloat16: bool

    @classmethod
    def loaded(cls, module: Any, *, device: str, precision: str) -> Self:
        """The network moved to its device and number format, each of which may be `auto`."""
        import torch

        device = chosen_device(device)
        is_bfloat16 = chosen_bfloat16(device, precision)
        module = module.eval().to(device, dtype=torch.bfloat16 if is_bfloat16 else torch.float32)
        return cls(channels_last(module), device, is_bfloat16)

    def __call__(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """(c, h, w) to (channels, h / stride, w / stride)."""
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(tile))[None]
            given = given.to(self.device, dtype=torch.bfloat16 if self.is_bfloat16 else torch.float32)
            maps: NDArray[np.float32] = (
                self.module(given.contiguous(memory_format=torch.channels_last))[0].float().cpu().numpy()
            )
        return maps
