"""Say what is in a file or folder: images, movies, coordinates, lists of micrographs, picking runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import looks_like_dataset
from cryopick.data.summary import describe_dataset
from cryopick.errors import CryopickError, InputError
from cryopick.io.coordinates.formats import FORMATS, LIST_FILE, detect_format, read_picks
from cryopick.io.coordinates.relion import is_relion_coordinates
from cryopick.io.files.reading import dangling_link, explain_read_errors, file_size_bytes
from cryopick.io.images.formats import is_image_name
from cryopick.io.images.info import ImageInfo
from cryopick.io.images.micrographs import probe_image, read_micrograph
from cryopick.io.images.pixel_size import choose_pixel_size
from cryopick.io.inputs.sources import find_micrographs, search_warnings
from cryopick.io.star import StarTable, read_star
from cryopick.processing.defects import mend_pixels
from cryopick.processing.illumination import without_uneven_illumination
from cryopick.types import Picks, plain_number
from cryopick.workflows.inspect_runs import describe_run

_MAX_PROBED = 200
"""Image headers looked at in a folder; the first ones by name."""
_SHOWN_SUFFIXES = (".mrc", ".tif", ".png", ".jpg")
_STAR_HEAD_BYTES = 1 << 16  # an optics table and the labels of the next one fit well
_MEANING_OF_KIND = {"stack": "movie or stack of images", "volume": "3-D map", "image": "micrograph"}


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Parameters
    ----------
    kind : in words, for example "micrograph", "movie or stack of images", "coordinates", "folder"
    facts : name -> text, number, list of them, or counts by text; None where unknown. In the order to show; names
        carry their units.
    warnings : what is doubtful, and what to do about it
    """

    path: Path
    kind: str
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


def inspect(path: str | Path, *, pixel_size_angstrom: float | None = None) -> Inspection:
    """Look into an image, a coordinate file, a STAR file or a folder, such as that of a run.

    Movies, stacks and maps are described, not refused. The pixels of a micrograph are read for their statistics; of a
    folder's images only the headers, at most 200.

    Parameters
    ----------
    pixel_size_angstrom : trusted above the file, as in `cryopick pick`

    Raises
    ------
    InputError
        If there is no such file or folder.
    FormatError
        If the file is damaged or of no known kind.
    """
    path = Path(path)
    if pixel_size_angstrom is not None:
        pixel_size_angstrom = float(plain_number(pixel_size_angstrom, "pixel size"))
    if path.is_dir():
        described = describe_run(path)
        if described is not None:
            return Inspection(path, *described)
        found = _inspect_folder(path, pixel_size_angstrom)
        return _with_labels(found) if looks_like_dataset(path) else found
    if is_image_name(path.name):
        return _inspect_image(path, pixel_size_angstrom)
    file_size_bytes(path)
    if path.suffix.lower() == ".star":
        return _inspect_star(path, pixel_size_angstrom)
    try:
        format_name = detect_format(path)
    except CryopickError as error:
        endings = ", ".join(dict.fromkeys(entry.suffix for entry in FORMATS.values()))
        raise InputError(
            f"{path}: neither an image ({', '.join(_SHOWN_SUFFIXES)}) nor coordinates that are recognised ({endings}); "
            f"{error}"
        ) from error
    return _inspect_coordinates(path, format_name, pixel_size_angstrom)


def _inspect_image(path: Path, pixel_size_angstrom: float | None) -> Inspection:
    info = probe_image(path)
    facts = _facts_of_image(info, path)
    if info.kind != "image":
        chosen, warnings = _chosen_pixel_size(info, pixel_size_angstrom)
        facts["pixel_size_angstrom"] = chosen
        if info.kind != "volume":
            warnings += ("not a micrograph: pick from the motion-corrected sum of the frames",)
        kind = f"{info.format} movie" if info.kind == "movie" else _MEANING_OF_KIND[info.kind]
        return Inspection(path, kind, facts, (*info.warnings, *warnings))
    micrograph = read_micrograph(path, pixel_size_angstrom=pixel_size_angstrom)
    chosen = micrograph.pixel_size_angstrom
    facts["pixel_size_angstrom"] = chosen
    if chosen is not None:
        facts["field_yx_um"] = [side * chosen * 1e-4 for side in micrograph.shape_yx]
    facts |= _statistics(micrograph.pixels)
    mended = mend_pixels(micrograph.pixels, is_last_row_first=info.format == "TIFF")
    _, told = without_uneven_illumination(mended.pixels)
    warnings = (*micrograph.warnings, *mended.warnings, *told)
    return Inspection(path, _MEANING_OF_KIND[info.kind], facts, warnings)


def _facts_of_image(info: ImageInfo, path: Path) -> dict[str, Any]:
    stored = info.dtype if info.mrc_mode is None else f"{info.dtype} (MRC mode {info.mrc_mode})"
    facts: dict[str, Any] = {
        "format": info.format,
        "shape_yx": list(info.shape_yx),
        "stored_pixels": stored,
        "file_size_mb": round(file_size_bytes(path) / 1e6, 3),
    }
    if info.n_frames != 1:
        facts["sections" if info.kind == "volume" else "frames"] = info.n_frames
    return facts


def _chosen_pixel_size(info: ImageInfo, given_angstrom: float | None) -> tuple[float | None, tuple[str, ...]]:
    return choose_pixel_size(
        given_angstrom=given_angstrom, optics_angstrom=None, header_angstrom=info.pixel_size_angstrom
    )


def _statistics(pixels: NDArray[np.float32]) -> dict[str, Any]:
    is_finite = np.isfinite(pixels)
    finite = pixels.reshape(-1) if is_finite.all() else pixels[is_finite]
    n_bad = pixels.size - finite.size
    facts: dict[str, Any] = {"non_finite_pixels": n_bad} if n_bad else {}
    if not finite.size:
        return facts
    low, median, high = np.percentile(finite, (0.1, 50, 99.9))
    return facts | {
        "mean": float(finite.mean(dtype=np.float64)),
        "standard_deviation": float(finite.std(dtype=np.float64)),
        "range": [float(finite.min()), float(finite.max())],
        "percentiles_0.1_50_99.9": [float(low), float(median), float(high)],
    }


def _inspect_star(path: Path, pixel_size_angstrom: float | None) -> Inspection:
    tables = read_star(path)
    if is_relion_coordinates(tables):
        return _inspect_coordinates(path, "star", pixel_size_angstrom, tables=tables)
    facts: dict[str, Any] = _facts_of_tables(tables)
    if not any("rlnMicrographName" in table for table in tables.values()):
        return Inspection(path, "STAR file", facts, ("neither micrographs nor coordinates are listed in it",))
    sources = find_micrographs([path])
    missing = [source for source in sources if not source.path.is_file()]
    facts["micrographs"] = len(sources)
    facts["micrographs_found"] = len(sources) - len(missing)
    sizes = Counter(source.pixel_size_angstrom for source in sources)
    facts["pixel_size_angstrom"] = list(sizes)
    warnings: tuple[str, ...] = ()
    for size in sizes:
        _, doubts = choose_pixel_size(given_angstrom=pixel_size_angstrom, optics_angstrom=size, header_angstrom=None)
        warnings += doubts
    if missing:
        warnings += (f"{len(missing)} micrographs are missing, the first being {missing[0].path}",)
    return Inspection(path, "list of micrographs", facts, tuple(dict.fromkeys(warnings)))


def _facts_of_tables(tables: Mapping[str, StarTable]) -> dict[str, Any]:
    return {
        f"data_{name}": f"{len(table)} rows: {', '.join(table.columns) or 'no columns'}"
        for name, table in tables.items()
    }


def _inspect_coordinates(
    path: Path,
    format_name: str,
    pixel_size_angstrom: float | None,
    *,
    tables: Mapping[str, StarTable] | None = None,
) -> Inspection:
    facts: dict[str, Any] = {"format": f"{format_name} ({FORMATS[format_name].description})"}
    facts |= _facts_of_tables(tables or {})
    try:
        picks = read_picks(path, pixel_size_angstrom=pixel_size_angstrom)
    except InputError:
        raise
    except CryopickError as error:  # readable, were something more known: an image size, a row convention
        return Inspection(path, "coordinates", facts, (str(error),))
    return Inspection(path, "coordinates", facts | _facts_of_picks(picks), _warnings_of_picks(picks))


def _facts_of_picks(picks: Mapping[str, Picks]) -> dict[str, Any]:
    facts: dict[str, Any] = {"micrographs": len(picks), "picks": sum(len(one) for one in picks.values())}
    if not facts["picks"]:
        return facts
    xy_px = np.concatenate([one.xy_px for one in picks.values()])
    facts["x_px"] = [float(xy_px[:, 0].min()), float(xy_px[:, 0].max())]
    facts["y_px"] = [float(xy_px[:, 1].min()), float(xy_px[:, 1].max())]
    score = np.concatenate([one.score for one in picks.values()])
    if np.isfinite(score).any():
        facts["score"] = [float(np.nanmin(score)), float(np.nanmax(score))]
    diameter_px = np.concatenate([one.diameter_px for one in picks.values()])
    if np.isfinite(diameter_px).any():
        facts["diameter_px"] = [float(np.nanmin(diameter_px)), float(np.nanmax(diameter_px))]
    sizes = sorted({one.pixel_size_angstrom for one in picks.values() if one.pixel_size_angstrom is not None})
    if sizes:
        facts["pixel_size_angstrom"] = sizes
    return facts


def _warnings_of_picks(picks: Mapping[str, Picks]) -> tuple[str, ...]:
    told = Counter(warning for one in picks.values() for warning in one.warnings)
    return tuple(f"{text} ({count} micrographs)" if count > 1 else text for text, count in told.items())


def _inspect_folder(folder: Path, pixel_size_angstrom: float | None) -> Inspection:
    with explain_read_errors(folder):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    images = [path for path in files if is_image_name(path.name)]
    coordinate_files = _coordinate_formats(files)
    if not images and not coordinate_files:
        reasons = [why for path in sorted(folder.rglob("*")) if (why := dangling_link(path)) is not None]
        raise InputError(
            f"{folder}: neither images ({', '.join(_SHOWN_SUFFIXES)}) nor coordinates found in {len(files)} files"
            + (f"; of {len(reasons)} more the first: {reasons[0]}" if reasons else "")
        )
    facts: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    if images:
        try:
            with search_warnings(are_logged=False) as told:
                sources = find_micrographs([folder])
            facts["micrographs"] = len(sources)
            gone = [source for source in sources if dangling_link(source.path) is not None]
            if gone:
                told.append(f"{len(gone)} micrographs are links that lead nowhere, the first being {gone[0].path}")
            warnings += tuple(told)
        except CryopickError as error:  # what `cryopick pick` would answer
            warnings += (str(error),)
        image_facts, image_warnings = _probe_all(images, pixel_size_angstrom)
        facts |= image_facts
        warnings += image_warnings
    if coordinate_files:
        facts["coordinate_files"] = dict(coordinate_files.most_common())
    kind = "folder"
    if (folder / LIST_FILE).is_file():
        kind = "RELION picking job"
        try:
            facts |= {f"autopick_{name}": fact for name, fact in _facts_of_picks(read_picks(folder)).items()}
        except CryopickError as error:
            warnings += (str(error),)
    return Inspection(folder, kind, facts, warnings)


def _with_labels(found: Inspection) -> Inspection:
    """The folder as a labelled data set: counts, frame, and what looks wrong."""
    try:
        summary = describe_dataset(found.path)
    except CryopickError as error:  # what `cryopick train` would answer
        return replace(found, kind="data set", warnings=(*found.warnings, str(error)))
    warnings = dict.fromkeys((*found.warnings, *summary.problems))
    return replace(found, kind="data set", facts={**found.facts, **summary.facts()}, warnings=tuple(warnings))


def _probe_all(paths: Sequence[Path], pixel_size_angstrom: float | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Formats, shapes and pixel sizes with their counts; a warning per kind of doubt, naming one file."""
    formats: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    doubts: dict[str, list[Path]] = {}
    for path in paths[:_MAX_PROBED]:
        try:
            info = probe_image(path)
        except CryopickError as error:
            doubts.setdefault(f"cannot be read: {str(error).removeprefix(f'{path}: ')}", []).append(path)
            continue
        formats[f"{info.format} {info.dtype}"] += 1
        rows, columns = info.shape_yx
        shapes[f"{rows} x {columns}"] += 1
        size, told = _chosen_pixel_size(info, pixel_size_angstrom)
        sizes["unknown" if size is None else f"{size:g}"] += 1
        if info.kind != "image":
            told += (f"not a micrograph but a {info.kind}",)
        for text in (*info.warnings, *told):
            doubts.setdefault(text, []).append(path)
    facts: dict[str, Any] = {
        "image_files": len(paths),
        "formats": dict(formats.most_common()),
        "shapes_yx": dict(shapes.most_common()),
        "pixel_sizes_angstrom": dict(sizes.most_common()),
    }
    if len(paths) > _MAX_PROBED:
        facts["headers_looked_at"] = _MAX_PROBED
    warnings = tuple(
        f"{text} ({files[0]})" if len(files) == 1 else f"{text} ({files[0]} and {len(files) - 1} more)"
        for text, files in doubts.items()
    )
    return facts, warnings


def _coordinate_formats(files: Sequence[Path]) -> Counter[str]:
    """Numbers of files by coordinate format; tables without coordinates, such as of micrographs, do not count."""
    suffixes = {entry.suffix for entry in FORMATS.values()}
    found: Counter[str] = Counter()
    for path in files:
        if path.suffix.lower() not in suffixes:
            continue
        try:
            if path.suffix.lower() != ".star" or _mentions_coordinates(path):
                found[detect_format(path)] += 1
        except InputError:  # not of any format: not a coordinate file
            continue
    return found


def _mentions_coordinates(path: Path) -> bool:
    """True when the labels at the start of a STAR file are those of coordinates; the rows may be millions."""
    with explain_read_errors(path), path.open("rb") as stream:
        head = stream.read(_STAR_HEAD_BYTES)
    return b"_rlnCoordinateX" in head or b"_rlnMicrographCoordinates" in head
