"""TIFF images in RELION's frame: the file's last row is row 0.

RELION, like IMOD, EMAN2, SerialEM and MotionCor2, turns TIFF files upside down when it reads and writes them, whatever
the orientation tag says (RELION manual, Conventions). Pixel values are kept as stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryopick.errors import CryopickError, FormatError, SettingsError
from cryopick.io.atomic import atomic_path
from cryopick.io.greyscale import to_grey
from cryopick.io.image_info import (
    DecodedImage,
    ImageInfo,
    require_enough_bytes,
    require_plausible_shape,
    require_single_image,
)
from cryopick.io.reading import explain_read_errors, file_size_bytes

TIFF_DTYPES = ("uint8", "int8", "uint16", "int16", "float16", "float32")
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and big TIFF, both byte orders
_EER_COMPRESSIONS = range(65000, 65003)
_MIN_IS_WHITE = 0  # photometric interpretation
_PLANES_APART = 2  # planar configuration
_MOST_PIXELS_PER_BYTE = 1 << 16  # of blank images; Deflate and LZW reach 1 to 2 thousand, Zstandard more


def probe_tiff(path: str | Path) -> ImageInfo:
    """What the tags say, without the pixels.

    Raises
    ------
    InputError
        If the file is missing or may not be read.
    FormatError
        If it is not a TIFF file, or damaged.
    """
    info, _ = _decode(Path(path), with_pixels=False)
    return info


def read_tiff_image(path: str | Path) -> DecodedImage:
    """The pixels of a single-image TIFF, (h, w), row 0 being the file's last row.

    Raises
    ------
    InputError, FormatError
        As `probe_tiff`, and if the file is a movie (several frames, or EER).
    """
    info, stored = _decode(Path(path), with_pixels=True)
    if stored is None or stored.dtype.kind not in "buif":
        raise FormatError(f"{path}: expected pixels of real numbers, this TIFF holds {info.dtype}; convert it")
    grey, warnings = to_grey(stored)
    return DecodedImage(pixels=flip_rows(grey), info=info, warnings=info.warnings + warnings)


def write_tiff(path: str | Path, pixels: ArrayLike) -> None:
    """Write one image (h, w) in its own type, row 0 last in the file, whole or not at all.

    Raises
    ------
    SettingsError
        If the type or the shape cannot be written.
    OutputError
        If the file cannot be written.
    """
    array = np.asarray(pixels)
    if array.ndim != 2 or 0 in array.shape or array.dtype.name not in TIFF_DTYPES:
        raise SettingsError(
            f"{path}: expected a 2-D image of type {', '.join(TIFF_DTYPES)}, got shape {array.shape} of {array.dtype}"
        )
    import tifffile

    with atomic_path(path) as temporary:
        # metadata=None: no ImageJ or shape description, which other programs might believe
        tifffile.imwrite(temporary, np.ascontiguousarray(flip_rows(array)), photometric="minisblack", metadata=None)


def flip_rows(pixels: NDArray[Any]) -> NDArray[Any]:
    """The image upside down: row r becomes row h - 1 - r."""
    return pixels[::-1]


def _decode(path: Path, *, with_pixels: bool) -> tuple[ImageInfo, NDArray[Any] | None]:
    size = file_size_bytes(path)
    with explain_read_errors(path), open(path, "rb") as stream:
        if stream.read(4) not in _MAGIC:
            raise FormatError(f"{path}: expected a TIFF file, its first bytes are of something else; check the name")
    import tifffile

    try:
        with explain_read_errors(path), tifffile.TiffFile(path) as file:
            info = _describe(path, file)
            if not with_pixels:
                return info, None
            require_single_image(info)
            page: Any = file.pages[0]
            # tifffile fills bytes that are not there with zeros
            for offset, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=True):
                if offset + n_bytes > size:
                    raise FormatError(
                        f"{path}: truncated: expected pixels up to byte {offset + n_bytes}, the file holds {size}; "
                        "copy it again"
                    )
            if page.compression == 1 and page.nbytes > sum(page.databytecounts):
                raise FormatError(
                    f"{path}: truncated: expected {page.nbytes} bytes of pixels, the file announces "
                    f"{sum(page.databytecounts)}; copy it again"
                )
            require_enough_bytes(
                path, info.shape_yx, n_bytes=sum(page.databytecounts), most_pixels_per_byte=_MOST_PIXELS_PER_BYTE
            )
            stored = page.asarray()
            if stored.ndim == 3 and page.planarconfig == _PLANES_APART:
                stored = np.moveaxis(stored, 0, -1)  # (h, w, channels)
            if stored.shape[:2] != info.shape_yx or stored.ndim > 3 or (stored.ndim == 3 and stored.shape[2] > 4):
                raise FormatError(f"{path}: expected one image, the TIFF page holds an array of shape {stored.shape}")
            return info, stored
    except CryopickError:
        raise
    except Exception as error:  # a damaged file makes tifffile and its decoders raise nearly any class
        raise FormatError(f"{path}: the TIFF file is damaged or of an unknown kind ({error}); convert it") from error


def _pages(path: Path, file: Any) -> Iterator[Any]:
    """The pages of a file; in a damaged one the last may point back at the first, without end."""
    seen: set[int] = set()
    for page in file.pages:
        if page.offset in seen:
            raise FormatError(
                f"{path}: the TIFF file is damaged: page {len(seen)} points back to an earlier one; copy it again"
            )
        seen.add(page.offset)
        yield page


def _describe(path: Path, file: Any) -> ImageInfo:
    page = file.pages[0]
    shape_yx = (int(page.imagelength), int(page.imagewidth))
    require_plausible_shape(path, shape_yx)
    is_eer = int(page.compression) in _EER_COMPRESSIONS
    if is_eer:
        n_frames = sum(1 for _ in _pages(path, file))
        return ImageInfo(path=path, format="EER", kind="movie", shape_yx=shape_yx, dtype="uint8", n_frames=n_frames)
    # Thumbnails and reduced levels have another size; ImageJ files keep many frames behind one page.
    n_frames = sum(1 for other in _pages(path, file) if (other.imagelength, other.imagewidth) == shape_yx)
    frames_of_series = int(file.series[0].size) // (shape_yx[0] * shape_yx[1] * int(page.samplesperpixel))
    n_frames = max(n_frames, frames_of_series, int(page.imagedepth))
    warnings: tuple[str, ...] = ()
    if int(page.photometric) == _MIN_IS_WHITE:
        warnings += ("the TIFF file says that low values are white; values are kept as stored, as RELION does",)
    if page.dtype is None:
        raise FormatError(f"{path}: its TIFF pixels are of an unknown type; convert the file")
    return ImageInfo(
        path=path,
        format="TIFF",
        kind="stack" if n_frames > 1 else "image",
        shape_yx=shape_yx,
        dtype=np.dtype(page.dtype).name,
        n_frames=n_frames,
        warnings=warnings,
    )
