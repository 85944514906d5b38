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
from cryopick.extras import require_extra
from cryopick.io.files.atomic import atomic_path
from cryopick.io.files.reading import explain_read_errors, file_size_bytes
from cryopick.io.images.greyscale import to_grey
from cryopick.io.images.info import (
    DecodedImage,
    ImageInfo,
    require_allowed_pixels,
    require_believable_compression,
    require_enough_bytes,
    require_plausible_shape,
    require_single_image,
)
from cryopick.io.images.raster import doubts_about_jpeg

TIFF_DTYPES = ("uint8", "int8", "uint16", "int16", "float16", "float32")
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and big TIFF, both byte orders
_EER_COMPRESSIONS = range(65000, 65003)
_UNCOMPRESSED, _LZW, _JPEG = 1, 5, 7
_DEFLATE = (8, 32946)  # read by Python itself
_MIN_IS_WHITE, _PALETTE = 0, 3  # photometric interpretation
_PLANES_APART = 2  # planar configuration
_LOWEST_BIT_FIRST = 2  # fill order
_MOST_SAMPLES_PER_PIXEL = 4
_LARGEST_TILE_PIXELS = 1 << 24
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
    info, _, _ = _decode(Path(path), with_pixels=False)
    return info


def read_tiff_image(path: str | Path, *, max_pixels: int | None = None) -> DecodedImage:
    """The pixels of a single-image TIFF, (h, w), row 0 being the file's last row.

    Raises
    ------
    InputError, FormatError
        As `probe_tiff`, and if the file is a movie (several frames, or EER) or has more pixels than are allowed.
    """
    info, stored, doubts = _decode(Path(path), with_pixels=True, max_pixels=max_pixels)
    if stored is None or stored.dtype.kind not in "buif":
        raise FormatError(f"{path}: expected pixels of real numbers, this TIFF holds {info.dtype}; convert it")
    grey, warnings = to_grey(stored)
    return DecodedImage(pixels=flip_rows(grey), info=info, warnings=info.warnings + doubts + warnings)


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


def _decode(
    path: Path, *, with_pixels: bool, max_pixels: int | None = None
) -> tuple[ImageInfo, NDArray[Any] | None, tuple[str, ...]]:
    size = file_size_bytes(path)
    with explain_read_errors(path), open(path, "rb") as stream:
        if stream.read(4) not in _MAGIC:
            raise FormatError(f"{path}: expected a TIFF file, its first bytes are of something else; check the name")
    import tifffile

    try:
        with explain_read_errors(path), tifffile.TiffFile(path) as file:
            info = _describe(path, file)
            if not with_pixels:
                return info, None, ()
            require_single_image(info)
            page: Any = file.pages[0]
            # tifffile fills bytes that are not there with zeros
            for offset, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=True):
                if offset + n_bytes > size:
                    raise FormatError(
                        f"{path}: truncated: expected pixels up to byte {offset + n_bytes}, the file holds {size}; "
                        "copy it again"
                    )
            _require_ordinary_page(path, page)
            held_bytes = min(size, sum(page.databytecounts))
            unpacked_bytes = _unpacked_bytes(page)
            if page.compression == _UNCOMPRESSED and unpacked_bytes > sum(page.databytecounts):
                raise FormatError(
                    f"{path}: truncated: expected {unpacked_bytes} bytes of pixels, the file announces "
                    f"{sum(page.databytecounts)}; copy it again"
                )
            require_enough_bytes(path, info.shape_yx, n_bytes=held_bytes, most_pixels_per_byte=_MOST_PIXELS_PER_BYTE)
            require_believable_compression(
                path, held_bytes, n_pixels=info.shape_yx[0] * info.shape_yx[1], unpacked_bytes=unpacked_bytes
            )
            require_allowed_pixels(path, info.shape_yx, max_pixels=max_pixels)
            if int(page.compression) not in (_UNCOMPRESSED, *_DEFLATE):
                require_extra("tiff", ("imagecodecs",), f"{path}: its TIFF compression {page.compression.name}")
            doubts = _doubts_about_segments(path, file, page)
            stored = page.asarray()
            if stored.ndim == 3 and page.planarconfig == _PLANES_APART:
                stored = np.moveaxis(stored, 0, -1)  # (h, w, channels)
            if stored.shape[:2] != info.shape_yx or stored.ndim > 3 or (stored.ndim == 3 and stored.shape[2] > 4):
                raise FormatError(f"{path}: expected one image, the TIFF page holds an array of shape {stored.shape}")
            return info, stored, doubts
    except CryopickError:
        raise
    except Exception as error:  # a damaged file makes tifffile and its decoders raise nearly any class
        raise FormatError(f"{path}: the TIFF file is damaged or of an unknown kind ({error}); convert it") from error


def _require_ordinary_page(path: Path, page: Any) -> None:
    """Refuse pages whose channels or tiles would take far more memory than their pixels (`FormatError`)."""
    if int(page.samplesperpixel) > _MOST_SAMPLES_PER_PIXEL:
        raise FormatError(
            f"{path}: expected one grey value or colour per pixel, the TIFF page holds {page.samplesperpixel}; "
            "convert it"
        )
    if page.is_tiled:
        tile_pixels = int(page.tilewidth) * int(page.tilelength)
        if tile_pixels > max(_LARGEST_TILE_PIXELS, 4 * int(page.imagewidth) * int(page.imagelength)):
            raise FormatError(
                f"{path}: its tiles of {page.tilewidth} x {page.tilelength} pixels are far larger than the image; the "
                "file is damaged, copy it again"
            )


def _unpacked_bytes(page: Any) -> int:
    """Bytes of the pixels without compression, where every row of every strip begins on a whole byte."""
    samples, planes = int(page.samplesperpixel), 1
    if page.planarconfig == _PLANES_APART:
        samples, planes = 1, samples
    row_bits = int(page.imagewidth) * samples * int(page.bitspersample)
    return planes * int(page.imagelength) * ((row_bits + 7) // 8)


def _doubts_about_segments(path: Path, file: Any, page: Any) -> tuple[str, ...]:
    """Decode strips and tiles as tifffile does not: refusing what it fills in silence (`FormatError`).

    Only of kinds whose decoders pass over damage; the others raise by themselves, or cannot know.
    """
    compression = int(page.compression)
    doubts: tuple[str, ...] = ()
    if compression not in (_LZW, _JPEG):
        return doubts
    import imagecodecs

    tables = page.jpegtables
    for number, (offset, n_bytes) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        if n_bytes == 0:
            continue
        file.filehandle.seek(offset)
        content = file.filehandle.read(n_bytes)
        if compression == _JPEG:
            # tables and strip are each between a start and an end of image
            whole = content if tables is None else tables[:-2] + content[2:]
            told = doubts_about_jpeg(path, whole, where=f"part {number + 1} of its JPEG data")
            doubts += tuple(one for one in told if one not in doubts)
            continue
        if page.fillorder == _LOWEST_BIT_FIRST:
            content = imagecodecs.bitorder_decode(content)
        decoded = len(imagecodecs.lzw_decode(content))
        expected, padded = _segment_bytes(page, number)
        if decoded not in (expected, padded):
            raise FormatError(
                f"{path}: damaged: part {number + 1} of its LZW data holds {decoded} bytes of pixels, expected "
                f"{expected}; copy it again"
            )
    return doubts


def _segment_bytes(page: Any, number: int) -> tuple[int, int]:
    """Bytes of a strip or tile without compression, and of a last strip that was filled up with rows."""
    samples = 1 if page.planarconfig == _PLANES_APART else int(page.samplesperpixel)
    bits = samples * int(page.bitspersample)
    if page.is_tiled:
        tile = int(page.tilelength) * ((int(page.tilewidth) * bits + 7) // 8)
        return tile, tile
    height, rows = int(page.imagelength), int(page.rowsperstrip)
    strips_per_plane = -(-height // rows)
    rows_here = min(rows, height - (number % strips_per_plane) * rows)
    row_bytes = (int(page.imagewidth) * bits + 7) // 8
    return rows_here * row_bytes, rows * row_bytes


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
    if int(page.photometric) == _PALETTE:
        warnings += ("the TIFF file shows its values through a table of colours; the values are kept as stored",)
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
