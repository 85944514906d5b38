"""What a reader says about an image file, before and after its pixels are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cryopick.errors import FormatError

MAX_PIXELS = 2**30
"""Largest image accepted, about ten times the largest detector frame (8k x 11.5k); a damaged header exceeds it."""

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
