"""Every image format is one row of a table: how its files end, and how they are probed, read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.io.images.info import DecodedImage, ImageInfo
from cryopick.io.images.mrc import probe_mrc, read_mrc_image, write_mrc
from cryopick.io.images.mrc_header import MODE_OF_DTYPE
from cryopick.io.images.raster import probe_raster, read_raster_image, write_jpeg, write_png
from cryopick.io.images.tiff import TIFF_DTYPES, probe_tiff, read_tiff_image, write_tiff

_MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec")


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """One format of images.

    Parameters
    ----------
    suffixes : how its files end, in lower case
    found_in_folders : those of them that are micrographs when a folder is searched; others are read when named
    probe : what a file says of itself, without its pixels
    read : path, max_pixels=: the pixels, (h, w); more than `max_pixels` are refused
    write : path, pixels (h, w) of one of `dtypes`, Å per pixel or None; None where it is not written
    dtypes, default_dtype : types of stored pixels that can be written
    """

    name: str
    suffixes: tuple[str, ...]
    found_in_folders: tuple[str, ...]
    probe: Callable[[Path], ImageInfo]
    read: Callable[..., DecodedImage]
    write: Callable[[Path, NDArray[Any], float | None], None] | None = None
    dtypes: tuple[str, ...] = ()
    default_dtype: str = "float32"


IMAGE_FORMATS: dict[str, ImageFormat] = {
    row.name: row
    for row in (
        ImageFormat(
            name="MRC",
            suffixes=(*_MRC_SUFFIXES, *(suffix + packed for suffix in _MRC_SUFFIXES for packed in (".gz", ".bz2"))),
            found_in_folders=(".mrc", ".mrc.gz", ".mrc.bz2"),  # stacks (.mrcs) and maps (.map) only when named
            probe=probe_mrc,
            read=read_mrc_image,
            write=lambda path, pixels, angstrom: write_mrc(path, pixels, pixel_size_angstrom=angstrom),
            dtypes=tuple(MODE_OF_DTYPE),
        ),
        ImageFormat(
            name="TIFF",
            suffixes=(".tif", ".tiff"),
            found_in_folders=(".tif", ".tiff"),
            probe=probe_tiff,
            read=read_tiff_image,
            write=lambda path, pixels, _: write_tiff(path, pixels),
            dtypes=TIFF_DTYPES,
        ),
        ImageFormat(
            name="PNG",
            suffixes=(".png",),
            found_in_folders=(".png",),
            probe=probe_raster,
            read=read_raster_image,
            write=lambda path, pixels, _: write_png(path, pixels),
            dtypes=("uint8", "uint16"),
            default_dtype="uint8",
        ),
        ImageFormat(
            name="JPEG",
            suffixes=(".jpg", ".jpeg"),
            found_in_folders=(".jpg", ".jpeg"),
            probe=probe_raster,
            read=read_raster_image,
            write=lambda path, pixels, _: write_jpeg(path, pixels),
            dtypes=("uint8",),
            default_dtype="uint8",
        ),
        ImageFormat(
            name="EER",
            suffixes=(".eer",),
            found_in_folders=(),
            probe=probe_tiff,
            read=read_tiff_image,
        ),
    )
}


def image_format(path: str | Path) -> ImageFormat:
    """The format of a file by its suffix, in any case of the letters; an unknown one is an `InputError`."""
    name = Path(path).name.lower()
    for row in IMAGE_FORMATS.values():
        if name.endswith(row.suffixes):
            return row
    is_text = name.endswith((".txt", ".lst", ".list", ".csv"))
    remedy = f"a list of micrographs is given as @{path}" if is_text else "rename or convert it"
    raise InputError(f"{path}: not a known image type; expected .mrc (also .gz, .bz2), .tif, .png or .jpg; {remedy}")


def is_image_name(name: str, *formats: str) -> bool:
    """Whether a file of this name is an image, or one of the named formats."""
    return name.lower().endswith(
        tuple(suffix for key in formats or IMAGE_FORMATS for suffix in IMAGE_FORMATS[key].suffixes)
    )


def folder_suffixes() -> tuple[str, ...]:
    """What a folder is searched for."""
    return tuple(suffix for row in IMAGE_FORMATS.values() for suffix in row.found_in_folders)
