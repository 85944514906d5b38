"""Which image of a mask folder belongs to which micrograph, and reading it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.io.coordinates.names import match_micrograph_names, without_extension
from cryopick.io.images.formats import folder_suffixes, is_image_name
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.inputs.search import Search, shown

_MASK_SUFFIX = re.compile(r"[._-](masks?|segmentation|seg|exclusion|excluded?|junk|carbon)$", re.IGNORECASE)
"""What programs put behind a micrograph's name for its mask: `m1_mask.png`, `m1.mask.tif`."""
_FIRST_SUFFIXES = (".png", ".mrc", ".tif", ".tiff")  # of several masks of one name the first of these is used
_SAME_ASPECT = 0.02  # relative; masks of binned micrographs are rounded to whole pixels
_JPEG_HALF = 127.5


@dataclass(frozen=True)
class MatchedMasks:
    """The masks of a folder.

    Parameters
    ----------
    of_micrograph : micrograph name -> file; names without a mask are left out
    unused : files that belong to no micrograph, or to one that has another mask
    """

    of_micrograph: dict[str, Path]
    unused: tuple[Path, ...]


def match_masks(names: Sequence[str], folder: Path) -> MatchedMasks:
    """Find the mask of each micrograph.

    First the image of the micrograph's own name is looked for, in the same sub-folder or directly in the folder; then
    one whose name means the same micrograph (`cryopick.io.coordinates.names`), with or without an ending such as
    `_mask`.

    Raises
    ------
    InputError
        If the folder holds no image, or two micrographs fit one mask equally well.
    """
    files = {path.relative_to(folder).as_posix(): path for path in _images_in(folder)}
    if not files:
        raise InputError(
            f"exclusion masks: {folder} holds no images; looked for {', '.join(folder_suffixes())} in it and below"
        )
    by_stem: dict[str, Path] = {}
    for relative, path in sorted(files.items(), key=lambda item: _rank(item[1])):
        by_stem.setdefault(without_extension(relative), path)
    found: dict[str, Path] = {}
    for name in names:
        stem = PurePosixPath(without_extension(name))
        place = next((place for place in (str(stem), stem.name) if place in by_stem), None)
        if place is not None:
            found[name] = by_stem[place]
    used = set(found.values())
    left: dict[str, Path] = {}
    for stem_text, path in by_stem.items():
        if path not in used:
            left.setdefault(_MASK_SUFFIX.sub("", stem_text), path)
    missing = [name for name in names if name not in found]
    if left and missing:
        found |= {name: left[mask] for name, mask in match_micrograph_names(missing, left).items()}
    used = set(found.values())
    return MatchedMasks(found, tuple(path for path in files.values() if path not in used))


def require_some_mask(matched: MatchedMasks, names: Sequence[str], folder: Path) -> None:
    """Raise `InputError` where no mask belongs to any micrograph: the folder is not the one that was meant."""
    if names and not matched.of_micrograph:
        raise InputError(
            f"exclusion masks: none of the {len(matched.unused)} images in {folder} "
            f"({shown(path.name for path in matched.unused)}) belongs to any of the {len(names)} micrographs "
            f"({shown(names, most=1)}); expected names such as {without_extension(names[0])}.png or "
            f"{without_extension(names[0])}_mask.png"
        )


def read_mask(path: Path, *, max_pixels: int | None = None) -> NDArray[np.bool_]:
    """(h, w) True where nothing may be picked: pixels that are not 0; in a JPEG, which smears edges, the brighter half.

    Errors as in `cryopick.io.images.micrographs.read_micrograph`.
    """
    pixels = read_micrograph(path, max_pixels=max_pixels).pixels
    return np.asarray(pixels > _JPEG_HALF if is_image_name(path.name, "JPEG") else pixels != 0)


def doubts_about_mask(mask: NDArray[np.bool_], shape_yx: tuple[int, int]) -> tuple[str, ...]:
    """What is suspicious of a mask of a micrograph of this size."""
    doubts: tuple[str, ...] = ()
    aspect, expected = mask.shape[1] / mask.shape[0], shape_yx[1] / shape_yx[0]
    if abs(aspect / expected - 1) > _SAME_ASPECT and abs(mask.shape[1] * shape_yx[0] / shape_yx[1] - mask.shape[0]) > 1:
        doubts += (
            f"the exclusion mask is {mask.shape[1]} x {mask.shape[0]} px and the micrograph {shape_yx[1]} x "
            f"{shape_yx[0]}, not of one shape; it is stretched, check that it is not turned or of another micrograph",
        )
    if mask.all():
        doubts += ("the exclusion mask covers the whole micrograph, so nothing is picked; is it inverted?",)
    return doubts


def _images_in(folder: Path) -> list[Path]:
    search = Search(lambda name: name.lower().endswith(folder_suffixes()))
    return [path for path in search.files_below(folder) if path.name.lower().endswith(folder_suffixes())]


def _rank(path: Path) -> tuple[int, str]:
    suffix = path.suffix.lower()
    return _FIRST_SUFFIXES.index(suffix) if suffix in _FIRST_SUFFIXES else len(_FIRST_SUFFIXES), str(path)
