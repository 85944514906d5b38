"""Coordinates from any format to any other, with the frame checked against the images where they are given."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.transforms import flip_y as flip_y_of
from cryopick.geometry.units import Length, parse_length
from cryopick.io.coordinates import detect_format, read_picks, write_picks
from cryopick.io.grouping import with_image_size
from cryopick.io.images import probe_image
from cryopick.io.inputs import MicrographSource, find_micrographs, read_source
from cryopick.io.names import match_micrograph_names, without_extension
from cryopick.io.pixel_size import choose_pixel_size
from cryopick.processing.orientation import OrientationFit, measure_orientation
from cryopick.types import Picks

FLIPS = ("auto", "yes", "no")
_logger = logging.getLogger(__name__)
_MAX_MEASURED = 8  # micrographs read to measure the orientation; about 1000 picks are more than enough


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Parameters
    ----------
    files : written
    micrographs, particles : how many
    is_flipped : True where y was counted from the other end
    fit : what `flip_y="auto"` measured, else None
    warnings : sentences for the user; the result still stands
    """

    files: tuple[Path, ...]
    micrographs: int
    particles: int
    is_flipped: bool
    fit: OrientationFit | None
    warnings: tuple[str, ...]


def convert(
    source: Path | str,
    target: Path | str,
    *,
    to: str | None = None,
    from_format: str | None = None,
    flip_y: str | None = None,
    micrographs: Sequence[Path | str] = (),
    box: Length | str | None = None,
    diameter: Length | str | None = None,
    pixel_size_angstrom: float | None = None,
    cs_rows: str | None = None,
    keep_rejected: bool = False,
) -> Conversion:
    """Read coordinates, bring them to our frame, and write them in another format.

    Parameters
    ----------
    source : file or folder, see `cryopick.io.coordinates.read_picks`
    target : file, or folder for one file per micrograph
    to, from_format : names of formats; None goes by file endings and content
    flip_y : whether the coordinates count y from the last row. "auto" measures it from the images and raises when
        that is unclear. None means "no", except for CryoSPARC's .cs, where it must be given, since both are common
    micrographs : the images (see `cryopick.io.inputs.find_micrographs`): names, sizes and pixel sizes are taken from
        them; needed for "auto", and for formats that lack the image size
    box : side of the boxes in formats that have boxes; None takes each particle's diameter
    diameter : of the particles, for "auto" where the file does not say it
    pixel_size_angstrom : Å per pixel, above what files say
    cs_rows : the convention to write .cs in, "relion" or "flipped"
    keep_rejected : also write candidates that were rejected (CSV)

    Raises
    ------
    InputError, FormatError, SettingsError
        If something cannot be read, is unclear, or is missing; nothing is written then.
    """
    if flip_y is not None and flip_y not in FLIPS:
        raise SettingsError(f"flip_y is {flip_y!r}, expected one of: {', '.join(FLIPS)}")
    images = _Images(micrographs, pixel_size_angstrom)
    read_as = from_format or (detect_format(Path(source)) if Path(source).is_file() else None)
    is_cs = read_as == "cryosparc" or (read_as is None and any(Path(source).rglob("*.cs")))

    def read(rows: str | None) -> dict[str, Picks]:
        return read_picks(
            source, format=read_as, shapes_yx=images.shape_of, pixel_size_angstrom=pixel_size_angstrom, rows=rows
        )

    rows = {"yes": "flipped", "no": "relion", "auto": "relion", None: None}[flip_y] if is_cs else None
    found = read(rows)
    fit = None
    if flip_y == "auto":
        fit = _measured(found, images, _length(diameter))
    is_flipped = flip_y == "yes" or (fit is not None and fit.best == "flip_y")
    if is_flipped and is_cs:
        found = read("flipped")
    elif is_flipped:
        found = {name: _flipped(picks, source) for name, picks in found.items()}
    picks, warnings = _completed(found, images, keep_rejected=keep_rejected)
    box_length = _length(box)
    box_px = None
    if box_length is not None:
        sizes = {one.pixel_size_angstrom for one in picks}
        if box_length.unit == "A" and len(sizes) > 1:
            raise SettingsError("the micrographs have several pixel sizes; give the box in pixels, for example 200px")
        box_px = box_length.middle_px(sizes.pop() if len(sizes) == 1 else pixel_size_angstrom)
    files = write_picks(
        picks,
        target,
        format=to,
        box_px=box_px,
        rows=cs_rows,
        pixel_size_angstrom=pixel_size_angstrom,
        keep_rejected=keep_rejected,
    )
    if not images.sources and any(path.suffix == ".star" for path in files):
        bare = [one.micrograph_name for one in picks if without_extension(one.micrograph_name) == one.micrograph_name]
        if bare:
            warnings.append(
                f"micrograph names such as {bare[0]} have no extension, so RELION will not find the images; "
                "give them (--micrographs DIR) to write their full names"
            )
    particles = sum(len(one) if keep_rejected else int(one.is_kept.sum()) for one in picks)
    return Conversion(tuple(files), len(picks), particles, is_flipped, fit, tuple(warnings))


class _Images:
    """The micrographs that were given: sizes at once, pixels when asked."""

    def __init__(self, inputs: Sequence[Path | str], pixel_size_angstrom: float | None) -> None:
        self.sources: dict[str, MicrographSource] = {}
        self.shape_of: dict[str, tuple[int, int]] = {}
        self.pixel_size_of: dict[str, float | None] = {}
        for one in find_micrographs(list(inputs)) if inputs else ():
            self.sources[one.name] = one
            self.pixel_size_of[one.name] = pixel_size_angstrom
            try:
                info = probe_image(one.path)
            except InputError as error:
                _logger.warning("size and pixel size of a micrograph stay unknown: %s", error)
                continue
            self.shape_of[one.name] = info.shape_yx
            self.pixel_size_of[one.name], _ = choose_pixel_size(
                given_angstrom=pixel_size_angstrom,
                optics_angstrom=one.pixel_size_angstrom,
                header_angstrom=info.pixel_size_angstrom,
            )


def _measured(found: Mapping[str, Picks], images: _Images, diameter: Length | None) -> OrientationFit:
    """The orientation that fits, or an error that says what was measured and what to do."""
    if not images.sources:
        raise SettingsError("--flip-y auto measures the images; give them (--micrographs DIR), or pass yes or no")
    matched = match_micrograph_names(found, images.sources)
    if not matched:
        raise InputError(
            f"no coordinates belong to the given micrographs: coordinates of {', '.join(list(found)[:3])}, micrographs "
            f"{', '.join(list(images.sources)[:3])}; check the folder"
        )
    richest = sorted(matched, key=lambda name: -len(found[name]))[:_MAX_MEASURED]
    known = np.concatenate([found[name].diameter_px for name in richest])
    known = known[np.isfinite(known)]
    if diameter is not None:
        diameter_px = diameter.middle_px(images.pixel_size_of[matched[richest[0]]])
    elif len(known):
        diameter_px = float(np.median(known))
    else:
        raise SettingsError(
            "--flip-y auto needs the particle diameter, which the file lacks; give --diameter (180A, 108px)"
        )
    pixels = [read_source(images.sources[matched[name]]).pixels for name in richest]
    fit = measure_orientation(pixels, [found[name].kept().xy_px for name in richest], diameter_px=diameter_px)
    if not fit.is_clear:
        raise InputError(f"orientation unclear: {fit.describe()}; look at the picks and pass --flip-y yes or no")
    if fit.best not in ("identity", "flip_y"):
        raise InputError(
            f"the coordinates are neither upright nor y-flipped: {fit.describe()}; "
            f"correct the {fit.best} where they come from"
        )
    return fit


def _flipped(picks: Picks, source: Path | str) -> Picks:
    if picks.shape_yx is None:
        raise SettingsError(
            f"{source}: flipping y needs the image size of {picks.micrograph_name}; give --micrographs DIR"
        )
    return replace(picks, xy_px=flip_y_of(picks.xy_px, picks.shape_yx))


def _completed(found: Mapping[str, Picks], images: _Images, *, keep_rejected: bool) -> tuple[list[Picks], list[str]]:
    """The picks with names, sizes and pixel sizes of the images, and what the user should know."""
    matched = match_micrograph_names(found, images.sources) if images.sources else {}
    picks = []
    for name, one in found.items():
        if name in matched:
            image = images.sources[matched[name]]
            one = replace(  # noqa: PLW2901  # the same picks, better known
                one,
                micrograph_name=image.listed_name or image.name,
                pixel_size_angstrom=images.pixel_size_of[image.name] or one.pixel_size_angstrom,
            )
            one = with_image_size(replace(one, warnings=()), images.shape_of.get(image.name), source=name)  # noqa: PLW2901
        picks.append(one)
    warnings = [warning for one in picks for warning in one.warnings]
    unmatched = [name for name in found if name not in matched] if images.sources else []
    if unmatched:
        shown = ", ".join(unmatched[:3])
        warnings.append(f"{len(unmatched)} of {len(found)} coordinate sets have no micrograph, for example {shown}")
    reasons = Counter(str(reason) for one in picks for reason in one.reason if reason)
    if reasons and not keep_rejected:
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        warnings.append(f"left out what the file marks as rejected: {counts}; --all keeps them (CSV)")
    return picks, warnings


def _length(text: Length | str | None) -> Length | None:
    return parse_length(text) if isinstance(text, str) else text
