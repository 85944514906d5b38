"""Running a fully convolutional network over a whole image, in tiles that leave no seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray


class TileNetwork(Protocol):
    """A network on its device, in its number format and with its library: one tile at a time."""

    def __call__(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """(c, h, w) to (channels, h / stride, w / stride), which the caller may change."""
        ...


@dataclass(frozen=True, eq=False)
class DenseNetwork:
    """A fully convolutional network, ready to map images of any size.

    Parameters
    ----------
    network : sees a tile at a time
    device : as torch names it
    channels : planes that it returns
    stride_px : image pixels per pixel of its output
    multiple_px : tiles start at multiples of it, so that its grids agree; the image is continued to one by its
        mirror image, because networks take a border without noise for something that is there
    tile_px : largest side of a tile; an axis is cut into equal parts, because what is read around them is lost time
    halo_px : read around a tile; at least half the receptive field, so that tiles equal the whole
    """

    network: TileNetwork
    device: str
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
        """A network of torch, moved to its device and number format; `layout` are the remaining fields."""
        from cryopick.inference.torch_network import TorchNetwork

        moved = TorchNetwork.loaded(network, device=device, precision=precision)
        return cls(moved, device=moved.device, **layout)

    def __call__(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(c, h, w) planes to (channels, ceil(h / stride), ceil(w / stride)) maps, as the network gives them."""
        height, width = planes.shape[1:]
        pad_y, pad_x = -height % self.multiple_px, -width % self.multiple_px
        padded = np.pad(planes, ((0, 0), (0, pad_y), (0, pad_x)), mode="symmetric")
        out: NDArray[np.float32] = np.empty(
            (self.channels, (height + pad_y) // self.stride_px, (width + pad_x) // self.stride_px), np.float32
        )
        tile_yx = self._tile_side(padded.shape[1]), self._tile_side(padded.shape[2])
        for top in range(0, padded.shape[1], tile_yx[0]):
            for left in range(0, padded.shape[2], tile_yx[1]):
                self._fill_tile(padded, out, top=top, left=left, tile_yx=tile_yx)
        return out[:, : -(-height // self.stride_px), : -(-width // self.stride_px)]

    def _tile_side(self, size: int) -> int:
        count = -(-size // self.tile_px)
        return -(-size // (count * self.multiple_px)) * self.multiple_px

    def _fill_tile(
        self,
        padded: NDArray[np.float32],
        out: NDArray[np.float32],
        *,
        top: int,
        left: int,
        tile_yx: tuple[int, int],
    ) -> None:
        stride = self.stride_px
        bottom, right = min(top + tile_yx[0], padded.shape[1]), min(left + tile_yx[1], padded.shape[2])
        read_top, read_left = max(top - self.halo_px, 0), max(left - self.halo_px, 0)
        maps = self.network(padded[:, read_top : bottom + self.halo_px, read_left : right + self.halo_px])
        rows = slice((top - read_top) // stride, (bottom - read_top) // stride)
        columns = slice((left - read_left) // stride, (right - read_left) // stride)
        out[:, top // stride : bottom // stride, left // stride : right // stride] = maps[:, rows, columns]


def sigmoid(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function, element by element, without overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30))), np.float32)
