"""What a reader says about an image file, before and after its pixels are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cryopick.errors import FormatError

MAX_PIXELS = 2**30
"""Largest image accepted, about ten times the largest detector frame (8k x 11.5k); a damaged header exceeds it."""

DEFAULT_MAX_PIXELS = 2**28
"""Largest image whose pixels are read unless the user allows more: 16,384 x 16,384, three times a super-resolution
frame of the largest detectors. It takes 1 GB as float32."""
LARGEST_BLANK_PIXELS = 2**26
"""Images up to 8192 x 8192 may be compressed to nearly nothing, as constant masks are."""
LEAST_COMPRESSED_SHARE = 0.01
"""Of the bytes of a larger image that are left when it is compressed: noise does not shrink so far."""

_MOTION_CORRECT = (
    "cryopick reads motion-corrected, summed micrographs; align and sum the frames first "
    "(RELION MotionCorr, MotionCor, Warp or cryoSPARC Patch Motion) and give it the result"
)


@dataclass(frozen=True)
class ImageInfo:
    """The facts of an image file that cost only its header.

    Parameters
    ----------
    format : "MRC", "TIFF", "PNG", "JPEG" or "EER"
    kind : "image" (one 2-D image), "stack" (several: a movie or cut-out particles), "volume" (a 3-D map) or "movie"
    shape_yx : rows, columns of one frame
    dtype : type of a stored pixel, as numpy names it; "uint4" for packed 4-bit
    n_frames : number of images, or of sections of a volume
    pixel_size_angstrom : what the header says in Å, not judged (may be 0 or wrong); None where a format has no such
        field that microscopy programs fill
    mrc_mode : MODE of an MRC file, else None
    warnings : oddities that do not stop the file from being read
    """

    path: Path
    format: str
    kind: str
    shape_yx: tuple[int, int]
    dtype: str
    n_frames: int = 1
    pixel_size_angstrom: float | None = None
    mrc_mode: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """Pixels in the RELION frame and in the stored type, (h, w), with what was noticed while decoding."""

    pixels: NDArray[Any]
    info: ImageInfo
    warnings: tuple[str, ...] = ()


def require_single_image(info: ImageInfo) -> None:
    """Refuse movies, stacks and volumes with a sentence that says what to do (`FormatError`)."""
    rows, columns = info.shape_yx
    what = f"{info.n_frames} frames of {columns} x {rows} pixels"
    if info.kind == "volume":
        raise FormatError(
            f"{info.path}: expected a micrograph, this is a 3-D map of {columns} x {rows} x {info.n_frames} voxels; "
            "give 2-D micrographs"
        )
    if info.kind == "movie":
        raise FormatError(f"{info.path}: expected a micrograph, this is an {info.format} movie; {_MOTION_CORRECT}")
    if info.kind == "stack" or info.n_frames != 1:
        raise FormatError(
            f"{info.path}: expected one image, this {info.format} file holds {what}: a movie or a stack. "
            f"{_MOTION_CORRECT}"
        )


def require_plausible_shape(path: Path, shape_yx: tuple[int, int]) -> None:
    """Refuse empty images and images larger than any detector before memory is asked for (`FormatError`)."""
    rows, columns = shape_yx
    if rows <= 0 or columns <= 0:
        raise FormatError(f"{path}: the header says {columns} x {rows} pixels; the file is damaged")
    if rows * columns > MAX_PIXELS:
        raise FormatError(
            f"{path}: the header says {columns} x {rows} pixels, more than any micrograph has; the file is damaged"
        )


def require_allowed_pixels(path: Path, shape_yx: tuple[int, int], *, max_pixels: int | None) -> None:
    """Refuse images of more pixels than the user allows, before memory is asked for (`FormatError`).

    Parameters
    ----------
    max_pixels : None for `DEFAULT_MAX_PIXELS`
    """
    rows, columns = shape_yx
    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    if rows * columns > limit:
        raise FormatError(
            f"{path}: the header says {columns} x {rows} = {rows * columns:,} pixels, more than the {limit:,} that are "
            "read; if the file is what it should be, allow more with --max-pixels (in Python max_pixels)"
        )


def require_believable_compression(path: Path, n_bytes: int, *, n_pixels: int, unpacked_bytes: int) -> None:
    """Refuse large images that were compressed further than any image of a microscope can be (`FormatError`).

    Parameters
    ----------
    n_bytes : of the file, or of what in it holds the pixels
    unpacked_bytes : of the pixels
    """
    if n_pixels > LARGEST_BLANK_PIXELS and n_bytes < LEAST_COMPRESSED_SHARE * unpacked_bytes:
        raise FormatError(
            f"{path}: {n_bytes:,} bytes cannot hold the {n_pixels:,} pixels that the header announces, unless they are "
            f"blank: the file is truncated, or made to fill the memory. Blank images, such as masks, are read up to "
            f"{LARGEST_BLANK_PIXELS:,} pixels; make it smaller, or write it without compression"
        )


def require_enough_bytes(path: Path, shape_yx: tuple[int, int], *, n_bytes: int, most_pixels_per_byte: int) -> None:
    """Refuse compressed images that announce more pixels than their bytes can hold (`FormatError`).

    A damaged size in the header would otherwise cost gigabytes before decoding fails.
    """
    rows, columns = shape_yx
    if rows * columns > n_bytes * most_pixels_per_byte:
        raise FormatError(
            f"{path}: the header says {columns} x {rows} pixels, which {n_bytes} bytes cannot hold; "
            "the file is damaged or truncated, copy it again"
        )
