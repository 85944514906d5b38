"""Score picks against labels: a run folder, any coordinate files, or picks in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.data.labels import Labels
from cryopick.data.mask_folders import Drawing, drawings_in
from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.comparison import frame_text
from cryopick.evaluation.mask_scores import MaskEvaluation, MaskScores
from cryopick.evaluation.scored_sets import LabelledPicks, pair_up, read_picked_set, read_truth, some_names
from cryopick.evaluation.scores import (
    TOLERANCES,
    Evaluation,
    _calibration,
    _pixel_mask,
    _pixel_size,
    _score_at,
    _without_ignored,
)
from cryopick.geometry.units import Length, as_length
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.raster import read_raster_image
from cryopick.metrics.agreement import CERTAIN_SHARE, PickedPair, placement
from cryopick.metrics.published import (
    box_counts,
    box_scores,
)
from cryopick.metrics.segmentation import ConfusionMatrix
from cryopick.runs.folder import RunFolder
from cryopick.types import CLASS_MAP, PARTICLE_MAP, UNREFINED, Picks, plain_number


def evaluate(
    picks: Path | str | Mapping[str, Picks] | Sequence[Picks],
    truth: Path | str | Mapping[str, Labels],
    *,
    diameter: Length | str | float | None = None,
    tolerance: float = TOLERANCES[0],
    pixel_size_angstrom: float | None = None,
    is_probability: bool | None = None,
    skip_unpicked: bool = False,
    flip_y: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score picks against labels.

    Picks and labels are matched one-to-one within `tolerance` diameters. Left-over picks near an `uncertain` label are
    ignored. A labelled micrograph without picks counts with all its particles missed, unless `skip_unpicked`.

    Parameters
    ----------
    picks : a run folder (its kept picks give the headline, all its candidates the curve), any coordinate file or folder
        of them, or picks in memory
    truth : label files (CSV with `x,y,kind`, or any coordinate format), a data set with its images in `micrographs`
        (a simulation, CryoPPP), a folder of CryoPPP sets, or labels in memory
    diameter : particle diameter, with its unit or in Å; None takes it from the labels (`set.json`, a diameter column)
    tolerance : in diameters; scores at 0.25 and 0.5 are always given as well
    pixel_size_angstrom : Å per px, where picks and labels do not say
    is_probability : whether scores are probabilities, so that calibration makes sense; None asks the run folder
    flip_y : whether y of the labels is counted from the other end: "yes", "no", "auto" (measured on the images), or
        None, which is "no" and an error where images say otherwise
    skip_unpicked : leave out labelled micrographs that have no picks at all, instead of counting them as missed
    seed : of the bootstrap

    Raises
    ------
    InputError
        If no micrograph has both picks and labels, or files cannot be read.
    SettingsError
        If the diameter is unknown, or in Å while the pixel size is unknown.
    """
    if not 0 < tolerance <= 1:
        raise SettingsError(f"tolerance is {tolerance:g} diameters, expected more than 0 and at most 1")
    if seed < 0:
        raise SettingsError(f"seed is {seed}, expected 0 or more")
    picked = read_picked_set(picks)
    if isinstance(truth, Mapping):
        if flip_y is not None:
            raise SettingsError("flip_y is for labels that are read; labels in memory are in our frame")
        labels = truth
    else:
        shapes_yx = {name: one.shape_yx for name, one in picked.candidates.items() if one.shape_yx is not None}
        labels = read_truth(Path(truth), flip_y=flip_y, shapes_yx=shapes_yx)
    length = None if diameter is None else as_length(diameter)
    if pixel_size_angstrom is not None:
        pixel_size_angstrom = plain_number(pixel_size_angstrom, "pixel size")
        if pixel_size_angstrom <= 0:
            raise SettingsError(f"pixel size {pixel_size_angstrom:g}: expected Å per pixel, above 0")
    notes: list[str] = []
    scored = pair_up(
        picked,
        labels,
        diameter=length,
        pixel_size_angstrom=pixel_size_angstrom,
        skip_unpicked=skip_unpicked,
        notes=notes,
    )
    notes += _doubts_about_frame(scored, tolerance)
    # One list of tolerances, the asked one first.
    at = [tolerance, *[other for other in TOLERANCES if other != tolerance]]
    has_scores = all(np.isfinite(one.curve.score).all() for one in scored)
    if not has_scores:
        notes.append("some picks have no score, so there is no curve and no average precision")
    if picked.score_meaning and not picked.is_probability:
        notes.append(f"scores are no calibrated probabilities ({picked.score_meaning}), so calibration says nothing")
    tolerances = tuple(_score_at(one_tolerance, scored, has_scores, seed) for one_tolerance in at)
    kept = [_without_ignored(one) for one in scored]
    ours, released = box_scores(
        [box_counts(xy, one.particles_xy_px, side_px=one.diameter_px) for xy, one in zip(kept, scored, strict=True)]
    )
    return Evaluation(
        tolerances=tolerances,
        diameter_px=float(np.median([one.diameter_px for one in scored])),
        pixel_size_angstrom=_pixel_size(scored, labels, pixel_size_angstrom, notes),
        pixel_mask=_pixel_mask(scored, kept, notes),
        box_one_to_one=ours,
        box_as_released=released,
        calibration=_calibration(scored, picked.is_probability if is_probability is None else is_probability),
        notes=tuple(notes),
        diameter_range_px=(min(one.diameter_px for one in scored), max(one.diameter_px for one in scored)),
    )


def _doubts_about_frame(scored: Sequence[LabelledPicks], tolerance: float) -> list[str]:
    """A sentence where labels and picks would agree much better if the labels were mirrored or moved."""
    pairs = [PickedPair(one.kept.xy_px, one.particles_xy_px, one.diameter_px, one.kept.shape_yx) for one in scored]
    found = placement(pairs, tolerance=tolerance)
    if found is None or found.share < found.plain_share + CERTAIN_SHARE:
        return []
    diameter_px = float(np.median([one.diameter_px for one in scored]))
    names = ("the set of picks", "the set of labels")
    return [
        "do the labels mean these places? "
        + frame_text(names, found, diameter_px=diameter_px, remedy="--flip-y yes turns y of the labels round")
    ]


# ---------------------------------------------------------------------------------------------------- maps and masks

AFTER, BEFORE = "run", "without CRF"


def evaluate_masks(run: Path | str, masks: Path | str, *, rim_px: int = 0) -> MaskEvaluation:
    """Score the maps that a run keeps against masks: accuracy, recall, precision, IoU and F1 of every class of pixel.

    A pixel is of the class that is likeliest, of two classes a particle where its probability is above one half. Where
    the run refined its maps by a conditional random field, those before it are scored as well. Pixels that the masks
    leave open (`ignore/`) do not count. Maps that the run keeps smaller than the micrographs are enlarged, which a note
    tells.

    Parameters
    ----------
    run : folder of a run whose picker maps particles
    masks : a folder of `cryopick label`, of images and masks, of a simulation, or of masks alone
    rim_px : pixels at every border that do not count; the published figures leave out 128

    Raises
    ------
    InputError
        If the run keeps no such map, or no micrograph has both.
    SettingsError
        If the masks have several classes and nobody says which is the particle.
    """
    if rim_px < 0:
        raise SettingsError(f"rim is {rim_px} px, expected 0 or more")
    folder = RunFolder(Path(run))
    if not folder.is_run:
        raise InputError(f"{run}: is no run folder; masks are scored against the maps that a run keeps")
    truth = dict(drawings_in(Path(masks)))
    records = {record.name: record for record in folder.records() if record.is_done}
    matched = match_micrograph_names(truth, records)
    if not matched:
        raise InputError(
            f"none of {len(truth)} masks ({some_names(truth)}) is of a micrograph of the run "
            f"({some_names(records)}); names must agree, folder and extension aside"
        )
    classes = _class_names(next(iter(truth.values())))
    notes: list[str] = []
    unmasked = sorted(set(records) - set(matched.values()))
    if unmasked:
        notes.append(f"{len(unmasked)} micrographs have no masks and are not scored: {some_names(unmasked)}")
    unpicked = sorted(set(truth) - set(matched))
    if unpicked:
        notes.append(f"{len(unpicked)} masks are of micrographs that the run did not pick: {some_names(unpicked)}")
    found: dict[str, dict[str, ConfusionMatrix]] = {}
    enlarged: set[str] = set()
    for name in sorted(matched):
        record, drawing = records[matched[name]], truth[name]
        true = drawing.classes()
        ignored = drawing.is_ignored()
        is_counted = np.zeros(true.shape, np.bool_)
        is_counted[rim_px : true.shape[0] - rim_px, rim_px : true.shape[1] - rim_px] = True
        if ignored is not None:
            is_counted &= ~ignored

        def read(one: str, key: str = record.key, shape: tuple[int, ...] = true.shape) -> NDArray[np.float32]:
            stored = np.asarray(read_raster_image(folder.map_path(key, one)).pixels, np.float32) / np.float32(255)
            if stored.shape != shape:
                enlarged.add(f"{stored.shape[1]} x {stored.shape[0]}")
                return _resized(stored, shape)
            return stored

        for title, ending in ((AFTER, ""), (BEFORE, UNREFINED)):
            answer = _classes_of_maps(read, record.maps, ending, drawing)
            if answer is not None:
                matrix = ConfusionMatrix.of(true[is_counted], answer[is_counted], classes=len(classes))
                found.setdefault(title, {})[name] = matrix
        if name not in found.get(AFTER, {}):
            raise InputError(
                f"{run}: keeps no map called {PARTICLE_MAP!r} of {record.name} (it has: "
                f"{', '.join(record.maps) or 'none'}); pick with one that maps particles: segmentation-crf, cryosegnet"
            )
    if enlarged:
        notes.append(
            f"maps of {', '.join(sorted(enlarged)[:3])} pixels were enlarged; pick with --full-maps to keep them whole"
        )
    if BEFORE in found:
        found = {BEFORE: found[BEFORE], "with CRF": found[AFTER]}
    scores = tuple(MaskScores(title=title, matrices=matrices) for title, matrices in found.items())
    return MaskEvaluation(classes=classes, scores=scores, notes=tuple(notes))


def _class_names(drawing: Drawing) -> tuple[str, ...]:
    count = len(drawing.levels)
    if drawing.names:
        return drawing.names
    if count == 2:
        return tuple("particle" if number == drawing.particle else "background" for number in range(2))
    return tuple(f"class {number}" + (" (particle)" if number == drawing.particle else "") for number in range(count))


def _classes_of_maps(
    read: Callable[[str], NDArray[np.float32]], names: Sequence[str], ending: str, drawing: Drawing
) -> NDArray[np.uint8] | None:
    """(h, w) class of every pixel as the kept maps have it; None where there are none of this kind."""
    count = len(drawing.levels)
    by_class = [CLASS_MAP.format(number) + ending for number in range(count)]
    if count > 2 and set(by_class) <= set(names):
        return np.asarray(np.argmax(np.stack([read(one) for one in by_class]), axis=0), np.uint8)
    if PARTICLE_MAP + ending not in names:
        return None
    if count > 2:
        raise InputError(
            f"{drawing.path}: is a mask of {count} classes, but the run maps particles only; give masks of two classes"
        )
    is_particle = read(PARTICLE_MAP + ending) > 0.5
    return np.asarray(np.where(is_particle, drawing.particle, 1 - drawing.particle), np.uint8)


def _resized(values: NDArray[np.float32], shape_yx: tuple[int, ...]) -> NDArray[np.float32]:
    import cv2

    size = shape_yx[1], shape_yx[0]
    method = cv2.INTER_LINEAR if size[0] * size[1] > values.size else cv2.INTER_AREA
    return np.asarray(cv2.resize(values, size, interpolation=method), np.float32)
