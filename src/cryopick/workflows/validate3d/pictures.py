"""The pictures of a validation's page: slices and projections of maps, class averages, directions of view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryopick.types import Volume

CELL_PX = 150
GAP_PX = 3
CLASS_PX = 96
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
    colours = cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS)
    colours[values == 0] = 255  # nothing was seen from there
    rows, columns = values.shape
    size = (columns * _DIRECTION_PX, rows * _DIRECTION_PX)
    picture = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)
    sheet = np.full((size[1] + _MARGIN_PX, size[0] + _MARGIN_PX + 12, 3), 255, np.uint8)
    sheet[8 : 8 + size[1], _MARGIN_PX : _MARGIN_PX + size[0]] = picture
    grey = (96, 84, 71)
    cv2.rectangle(sheet, (_MARGIN_PX - 1, 7), (_MARGIN_PX + size[0], 8 + size[1]), grey, 1)

    def write(text: str, x: int, y: int) -> None:
        cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.38, grey, lineType=cv2.LINE_AA)

    for value in (-180, -90, 0, 90, 180):
        x = _MARGIN_PX + round((value + 180) / 360 * size[0])
        write(str(value), x - 12, 22 + size[1])
    for value in (-90, -45, 0, 45, 90):
        y = 8 + round((90 - value) / 180 * size[1])
        write(str(value), 8, min(y + 4, size[1] + 8))
    write("azimuth / deg", _MARGIN_PX + size[0] // 2 - 45, 38 + size[1])
    return encoded(sheet)


def _cell(image: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    return np.pad(_grey(image, low, high, CELL_PX), ((0, GAP_PX), (0, GAP_PX)), constant_values=255)


def _grey(image: NDArray[np.floating], low: float, high: float, side_px: int) -> NDArray[np.uint8]:
    import cv2

    grey = np.clip((image - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(grey, (side_px, side_px), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def encoded(picture: NDArray[np.uint8]) -> bytes:
    """PNG bytes of a grey (h, w) or blue-green-red (h, w, 3) picture."""
    import cv2

    is_encoded, data = cv2.imencode(".png", picture)
    if not is_encoded:
        raise RuntimeError(f"OpenCV could not encode a {picture.shape} picture as PNG")
    return bytes(data)
