"""Would a consensus that adapts to the run be better? Ways to weigh the members, judged on runs that no fit has seen.

    cryopick simulate -o sim/fit --structure random --proteins 110 --count 110 --size 1024x1024 --seed 70002
    cryopick simulate -o sim/fit-hard --structure random --proteins 40 --count 40 --size 1024x1024 --seed 71003 --snr 6
    cryopick simulate -o sim/hard --structure random --proteins 20 --count 60 --size 1024x1024 --seed 71001 --snr 6
    cryopick simulate -o sim/medium --structure random --proteins 14 --count 42 --size 1024x1024 --seed 71002 --snr 9
    python benchmarks/consensus_adapting.py --fit sim/fit sim/fit-hard --judge sim/hard sim/medium --candidates sim/

The micrographs of one protein are a run: members survey them together, told the size of the particles, and what they
find is kept, so that other weights are tried in seconds. Writes consensus_adapting.md.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.ensemble import HistGradientBoostingClassifier

from cryopick.data.datasets import open_dataset
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.units import Length
from cryopick.io.images.micrographs import read_micrograph
from cryopick.metrics.detection import precision_recall_curve
from cryopick.pickers.consensus import ConsensusPicker, known_members, load_stacking
from cryopick.pickers.consensus.fit import PENALTY, JoinedGroups, Looked, joined_groups, outcome_of
from cryopick.processing.probability import Calibration
from cryopick.simulation.series import read_settings
from cryopick.training.judging import fit_calibration

Array = NDArray[np.float64]
Ways = dict[str, Callable[[list[JoinedGroups]], list[Array]]]
FOLDS = 5
RIDGE = 30.0
"""Of the squared step away from the fitted coefficients in one run, in units of one group's loss."""
ROUNDS = 8
SILENT = -7.0
"""In place of a logit: just below that of the least probability."""
EDGES = np.array([-5, -3.5, -2.5, -1.5, -0.75, 0, 0.75, 1.5, 2.5, 3.5])
"""Of the histogram of a member's logits, which has one more bin for its silence."""
PRIOR_COUNT, SHARE_OF_WORD = 100.0, 0.25
"""Latent classes: how many groups the fitted densities count for; and, as members repeat each other, what of each one's
word counts."""
LEAST_BEST_F1 = 0.35
"""Of the best member, in runs that are judged: in others nothing is found."""


def looked_at(folder: Path, kept: Path) -> list[list[Looked]]:
    """What the members find in each run of a simulation."""
    if kept.is_file():
        return list(pickle.loads(kept.read_bytes()))
    proteins = read_settings(folder).proteins
    runs = []
    every = open_dataset(folder).items
    for number in range(proteins):
        labels = [(item, item.labels) for item in every[number::proteins]]
        filled = [(item, own) for item, own in labels if own is not None and own.diameter_px and len(own.xy_px)]
        if not filled:
            continue
        diameter_px = float(np.median([own.diameter_px for _, own in filled if own.diameter_px]))
        picker = ConsensusPicker(diameter=Length(diameter_px, diameter_px, "px"))
        micrographs = [read_micrograph(item.source.path) for item, _ in filled]
        survey = picker.survey(micrographs)
        runs.append(
            [
                Looked(
                    picks={
                        name: replace(member.pick(micrograph, survey), maps={})
                        for name, member in picker.members.items()
                    },
                    particles_xy_px=own.xy_px[~own.is_uncertain],
                    uncertain_xy_px=own.xy_px[own.is_uncertain],
                    diameter_px=diameter_px,
                )
                for micrograph, (_, own) in zip(micrographs, filled, strict=True)
            ]
        )
        print(f"{folder.name}: {len(runs)} runs looked at", flush=True)
    kept.write_bytes(pickle.dumps(runs))
    return runs


# ------------------------------------------------------------------------------------------------- what is known


def words(groups: JoinedGroups) -> Array:
    """(g, k) logits of the members, `SILENT` where they have nothing."""
    count = len(known_members())
    return np.where(groups.features[:, 1 : 2 * count : 2] > 0, SILENT, groups.features[:, 0 : 2 * count : 2])


def plain(groups: JoinedGroups, run: Sequence[JoinedGroups]) -> Array:  # noqa: ARG001  # as the others
    """What is shipped."""
    return groups.features


def with_agreement(groups: JoinedGroups, run: Sequence[JoinedGroups]) -> Array:  # noqa: ARG001  # as the others
    """Also the number of members, their mean probability, and the mean and the order of their logits."""
    each = words(groups)
    count = (each > SILENT).sum(axis=1)
    mean, likely = each.mean(axis=1), expit(each).mean(axis=1)
    return np.column_stack([groups.features, count, count**2 / 4, mean, likely, np.sort(each, axis=1)])


def with_shares(groups: JoinedGroups, run: Sequence[JoinedGroups]) -> Array:
    """Also each member's words times its share of what members find in this run."""
    found = sum(expit(words(one)).sum(axis=0) for one in run)
    share = np.log((found + 3) / (np.mean(found) + 3))
    each = words(groups)
    return np.column_stack([groups.features, np.maximum(each, 0) * share, (each == SILENT) * share])


# ------------------------------------------------------------------------------------------------------- fits


def regression(known: Array, right: Array, start: Array | None = None) -> Array:
    """(f + 1,) coefficients, the intercept last, by Newton's method; near `start` where given. `right` is 0 to 1."""
    known = np.column_stack([known, np.ones(len(known))])
    found = np.zeros(known.shape[1]) if start is None else start.copy()
    origin = found.copy()
    ridge = np.full(len(found), PENALTY if start is None else RIDGE)
    if start is None:
        ridge[-1] = 1e-6
    for _ in range(30):
        told = expit(known @ found)
        slope = known.T @ (told - right) + ridge * (found - origin)
        curvature = (known.T * (told * (1 - told) + 1e-9)) @ known + np.diag(ridge)
        found = found - np.linalg.solve(curvature, slope)
    return found


def raw(known: Array, coefficients: Array) -> Array:
    return np.asarray(expit(known @ coefficients[:-1] + coefficients[-1]))


def by_regression(known: Array, right: Array) -> Callable[[Array], Array]:
    coefficients = regression(known, right)
    return lambda other: raw(other, coefficients)


def by_trees(known: Array, right: Array) -> Callable[[Array], Array]:
    """Boosted trees that never fall with a member's logit."""
    rises = [1, 0] * len(known_members()) + [0] * (known.shape[1] - 2 * len(known_members()))
    trees = HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.06, max_leaf_nodes=8, min_samples_leaf=30, monotonic_cst=rises
    ).fit(known, right)
    return lambda other: np.asarray(expit(trees.decision_function(other)))


def fitted(runs: Sequence[list[JoinedGroups]], known: Any, learn: Any) -> tuple[Any, Calibration]:
    """A fit on all runs, and the calibration of fits on parts of them, on the others."""
    of_run = [np.concatenate([known(one, run)[one.counts] for one in run]) for run in runs]
    right_of = [np.concatenate([one.is_right[one.counts] for one in run]).astype(float) for run in runs]
    told, right = [], []
    for fold in range(FOLDS):
        others = [number for number in range(len(runs)) if number % FOLDS != fold]
        model = learn(np.concatenate([of_run[i] for i in others]), np.concatenate([right_of[i] for i in others]))
        told += [model(one) for one in of_run[fold::FOLDS]]
        right += right_of[fold::FOLDS]
    calibration = fit_calibration(np.concatenate(told), np.concatenate(right) > 0.5)
    return learn(np.concatenate(of_run), np.concatenate(right_of)), calibration


def ways_to_weigh(runs: Sequence[list[JoinedGroups]]) -> Ways:
    """Probabilities of the groups of each micrograph of a run, by name."""
    shipped = load_stacking(None, members=known_members())
    ways: Ways = {"as shipped": lambda run: [np.asarray(shipped.probability(one.features), np.float64) for one in run]}
    for name, known, learn in (
        ("fitted anew on these", plain, by_regression),
        ("also how they agree", with_agreement, by_regression),
        ("also each one's share in the run", with_shares, by_regression),
        ("boosted trees, monotone", plain, by_trees),
    ):
        model, calibration = fitted(runs, known, learn)
        ways[name] = lambda run, model=model, known=known, calibration=calibration: [
            np.asarray(calibration(model(known(one, run))), np.float64) for one in run
        ]
    every = [one for run in runs for one in run]
    features = np.concatenate([one.features[one.counts] for one in every])
    right = np.concatenate([one.is_right[one.counts] for one in every]).astype(float)
    start = regression(features, right)
    calibration = fitted(runs, plain, by_regression)[1]

    def by_expectation(run: list[JoinedGroups]) -> list[Array]:
        known, found = np.concatenate([one.features for one in run]), start
        for _ in range(ROUNDS):
            found = regression(known, np.asarray(calibration(raw(known, found)), np.float64), start)
        return [np.asarray(calibration(raw(one.features, found)), np.float64) for one in run]

    def by_truth(run: list[JoinedGroups]) -> list[Array]:
        known = np.concatenate([one.features[one.counts] for one in run])
        found = regression(known, np.concatenate([one.is_right[one.counts] for one in run]).astype(float), start)
        return [np.asarray(calibration(raw(one.features, found)), np.float64) for one in run]

    density = np.concatenate([words(one)[one.counts] for one in every])
    of_right, of_wrong = histograms(density, right), histograms(density, 1 - right)

    def by_latent_classes(run: list[JoinedGroups]) -> list[Array]:
        each = np.concatenate([words(one) for one in run])
        told = calibration(raw(np.concatenate([one.features for one in run]), start))
        prior = logit(np.clip(np.asarray(told, np.float64), 1e-3, 1 - 1e-3))
        odds = prior
        for _ in range(ROUNDS):
            is_right = expit(odds)
            more = log_odds(histograms(each, is_right, of_right), histograms(each, 1 - is_right, of_wrong))
            more -= log_odds(of_right, of_wrong)
            odds = prior + SHARE_OF_WORD * np.take_along_axis(more, bins(each), axis=0).sum(axis=1)
        return list(np.split(expit(odds), np.cumsum([len(one.features) for one in run])[:-1]))

    ways["fitted to the run by EM"] = by_expectation
    ways["latent classes in the run"] = by_latent_classes
    ways["fitted to the run's truth (a bound)"] = by_truth
    return ways


def bins(each: Array) -> NDArray[np.intp]:
    return np.where(each == SILENT, 0, 1 + np.searchsorted(EDGES, each)).astype(np.intp)


def histograms(each: Array, weight: Array, prior: Array | None = None) -> Array:
    """(b, k) share of each bin in each member's words, by weight of the group, beside a prior."""
    found = np.stack([np.bincount(one, weight, len(EDGES) + 2) for one in bins(each).T], axis=1)
    found += 1.0 if prior is None else PRIOR_COUNT * prior
    return np.asarray(found / found.sum(axis=0))


def log_odds(of_right: Array, of_wrong: Array) -> Array:
    return np.asarray(np.log(of_right) - np.log(of_wrong))


# ------------------------------------------------------------------------------------------------------ judgement


def judged(run: Sequence[Looked], groups: Sequence[JoinedGroups], told: Sequence[Array]) -> dict[str, float]:
    """How good the probabilities are in one run."""
    probability = np.concatenate([one[own.counts] for one, own in zip(told, groups, strict=True)])
    right = np.concatenate([one.is_right[one.counts] for one in groups])
    of_truth = np.clip(np.where(right, probability, 1 - probability), 1e-4, 1)
    places = [(one, own.centres_xy_px, each) for one, own, each in zip(run, groups, told, strict=True)]
    curve = precision_recall_curve([outcome_of(*one) for one in places])
    return {
        "log loss": float(-np.log(of_truth).mean()),
        "average precision": curve.average_precision,
        "best F1": curve.best_f1()[0],
    }


def alone(run: Sequence[Looked], name: str) -> dict[str, float]:
    """The same of a member; its scores are of its own candidates, so their log loss would compare nothing."""
    curve = precision_recall_curve([outcome_of(one, one.picks[name].xy_px, one.picks[name].score) for one in run])
    return {"log loss": float("nan"), "average precision": curve.average_precision, "best F1": curve.best_f1()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, nargs="+", required=True, help="simulations to fit on")
    parser.add_argument("--judge", type=Path, nargs="+", required=True, help="simulations of other proteins")
    parser.add_argument("--candidates", type=Path, required=True, help="folder that keeps what members find")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    looked = {one: looked_at(one, args.candidates / f"{one.name}.pickle") for one in (*args.fit, *args.judge)}
    members = known_members()
    ways = ways_to_weigh([[joined_groups(one, members) for one in run] for path in args.fit for run in looked[path]])
    lines = [
        "# A consensus that adapts to the run?",
        "",
        "Means over simulated runs of proteins that no fit has seen, two or three micrographs each; `benchmarks/"
        "consensus_adapting.py`.",
    ]
    for path in args.judge:
        of_member = {name: [alone(run, name) for run in looked[path]] for name in members}
        best = [
            {key: max(one[key] for one in of_run) for key in of_run[0]}
            for of_run in zip(*of_member.values(), strict=True)
        ]
        is_found = [one["best F1"] >= LEAST_BEST_F1 for one in best]
        rows = {
            name: list(compress(found, is_found))
            for name, found in {**of_member, "the best member of each run, known afterwards": best}.items()
        }
        runs = list(compress(looked[path], is_found))
        joined = [[joined_groups(one, members) for one in run] for run in runs]
        for name, way in ways.items():
            rows[name] = [judged(run, own, way(own)) for run, own in zip(runs, joined, strict=True)]
        lines += ["", f"{path.name}: {len(runs)} runs", "", "| weights | log loss | average precision | best F1 |"]
        lines.append("|---|---|---|---|")
        for name, found in rows.items():
            mean = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
            cells = ["-" if np.isnan(value) else f"{value:.3f}" for value in mean.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    text = "\n".join([*lines, "", f"Machine: {describe_machine()}", ""])
    print(text)
    (args.output / "consensus_adapting.md").write_text(text)


if __name__ == "__main__":
    main()
