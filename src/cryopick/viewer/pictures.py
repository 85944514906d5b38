"""Pictures of micrographs for the page: a base of at most 2048 px, tiles of the finer levels, layers, and a cache.

Level L is the mean over 2^L x 2^L pixels of the micrograph, continued by its edge to whole blocks, so that every level
is smaller by exactly 2^L and tiles meet exactly. A picture of level L spans -0.5 to its width times 2^L minus 0.5.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.processing.denoise.corrected import denoise_corrected
from cryopick.processing.scale import fill_non_finite, gaussian_blur
from cryopick.viewer.sources import Source

BASE_PX, TILE_PX, THUMB_PX = 2048, 512, 96
JPEG_QUALITY, THUMB_QUALITY = 85, 80
CONTRAST = (0.5, 99.5)
"""Percentiles of every fourth pixel that become black and white."""
HALF_AMPLITUDE = sqrt(2 * log(2)) / (2 * pi)
"""Sigma, as a share of a wavelength, of the Gaussian that lets half of that wave through."""
LAYERS = ("raw", "band", "denoised")
MEGABYTE = 1 << 20


def default_cache_bytes() -> int:
    """An eighth of the memory, from 256 MB to 2 GB."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        memory = 8 * 1024 * MEGABYTE
    return int(min(max(memory // 8, 256 * MEGABYTE), 2048 * MEGABYTE))


class Cache:
    """What was made, by key, up to a number of bytes; the least recently used goes first.

    Each key has a lock of its own: whoever wants what another is making waits for that alone. A lock of all would hang,
    since making a picture asks for the pixels, and one slow file would stop every tile.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()
        self._making: dict[Any, tuple[threading.Lock, int]] = {}

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """The value of a key, made by the first who asks; where that raises, the next who waits tries again."""
        with self._guard:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
            lock, waiting = self._making.get(key, (threading.Lock(), 0))
            self._making[key] = (lock, waiting + 1)
        try:
            with lock:
                with self._guard:
                    if key in self._held:
                        return self._held[key][0]
                value = make()
                size = value.nbytes if isinstance(value, np.ndarray) else len(value)
                with self._guard:
                    self._held[key] = (value, size)
                    self._bytes += size
                    while self._bytes > self._most and len(self._held) > 1:
                        _, (_, gone) = self._held.popitem(last=False)
                        self._bytes -= gone
                return value
        finally:
            with self._guard:
                lock, waiting = self._making[key]
                if waiting > 1:
                    self._making[key] = (lock, waiting - 1)
                else:
                    del self._making[key]


@dataclass(frozen=True)
class Band:
    """A band of wavelengths, in Å, or in px where the pixel size is unknown."""

    low: float
    high: float


def base_level(shape_yx: tuple[int, int]) -> int:
    """The finest level that is at most 2048 px wide and high."""
    level = 0
    while max(-(-side >> level) for side in shape_yx) > BASE_PX:
        level += 1
    return level


def area_mean(pixels: NDArray[np.float32], level: int) -> NDArray[np.float32]:
    """(ceil(h / 2^level), ceil(w / 2^level)) means over blocks of an image that its edge continues to whole blocks."""
    if not level:
        return pixels
    import cv2

    block = 1 << level
    height, width = pixels.shape
    rows, columns = -(-height // block), -(-width // block)
    missing = rows * block - height, columns * block - width
    if any(missing):
        pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1])), mode="edge")
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), np.float32).reshape(
        rows, columns
    )


def to_grey(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8 bit, between the percentiles of every fourth pixel; mid-grey where all is alike."""
    sample = plane[::2, ::2]
    low, high = (float(value) for value in np.percentile(sample, CONTRAST))
    if not high > low:
        low, high = float(plane.min()), float(plane.max())
    if not high > low:
        return np.full(plane.shape, 128, np.uint8)
    scaled = np.subtract(plane, np.float32(low))
    scaled *= np.float32(255 / (high - low))
    np.clip(scaled, 0, 255, out=scaled)
    return scaled.astype(np.uint8)


def jpeg(grey: NDArray[np.uint8], *, quality: int = JPEG_QUALITY) -> bytes:
    import cv2

    return bytes(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


class Pictures:
    """Pictures of the micrographs of several sources, each made once while the cache holds it."""

    def __init__(self, sources: list[Source], *, most_bytes: int | None = None) -> None:
        self._sources = sources
        self.cache = Cache(default_cache_bytes() if most_bytes is None else most_bytes)

    def _key(self, run: int, number: int) -> tuple[Any, ...]:
        """Of a micrograph in its present state: another file at its place is another key."""
        source = self._sources[run].rows[number].source
        try:
            status = source.stat()
            return (str(source), status.st_mtime_ns, status.st_size)
        except OSError:
            return (str(source), 0, 0)

    def _pixels(self, run: int, number: int) -> NDArray[np.float32]:
        key = (*self._key(run, number), "pixels")
        source = self._sources[run]
        pixels: NDArray[np.float32] = self.cache.get(key, lambda: fill_non_finite(source.micrograph(number).pixels))
        return pixels

    def _grey(self, run: int, number: int, level: int) -> NDArray[np.uint8]:
        key = (*self._key(run, number), "grey", level)
        grey: NDArray[np.uint8] = self.cache.get(key, lambda: to_grey(area_mean(self._pixels(run, number), level)))
        return grey

    def base(self, run: int, number: int, layer: str, band: Band | None = None) -> bytes:
        """JPEG of a whole micrograph, at most 2048 px wide and high.

        Raises
        ------
        CryopickError, OSError
            If the micrograph cannot be read.
        """
        key = (*self._key(run, number), "base", layer, band if layer == "band" else None)
        data: bytes = self.cache.get(key, lambda: jpeg(self._plane(run, number, layer, band)))
        return data

    def _plane(self, run: int, number: int, layer: str, band: Band | None) -> NDArray[np.uint8]:
        pixels = self._pixels(run, number)
        level = base_level(_shape(pixels))
        if layer == "raw":
            return self._grey(run, number, level)
        source = self._sources[run]
        diameter = source.diameter_px(number)
        if layer == "denoised":
            import cv2

            denoised, _ = denoise_corrected(pixels, diameter_px=diameter)
            grey = to_grey(denoised)
            rows, columns = (max(1, -(-side >> level)) for side in pixels.shape)
            if grey.shape[0] > rows:
                return np.asarray(cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
            return grey
        size = source.rows[number].pixel_size_angstrom or 1.0
        chosen = band or Band(*default_band(source, number))
        low_px, high_px = chosen.low / size, chosen.high / size
        while (2 << level) <= low_px / 3 and min(pixels.shape) >> (level + 1) >= 16:
            level += 1  # finer pixels hold nothing more
        plane = area_mean(pixels, level)
        scale = 1 / (1 << level)
        smooth = gaussian_blur(plane, sigma_px=low_px * HALF_AMPLITUDE * scale)
        return to_grey(smooth - gaussian_blur(smooth, sigma_px=high_px * HALF_AMPLITUDE * scale))

    def tile(self, run: int, number: int, level: int, column: int, row: int) -> bytes | None:
        """JPEG of a square of 512 px of one of the levels finer than the base; None outside the picture.

        Raises
        ------
        CryopickError, OSError
            If the micrograph cannot be read.
        """
        shape = self._sources[run].rows[number].shape_yx or _shape(self._pixels(run, number))
        if not 0 <= level < base_level(shape):
            return None
        grey = self._grey(run, number, level)
        top, left = row * TILE_PX, column * TILE_PX
        if not (0 <= top < grey.shape[0] and 0 <= left < grey.shape[1]):
            return None
        return jpeg(np.ascontiguousarray(grey[top : top + TILE_PX, left : left + TILE_PX]))

    def overview(self, run: int, number: int) -> bytes:
        """The run's own picture, else one made from the micrograph; errors as in `base`."""
        from cryopick.runs.report.pictures import overview_jpeg

        own = self._sources[run].overview(number)
        if own is not None:
            return own
        key = (*self._key(run, number), "overview")
        data: bytes = self.cache.get(key, lambda: overview_jpeg(self._pixels(run, number)))
        return data

    def thumb(self, run: int, number: int) -> bytes:
        """JPEG of 96 px; errors as in `base`."""
        import cv2

        data = np.frombuffer(self.overview(run, number), np.uint8)
        small: Any = cv2.imdecode(data, cv2.IMREAD_REDUCED_GRAYSCALE_8)
        if small is None or max(small.shape) < THUMB_PX:
            small = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if small is None:
            raise InputError(f"{self._sources[run].rows[number].name}: its overview in the run folder is damaged")
        scale = THUMB_PX / max(small.shape)
        size = max(1, round(small.shape[1] * scale)), max(1, round(small.shape[0] * scale))
        shrunk = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_AREA), np.uint8)
        return jpeg(shrunk, quality=THUMB_QUALITY)


def default_band(source: Source, number: int) -> tuple[float, float]:
    """20 Å to two and a half diameters; where no pixel size is known both are in px, from a twelfth of a diameter."""
    size = source.rows[number].pixel_size_angstrom
    diameter = source.diameter_px(number) * (size or 1.0)
    low = 20.0 if size else max(2.0, diameter / 12)
    return low, max(2.5 * diameter, 2 * low)


def _shape(pixels: NDArray[np.float32]) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]
