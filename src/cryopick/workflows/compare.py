"""Compare several runs, or picks of any program: what does one see that the other does not?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, InputError
from cryopick.evaluation.comparison import Comparison, compare_sets, only_in, write_comparison
from cryopick.evaluation.scored_sets import read_picked_set
from cryopick.geometry.units import Length, as_length
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.micrographs import probe_image, read_micrograph
from cryopick.io.inputs.sources import find_micrographs
from cryopick.pages.parts import Picture
from cryopick.runs.folder import RunFolder
from cryopick.runs.report.pictures import gallery_png

CELLS = 24
"""Close-ups in a gallery, of the picks that one set alone has."""
MOST_MICROGRAPHS = 6
"""Read for the galleries: those with the most of such picks."""
VIEW_DIAMETERS = 2.0
"""Side of a close-up in particle diameters."""


def compare(
    sets: Sequence[Path | str],
    *,
    names: Sequence[str] = (),
    output: Path | str | None = None,
    micrographs: Sequence[Path | str] = (),
    diameter: Length | str | float | None = None,
    tolerance: float = 0.25,
    pixel_size_angstrom: float | None = None,
) -> Comparison:
    """Compare the picks of several runs, or coordinate files, on the micrographs that all of them have.

    Parameters
    ----------
    sets : run folders, coordinate files, or folders of them; two or more
    names : what to call them, as many; by default the names of their files and folders, as far up as they differ
    output : folder for comparison.html with pictures of what only one has, comparison.md, .json and particles.csv
    micrographs : the images, for their sizes, by which mirrored picks are found, and for the pictures; runs know theirs
    diameter : of the particles, with its unit or in Å; None takes the median of the picks' diameters
    tolerance : largest distance of two picks of one particle, in diameters
    pixel_size_angstrom : Å per px, where the sets do not say

    Raises
    ------
    InputError
        If a set cannot be read, or they have no micrograph in common.
    SettingsError
        If no diameter is known.
    """
    paths = [Path(one) for one in sets]
    called = names_of_sets(paths, names)
    picked = {name: read_picked_set(path) for name, path in zip(called, paths, strict=True)}
    images = _images(list(picked[called[0]].candidates), paths, micrographs)
    comparison = compare_sets(
        picked,
        shapes_yx={name: probe_image(path).shape_yx for name, path in images.items()},
        diameter=None if diameter is None else as_length(diameter),
        pixel_size_angstrom=pixel_size_angstrom,
        tolerance=tolerance,
    )
    if output is not None:
        write_comparison(comparison, Path(output), galleries(comparison, images))
    return comparison


def galleries(comparison: Comparison, images: Mapping[str, Path]) -> list[Picture]:
    """Close-ups of the best picks that one set alone has, a picture a set; none for micrographs without an image."""
    pictures = []
    for name in comparison.names:
        alone = [(micrograph, picks) for micrograph, picks in only_in(comparison, name) if micrograph in images]
        alone = sorted(alone, key=lambda item: -len(item[1]))[:MOST_MICROGRAPHS]
        cells: list[tuple[float, NDArray[np.float32]]] = []
        for micrograph, picks in alone:
            if not len(picks):
                continue
            try:
                pixels = read_micrograph(images[micrograph]).pixels
            except CryopickError:  # it was picked once; what is gone since then is not shown
                continue
            one = next(each for each in comparison.micrographs if each.name == micrograph)
            best = picks.take(np.arange(min(len(picks), CELLS)))
            views = _views(pixels, best.xy_px, VIEW_DIAMETERS * one.diameter_px)
            cells += list(zip(np.nan_to_num(best.score, nan=0.0).tolist(), views, strict=True))
        cells.sort(key=lambda cell: -cell[0])
        if cells:
            pictures.append(
                Picture(
                    title=_title(name, len(cells), sum(len(picks) for _, picks in only_in(comparison, name))),
                    png=gallery_png([view for _, view in cells[:CELLS]]),
                )
            )
    return pictures


def _title(name: str, shown: int, there: int) -> str:
    return f"Only {name} has these" if shown == there else f"Only {name} has these: {min(shown, CELLS)} of {there:,}"


def _views(pixels: NDArray[np.float32], xy_px: NDArray[np.float64], side_px: float) -> list[NDArray[np.float32]]:
    """Square windows about the centres; what lies beyond the micrograph is its mean."""
    half = max(4, round(side_px / 2))
    padded = np.pad(pixels, half, constant_values=float(np.nanmean(pixels)))
    middle = np.rint(xy_px).astype(np.intp)
    inside = np.clip(middle, 0, np.array(pixels.shape[::-1]) - 1)
    return [padded[y : y + 2 * half, x : x + 2 * half] for x, y in inside.tolist()]


def names_of_sets(paths: Sequence[Path], given: Sequence[str]) -> list[str]:
    if given:
        if len(given) != len(paths) or len(set(given)) != len(given):
            raise InputError(f"{len(paths)} sets need as many different names, got {len(given)}: {', '.join(given)}")
        return list(given)
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    if len(set(parts)) < len(parts):
        raise InputError("one of the sets is given twice")
    for depth in range(1, max(map(len, parts)) + 1):
        called = ["/".join(one[-depth:]) for one in parts]
        if len(set(called)) == len(called):
            break
    return called


def _images(names: Sequence[str], paths: Sequence[Path], given: Sequence[Path | str]) -> dict[str, Path]:
    """The image of each of these micrographs of which one is known and there."""
    known: dict[str, Path] = {}
    if given:
        sources = {source.name: source.path for source in find_micrographs(given)}
        known = {name: sources[source] for name, source in match_micrograph_names(names, sources).items()}
    for path in paths:
        folder = RunFolder(path)
        if folder.is_run:
            sources = {record.name: Path(record.source) for record in folder.records() if record.is_done}
            found = match_micrograph_names([name for name in names if name not in known], sources)
            known |= {name: sources[source] for name, source in found.items()}
    return {name: path for name, path in known.items() if path.is_file()}
