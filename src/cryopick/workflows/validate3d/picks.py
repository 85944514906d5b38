"""Whose picks are validated: the same micrographs for all, no particle twice, none whose box leaves the image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.scored_sets import read_picked_set, some_names
from cryopick.geometry.selection import stand_apart
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.micrographs import probe_image
from cryopick.io.inputs.sources import find_micrographs
from cryopick.runs.exclusion_masks import match_masks, read_mask
from cryopick.runs.folder import RunFolder
from cryopick.runs.stored_settings import read_plan_of_run
from cryopick.simulation.scene.layout import scatter
from cryopick.types import Picks

DUPLICATE_DIAMETERS = 0.3
"""Two picks nearer than this are one particle: neighbours that touch lie 0.8 diameters or more apart."""
OVERHANG_DIAMETERS = 0.25
"""How far a box may leave the image; a box of 1.5 diameters then still holds the whole particle."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """A micrograph of the validation."""

    name: str
    path: Path
    shape_yx: tuple[int, int]
    pixel_size_angstrom: float


@dataclass(frozen=True, eq=False)
class CleanPicks:
    """The picks of one run that are validated, as one list.

    Parameters
    ----------
    name : of the run
    micrograph : (n,) index into the validation's images
    xy_px : (n, 2) centres in the stored micrograph
    score : (n,) NaN where unknown
    given, duplicates, at_border, left_out : how many picks came, and how many went for which reason (`left_out`:
        `--max-particles`)
    """

    name: str
    micrograph: NDArray[np.int64]
    xy_px: NDArray[np.float64]
    score: NDArray[np.float32]
    given: int
    duplicates: int
    at_border: int
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.xy_px)


def read_runs(runs: Mapping[str, Path]) -> dict[str, dict[str, Picks]]:
    """The kept picks of each run by micrograph, as the run names them."""
    return {
        name: {micrograph: one.kept() for micrograph, one in read_picked_set(path).candidates.items()}
        for name, path in runs.items()
    }


def find_images(
    runs: Mapping[str, Path],
    picks: Mapping[str, Mapping[str, Picks]],
    given: Sequence[Path | str],
    *,
    pixel_size_angstrom: float | None,
) -> list[Image]:
    """The micrographs: those that are given, or else those that the run folders were picked from.

    Raises
    ------
    InputError
        If no images are known, or they differ in pixel size.
    SettingsError
        If no pixel size is known.
    """
    sources: dict[str, tuple[Path, float | None]] = {}
    if given:
        sources = {one.name: (one.path, one.pixel_size_angstrom) for one in find_micrographs(given)}
    else:
        for path in runs.values():
            folder = RunFolder(path)
            if folder.is_run and not sources:
                sources = {
                    one.name: (Path(one.source), one.pixel_size_angstrom) for one in folder.records() if one.is_done
                }
    if not sources:
        raise InputError(
            f"{', '.join(runs)}: coordinates do not say where their micrographs lie; give the images (--micrographs)"
        )
    told = [one.pixel_size_angstrom for by_name in picks.values() for one in by_name.values()]
    from_picks = next((size for size in told if size), None)
    images = []
    for name, (path, size) in sorted(sources.items()):
        if not path.is_file():
            raise InputError(f"{path}: no such file; it was picked as {name}; give the images (--micrographs)")
        info = probe_image(path)
        found = pixel_size_angstrom or size or info.pixel_size_angstrom or from_picks
        if not found:
            raise SettingsError(f"{path}: the pixel size is unknown; give it in Å per pixel (--pixel-size)")
        images.append(Image(name, path, info.shape_yx, float(found)))
    sizes = {round(one.pixel_size_angstrom, 3) for one in images}
    if len(sizes) > 1:
        raise InputError(
            f"the micrographs have pixels of {', '.join(f'{size:g}' for size in sorted(sizes))} Å; particles of one "
            "map come from micrographs of one pixel size; validate them apart, or give --pixel-size"
        )
    return images


def on_images(
    picks: Mapping[str, Mapping[str, Picks]], images: Sequence[Image], *, are_images_given: bool
) -> dict[str, list[Picks]]:
    """Each run's picks in the order of the images.

    Parameters
    ----------
    are_images_given : the user named the micrographs: a run has no picks on one that it does not name; otherwise every
        run must name all of them

    Raises
    ------
    InputError
        If the runs do not name the same micrographs; the message lists the difference.
    """
    names = [one.name for one in images]
    found, differences = {}, []
    for run, by_name in picks.items():
        matched = match_micrograph_names(names, by_name)
        missing = [name for name in names if name not in matched]
        extra = sorted(set(by_name) - set(matched.values()))
        if missing and not are_images_given:
            differences.append(f"{run} lacks {len(missing)} of {len(names)}: {some_names(missing)}")
        elif len(missing) == len(names):
            differences.append(f"{run} has none of them; it names {some_names(by_name)}")
        if extra and not are_images_given:
            differences.append(f"{run} has {len(extra)} more: {some_names(extra)}")
        elif extra:
            _log.warning("%s: picks on %d micrographs that were not given: %s", run, len(extra), some_names(extra))
        if missing and are_images_given and len(missing) < len(names):
            _log.warning("%s: no picks on %d micrographs: %s", run, len(missing), some_names(missing))
        found[run] = [
            by_name[matched[name]] if name in matched else Picks(xy_px=np.zeros((0, 2)), micrograph_name=name)
            for name in names
        ]
    if differences:
        raise InputError(
            "all runs must be of the same micrographs, and are not: "
            + "; ".join(differences)
            + ". Pick those too, or say which count (--micrographs): a run without picks there then has none"
        )
    return found


def clean_picks(
    name: str,
    picks: Sequence[Picks],
    images: Sequence[Image],
    *,
    diameter_px: float,
    box_px: int,
    max_particles: int | None = None,
    seed: int = 0,
) -> CleanPicks:
    """Leave out second picks of a particle (the better score stays) and picks whose box leaves the image too far."""
    kept: list[Picks] = []
    given = duplicates = at_border = left_out = 0
    apart_px = DUPLICATE_DIAMETERS * diameter_px
    for one, image in zip(picks, images, strict=True):
        given += len(one)
        ordered = one.take(np.argsort(-np.nan_to_num(one.score, nan=-np.inf), kind="stable"))
        stands = stand_apart(ordered.xy_px, lambda better, _: np.full(len(better), apart_px), reach_px=apart_px)
        duplicates += int((~stands).sum())
        ordered = ordered.take(stands)
        is_inside = box_fits(ordered.xy_px, image, diameter_px=diameter_px, box_px=box_px)
        at_border += int((~is_inside).sum())
        kept.append(ordered.take(is_inside))
    micrograph = np.repeat(np.arange(len(kept)), [len(one) for one in kept]).astype(np.int64)
    index = np.arange(len(micrograph))
    if max_particles is not None and len(index) > max_particles:
        left_out = len(index) - max_particles
        index = np.sort(np.random.default_rng(seed).permutation(len(index))[:max_particles])
    xy = np.concatenate([np.zeros((0, 2)), *(one.xy_px for one in kept)])
    score = np.concatenate([np.zeros(0, np.float32), *(one.score for one in kept)])
    return CleanPicks(name, micrograph[index], xy[index], score[index], given, duplicates, at_border, left_out)


def box_fits(xy_px: NDArray[np.float64], image: Image, *, diameter_px: float, box_px: int) -> NDArray[np.bool_]:
    """(n,) True where a box around the centre leaves the image by no more than a quarter of the diameter."""
    low = box_px / 2 - OVERHANG_DIAMETERS * diameter_px
    high = np.array(image.shape_yx[::-1]) - low
    return np.asarray(((xy_px >= low) & (xy_px <= high)).all(axis=1))


def random_picks(
    like: Sequence[Picks], images: Sequence[Image], *, diameter_px: float, box_px: int, run: Path | None, seed: int
) -> list[Picks]:
    """As many places on each micrograph as a run picked there, anywhere but where that run excluded.

    Parameters
    ----------
    like : the run's picks
    run : its folder, whose exclusion masks hold here too; None where it has no folder
    """
    masks = _exclusion_masks(run, images)
    found = []
    for number, (one, image) in enumerate(zip(like, images, strict=True)):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        preference = None
        if image.name in masks:
            mask = read_mask(masks[image.name])
            preference = _stretched(~mask, image.shape_yx).astype(np.float32)
        xy_px = scatter(
            rng,
            image.shape_yx,
            count=len(one),
            min_distance_px=DUPLICATE_DIAMETERS * diameter_px,
            margin_px=max(0.0, box_px / 2 - OVERHANG_DIAMETERS * diameter_px),
            preference=preference,
        )
        found.append(replace(Picks(xy_px=xy_px), micrograph_name=image.name, shape_yx=image.shape_yx))
    return found


def _exclusion_masks(run: Path | None, images: Sequence[Image]) -> dict[str, Path]:
    """The masks under which a run picked, by micrograph; {} where it had none."""
    if run is None or not RunFolder(run).is_run:
        return {}
    told = read_plan_of_run(RunFolder(run))[1].get("run", {}).get("exclusion_masks")
    if told is None:
        return {}
    if not Path(told).is_dir():
        _log.warning(
            "%s was picked under exclusion masks in %s, which are not there; random picks ignore them", run, told
        )
        return {}
    return match_masks([one.name for one in images], Path(told)).of_micrograph


def _stretched(mask: NDArray[np.bool_], shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    rows = np.minimum(np.arange(shape_yx[0]) * mask.shape[0] // shape_yx[0], mask.shape[0] - 1)
    columns = np.minimum(np.arange(shape_yx[1]) * mask.shape[1] // shape_yx[1], mask.shape[1] - 1)
    return np.asarray(mask[rows[:, None], columns])
