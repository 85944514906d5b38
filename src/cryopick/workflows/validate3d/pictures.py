"""The pictures of a validation's page: slices and projections of maps, class averages, directions of view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryopick.types import Volume

CELL_PX = 150
GAP_PX = 3
CLASS_PX = 96
_TEXT_BGR = (148, 136, 125)
"""Read on a white page and on a dark one; pictures with words have no background."""
_NO_INK, _INK = (*_TEXT_BGR, 0), (*_TEXT_BGR, 255)
_MARGIN_PX = 46
_DIRECTION_PX = 10
"""Side of a bin of directions in the picture."""


def slices_and_projections(volumes: Sequence[Volume]) -> bytes:
    """One row a map: its central slices along z, y and x, then its projections along the same, as a grey PNG.

    All maps of the picture are scaled to one mean and spread first and share their greys, so that rows compare.
    """
    rows = []
    for volume in volumes:
        density = (volume.density - volume.density.mean()) / max(float(volume.density.std()), 1e-12)
        middle = len(density) // 2
        slices = [density[middle], density[:, middle], density[:, :, middle]]
        projections = [density.sum(axis=axis) for axis in range(3)]
        rows.append((slices, projections))
    sheet = []
    limits = [np.percentile(np.stack([one for row in rows for one in row[kind]]), (0.5, 99.8)) for kind in (0, 1)]
    for row in rows:
        cells = [_cell(one, *limits[kind]) for kind in (0, 1) for one in row[kind]]
        sheet.append(np.concatenate(cells, axis=1))
    return encoded(np.concatenate(sheet))


def image_png(image: NDArray[np.floating], *, side_px: int = CLASS_PX) -> bytes:
    """One square image as a grey PNG, stretched by itself."""
    low, high = np.percentile(image, (0.5, 99.8))
    return encoded(_grey(image, low, high, side_px))


def directions_png(histogram: NDArray[np.floating]) -> bytes:
    """Directions of view as a picture: azimuth to the right, elevation upwards, colour by the logarithm.

    Parameters
    ----------
    histogram : (elevations, azimuths), views per solid angle, elevation growing with the row
    """
    import cv2

    values = np.log1p(np.maximum(histogram, 0))[::-1]
    scaled = (values / max(float(values.max()), 1e-12) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2BGRA)
    colours[values == 0] = _NO_INK  # nothing was seen from there
    rows, columns = values.shape
    size = (columns * _DIRECTION_PX, rows * _DIRECTION_PX)
    picture = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)
    sheet = _blank(size[1] + _MARGIN_PX, size[0] + _MARGIN_PX + 12)
    sheet[8 : 8 + size[1], _MARGIN_PX : _MARGIN_PX + size[0]] = picture
    cv2.rectangle(sheet, (_MARGIN_PX - 1, 7), (_MARGIN_PX + size[0], 8 + size[1]), _INK, 1)
    for value in (-180, -90, 0, 90, 180):
        x = _MARGIN_PX + round((value + 180) / 360 * size[0])
        _write(sheet, str(value), x - 12, 22 + size[1])
    for value in (-90, -45, 0, 45, 90):
        y = 8 + round((90 - value) / 180 * size[1])
        _write(sheet, str(value), 18, min(y + 4, size[1] + 8))
    _write(sheet, "azimuth / deg", _MARGIN_PX + size[0] // 2 - 45, 38 + size[1])
    upright = _blank(16, size[1])
    _write(upright, "elevation / deg", size[1] // 2 - 48, 12)
    sheet[8 : 8 + size[1], :16] = np.rot90(upright)
    return encoded(sheet)


def _blank(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 4), _NO_INK, np.uint8)


def _write(sheet: NDArray[np.uint8], text: str, x: int, y: int) -> None:
    import cv2

    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _INK, lineType=cv2.LINE_AA)


def local_resolution_png(
    resolution: NDArray[np.floating], mask: NDArray[np.bool_], density: NDArray[np.floating]
) -> bytes:
    """Central slices along z, y and x: the map in grey, inside the mask the local resolution in colour, and a scale.

    Parameters
    ----------
    resolution : (n, n, n) in Å
    mask : (n, n, n) inside which it is known
    density : (n, n, n) of the map
    """
    import cv2

    inside = resolution[mask] if mask.any() else resolution.ravel()
    fine, coarse = (float(one) for one in np.percentile(inside, (2, 98)))
    low, high = np.percentile(density, (0.5, 99.8))
    middle = len(density) // 2
    reach = coarse - fine
    is_even = reach < 0.1  # Å: all of it ends at Nyquist, say
    cells = []
    for axis in range(3):
        values, known, grey = (np.take(one, middle, axis=axis) for one in (resolution, mask, density))
        cell = cv2.cvtColor(_grey(grey, low, high, CELL_PX), cv2.COLOR_GRAY2BGRA)
        fineness = np.ones_like(values) if is_even else (coarse - values) / reach
        colours = cv2.applyColorMap(_grey(fineness, 0, 1, CELL_PX), cv2.COLORMAP_VIRIDIS)
        shown = cv2.resize(known.astype(np.uint8), (CELL_PX, CELL_PX), interpolation=cv2.INTER_NEAREST) > 0
        cell[shown, :3] = colours[shown]
        cells += [cell, _blank(CELL_PX, GAP_PX)]
    scale = _blank(CELL_PX, 74)
    steps = np.linspace(255, 255 if is_even else 0, CELL_PX - 16).astype(np.uint8)  # the finest on top, bright
    bar = cv2.applyColorMap(np.repeat(steps[:, None], 14, axis=1), cv2.COLORMAP_VIRIDIS)
    scale[8:-8, 6:20] = cv2.cvtColor(bar, cv2.COLOR_BGR2BGRA)
    for value, y in ((fine, 14), (coarse, CELL_PX - 6))[: 1 if is_even else 2]:
        _write(scale, f"{value:.1f}", 25, y)
    return encoded(np.concatenate([*cells, scale], axis=1))


def _cell(image: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    return np.pad(_grey(image, low, high, CELL_PX), ((0, GAP_PX), (0, GAP_PX)), constant_values=255)


def _grey(image: NDArray[np.floating], low: float, high: float, side_px: int) -> NDArray[np.uint8]:
    import cv2

    grey = np.clip((image - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(grey, (side_px, side_px), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def encoded(picture: NDArray[np.uint8]) -> bytes:
    """PNG bytes of a grey (h, w) or blue-green-red-opaqueness (h, w, 4) picture."""
    import cv2

    is_encoded, data = cv2.imencode(".png", picture)
    if not is_encoded:
        raise RuntimeError(f"OpenCV could not encode a {picture.shape} picture as PNG")
    return bytes(data)
