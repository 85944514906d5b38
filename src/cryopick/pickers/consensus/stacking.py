"""How likely a group of picks is a particle, from what each member says of it, and who is silent.

Members that make the same mistakes must not be counted as independent witnesses, so what each word is worth is fitted:
a logistic regression on simulated micrographs that no member was trained or calibrated on (stacked generalisation,
D. H. Wolpert, Neural Networks 5, 1992), one for every choice of members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.centring import centring_errors, error_of_mean
from cryopick.geometry.cliques import ABSENT, Groups, group_points
from cryopick.io.weights import find_weights, open_checkpoint, read_card
from cryopick.processing.probability import Calibration, logit
from cryopick.types import Picks

PICKER = "consensus"
LEAST_PROBABILITY = 1e-3
"""Of a member, for its logarithm."""
OF_A_GROUP = 2
"""Features besides each member's two: the mean overlap of its picks' boxes, and how far they lie from their centre."""


@dataclass(frozen=True, eq=False)
class Stacking:
    """What the words of some members are worth together.

    Parameters
    ----------
    members : names, in the order of the coefficients
    coefficients : (2 k + OF_A_GROUP,) of `features`
    intercept : added to them
    calibration : from the sum's logistic value to the share of right groups, on other micrographs than the fit
    """

    members: tuple[str, ...]
    coefficients: NDArray[np.float64]
    intercept: float
    calibration: Calibration

    def probability(self, features: NDArray[np.float64]) -> NDArray[np.float32]:
        """(g,) that a group is a particle, from its `features` (g, 2 k + OF_A_GROUP)."""
        from scipy.special import expit

        return self.calibration(expit(features @ self.coefficients + self.intercept))


def joined(picks: Sequence[Picks], *, diameter_px: float) -> tuple[Groups, NDArray[np.float64]]:
    """Which picks of the members mean the same place, and where that is.

    Parameters
    ----------
    picks : one a member, scores being probabilities
    diameter_px : side of the boxes whose overlap tells

    Returns
    -------
    groups, and (g, 2) their centres: the mean of the members' centres by their probabilities
    """
    sides = [np.full(len(one), diameter_px) for one in picks]
    groups = group_points([one.xy_px for one in picks], [_weights(one) for one in picks], sides)
    xy_px, weight = placed(groups, picks)
    centres = np.nansum(xy_px * weight[..., None], axis=1) / np.maximum(weight.sum(axis=1), LEAST_PROBABILITY)[:, None]
    return groups, centres


def placed(groups: Groups, picks: Sequence[Picks]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each member has each group, (g, k, 2) px, NaN where it is silent; and its weight there, (g, k), 0 there."""
    xy_px = np.full((*groups.members.shape, 2), np.nan)
    weight = np.zeros(groups.members.shape)
    for index, one in enumerate(picks):
        is_there = groups.members[:, index] != ABSENT
        of_member = groups.members[is_there, index]
        xy_px[is_there, index] = one.xy_px[of_member]
        weight[is_there, index] = _weights(one)[of_member]
    return xy_px, weight


def _weights(picks: Picks) -> NDArray[np.float64]:
    return np.clip(np.nan_to_num(picks.score.astype(np.float64)), LEAST_PROBABILITY, 1.0)


def least_centring_errors(
    groups: Groups, picks: Sequence[Picks], names: Sequence[str], *, is_counted: NDArray[np.bool_]
) -> dict[str, float]:
    """Median distance, px, of centres from the particles' at least: each member's, and the groups' under `PICKER`.

    It is all of it if members' errors are independent. They are not: all see the same noise and the same lopsided
    particles, and networks of one simulator learnt the same. What all share does not show and comes on top; what
    most share is laid to the others. What cannot be told is left out.

    Parameters
    ----------
    picks : one a member, as they were joined, called `names`
    is_counted : (g,) the groups that are likely particles
    """
    xy_px, weight = placed(groups, picks)
    xy_px, weight = xy_px[is_counted], weight[is_counted]
    errors = centring_errors(xy_px)
    joint = error_of_mean(errors, weight / weight.sum(axis=1, keepdims=True))
    told = {PICKER: joint, **dict(zip(names, errors.tolist(), strict=True))}
    return {name: error for name, error in told.items() if np.isfinite(error)}


def features(
    groups: Groups, centres_xy_px: NDArray[np.float64], picks: Sequence[Picks], *, diameter_px: float
) -> NDArray[np.float64]:
    """(g, 2 k + OF_A_GROUP) what is known of each group.

    Of each member its logit, 0 where it is silent, and whether it is silent; then the mean overlap of the boxes, and
    the mean distance of the picks from their centre, in diameters.
    """
    count = len(picks)
    found = np.zeros((len(groups), 2 * count + OF_A_GROUP))
    distance, there = np.zeros(len(groups)), np.zeros(len(groups))
    for index, one in enumerate(picks):
        is_there = groups.members[:, index] != ABSENT
        of_member = groups.members[is_there, index]
        found[is_there, 2 * index] = logit(np.clip(one.score[of_member], LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
        found[~is_there, 2 * index + 1] = 1.0
        distance[is_there] += np.hypot(*(one.xy_px[of_member] - centres_xy_px[is_there]).T) / diameter_px
        there[is_there] += 1
    found[:, -2] = groups.overlap
    found[:, -1] = distance / np.maximum(there, 1)
    return found


def choices_of(members: Sequence[str]) -> list[tuple[str, ...]]:
    """Every choice of two of these members or more, in their order."""
    return [chosen for count in range(2, len(members) + 1) for chosen in combinations(members, count)]


def name_of(members: Sequence[str]) -> str:
    """By which a choice of members is kept in a file."""
    return "+".join(members)


def known_members() -> tuple[str, ...]:
    """The pickers whose scores the shipped file can join."""
    return tuple(str(name) for name in read_card(find_weights(PICKER)).architecture["members"])


def load_stacking(weights: Path | None, *, members: Sequence[str]) -> Stacking:
    """The fit for these members, in whatever order.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another picker.
    SettingsError
        If nothing was fitted for such members.
    """
    with open_checkpoint(weights or PICKER, picker=PICKER, as_arrays=True) as checkpoint:
        known = [str(name) for name in checkpoint.card.architecture["members"]]
        strange = sorted(set(members) - set(known))
        if strange:
            raise SettingsError(
                f"rule expected-f1 knows what the scores of {', '.join(known)} are worth together, not those of "
                f"{', '.join(strange)}; leave these out, or choose --rule majority, union or intersection"
            )
        ordered = tuple(name for name in known if name in set(members))
        fitted = checkpoint.tensors[name_of(ordered)].astype(np.float64)
        knots: Mapping[str, Any] = checkpoint.card.postprocessing["calibration"]
        return Stacking(
            members=ordered,
            coefficients=fitted[:-1],
            intercept=float(fitted[-1]),
            calibration=Calibration.from_list(knots[name_of(ordered)]),
        )
