"""Coordinates from any format to any other, with the frame checked against the images where they are given."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.transforms import flip_y as flip_y_of
from cryopick.geometry.units import Length, parse_length
from cryopick.io.coordinates.box import BoxSize
from cryopick.io.coordinates.formats import (
    FORMATS,
    LIST_FILE,
    CoordinateFormat,
    detect_format,
    files_to_write,
    format_to_write,
    is_folder_to_write,
    needing,
    read_picks,
    write_picks,
)
from cryopick.io.coordinates.grouping import OUTSIDE_THE_IMAGE, with_image_size
from cryopick.io.coordinates.names import match_micrograph_names, without_extension
from cryopick.io.coordinates.relion import ONLY_PARTICLE_PIXELS
from cryopick.io.images.micrographs import probe_image
from cryopick.io.images.pixel_size import choose_pixel_size
from cryopick.io.inputs.sources import MicrographSource, find_micrographs, read_source
from cryopick.processing.orientation import OrientationFit, measure_orientation
from cryopick.runs.folder import CANDIDATES, CONTENTS, RunFolder
from cryopick.runs.picks import completed_from_run, is_picking_run, is_within, micrographs_of_run, picks_file_of, run_of
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
    source : file or folder, see `cryopick.io.coordinates.formats.read_picks`; a run folder, or a table or coordinate
        file in one, is completed by what the run knows: image sizes, pixel sizes, diameters, the suggested box, reasons
    target : file, or folder for one file per micrograph (one that exists, ends with a slash, or has no extension)
    to, from_format : names of formats; None goes by file endings and content
    flip_y : whether the coordinates count y from the last row. "auto" measures it from the images and raises when
        that is unclear. None means "no", except for CryoSPARC's .cs, where it must be given, since both are common
    micrographs : the images (see `cryopick.io.inputs.sources.find_micrographs`): names, sizes and pixel sizes are taken
        from them; needed for "auto", and for formats that lack the image size
    box : side of the boxes in formats that have boxes; None takes the run's suggested box for box and cbox, and else
        each particle's diameter
    diameter : of the particles, for "auto" where the file does not say it
    pixel_size_angstrom : Å per pixel, above what files say
    cs_rows : the convention to write .cs in, "relion" or "flipped"
    keep_rejected : also write candidates that were rejected; only CSV tells them from the others

    Raises
    ------
    InputError, FormatError, SettingsError
        If something cannot be read, is unclear, or is missing, or if a file that would be replaced is the source, part
        of a run folder, or of another format; nothing is written then.
    """
    source = Path(source)
    if flip_y is not None and flip_y not in FLIPS:
        raise SettingsError(f"flip_y is {flip_y!r}, expected one of: {', '.join(FLIPS)}")
    images = _Images(micrographs, pixel_size_angstrom)
    run = run_of(Path(os.path.abspath(source))) if from_format in (None, "star", "csv") else None
    read_as = from_format or (detect_format(source) if source.is_file() else None)
    with_rows = needing("rows")
    is_among = any(any(source.rglob(f"*{FORMATS[name].suffix}")) for name in with_rows) if read_as is None else False
    is_cs = run is None and (read_as in with_rows or is_among)
    told = _Told()

    def read(rows: str | None) -> dict[str, Picks]:
        if run is not None:
            chosen = format_to_write(target, to)
            in_tables = chosen.write_list is not None or not (chosen.is_per_micrograph or is_folder_to_write(target))
            return _read_run(run, source, in_tables=in_tables, keep_rejected=keep_rejected, told=told)
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
    warnings = list(dict.fromkeys([*told.warnings, *warnings]))
    chosen = format_to_write(target, to)
    if keep_rejected and not chosen.has_reasons:
        count = sum(int(np.count_nonzero(~one.is_kept)) for one in picks)
        if count:
            warnings.append(
                f"{chosen.name} cannot mark rejected candidates: {count} of them are written as particles; "
                "csv keeps the reasons"
            )
    box_px: BoxSize = None
    box_length = _length(box)
    if box_length is not None:
        box_px = {
            one.micrograph_name: box_length.middle_px(one.pixel_size_angstrom or pixel_size_angstrom) for one in picks
        }
    elif chosen.boxes_are_cut:
        new_name_of = dict(zip(found, (one.micrograph_name for one in picks), strict=True))
        box_px = {new_name_of[name]: side_px for name, side_px in told.box_px.items()}
    warnings += _check_target(source, target, [one.micrograph_name for one in picks], to)
    files = write_picks(
        picks,
        target,
        format=to,
        box_px=box_px,
        rows=cs_rows,
        pixel_size_angstrom=pixel_size_angstrom,
        keep_rejected=keep_rejected,
    )
    if not images.sources and run is None and any(path.suffix == ".star" for path in files):
        bare = [one.micrograph_name for one in picks if without_extension(one.micrograph_name) == one.micrograph_name]
        if bare:
            warnings.append(
                f"micrograph names such as {bare[0]} have no extension, so RELION will not find the images; "
                "give them (--micrographs DIR) to write their full names"
            )
    particles = sum(len(one) if keep_rejected else int(one.is_kept.sum()) for one in picks)
    return Conversion(tuple(files), len(picks), particles, is_flipped, fit, tuple(warnings))


@dataclass
class _Told:
    """What reading a run came to, besides the picks.

    Parameters
    ----------
    box_px : suggested boxes by the names of the picks
    """

    box_px: Mapping[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def _read_run(run: RunFolder, source: Path, *, in_tables: bool, keep_rejected: bool, told: _Told) -> dict[str, Picks]:
    """The picks of a run, or of a table or coordinate file in it, with what the run knows of them."""
    place = Path(os.path.abspath(source))
    micrographs = micrographs_of_run(run)
    failed = [record.name for record in run.records() if not record.is_done]
    told.warnings = []
    if place == run.path or place.relative_to(run.path).parts[0] == CANDIDATES:
        if place != run.path:
            micrographs = [one for one in micrographs if is_within(run, one.record, place)]
        if not micrographs:
            raise InputError(f"{source}: holds no candidates of a finished micrograph of the run {run.path}")
        if failed and place == run.path:
            told.warnings.append(f"{len(failed)} micrographs of the run failed and have no picks, such as {failed[0]}")
        named = {one.record.relion_name if in_tables else one.record.name: one for one in micrographs}
        told.box_px = {name: one.box_px for name, one in named.items() if one.box_px is not None}
        every = {name: replace(one.candidates, micrograph_name=name) for name, one in named.items()}
        return every if keep_rejected else {name: picks.kept() for name, picks in every.items()}
    found = read_picks(source)
    own = picks_file_of(run, micrographs, place)
    if own is not None:  # its name may be that of several micrographs in folders
        (one,) = found.values()
        found = {own.record.name: replace(one, micrograph_name=own.record.name)}
    picks, told.box_px, told.warnings = completed_from_run(found, micrographs, source, with_rejected=keep_rejected)
    return picks


def _check_target(source: Path, given: Path | str, names: Sequence[str], to: str | None) -> list[str]:
    """Refuse to replace files that are no older result of the same kind; say what else lies in the folder."""
    target = Path(given)
    run = next((folder for folder in (target, *target.absolute().parents) if is_picking_run(folder)), None)
    if run is not None:
        inside = target.absolute().relative_to(run.absolute()).parts
        if not inside or inside[0] in CONTENTS:
            raise SettingsError(f"{target}: is part of the run folder {run}; write to another place")
    chosen = format_to_write(given, to)
    files = files_to_write(names, given, to)
    for file in files:
        if not file.is_file():
            continue
        is_in_source = source.is_dir() and not is_picking_run(source) and source.resolve() in file.resolve().parents
        if file.samefile(source) or is_in_source:
            raise SettingsError(f"{file}: is what is converted and would be replaced; write to another place")
        if not _is_older_result(file, chosen):
            raise InputError(f"{file}: exists and is no {chosen.name} file; remove it, or write to another place")
    if not is_folder_to_write(given) or not target.is_dir():
        return []
    written = set(files)
    endings = f"*{chosen.tail}{chosen.suffix}"
    others = [file for file in sorted(target.rglob(endings)) if file not in written and not file.name.startswith(".")]
    others = [file for file in others if file.name != LIST_FILE]
    if not others:
        return []
    return [
        f"{target}: holds {len(others)} other {chosen.suffix} files, such as {others[0].name}, which are not of this "
        "conversion"
    ]


def _is_older_result(file: Path, chosen: CoordinateFormat) -> bool:
    """True for an empty file, and for one that is in the format to be written."""
    if file.stat().st_size == 0 or chosen.may_replace is None:
        return True
    try:
        return detect_format(file) == chosen.name and chosen.may_replace(file)
    except InputError:
        return False


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
            told = [OUTSIDE_THE_IMAGE] + ([ONLY_PARTICLE_PIXELS] if images.pixel_size_of[image.name] else [])
            others = tuple(text for text in one.warnings if not any(known in text for known in told))
            one = replace(one, warnings=others)  # noqa: PLW2901
            one = with_image_size(one, images.shape_of.get(image.name), source=name)  # noqa: PLW2901
        picks.append(one)
    warnings = list(dict.fromkeys(warning for one in picks for warning in one.warnings))
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
