"""MRC images, stacks and maps, plain or compressed: forgiving about headers and strict about pixels."""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryopick.errors import FormatError, SettingsError
from cryopick.io.files.atomic import atomic_path
from cryopick.io.files.reading import explain_read_errors, file_size_bytes
from cryopick.io.images.info import (
    MAX_PIXELS,
    DecodedImage,
    ImageInfo,
    require_allowed_pixels,
    require_believable_compression,
    require_plausible_shape,
    require_single_image,
)
from cryopick.io.images.mrc_header import (
    HEADER_BYTES,
    MODE_4_BIT,
    MODE_OF_DTYPE,
    MrcHeader,
    pack_mrc_header,
    parse_mrc_header,
    with_likely_sign,
)

_CHUNK_BYTES = 1 << 24
_LARGEST_ANGSTROM = 1e9  # written; what is believable when read is judged elsewhere
_PACKED = {b"\x1f\x8b\x08": "gz", b"BZh": "bz2"}


def read_mrc_header(path: str | Path, *, is_size_checked: bool = True) -> MrcHeader:
    """Read the header alone, plain or packed by gzip or bzip2, and check it against the size of a plain file.

    Raises
    ------
    InputError
        If the file is missing or may not be read.
    FormatError
        If it is empty, truncated or not an MRC file.
    """
    size = file_size_bytes(path)
    with _open(path) as stream:
        header = parse_mrc_header(_read_up_to(stream, HEADER_BYTES, path), path)
    if is_size_checked and compression_of(path) is None:
        _require_bytes(size, header, path)
    return header


def probe_mrc(path: str | Path) -> ImageInfo:
    """What the header says, without the pixels; errors as in `read_mrc_header`."""
    return _describe(Path(path), read_mrc_header(path))


def read_mrc_image(path: str | Path, *, max_pixels: int | None = None) -> DecodedImage:
    """The pixels of a single image, (h, w), in the stored type and in native byte order.

    Integers have the sign that fits the header's range and the pixels (`with_likely_sign`).

    The pixels are read, not mapped: every picker needs all of them at once, a read from the page cache costs about as
    much as a map, and a mapped file that shrinks during the run would kill the process.

    Raises
    ------
    InputError, FormatError
        As `read_mrc_header`, and if the file holds a stack, a movie or a volume, or more pixels than are allowed.
    """
    header = read_mrc_header(path)
    info = _describe(Path(path), header)
    require_single_image(info)
    require_plausible_shape(Path(path), info.shape_yx)
    _require_believable_compression(path, header)
    require_allowed_pixels(Path(path), info.shape_yx, max_pixels=max_pixels)
    sections, warnings = read_mrc_sections(path, header)
    return DecodedImage(pixels=sections[0], info=info, warnings=info.warnings + warnings)


def read_mrc_stack(path: str | Path) -> tuple[NDArray[np.float32], float | None]:
    """All sections of a stack, single image or map: (n, h, w) float32, and the pixel size in Å (None if 0)."""
    header = read_mrc_header(path)
    sections, rows, columns = header.shape_zyx
    if sections * rows * columns > MAX_PIXELS:
        raise FormatError(
            f"{path}: the header says {columns} x {rows} x {sections} pixels, more than the {MAX_PIXELS:,} that are "
            "read of a stack or a map; bin it, or give fewer images"
        )
    _require_believable_compression(path, header)
    pixels, _ = read_mrc_sections(path, header)
    return np.ascontiguousarray(pixels, dtype=np.float32), header.voxel_size_angstrom_xyz[0] or None


def write_mrc(
    path: str | Path, pixels: ArrayLike, *, pixel_size_angstrom: float | None = None, is_volume: bool = False
) -> None:
    """Write an image (h, w), a stack or a map (n, h, w), in the mode of its type, whole or not at all.

    Parameters
    ----------
    pixels : int8, int16, uint16, float16 or float32 (modes 0, 1, 6, 12, 2); other types are refused, not converted
    pixel_size_angstrom : Å per pixel or voxel; None is written as 0, the format's "unknown"
    is_volume : mark the sections as one 3-D map, not as a stack of images

    Raises
    ------
    SettingsError
        If the type or the shape cannot be written.
    OutputError
        If the file cannot be written.
    """
    array = np.asarray(pixels)
    if array.dtype.name not in MODE_OF_DTYPE:
        known = ", ".join(MODE_OF_DTYPE)
        raise SettingsError(f"{path}: pixels are {array.dtype.name}, MRC holds {known}; convert them first")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise SettingsError(f"{path}: expected an array (h, w) or (n, h, w), got shape {array.shape}")
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    pixel_size_angstrom = pixel_size_angstrom or 0.0
    if not 0 <= pixel_size_angstrom < _LARGEST_ANGSTROM:
        raise SettingsError(f"{path}: pixel size is {pixel_size_angstrom:g} Å, expected a positive number or None")
    header = pack_mrc_header(array, pixel_size_angstrom=pixel_size_angstrom, is_volume=is_volume)
    with atomic_path(path) as temporary, _create(temporary, _named_compression(path)) as stream:
        stream.write(header)
        stream.write(array.data)


def _describe(path: Path, header: MrcHeader) -> ImageInfo:
    sections, rows, columns = header.shape_zyx
    # ISPG is 1 in many images too, so a map must also look like one.
    is_cube = sections == rows == columns > 1
    kind = "image" if sections == 1 else "volume" if header.is_volume or is_cube else "stack"
    return ImageInfo(
        path=path,
        format="MRC",
        kind=kind,
        shape_yx=(rows, columns),
        dtype=header.pixel_dtype_name,
        n_frames=sections,
        pixel_size_angstrom=header.voxel_size_angstrom_xyz[0],
        mrc_mode=header.mode,
        warnings=header.warnings,
    )


def _require_bytes(actual_bytes: int, header: MrcHeader, path: str | Path) -> None:
    expected_bytes = HEADER_BYTES + header.extended_bytes + header.data_bytes
    if actual_bytes >= expected_bytes or _is_packed_across_rows(actual_bytes, header):
        return
    sections, rows, columns = header.shape_zyx
    raise FormatError(
        f"{path}: truncated, or its header is wrong: expected {expected_bytes} bytes "
        f"({HEADER_BYTES} of header, {header.extended_bytes} of extended header, "
        f"{columns} x {rows} x {sections} pixels of mode {header.mode}), the file holds {actual_bytes}; copy it again"
    )


def _require_believable_compression(path: str | Path, header: MrcHeader) -> None:
    if compression_of(path) is not None:
        sections, rows, columns = header.shape_zyx
        require_believable_compression(
            Path(path),
            file_size_bytes(path),
            n_pixels=sections * rows * columns,
            unpacked_bytes=header.data_bytes,
        )


def _is_packed_across_rows(actual_bytes: int, header: MrcHeader) -> bool:
    """True for mode 101 of odd width whose rows do not start on whole bytes, as RELION writes it."""
    sections, rows, columns = header.shape_zyx
    n_pixels = sections * rows * columns
    packed = HEADER_BYTES + header.extended_bytes + n_pixels // 2
    return header.mode == MODE_4_BIT and n_pixels % 2 == 0 and actual_bytes == packed


def read_mrc_sections(path: str | Path, header: MrcHeader) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(n, h, w) in the stored type and native byte order, and a warning when bytes are left over."""
    start = HEADER_BYTES + header.extended_bytes
    size = file_size_bytes(path)
    is_packed = compression_of(path) is None and _is_packed_across_rows(size, header)
    n_bytes = size - start if is_packed else header.data_bytes
    if compression_of(path) is None:
        with explain_read_errors(path):
            raw = np.fromfile(path, dtype=np.uint8, count=n_bytes, offset=start)
        left_over = size - start - n_bytes
    else:
        with _open(path) as stream:
            _read_up_to(stream, start, path)
            raw = _read_array(stream, n_bytes, path)
            left_over = len(_read_up_to(stream, _CHUNK_BYTES, path))
    if len(raw) < n_bytes:
        _require_bytes(start + len(raw), header, path)
    warnings: tuple[str, ...] = ()
    if left_over:
        warnings = (f"{left_over} or more bytes follow the pixels that the header announces; they are not read",)
    if header.mode == MODE_4_BIT:
        return _unpack_4_bit(raw, header.shape_zyx, is_packed=is_packed), warnings
    sections = raw.view(header.dtype).reshape(header.shape_zyx)
    pixels, told = with_likely_sign(sections.astype(header.dtype.newbyteorder("="), copy=False), header)
    return pixels, warnings + told


def _unpack_4_bit(raw: NDArray[np.uint8], shape_zyx: tuple[int, int, int], *, is_packed: bool) -> NDArray[np.uint8]:
    """Two pixels per byte, the first in the low half (IMOD); values 0 to 15."""
    sections, rows, columns = shape_zyx
    pixels = np.stack((raw & 15, raw >> 4), axis=-1)
    if is_packed:
        return pixels.reshape(shape_zyx)
    return pixels.reshape(sections, rows, -1)[:, :, :columns]


def _open(path: str | Path) -> IO[bytes]:
    compression = compression_of(path)
    with explain_read_errors(path):
        if compression == "gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]  # a binary stream, whatever its class
        return bz2.open(path, "rb") if compression == "bz2" else open(path, "rb")


def _create(temporary: Path, compression: str | None) -> IO[bytes]:
    if compression == "gz":
        return gzip.GzipFile(temporary, "wb", compresslevel=4, mtime=0)  # type: ignore[return-value]
    return bz2.open(temporary, "wb") if compression == "bz2" else open(temporary, "wb")


def compression_of(path: str | Path) -> str | None:
    """ "gz", "bz2" or None: by the first bytes, which no header of a plain file has, or else by the name's ending."""
    with explain_read_errors(path), open(path, "rb") as stream:
        start = stream.read(3)
    return _PACKED.get(start) or _named_compression(path)


def _named_compression(path: str | Path) -> str | None:
    suffix = Path(path).suffix.lower().removeprefix(".")
    return suffix if suffix in _PACKED.values() else None


def _read_array(stream: IO[bytes], n_bytes: int, path: str | Path) -> NDArray[np.uint8]:
    """At most `n_bytes` as an array, without a second copy; pages that nothing is read into take no memory."""
    content = np.empty(n_bytes, np.uint8)
    filled = 0
    while filled < n_bytes:
        piece = _read_up_to(stream, min(_CHUNK_BYTES, n_bytes - filled), path)
        if not piece:
            break
        content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    return content[:filled]


def _read_up_to(stream: IO[bytes], n_bytes: int, path: str | Path) -> bytearray:
    """At most `n_bytes`, in pieces, so that a damaged header cannot ask for all memory."""
    content = bytearray()
    try:
        while len(content) < n_bytes:
            piece = stream.read(min(_CHUNK_BYTES, n_bytes - len(content)))
            if not piece:
                break
            content += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"{path}: the compressed data are damaged or truncated ({error}); copy it again") from error
    except OSError as error:
        if error.errno is None:  # bz2 reports damaged data so
            raise FormatError(f"{path}: the compressed data are damaged ({error}); copy it again") from error
        with explain_read_errors(path):
            raise
    return content
