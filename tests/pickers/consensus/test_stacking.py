"""What members say together: groups, features, the fit, and what the rules keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.pickers.consensus.fit import Looked, fit
from cryopick.pickers.consensus.picker import ConsensusPicker
from cryopick.pickers.consensus.stacking import choices_of, features, joined
from cryopick.types import Micrograph, Picks


def picks_at(xy_px: Sequence[tuple[float, float]] | NDArray[np.float64], score: Sequence[float]) -> Picks:
    xy = np.asarray(xy_px, np.float64).reshape(-1, 2)
    return Picks(xy_px=xy, score=np.asarray(score, np.float32), diameter_px=np.full(len(xy), 20.0, np.float32))


def test_a_group_lies_at_the_mean_of_its_members_by_their_probabilities() -> None:
    first = picks_at([(10, 10), (60, 60)], [0.9, 0.5])
    second = picks_at([(14, 10)], [0.3])
    groups, centres = joined([first, second], diameter_px=20.0)
    assert groups.members.tolist() == [[0, 0], [1, -1]]
    np.testing.assert_allclose(centres, [[(10 * 0.9 + 14 * 0.3) / 1.2, 10], [60, 60]], rtol=1e-6)
    known = features(groups, centres, [first, second], diameter_px=20.0)
    overlap = 16 / 24  # of 20 columns, 16 are shared
    apart = (1.0 + 3.0) / 2 / 20
    np.testing.assert_allclose(known[0], [np.log(9), 0, np.log(3 / 7), 0, overlap, apart], rtol=1e-5)
    np.testing.assert_allclose(known[1], [0, 0, 0, 1, 1, 0], atol=1e-6)


def looked_at(rng: np.random.Generator) -> Looked:
    """A good member, and one whose picks are noise; both claim to be sure."""
    particles = np.stack(np.meshgrid(np.arange(6), np.arange(6)), axis=-1).reshape(-1, 2) * 60.0 + 40
    found = particles[rng.random(len(particles)) < 0.9] + rng.normal(0, 1, (1, 2))
    strays = rng.uniform(0, 400, (12, 2))
    sure = rng.uniform(0.5, 0.95, len(found))
    good = picks_at(np.concatenate([found, strays]), np.concatenate([sure, rng.uniform(0.1, 0.6, 12)]).tolist())
    noise = picks_at(rng.uniform(0, 400, (60, 2)), rng.uniform(0.1, 0.95, 60).tolist())
    return Looked({"good": good, "noise": noise}, particles, np.zeros((0, 2)), 20.0)


def test_the_fit_learns_whom_to_believe_and_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    looked = [looked_at(rng) for _ in range(20)]
    stacking, scores = fit(looked, ("good", "noise"))
    assert scores["average_precision"] > scores["average_precision_good"] - 0.01
    assert scores["average_precision_noise"] < 0.5 < scores["average_precision"]
    assert stacking.coefficients[0] > 3 * abs(stacking.coefficients[2])
    judged = [looked_at(rng) for _ in range(20)]
    told, right = [], []
    for one in judged:
        picks = [one.picks["good"], one.picks["noise"]]
        groups, centres = joined(picks, diameter_px=20.0)
        told.append(stacking.probability(features(groups, centres, picks, diameter_px=20.0)))
        nearest = np.hypot(*(centres[:, None] - one.particles_xy_px[None]).transpose(2, 0, 1)).min(axis=1)
        right.append(nearest <= 5)
    assert float(np.concatenate(told).mean()) == pytest.approx(float(np.concatenate(right).mean()), abs=0.05)


def test_there_is_a_fit_for_every_choice_of_the_shipped_members() -> None:
    micrograph = Micrograph(np.zeros((100, 100), np.float32))
    for members in choices_of(ConsensusPicker().of):
        picker = ConsensusPicker(of=members[::-1], diameter="20px")  # in whatever order
        found = [picks_at([(50, 50)], [0.9]) for _ in members]
        joint = picker.join(micrograph, found, diameter_px=20.0)
        alone = picker.join(micrograph, [found[0], *[picks_at([], []) for _ in members[1:]]], diameter_px=20.0)
        assert len(joint) == len(alone) == 1
        assert joint.score[0] > alone.score[0]


@pytest.mark.parametrize(("rule", "kept"), [("union", 3), ("majority", 2), ("intersection", 1)])
def test_rules_count_members(rule: str, kept: int) -> None:
    picker = ConsensusPicker(of=("blob", "general", "cryotransformer"), rule=rule, diameter="20px")
    threshold = picker.choose_threshold(np.zeros(0, np.float32), None)
    at = [(20, 20), (60, 60), (20, 80)]
    sure = {"blob": 50.0, "general": 0.9, "cryotransformer": 0.9}
    low = {"blob": 0.0, "general": 0.01, "cryotransformer": 0.01}  # candidates that the member itself would not keep
    found = [
        picks_at(at, [sure["blob"], sure["blob"], low["blob"]]),
        picks_at(at, [sure["general"]] * 3),
        picks_at(at, [sure["cryotransformer"], low["cryotransformer"], low["cryotransformer"]]),
    ]
    joint = picker.join(Micrograph(np.zeros((100, 100), np.float32)), found, diameter_px=20.0)
    assert int((joint.score >= threshold).sum()) == kept
    assert not picker.has_calibrated_scores


def test_members_that_cannot_be_joined_are_refused() -> None:
    with pytest.raises(SettingsError, match="two different pickers or more"):
        ConsensusPicker(of=("general",))
    with pytest.raises(SettingsError, match="no probabilities"):
        ConsensusPicker(of=("general", "blob"))
    with pytest.raises(SettingsError, match="member of itself"):
        ConsensusPicker(of=("general", "consensus"))
    with pytest.raises(SettingsError, match="nosuch"):
        ConsensusPicker(of=("general", "nosuch"))


def test_centring_errors_are_those_of_members_picks() -> None:
    rng = np.random.default_rng(1)
    particles = np.stack(np.meshgrid(np.arange(30), np.arange(30)), axis=-1).reshape(-1, 2) * 40.0 + 30
    jitter = {"blob": 1.0, "template": 2.0, "general": 3.0}
    found = [picks_at(particles + rng.normal(0, spread, particles.shape), [0.9] * 900) for spread in jitter.values()]
    picker = ConsensusPicker(of=tuple(jitter), rule="majority", diameter="20px")
    even = [replace(one, score=np.full(900, 100.0, np.float32)) for one in found]  # what each member keeps
    joint = picker.join(Micrograph(np.zeros((1300, 1300), np.float32)), even, diameter_px=20.0)
    of_median = np.sqrt(2 * np.log(2))  # of a round Gaussian's distances
    assert list(joint.least_centring_error_px) == ["consensus", *jitter]
    for name, spread in jitter.items():
        assert joint.least_centring_error_px[name] == pytest.approx(spread * of_median, rel=0.2, abs=0.15)
    off = np.hypot(*(joint.xy_px[:, None] - particles[None]).transpose(2, 0, 1)).min(axis=1)
    assert joint.least_centring_error_px["consensus"] == pytest.approx(np.median(off), rel=0.1)
    alone = picker.join(
        Micrograph(np.zeros((1300, 1300), np.float32)), [even[0], *[picks_at([], [])] * 2], diameter_px=20.0
    )
    assert alone.least_centring_error_px == {}
