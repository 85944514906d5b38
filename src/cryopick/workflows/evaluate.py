"""Score picks against labels: a run folder, any coordinate files, or picks in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cryopick.data.labels import Labels
from cryopick.errors import SettingsError
from cryopick.evaluation.scored_sets import pair_up, read_picked_set, read_truth
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
from cryopick.metrics.published import (
    box_counts,
    box_scores,
)
from cryopick.types import Picks, plain_number


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
