"""Running a fully convolutional network over a whole image, in tiles that leave no seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.inference.device import chosen_bfloat16, chosen_device

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class DenseNetwork:
    """A fully convolutional network, ready to map images of any size.

    Parameters
    ----------
    network : in evaluation mode, on `device`, channels last; (b, c, h, w) to (b, channels, h / stride, w / stride)
    device : as torch names it
    is_bfloat16 : whether its weights are, so that tiles must be too
    channels : planes that it returns
    stride_px : image pixels per pixel of its output
    multiple_px : tiles start at multiples of it, so that its grids agree; the image is continued to one by its
        mirror image, because networks take a border without noise for something that is there
    tile_px : largest side of a tile; an axis is cut into equal parts, because what is read around them is lost time
    halo_px : read around a tile; at least half the receptive field, so that tiles equal the whole
    """

    network: Any
    device: str
    is_bfloat16: bool
    channels: int
    stride_px: int
    multiple_px: int
    tile_px: int = 1024
    halo_px: int = 192

    def __post_init__(self) -> None:
        for name in ("tile_px", "halo_px"):
            if getattr(self, name) % self.multiple_px:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a multiple of {self.multiple_px}")

    @classmethod
    def loaded(cls, network: Any, *, device: str = "auto", precision: str = "auto", **layout: int) -> Self:
        """The network moved to its device and number format; `layout` are the remaining fields."""
        import torch

        device = chosen_device(device)
        is_bfloat16 = chosen_bfloat16(device, precision)
        network = network.eval().to(device, dtype=torch.bfloat16 if is_bfloat16 else torch.float32)
        network = network.to(memory_format=torch.channels_last)
        return cls(network, device=device, is_bfloat16=is_bfloat16, **layout)

    def __call__(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(c, h, w) planes to (channels, ceil(h / stride), ceil(w / stride)) maps, as the network gives them."""
        import torch

        height, width = planes.shape[1:]
        pad_y, pad_x = -height % self.multiple_px, -width % self.multiple_px
        padded = torch.from_numpy(np.pad(planes, ((0, 0), (0, pad_y), (0, pad_x)), mode="symmetric"))
        out: NDArray[np.float32] = np.empty(
            (self.channels, (height + pad_y) // self.stride_px, (width + pad_x) // self.stride_px), np.float32
        )
        tile_yx = self._tile_side(padded.shape[1]), self._tile_side(padded.shape[2])
        with torch.inference_mode():
            for top in range(0, padded.shape[1], tile_yx[0]):
                for left in range(0, padded.shape[2], tile_yx[1]):
                    self._fill_tile(padded, out, top=top, left=left, tile_yx=tile_yx)
        return out[:, : -(-height // self.stride_px), : -(-width // self.stride_px)]

    def _tile_side(self, size: int) -> int:
        count = -(-size // self.tile_px)
        return -(-size // (count * self.multiple_px)) * self.multiple_px

    def _fill_tile(
        self, padded: Tensor, out: NDArray[np.float32], *, top: int, left: int, tile_yx: tuple[int, int]
    ) -> None:
        import torch

        stride = self.stride_px
        bottom, right = min(top + tile_yx[0], padded.shape[1]), min(left + tile_yx[1], padded.shape[2])
        read_top, read_left = max(top - self.halo_px, 0), max(left - self.halo_px, 0)
        tile = padded[:, read_top : bottom + self.halo_px, read_left : right + self.halo_px][None]
        tile = tile.to(self.device, dtype=torch.bfloat16 if self.is_bfloat16 else torch.float32)
        maps = self.network(tile.contiguous(memory_format=torch.channels_last))[0].float().cpu().numpy()
        rows = slice((top - read_top) // stride, (bottom - read_top) // stride)
        columns = slice((left - read_left) // stride, (right - read_left) // stride)
        out[:, top // stride : bottom // stride, left // stride : right // stride] = maps[:, rows, columns]


def sigmoid(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function, element by element, without overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30))), np.float32)
