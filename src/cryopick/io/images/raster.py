"""PNG and JPEG micrographs, 8 and 16 bit, rows as stored."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryopick.errors import FormatError, SettingsError
from cryopick.io.files.atomic import write_bytes_atomic
from cryopick.io.files.reading import caught_native_errors, read_bytes
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

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC = b"\xff\xd8\xff"
# Start-of-frame markers hold the size: C0 to CF without C4 (Huffman tables), C8 (reserved), CC (arithmetic tables)
_JPEG_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_JPEG_START_OF_SCAN = 0xDA
_MOST_PIXELS_PER_BYTE = 1 << 14  # Deflate turns a byte into at most 1032, each of 8 one-bit pixels; JPEG stays below
DEFAULT_JPEG_QUALITY = 95
# libjpeg goes on after these, with guessed pixels, and prints them
_JPEG_COMPLAINTS = (
    "Corrupt JPEG data",
    "Premature end of JPEG",
    "Inconsistent progression sequence",
    "Invalid SOS parameters",
    "Invalid progressive parameters",
    "Bogus",
    "Arithmetic",
)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes")
_HARMLESS_EXTRANEOUS_BYTES = 16  # some cameras pad


def probe_raster(path: str | Path) -> ImageInfo:
    """What the header says, without decoding the pixels.

    Raises
    ------
    InputError
        If the file is missing or may not be read.
    FormatError
        If it is neither PNG nor JPEG, truncated or damaged.
    """
    return _describe(Path(path), read_bytes(path))


def read_raster_image(path: str | Path, *, max_pixels: int | None = None) -> DecodedImage:
    """The pixels of a PNG or JPEG file, (h, w), row 0 first; colour channels that differ are averaged with a warning.

    Raises
    ------
    InputError, FormatError
        As `probe_raster`, and if the file is an animation, has more pixels than are allowed, or JPEG data that the
        decoder fills with guesses.
    """
    content = read_bytes(path)
    info = _describe(Path(path), content)
    require_single_image(info)
    require_enough_bytes(Path(path), info.shape_yx, n_bytes=len(content), most_pixels_per_byte=_MOST_PIXELS_PER_BYTE)
    n_pixels = info.shape_yx[0] * info.shape_yx[1]
    require_believable_compression(Path(path), len(content), n_pixels=n_pixels, unpacked_bytes=n_pixels)
    require_allowed_pixels(Path(path), info.shape_yx, max_pixels=max_pixels)
    stored, complaints = _decoded(path, content, info.format)
    doubts = _judged(path, complaints, where="its JPEG data")
    if stored is None or stored.shape[:2] != info.shape_yx:
        raise FormatError(f"{path}: the {info.format} data cannot be decoded; the file is damaged, export it again")
    grey, warnings = to_grey(stored)
    return DecodedImage(pixels=grey, info=info, warnings=info.warnings + doubts + warnings)


def doubts_about_jpeg(path: str | Path, content: bytes, *, where: str) -> tuple[str, ...]:
    """What the decoder complains of in a whole JPEG stream; refuses damaged ones (`FormatError`)."""
    _, complaints = _decoded(path, content, "JPEG")
    return _judged(path, complaints, where=where)


def _decoded(path: str | Path, content: bytes, format_name: str) -> tuple[Any, list[str]]:
    """The decoded array, None where that fails, and the complaints of the JPEG decoder."""
    import cv2

    with caught_native_errors(_is_complaint) as complaints:
        try:
            stored = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise FormatError(f"{path}: the {format_name} data cannot be decoded ({error}); export it again") from error
    return stored, complaints


def _is_complaint(line: str) -> bool:
    return line.startswith(_JPEG_COMPLAINTS)


def _judged(path: str | Path, complaints: list[str], *, where: str) -> tuple[str, ...]:
    """Raise `FormatError` for pixels that the JPEG decoder guessed; a few bytes too many are only worth a warning."""
    for line in complaints:
        extraneous = _EXTRANEOUS.search(line)
        if extraneous is None or int(extraneous.group(1)) > _HARMLESS_EXTRANEOUS_BYTES:
            raise FormatError(f"{path}: {where} are damaged ({line.strip()}); copy it again, or export it again")
    return tuple(dict.fromkeys(f"the decoder says of {where}: {line.strip()}" for line in complaints))


def write_png(path: str | Path, pixels: ArrayLike) -> None:
    """Write one image (h, w), uint8 or uint16, without loss, whole or not at all.

    Raises
    ------
    SettingsError
        If the type or the shape cannot be written.
    OutputError
        If the file cannot be written.
    """
    import cv2

    array = _require_type(path, pixels, ("uint8", "uint16"))
    _encode(path, ".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 1])  # noise hardly shrinks further, and 1 is fast


def write_jpeg(path: str | Path, pixels: ArrayLike, *, quality: int = DEFAULT_JPEG_QUALITY) -> None:
    """Write one image (h, w) of uint8, with loss; `quality` is 1 to 100. Errors as in `write_png`."""
    import cv2

    if not 1 <= quality <= 100:
        raise SettingsError(f"{path}: JPEG quality is {quality}, expected 1 to 100")
    _encode(path, ".jpg", _require_type(path, pixels, ("uint8",)), [cv2.IMWRITE_JPEG_QUALITY, quality])


def _require_type(path: str | Path, pixels: ArrayLike, dtypes: tuple[str, ...]) -> NDArray[Any]:
    array = np.asarray(pixels)
    if array.ndim != 2 or 0 in array.shape or array.dtype.name not in dtypes:
        raise SettingsError(
            f"{path}: expected a 2-D image of type {' or '.join(dtypes)}, got shape {array.shape} of {array.dtype}"
        )
    return array


def _encode(path: str | Path, suffix: str, array: NDArray[Any], options: list[int]) -> None:
    import cv2

    is_encoded, encoded = cv2.imencode(suffix, array, options)
    if not is_encoded:  # JPEG sides end at 65500
        raise SettingsError(f"{path}: an image of shape {array.shape} cannot be written as {suffix}; use .mrc or .tif")
    write_bytes_atomic(path, encoded.tobytes())


def _describe(path: Path, content: bytes) -> ImageInfo:
    if content.startswith(_PNG_MAGIC):
        return _describe_png(path, content)
    if content.startswith(_JPEG_MAGIC):
        return _describe_jpeg(path, content)
    raise FormatError(f"{path}: expected a PNG or JPEG image, its first bytes are of something else; check the name")


def _describe_png(path: Path, content: bytes) -> ImageInfo:
    """Walk all chunks, so that truncated and damaged files are refused before decoders fill them with guesses."""
    position, n_frames, header, is_finished = len(_PNG_MAGIC), 1, None, False
    while position + 12 <= len(content) and not is_finished:
        (length,) = struct.unpack_from(">I", content, position)
        kind = content[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(content):
            break
        body = memoryview(content)[position + 4 : end]
        if zlib.crc32(body) != struct.unpack_from(">I", content, end)[0]:
            raise FormatError(f"{path}: the PNG file is damaged at byte {position} (checksum); copy it again")
        if kind == b"IHDR" and length == 13:
            header = struct.unpack_from(">IIBBBBB", content, position + 8)
        elif kind == b"acTL" and length == 8:
            (n_frames,) = struct.unpack_from(">I", content, position + 8)
        is_finished = kind == b"IEND"
        position = end + 4
    if header is None or not is_finished:
        raise FormatError(f"{path}: the PNG file is truncated after {len(content)} bytes; copy it again")
    columns, rows, depth = header[:3]
    require_plausible_shape(path, (rows, columns))
    return ImageInfo(
        path=path,
        format="PNG",
        kind="stack" if n_frames > 1 else "image",
        shape_yx=(rows, columns),
        dtype="uint16" if depth == 16 else "uint8",
        n_frames=max(n_frames, 1),
    )


def _describe_jpeg(path: Path, content: bytes) -> ImageInfo:
    """Walk the segments up to the first scan; then the end marker must follow."""
    position, shape_yx = 2, None
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            raise FormatError(f"{path}: the JPEG file is damaged at byte {position}; copy it again")
        marker = content[position + 1]
        if marker == 0xFF or marker in _JPEG_WITHOUT_LENGTH:  # fill byte, or a marker alone
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_START_OF_FRAME and position + 9 <= len(content):
            _, rows, columns = struct.unpack_from(">BHH", content, position + 4)
            shape_yx = (rows, columns)
        if marker == _JPEG_START_OF_SCAN:
            break
        position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    if shape_yx is None or content.find(b"\xff\xd9", position) < 0:
        raise FormatError(f"{path}: the JPEG file is truncated after {len(content)} bytes; copy it again")
    require_plausible_shape(path, shape_yx)
    return ImageInfo(path=path, format="JPEG", kind="image", shape_yx=shape_yx, dtype="uint8")
