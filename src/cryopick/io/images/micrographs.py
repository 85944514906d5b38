"""Micrographs in and out, whatever the image format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.io.images.formats import image_format
from cryopick.io.images.info import ImageInfo
from cryopick.io.images.pixel_size import choose_pixel_size
from cryopick.types import Micrograph


def read_micrograph(
    path: str | Path,
    *,
    pixel_size_angstrom: float | None = None,
    optics_pixel_size_angstrom: float | None = None,
    name: str | None = None,
    max_pixels: int | None = None,
) -> Micrograph:
    """Read one micrograph: MRC (also `.gz`, `.bz2`), TIFF, PNG or JPEG, chosen by the suffix.

    Parameters
    ----------
    pixel_size_angstrom : Å per pixel, trusted above all else
    optics_pixel_size_angstrom : from the optics table of a STAR file, trusted above the header
    name : of the micrograph within its run; default, the file's name
    max_pixels : larger images are refused before memory is taken for them; by default 2**28, 16,384 x 16,384

    Returns
    -------
    micrograph : pixels in RELION's frame (TIFF rows reversed), values as stored. NaN and infinite pixels are kept. Its
        `warnings` name what is doubtful: the pixel size, non-finite pixels, averaged colours, left-over bytes.

    Raises
    ------
    InputError
        If the file is missing, may not be read, or has an unknown suffix.
    FormatError
        If it is empty, truncated, damaged, larger than `max_pixels`, compressed further than an image can be, or holds
        a movie, a stack or a volume.
    SettingsError
        If `pixel_size_angstrom` is not a positive number.
    """
    path = Path(path)
    image = image_format(path).read(path, max_pixels=max_pixels)
    chosen_angstrom, doubts = choose_pixel_size(
        given_angstrom=pixel_size_angstrom,
        optics_angstrom=optics_pixel_size_angstrom,
        header_angstrom=image.info.pixel_size_angstrom,
    )
    pixels = np.ascontiguousarray(image.pixels, dtype=np.float32)
    return Micrograph(
        pixels=pixels,
        name=path.name if name is None else name,
        pixel_size_angstrom=chosen_angstrom,
        path=path,
        warnings=(*image.warnings, *_doubts_about_pixels(pixels), *doubts),
    )


def write_micrograph(
    path: str | Path, micrograph: Micrograph, *, dtype: str | None = None, is_rescaled: bool = False
) -> None:
    """Write a micrograph in the format of the suffix; reading it back gives the same pixels in the same rows.

    Parameters
    ----------
    dtype : type of the stored pixels. MRC: float32 (default), float16, int8, int16, uint16; TIFF: these and uint8;
        PNG: uint8 (default), uint16; JPEG: uint8, with loss. Integers are rounded.
    is_rescaled : stretch the finite values to the whole range of an integer type first

    Raises
    ------
    SettingsError
        If the format does not hold the type, or the type does not hold the values.
    InputError
        If the suffix is unknown.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    row = image_format(path)
    if row.write is None:
        raise SettingsError(f"{path}: {row.name} files are not written; use .mrc, .tif, .png or .jpg")
    pixels = _as_stored(path, micrograph.pixels, dtype or row.default_dtype, is_rescaled, row.dtypes)
    row.write(path, pixels, micrograph.pixel_size_angstrom)


def probe_image(path: str | Path) -> ImageInfo:
    """Shape, type, number of frames and header pixel size of an image file, without its pixels.

    Movies, stacks and volumes are described, not refused. Errors otherwise as in `read_micrograph`.
    """
    return image_format(path).probe(Path(path))


def _doubts_about_pixels(pixels: NDArray[np.float32]) -> tuple[str, ...]:
    with np.errstate(invalid="ignore", over="ignore"):
        # A sum is finite only if all pixels are, and is several times faster than a mask
        if math.isfinite(float(pixels.sum())):
            return ()
    n_bad = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
    if n_bad == 0:
        return ()
    return (f"{n_bad} of {pixels.size} pixels are NaN or infinite",)


def _as_stored(
    path: Path, pixels: NDArray[np.float32], dtype_name: str, is_rescaled: bool, known: tuple[str, ...]
) -> NDArray[Any]:
    """The pixels in the type to store, refusing what that type cannot hold."""
    if dtype_name not in known:
        raise SettingsError(f"{path}: pixels of type {dtype_name!r} cannot be stored; known here: {', '.join(known)}")
    dtype = np.dtype(dtype_name)
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        if dtype == np.float16 and np.any(np.abs(pixels[np.isfinite(pixels)]) > largest):
            raise SettingsError(f"{path}: values beyond {largest:g} do not fit float16; use float32")
        return pixels.astype(dtype, copy=False)
    if not np.isfinite(pixels).all():
        raise SettingsError(f"{path}: NaN and infinite pixels do not fit {dtype_name}; replace them, or use float32")
    limits = np.iinfo(dtype)
    low, high = float(pixels.min()), float(pixels.max())
    if is_rescaled:
        scale = (limits.max - limits.min) / (high - low) if high > low else 0.0
        return np.rint((pixels.astype(np.float64) - low) * scale + limits.min).astype(dtype)
    rounded = np.rint(pixels)
    if rounded.min() < limits.min or rounded.max() > limits.max:
        raise SettingsError(
            f"{path}: values from {low:g} to {high:g} do not fit {dtype_name} ({limits.min} to {limits.max}); "
            "rescale them, or use a larger type"
        )
    return rounded.astype(dtype)
