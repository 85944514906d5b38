"""Self-training: the confident picks of a run retrain the picker on the user's own micrographs, without any labels.

As CryoSegNet's authors fine-tune with predicted labels (Gyawali et al., Brief. Bioinform. 25(4), bbae282, 2024), with
two safeguards: only picks that are expected to be right teach, and they count as sparse labels, so that a particle
which was not picked is not taught to be background.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.units import Length, share_percent
from cryopick.io.weights import find_weights
from cryopick.pickers.protocol import gives_probabilities
from cryopick.processing.probability import threshold_for_precision
from cryopick.runs.files import overwritten_files
from cryopick.runs.folder import PARTICLES, RunFolder
from cryopick.runs.results import RunSummary
from cryopick.runs.settings import make_settings
from cryopick.runs.stored_settings import plan_of_run
from cryopick.training.folder import refuse_other_folders
from cryopick.training.logs import Monitor
from cryopick.training.loop import require_training_packages
from cryopick.workflows.finetune import FinetuneResult, finetune
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold

BEFORE, TUNED, AFTER = "before", "tuned", "after"
FEWEST_TEACHERS = 50
"""Confident picks below which there is nothing to learn from."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SelfTrainResult:
    """How self-training ended.

    Parameters
    ----------
    teachers : confident picks that taught
    before, after : expected F1 of the runs with the old and with the new weights, threshold chosen by each; this is the
        picker's own estimate and needs no labels; NaN where its scores are no probabilities
    weights : the better ones
    is_better : False when the old weights were kept
    """

    teachers: int
    before: float
    after: float
    weights: Path
    is_better: bool
    finetuning: FinetuneResult


def self_train(
    picker: str,
    micrographs: Sequence[str | Path],
    output: Path | str,
    *,
    weights: Path | str | None = None,
    diameter: Length | None = None,
    pixel_size_angstrom: float | None = None,
    confidence: float = 0.95,
    min_score: float | None = None,
    as_: str | None = None,
    task: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    resume: bool = False,
    monitor: Monitor | None = None,
) -> SelfTrainResult:
    """Pick, retrain on the picks that are expected to be right, pick again, keep the better weights.

    `output` receives the run before (`before/`), the training (`tuned/`) and the run after (`after/`).

    Parameters
    ----------
    confidence : expected precision of the picks that teach
    min_score : instead, the least score of the picks that teach, for pickers whose scores are no probabilities
    as_ : "article" or "program": pick and train as published

    Raises
    ------
    SettingsError
        If the picker's scores are not probabilities and no least score is given, or the confidence is not between 0
        and 1.
    InputError
        If too few picks are confident.
    MissingExtraError, RunFolderError
        As `finetune`, before anything is picked.
    """
    if not 0 < confidence < 1:
        raise SettingsError(f"confidence is {confidence:g}, expected a fraction between 0 and 1, such as 0.95")
    require_training_packages()
    output = Path(output)
    refuse_other_folders(output / TUNED, resume=resume)
    old_weights = find_weights(weights or picker)
    given: dict[str, Any] = {"diameter": diameter, "pixel_size_angstrom": pixel_size_angstrom}
    if as_ is not None:
        given["as_"] = as_
    settings = make_settings(picker, **_known(given), weights=old_weights)
    is_calibrated = gives_probabilities(settings.picker)
    if not is_calibrated and min_score is None:
        raise SettingsError(
            f"the scores of picker {picker!r} are no probabilities here, so it cannot tell how sure it is of a pick; "
            "say with --min-score from which score on picks teach"
        )
    before = pick_to_folder(micrographs, output / BEFORE, settings)
    folder = RunFolder(output / BEFORE)
    if folder.moved_threshold() is not None:  # of a call that was stopped while it trained; scores are of the run's own
        before = rethreshold(output / BEFORE, None)
    scores = np.concatenate([folder.read_candidates(one).kept().score for one in folder.records() if one.is_done])
    threshold = threshold_for_precision(scores, confidence) if min_score is None else min_score
    teachers = int((scores >= threshold).sum())
    if teachers < FEWEST_TEACHERS:
        sure = (
            f"are expected to be right to {share_percent(confidence)}"
            if min_score is None
            else (
                f"score {min_score:g} or more (the scores lie from {scores.min(initial=np.inf):.4g} to "
                f"{scores.max(initial=-np.inf):.4g})"
            )
        )
        lower = "confidence" if min_score is None else "least score"
        raise InputError(
            f"{output / BEFORE}: only {teachers} picks {sure}, at least {FEWEST_TEACHERS} are needed; give more "
            f"micrographs, a lower {lower}, or label some by hand"
        )
    rethreshold(output / BEFORE, threshold)
    seen = plan_of_run(folder).seen
    working = seen.working_size or seen.particle_size or diameter
    tuning = finetune(
        picker,
        output / BEFORE / PARTICLES,
        output / TUNED,
        micrographs=tuple(micrographs),
        weights=old_weights,
        diameter=working,
        pixel_size_angstrom=pixel_size_angstrom,
        labels="sparse",
        flip_y="no",
        as_=as_,
        task=task,
        training=training,
        resume=resume,
        monitor=monitor,
    )
    rethreshold(output / BEFORE, None)
    # the same diameter, so that only the weights differ
    given["diameter"] = seen.particle_size or diameter
    if hasattr(settings.picker, "working_diameter"):
        given["working_diameter"] = working
    settings_after = make_settings(
        picker,
        **_known(given),
        weights=tuning.training.weights,
    )
    # picks of an earlier call are those of weights that were trained for less long
    is_stale = bool(overwritten_files(RunFolder(output / AFTER), settings_after.picker))
    after = pick_to_folder(micrographs, output / AFTER, settings_after, overwrite=is_stale)
    # without probabilities there is no expected F1; the micrographs that validated the training have decided
    is_better = tuning.is_better and (not is_calibrated or expected_f1(after) >= expected_f1(before))
    if not is_better:
        _logger.info("self-training did not improve on the start: the old weights are kept")
    return SelfTrainResult(
        teachers=teachers,
        before=expected_f1(before) if is_calibrated else math.nan,
        after=expected_f1(after) if is_calibrated else math.nan,
        weights=tuning.training.weights if is_better else old_weights,
        is_better=is_better,
        finetuning=tuning,
    )


def expected_f1(summary: RunSummary) -> float:
    """Harmonic mean of a run's expected precision and recall."""
    precision, recall = summary.expected_precision or 0.0, summary.expected_recall or 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _known(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
