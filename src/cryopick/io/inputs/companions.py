"""Images that lie beside a micrograph and are none of their own: half sums, power spectra, sums without dose weighting.

Motion correction and what follows write several images of one exposure. Picked all, they give every particle several
times, so a search keeps one and says what it left out. An image alone, without the one that it accompanies, is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.io.coordinates.names import without_extension, without_processing
from cryopick.io.images.formats import is_image_name

NO_DOSE_WEIGHTING = "sum without dose weighting"
PARTIAL_SUM = "sum of some frames"
PICTURE = "picture of a micrograph"
_KIND_OF_SUFFIX = tuple(
    (kind, re.compile(rf"_({suffixes})$", re.IGNORECASE))
    for kind, suffixes in (
        ("half sum", "EVN|ODD|even|evensum|oddsum"),  # RELION, MotionCor3, MotionCor2
        (NO_DOSE_WEIGHTING, "no_?DW|non_?DW|forctf"),  # RELION, Scipion, SIMPLE
        (PARTIAL_SUM, "DWS"),  # MotionCor2 -SumRange
        ("stack of frames", "Stk|stack"),  # MotionCor2 -OutStack
        ("power spectrum", "PS|pspec|powerspectrum|power|psd|fft|ctf|ctf_?diag(_2D)?|diag|diagnostic|ctffind4?|gctf"),
        ("thumbnail", r"thumb(nail)?s?(_@\dx)?|preview"),  # cryoSPARC, SIMPLE
        ("background", "background|bg|bgfree|lsigma|ccmax|pref"),  # cryoSPARC, Gautomatch
        ("mask", "mask|segmentation"),
        ("filtered copy", "denoised|deconv"),
    )
)
_KIND_OF_FOLDER = {
    # Warp and WarpTools, beside or below average/; cryoSPARC, beside motioncorrected/
    "even": "half sum",
    "odd": "half sum",
    "powerspectrum": "power spectrum",
    "deconv": "filtered copy",
    "denoised": "filtered copy",
    "thumbnails": "thumbnail",
    "mask": "mask",
    "segmentation": "mask",
    # CryoSegNet's data sets, beside images/
    "masks": "mask",
    "ctfestimated": "power spectrum",
}
_FOLDERS_OF_EXPOSURES = {*_KIND_OF_FOLDER, "average", "motioncorrected", "images", "micrographs"}
_DOSE_WEIGHTED = re.compile(r"_(DW|dose_?weighted)$", re.IGNORECASE)
_STAND_INS = (NO_DOSE_WEIGHTING, PARTIAL_SUM)  # what is picked for want of the real micrograph, in this order


@dataclass(frozen=True)
class Companion:
    """An image, what it is, and the micrograph that it accompanies."""

    path: Path
    kind: str
    micrograph: Path


@dataclass(frozen=True)
class _Image:
    path: Path
    kind: str
    """"" for a micrograph."""
    exposure: str
    """Equal for all images of one exposure."""


def companions(paths: Iterable[Path], root: Path) -> list[Companion]:
    """Those of some images that accompany another of them, found below `root`."""
    images = [_image(path, root) for path in paths]
    of_exposure: dict[str, list[_Image]] = {}
    for image in images:
        of_exposure.setdefault(image.exposure, []).append(image)
    return [one for group in of_exposure.values() if len(group) > 1 for one in _companions_in(group)]


def exposure_of(path: Path, root: Path) -> str:
    """Equal for those images below `root` that may accompany one another; `companions` of each group are all."""
    return _image(path, root).exposure


def _companions_in(group: Sequence[_Image]) -> list[Companion]:
    """Of the images of one exposure those that accompany another."""
    micrographs = [image for image in group if not image.kind]
    for kind in _STAND_INS:
        micrographs = micrographs or [image for image in group if image.kind == kind]
    if not micrographs:
        return []
    picked = {image.path for image in micrographs}
    found = [
        Companion(image.path, image.kind, micrographs[0].path)
        for image in group
        if image.kind and image.path not in picked
    ]
    stems = {without_extension(str(image.path)): image.path for image in micrographs if not _is_picture(image.path)}
    weighted_of = {shorter: path for stem, path in stems.items() if (shorter := _DOSE_WEIGHTED.sub("", stem)) != stem}
    for image in micrographs:
        weighted = weighted_of.get(without_extension(str(image.path)))
        if weighted is not None:
            found.append(Companion(image.path, NO_DOSE_WEIGHTING, weighted))
        elif _is_picture(image.path) and stems:
            found.append(Companion(image.path, PICTURE, next(iter(stems.values()))))
    return found


def _image(path: Path, root: Path) -> _Image:
    text, above = str(path), "" if root == Path() else f"{root}/"
    *folders, base = text.removeprefix(above).split("/")
    kind = next((_KIND_OF_FOLDER[part.lower()] for part in folders if part.lower() in _KIND_OF_FOLDER), "")
    folder = "/".join(part for part in folders if part.lower() not in _FOLDERS_OF_EXPOSURES)
    stem = without_extension(base)
    while suffix := next(((one, pattern) for one, pattern in _KIND_OF_SUFFIX if pattern.search(stem)), None):
        shorter = suffix[1].sub("", stem)
        if not shorter:
            break
        kind, stem = kind or suffix[0], without_processing(shorter)
    return _Image(path, kind, f"{folder}/{without_processing(stem)}")


def _is_picture(path: Path) -> bool:
    return is_image_name(path.name, "PNG", "JPEG")


def told(found: Sequence[Companion]) -> str:
    """`2 half sums (m1_EVN.mrc, m1_ODD.mrc), 1 power spectrum (m1_PS.mrc)`."""
    by_kind: dict[str, list[str]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(one.path.name)
    return ", ".join(f"{len(names)} x {kind} ({_first(names)})" for kind, names in by_kind.items())


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
