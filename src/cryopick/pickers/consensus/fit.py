"""Fit what members' scores are worth together, on simulated micrographs that none of them was trained or measured on.

    cryopick simulate -o runs/consensus-data --structure random --proteins 110 --count 110 --size 1024x1024 --seed 70002
    python -m cryopick.pickers.consensus.fit runs/consensus-data -o runs/consensus

writes `weights.safetensors` and its card.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cryopick.data.datasets import open_dataset
from cryopick.geometry.pairing import pair_points
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.weights import ModelCard, save_checkpoint
from cryopick.metrics.detection import RankedOutcomes, precision_recall_curve, rank_outcomes
from cryopick.pickers.consensus.picker import DEFAULT_MEMBERS
from cryopick.pickers.consensus.stacking import OF_A_GROUP, PICKER, Stacking, choices_of, features, joined, name_of
from cryopick.pickers.registry import make_picker
from cryopick.pickers.survey import Survey
from cryopick.training.judging import TOLERANCE_DIAMETERS, fit_calibration
from cryopick.types import Picks

FOLDS = 5
"""Micrographs are divided by protein; each is judged and calibrated by a fit that has not seen its part."""
PENALTY = 1.0
"""Of the squared coefficients, in units of one group's loss."""


@dataclass(frozen=True, eq=False)
class Looked:
    """What the members found on one micrograph, and its particles."""

    picks: Mapping[str, Picks]
    particles_xy_px: NDArray[np.float64]
    uncertain_xy_px: NDArray[np.float64]
    diameter_px: float


def look(folder: Path, members: Sequence[str]) -> Iterator[Looked]:
    """The candidates of every member on each micrograph of a simulation, told the size of its particles."""
    pickers = {name: make_picker(name) for name in members}
    for item in open_dataset(folder):
        labels = item.labels
        if labels is None or labels.diameter_px is None or not len(labels.xy_px):
            continue
        micrograph = read_micrograph(item.source.path)
        diameter_px = float(labels.diameter_px)
        size = Length(diameter_px, diameter_px, "px")
        survey = Survey(particle_size=size, working_size=size)
        yield Looked(
            picks={name: picker.pick(micrograph, survey) for name, picker in pickers.items()},
            particles_xy_px=labels.xy_px[~labels.is_uncertain],
            uncertain_xy_px=labels.xy_px[labels.is_uncertain],
            diameter_px=diameter_px,
        )


@dataclass(frozen=True, eq=False)
class JoinedGroups:
    """The groups of one micrograph: what is known of each, where it is, whether it is right and whether that counts."""

    features: NDArray[np.float64]
    centres_xy_px: NDArray[np.float64]
    is_right: NDArray[np.bool_]
    counts: NDArray[np.bool_]


def fit(looked: Sequence[Looked], members: Sequence[str]) -> tuple[Stacking, dict[str, float]]:
    """The stacking of these members, and how it does on micrographs that its fit has not seen."""
    every = [joined_groups(one, members) for one in looked]
    unseen = [np.empty(0)] * len(every)
    for fold in range(FOLDS):
        coefficients = _regression([one for number, one in enumerate(every) if number % FOLDS != fold])
        for number in range(fold, len(every), FOLDS):
            unseen[number] = _raw(every[number].features, coefficients)
    counts = np.concatenate([one.counts for one in every])
    right = np.concatenate([one.is_right for one in every])
    calibration = fit_calibration(np.concatenate(unseen)[counts], right[counts])
    coefficients = _regression(every)
    stacking = Stacking(tuple(members), coefficients[:-1], float(coefficients[-1]), calibration)
    scored = [
        outcome_of(one, groups.centres_xy_px, calibration(raw))
        for one, groups, raw in zip(looked, every, unseen, strict=True)
    ]
    scores = {"average_precision": precision_recall_curve(scored).average_precision}
    scores["best_f1"] = precision_recall_curve(scored).best_f1()[0]
    for name in members:
        alone = precision_recall_curve(
            [outcome_of(one, one.picks[name].xy_px, one.picks[name].score) for one in looked]
        )
        scores[f"average_precision_{name}"] = alone.average_precision
        scores[f"best_f1_{name}"] = alone.best_f1()[0]
    return stacking, scores


def joined_groups(one: Looked, members: Sequence[str]) -> JoinedGroups:
    """What the members have on a micrograph, joined and held against its particles."""
    picks = [one.picks[name] for name in members]
    groups, centres = joined(picks, diameter_px=one.diameter_px)
    tolerance = TOLERANCE_DIAMETERS * one.diameter_px
    is_right = np.zeros(len(groups), bool)
    is_right[pair_points(centres, one.particles_xy_px, max_distance=tolerance).first] = True
    counts = np.ones(len(groups), bool)
    if len(one.uncertain_xy_px) and len(groups):
        distance = np.hypot(*(centres[:, None] - one.uncertain_xy_px[None]).transpose(2, 0, 1)).min(axis=1)
        counts = is_right | (distance > tolerance)
    return JoinedGroups(features(groups, centres, picks, diameter_px=one.diameter_px), centres, is_right, counts)


def _regression(joined_ones: Sequence[JoinedGroups]) -> NDArray[np.float64]:
    """(2 k + OF_A_GROUP + 1,) coefficients, the intercept last."""
    from sklearn.linear_model import LogisticRegression

    known = np.concatenate([one.features[one.counts] for one in joined_ones])
    right = np.concatenate([one.is_right[one.counts] for one in joined_ones])
    fitted = LogisticRegression(C=1 / PENALTY, max_iter=5000).fit(known, right)
    return np.append(fitted.coef_[0], fitted.intercept_[0])


def _raw(known: NDArray[np.float64], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(expit(known @ coefficients[:-1] + coefficients[-1]), np.float64)


def outcome_of(one: Looked, xy_px: NDArray[np.float64], score: NDArray[np.floating]) -> RankedOutcomes:
    """Scored places (n, 2) after the run's rule on distances, against the particles."""
    sizes = np.full(len(xy_px), one.diameter_px, np.float32)
    picks = Picks(xy_px=xy_px, score=np.asarray(score, np.float32), diameter_px=sizes)
    kept = select(picks, SelectionSettings(), threshold=-np.inf).kept()
    tolerance = TOLERANCE_DIAMETERS * one.diameter_px
    return rank_outcomes(kept.xy_px, kept.score, one.particles_xy_px, one.uncertain_xy_px, max_distance_px=tolerance)


def main(arguments: Sequence[str]) -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulation", type=Path, help="folder of `cryopick simulate`")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    looked = []
    for one in look(given.simulation, DEFAULT_MEMBERS):
        looked.append(one)
        sys.stderr.write(f"\r{len(looked)} micrographs looked at")
    sys.stderr.write("\n")
    tensors, knots = {}, {}
    scores: dict[str, float] = {}
    for members in choices_of(DEFAULT_MEMBERS):
        stacking, found = fit(looked, members)
        name = name_of(members)
        tensors[name] = torch.tensor(np.append(stacking.coefficients, stacking.intercept), dtype=torch.float64)
        knots[name] = stacking.calibration.to_list()
        scores |= {f"{name} {what}": round(value, 4) for what, value in found.items()}
        sys.stderr.write(f"{name}: {found}\n")
    card = ModelCard(
        picker=PICKER,
        architecture={"network": "stacking", "members": list(DEFAULT_MEMBERS), "features_of_a_group": OF_A_GROUP},
        postprocessing={"calibration": knots},
        settings={"folds": FOLDS, "penalty": PENALTY},
        data={"kind": "simulation", "micrographs": len(looked)},
        scores=scores,
    )
    given.output.mkdir(parents=True, exist_ok=True)
    save_checkpoint(given.output / "weights.safetensors", tensors, card)


if __name__ == "__main__":
    main(sys.argv[1:])
