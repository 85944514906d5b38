"""The 1024 bytes before an MRC image: understood in both byte orders, and made.

References
----------
A. Cheng et al., MRC2014: Extensions to the MRC format header for electron cryo-microscopy and tomography,
J. Struct. Biol. 192 (2015). Mode 0 is signed, as in RELION since 3.1 and mrcfile, unless an IMOD stamp says otherwise,
or the pixels do (`with_likely_sign`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError

HEADER_BYTES = 1024
DTYPE_OF_MODE: dict[int, np.dtype[Any]] = {
    0: np.dtype("i1"),
    1: np.dtype("i2"),
    2: np.dtype("f4"),
    6: np.dtype("u2"),
    12: np.dtype("f2"),
}
MODE_OF_DTYPE = {dtype.name: mode for mode, dtype in DTYPE_OF_MODE.items()}
MODE_4_BIT = 101
_FOREIGN_MODES = {
    3: "complex int16, a Fourier transform",
    4: "complex float32, a Fourier transform",
    16: "colour",
}
_IMOD_STAMP = 1146047817  # "IMOD", word 39 of the header
_IMOD_SIGNED_BYTES = 1  # bit of word 40
_SIGN_STEP = 7
"""Of the pixels whose grey values are compared; no factor of common widths."""
_CLEARLY_WRONG = 0.7
"""Standard deviation of the other reading over that of the standard's, below which the standard's is wrong."""
_FEWEST_GREY_VALUES = 8
"""Masks and labels have fewer, and no noise that could tell."""


@dataclass(frozen=True)
class MrcHeader:
    """The fields of an MRC header that cryopick uses.

    Parameters
    ----------
    shape_zyx : sections, rows, columns
    mode : MODE
    dtype : of a stored pixel with its byte order; uint8 holding two pixels for mode 101
    extended_bytes : bytes between the header and the pixels
    edges_angstrom_xyz : of a voxel, cell length / sampling as the header has them; 0 where it does not say
    axes_of_sections_rows_columns : 1, 2 and 3 for x, y and z
    is_volume : the space group says 3-D map (ISPG 1 or more)
    density_range : smallest and largest pixel, None where the header does not tell
    is_sign_known : a stamp of IMOD says whether bytes are signed
    """

    shape_zyx: tuple[int, int, int]
    mode: int
    dtype: np.dtype[Any]
    extended_bytes: int
    edges_angstrom_xyz: tuple[float, float, float]
    axes_of_sections_rows_columns: tuple[int, int, int]
    is_volume: bool
    density_range: tuple[float, float] | None = None
    is_sign_known: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def voxel_size_angstrom_xyz(self) -> tuple[float, float, float]:
        """Rounded, since single-precision lengths make 1.77 into 1.7699999809; 0 where the header does not say."""
        x, y, z = (float(f"{edge:.6g}") for edge in self.edges_angstrom_xyz)
        return x, y, z

    @property
    def data_bytes(self) -> int:
        sections, rows, columns = self.shape_zyx
        if self.mode == MODE_4_BIT:
            return sections * rows * ((columns + 1) // 2)  # a row starts on a whole byte
        return sections * rows * columns * self.dtype.itemsize

    @property
    def pixel_dtype_name(self) -> str:
        return "uint4" if self.mode == MODE_4_BIT else self.dtype.name


def parse_mrc_header(raw: bytes | bytearray, path: str | Path) -> MrcHeader:
    """Understand 1024 header bytes of either byte order; the MAP stamp may be missing or wrong (`FormatError`)."""
    if len(raw) < HEADER_BYTES:
        raise FormatError(f"{path}: expected an MRC header of {HEADER_BYTES} bytes, the file holds {len(raw)}")
    order = _byte_order(raw)
    if order is None:
        nx, ny, nz, mode = struct.unpack_from("<4i", raw)
        if mode in _FOREIGN_MODES:
            raise FormatError(f"{path}: MRC mode {mode} ({_FOREIGN_MODES[mode]}) is not a micrograph; convert it first")
        raise FormatError(
            f"{path}: not an MRC file, or its header is damaged: it says {nx} x {ny} x {nz} pixels of mode {mode}, "
            f"expected positive sizes and a mode of {_known_modes()}"
        )
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw)
    mx, my, mz = struct.unpack_from(order + "3i", raw, 28)
    cell = struct.unpack_from(order + "3f", raw, 40)
    mapc, mapr, maps = struct.unpack_from(order + "3i", raw, 64)
    smallest, largest = struct.unpack_from(order + "2f", raw, 76)
    ispg, extended_bytes = struct.unpack_from(order + "2i", raw, 88)
    axes = struct.unpack_from(order + "3i", raw, 64)
    imod_stamp, imod_flags = struct.unpack_from(order + "2i", raw, 152)
    if extended_bytes < 0:
        raise FormatError(f"{path}: the header says its extended part has {extended_bytes} bytes; the file is damaged")
    warnings: tuple[str, ...] = ()
    dtype = np.dtype("u1") if mode == MODE_4_BIT else DTYPE_OF_MODE[mode].newbyteorder(">" if order == ">" else "<")
    if mode == 0 and imod_stamp == _IMOD_STAMP and not imod_flags & _IMOD_SIGNED_BYTES:
        dtype = np.dtype("u1")
        warnings += ("IMOD marked its mode 0 bytes as unsigned; they are read so (RELION reads them as signed)",)
    x, y, z = (
        length / n if n > 0 and np.isfinite(length) else 0.0 for length, n in zip(cell, (mx, my, mz), strict=True)
    )
    if x > 0 and y > 0 and abs(x - y) > 0.01 * x:
        warnings += (f"the header says pixels of {x:g} x {y:g} Å, not square; the first is used",)
    if nz == 1 and axes[:2] == (2, 1):  # other values stand in many headers that nobody filled in
        warnings += ("the header says that rows and columns are exchanged; the image is read as stored",)
    return MrcHeader(
        shape_zyx=(nz, ny, nx),
        mode=mode,
        dtype=dtype,
        extended_bytes=extended_bytes,
        edges_angstrom_xyz=(x, y, z),
        axes_of_sections_rows_columns=(maps, mapr, mapc),
        is_volume=ispg >= 1,
        density_range=(smallest, largest) if -np.inf < smallest < largest < np.inf else None,
        is_sign_known=mode == 0 and imod_stamp == _IMOD_STAMP,
        warnings=warnings,
    )


def with_likely_sign(pixels: NDArray[Any], header: MrcHeader) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Integer pixels read as signed or unsigned, whatever fits the header's range and the pixels; a word if unusual.

    Programs write bytes of 0 to 255 in mode 0, whose bytes are signed by the standard, and words likewise in modes 1
    and 6. Where the standard's reading does not give the header's smallest and largest value and the other one does,
    the other one is taken, as ITK does. Where neither does, the wrong reading shows: it cuts the grey values in two.

    Parameters
    ----------
    pixels : of any shape, of the type of the mode, native byte order; IMOD's stamp is believed unchecked
    """
    if pixels.dtype.kind not in "iu" or header.mode == MODE_4_BIT or header.is_sign_known or pixels.size == 0:
        return pixels, ()
    other = pixels.view(np.dtype(f"{'u' if pixels.dtype.kind == 'i' else 'i'}{pixels.dtype.itemsize}"))
    smallest, largest = int(pixels.min()), int(pixels.max())
    half = 2 ** (8 * pixels.dtype.itemsize - 1)
    is_same = smallest >= 0 if pixels.dtype.kind == "i" else largest < half
    said = header.density_range
    if is_same or (said is not None and _is_range(said, (smallest, largest))):
        return pixels, ()
    standard_is, other_is = pixels.dtype.name, other.dtype.name
    if said is not None and _is_range(said, (float(other.min()), float(other.max()))):
        return other, (
            f"its pixels of mode {header.mode} are read as {other_is}, since the header says that they lie between "
            f"{said[0]:g} and {said[1]:g}; the standard's {standard_is} does not fit",
        )
    sample, other_sample = pixels.reshape(-1)[::_SIGN_STEP], other.reshape(-1)[::_SIGN_STEP]
    ratio = float(np.std(other_sample, dtype=np.float64)) / max(float(np.std(sample, dtype=np.float64)), 1e-30)
    if ratio < _CLEARLY_WRONG and len(np.unique(sample[: 1 << 16])) > _FEWEST_GREY_VALUES:
        return other, (
            f"its pixels of mode {header.mode} are read as {other_is}: as the standard's {standard_is} the grey values "
            "would fall into two halves far apart; the header does not tell",
        )
    if ratio < 1 / _CLEARLY_WRONG and len(np.unique(sample[: 1 << 16])) > _FEWEST_GREY_VALUES:
        return pixels, (
            f"whether its pixels of mode {header.mode} are {standard_is} or {other_is} cannot be told, neither "
            f"from the header nor from the grey values; they are read as {standard_is}, as the standard says",
        )
    return pixels, ()


def _is_range(said: tuple[float, float], found: tuple[float, float]) -> bool:
    """Whether a header's range is that of the pixels, to a hundredth of it."""
    tolerance = max(1.0, 0.01 * (found[1] - found[0]))
    return all(abs(a - b) <= tolerance for a, b in zip(said, found, strict=True))


def _byte_order(raw: bytes | bytearray) -> str | None:
    """The order in which the sizes and the mode make sense, the machine stamp's first; None when neither does."""
    stamped = ">" if raw[212] == 0x11 else "<"
    for order in (stamped, "<" if stamped == ">" else ">"):
        nx, ny, nz, mode = struct.unpack_from(order + "4i", raw)
        if min(nx, ny, nz) > 0 and (mode in DTYPE_OF_MODE or mode == MODE_4_BIT):
            return order
    return None


def _known_modes() -> str:
    return ", ".join(str(mode) for mode in (*DTYPE_OF_MODE, MODE_4_BIT))


def pack_mrc_header(array: NDArray[Any], *, pixel_size_angstrom: float, is_volume: bool) -> bytes:
    """The little-endian header of an image (h, w) or of sections (n, h, w) of a type in `MODE_OF_DTYPE`."""
    sections, rows, columns = array.shape if array.ndim == 3 else (1, *array.shape)
    sampling_z = sections if is_volume else 1  # MRC2014: an image stack is sections of one-section volumes
    raw = bytearray(HEADER_BYTES)
    struct.pack_into("<4i", raw, 0, columns, rows, sections, MODE_OF_DTYPE[array.dtype.name])
    struct.pack_into("<3i", raw, 28, columns, rows, sampling_z)
    cell = (columns * pixel_size_angstrom, rows * pixel_size_angstrom, sampling_z * pixel_size_angstrom)
    struct.pack_into("<6f", raw, 40, *cell, 90.0, 90.0, 90.0)
    struct.pack_into("<3i", raw, 64, 1, 2, 3)  # columns are x, rows are y, sections are z
    smallest, largest, mean, deviation = _density_statistics(array)
    struct.pack_into("<3f", raw, 76, smallest, largest, mean)
    struct.pack_into("<2i", raw, 88, 1 if is_volume else 0, 0)
    struct.pack_into("<i", raw, 108, 20140)  # format version
    raw[208:216] = b"MAP DD\x00\x00"
    struct.pack_into("<f", raw, 216, deviation)
    label = b"written by cryopick"
    struct.pack_into("<i", raw, 220, 1)
    raw[224 : 224 + len(label)] = label
    return bytes(raw)


def _density_statistics(array: NDArray[Any]) -> tuple[float, float, float, float]:
    """Smallest, largest, mean, standard deviation; MRC2014's "not determined" (largest < smallest) when not finite."""
    if array.dtype == np.float16:
        array = array.astype(np.float32)  # several times faster to sum
    with np.errstate(invalid="ignore"):  # inf - inf
        mean = float(array.mean(dtype=np.float64))
    if not np.isfinite(mean):
        return 0.0, -1.0, -2.0, -1.0
    return float(array.min()), float(array.max()), mean, float(array.std(dtype=np.float64))
