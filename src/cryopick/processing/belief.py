"""How far what looks like particles on one micrograph is believed, seen against the other micrographs of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.probability import Calibration, logit
from cryopick.processing.spread import evenly_taken

LIKELY = 0.5
"""Probability from which on a candidate looks like a particle."""
BELIEVED_FROM, BELIEVED_WHOLLY = 0.3, 0.5
"""Confirmed share of the likely candidates below which none of a micrograph is believed, and from which on all are."""
LEARNT_FROM = 48
"""Micrographs, spread over the run, from which its common facts are learnt."""
MOST_ROUNDS, SETTLED = 20, 0.002
"""Rounds in which the common facts are learnt: until none of them moves by more than this. It takes most runs three to
seven and the suite's flexible particles at the hard level 13, since too small a share is found of faint ones at first;
a few go back and forth between two neighbouring strengths."""

# The grid of what may hold on one micrograph, and how likely each is before it is looked at. These and the shares above
# were chosen on twelve simulated sessions of six proteins at two noise levels, three filled and six empty or dirty
# micrographs each, and so that the suite's hard level keeps its scores; `benchmarks/sessions.py --sessions judge`
# measures them on other proteins.
_SHARES = np.geomspace(0.004, 0.95, 11)
"""Share of particles among the candidates of a micrograph that holds some."""
_SHARE_SPREAD = 0.7
"""Of its logarithm, around the run's typical one."""
_JUNK = np.array([0.0, 0.02, 0.06, 0.15])
"""Share of things among the wrong candidates that score as particles do, such as round ice."""
_JUNK_USUAL = 0.02
_TILTS = np.array([-0.7, -0.5, -0.3, -0.15, 0.0, 0.2])
"""How much likelier or less likely wrong candidates look than where the scores were calibrated: see `_Scores`."""
_TILT_OF_EMPTY, _TILT_OF_FILLED = (-0.35, 0.15), (-0.1, 0.2)
"""Mean and spread. Pure noise looks less likely than what is wrong beside particles; it never looks likelier."""
_SHIFTS = np.array([-0.12, -0.06, 0.0, 0.06, 0.12])
_SHIFT_SPREAD = 0.06
"""Of the logarithm of the size that particles of one micrograph are read as: it varies with defocus."""
_NARROWEST, _WIDEST = 0.07, 0.09
"""Spread of the logarithm of particles' sizes; noise is read as sizes that differ more than that."""
_STRAY_SHARE, _STRAY_SPREAD = 0.15, 0.2
"""Particles, such as unusual views, whose sizes are spread widely."""
_STRENGTHS = np.linspace(0.4, 3.0, 27)
_STRENGTH_SPREAD = 0.5
_WEIGHS_NOTHING = 1e-16
"""Weight, of 1, below which something that may hold changes no digit of a probability."""
_LOWEST, _LOWEST_WIDTH = float(np.log(0.12 / 0.88)), 0.3
"""Logit below which right candidates cannot be told from noise, and how gradually."""


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What `beliefs` finds; all arrays have one entry per micrograph.

    Parameters
    ----------
    belief : (m,) 0 to 1, factor for the probabilities of its candidates: 1 where what looks likely is believed, 0 where
        it is noise, ice or something else than the run's particles
    confirmed : (m,) 0 and more, particles expected from scores and sizes together, over those that its scores alone
        promise, both among the likely candidates; 0 where none is likely
    filled : (m,) 0 to 1, probability that the micrograph holds particles at all
    right : for each micrograph (n,), 0 to 1, how likely each candidate is right by what the run itself shows: how its
        particles score and what sizes they have, and what share of each micrograph's candidates they are. The
        probabilities given, in contrast, rest on where the scores were calibrated
    """

    belief: NDArray[np.float64]
    confirmed: NDArray[np.float64]
    filled: NDArray[np.float64]
    right: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, eq=False, slots=True)
class OpenCandidates:
    """The candidates of one micrograph that are open: only a threshold, or the belief in it, can still reject them.

    They are all that is kept in memory of the candidates of a run's micrographs while its threshold is chosen.

    Parameters
    ----------
    score : (n,)
    diameter_px : (n,), NaN where none was read off; empty where the picker does not judge micrographs by sizes
    """

    score: NDArray[np.float32]
    diameter_px: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What the particles of a run have in common: it is learnt from all its micrographs together.

    Parameters
    ----------
    filled : share of micrographs that hold particles
    share : typical share of particles among the candidates of such a micrograph
    strength : how particles score: 1 as where the scores were calibrated, more where they stand out
    size, spread : median and spread of the logarithm of their diameters
    noise_size, noise_spread : the same of candidates that are noise
    """

    filled: float = 0.6
    share: float = 0.5
    strength: float = 1.0
    size: float = 0.0
    spread: float = _WIDEST
    noise_size: float = 0.0
    noise_spread: float = 0.15


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Of one micrograph: log odds against the calibrated ones, probabilities, and logarithms of the sizes, if read."""

    odds: NDArray[np.float64]
    probability: NDArray[np.float64]
    size: NDArray[np.float64] | None


class _Scores:
    """Densities of right and wrong scores, relative to that of wrong ones where the scores were calibrated.

    There a candidate of log odds L (the calibrated probability's, less those of the share of right ones) is right
    `exp(L)` times as often as wrong, by the definition of a probability. Wrong ones of other micrographs look likelier
    or less likely by a tilt t, with the density `exp(t L) / Z(t)`; right ones of another run have `exp(s L) / Z(s)`,
    s = 1 being the calibrated ones. Z follows from the calibration's quantiles.
    """

    def __init__(self, calibration: Calibration) -> None:
        probability = np.clip(calibration.knots[1], 1e-4, 1 - 1e-4)
        self.base = float(logit(np.array([probability.mean()]))[0])
        self._odds = logit(probability) - self.base
        self._log_wrong = np.log((1 - probability) / (1 - probability).sum())

    def odds(self, probability: NDArray[np.floating]) -> NDArray[np.float64]:
        return logit(np.clip(np.asarray(probability, np.float64), 1e-4, 1 - 1e-4)) - self.base

    def log_wrong(self, odds: NDArray[np.float64], tilts: NDArray[np.float64]) -> NDArray[np.float64]:
        """(k, n) of candidates' log odds, for each tilt."""
        norms = np.logaddexp.reduce(tilts[:, None] * self._odds + self._log_wrong, axis=1)
        return np.asarray(tilts[:, None] * odds - norms[:, None])

    def log_right(self, odds: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
        """(n,) of candidates' log odds."""
        return np.asarray(strength * odds - self.log_norm(np.array([strength]))[0] + self._log_told(odds))

    def log_norm(self, strengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """(k,) logarithm of the norm of right ones' densities."""
        each = strengths[:, None] * self._odds + self._log_wrong + self._log_told(self._odds)
        return np.asarray(np.logaddexp.reduce(each, axis=1))

    def _log_told(self, odds: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.special import expit

        return np.asarray(np.log(np.maximum(expit((odds + self.base - _LOWEST) / _LOWEST_WIDTH), 1e-12)))


def beliefs(
    probabilities: Sequence[NDArray[np.floating]],
    diameters: Sequence[NDArray[np.floating]],
    *,
    calibration: Calibration,
) -> Beliefs:
    """How far to believe the likely candidates of each micrograph of a run: hierarchical empirical Bayes.

    A micrograph either holds particles, with a share among its candidates that is tied to the run's, or none. Its wrong
    candidates are noise, which may look likelier or less likely than where the scores were calibrated, and a few things
    that score as particles do. Particles of a run score alike and are read as one size; noise is read as many sizes.
    What the run has in common is learnt from all micrographs together, then each is judged by all that may hold on it.

    Parameters
    ----------
    probabilities : for each micrograph (n,), calibrated, of all its candidates after selection
    diameters : for each micrograph (n,), read off for each candidate, in one unit; NaN, or all the same, where none is
    calibration : of the scores

    References
    ----------
    B. Efron, Large-Scale Inference (Cambridge 2010), chapters 1 and 2: empirical Bayes, two groups.
    """
    scores = _Scores(calibration)
    has_sizes = _differ(diameters)

    def candidates(number: int) -> _Candidates:  # made when they are looked at: of all at once they are much memory
        return _Candidates(
            odds=scores.odds(probabilities[number]),
            probability=np.asarray(probabilities[number], np.float64),
            size=np.log(np.asarray(diameters[number], np.float64)) if has_sizes else None,
        )

    count = len(probabilities)
    if len(diameters) != count:
        raise ValueError(f"scores of {count} micrographs, but sizes of {len(diameters)}")
    looked_at = [candidates(number) for number in evenly_taken(range(count), LEARNT_FROM) if len(probabilities[number])]
    run = _learnt(looked_at, scores, has_sizes=has_sizes)
    confirmed, filled = np.zeros(count), np.zeros(count)
    right = [np.zeros(len(one)) for one in probabilities]
    for number in range(count):
        if not len(probabilities[number]):
            continue
        one = candidates(number)
        right[number], filled[number], _ = _judge(one, scores, run)
        is_likely = one.probability >= LIKELY
        if is_likely.any():
            confirmed[number] = right[number][is_likely].sum() / one.probability[is_likely].sum()
    belief = np.clip((confirmed - BELIEVED_FROM) / (BELIEVED_WHOLLY - BELIEVED_FROM), 0, 1)
    return Beliefs(belief=belief, confirmed=confirmed, filled=filled, right=tuple(right))


def _differ(diameters: Sequence[NDArray[np.floating]]) -> bool:
    """Whether sizes were read off: some pickers give every candidate that of the run."""
    count = sum(map(len, diameters))
    if not count or not all((one > 0).all() for one in diameters):
        return False
    mean = sum(float(np.log(one, dtype=np.float64).sum()) for one in diameters) / count
    squares = sum(float(((np.log(one, dtype=np.float64) - mean) ** 2).sum()) for one in diameters)
    return bool(np.sqrt(squares / count) > 0.01)


def _learnt(candidates: Sequence[_Candidates], scores: _Scores, *, has_sizes: bool) -> _Run:
    """What the micrographs of a run have in common, by turns with what each of them holds."""
    if not candidates:
        return _Run()
    run = _first_guess(candidates, has_sizes=has_sizes)
    odds = np.concatenate([one.odds for one in candidates])
    sizes = np.concatenate([one.size for one in candidates if one.size is not None]) if has_sizes else None
    for _ in range(MOST_ROUNDS):
        before = run
        judged = [_judge(one, scores, run) for one in candidates]
        filled = np.array([one[1] for one in judged])
        shares = np.array([one[2] for one in judged])
        right = np.concatenate([one[0] for one in judged])
        run = replace(run, filled=float((filled.sum() + 1) / (len(filled) + 2)))
        if filled.sum() > 0.3:
            run = replace(run, share=float(np.exp((filled * np.log(shares)).sum() / filled.sum())))
        if right.sum() > 5:
            prior = -0.5 * ((_STRENGTHS - 1) / _STRENGTH_SPREAD) ** 2
            likelihood = _STRENGTHS * float((right * odds).sum()) - scores.log_norm(_STRENGTHS) * right.sum() + prior
            run = replace(run, strength=float(_STRENGTHS[np.argmax(likelihood)]))
            if sizes is not None:
                size, spread = _median_and_spread(sizes, right)
                run = replace(run, size=size, spread=float(np.clip(spread, _NARROWEST, _WIDEST)))
        if np.allclose(astuple(run), astuple(before), rtol=0, atol=SETTLED):
            break
    return run


def _first_guess(candidates: Sequence[_Candidates], *, has_sizes: bool) -> _Run:
    if not has_sizes:
        return _Run()
    probability = np.concatenate([one.probability for one in candidates])
    sizes = np.concatenate([one.size for one in candidates if one.size is not None])
    noise_size, noise_spread = _median_and_spread(sizes, np.where(probability < LIKELY, 1 - probability, 0.0))
    likely = np.where(probability >= LIKELY, probability**2, 0.0)
    size, spread = _median_and_spread(sizes, likely) if likely.sum() > 5 else (noise_size, _WIDEST)
    return _Run(
        size=size,
        spread=float(np.clip(spread, _NARROWEST, _WIDEST)),
        noise_size=noise_size,
        noise_spread=float(np.clip(noise_spread, 0.12, 0.25)),
    )


def _median_and_spread(values: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Weighted median, and half the distance of the quantiles that lie one standard deviation off in a Gaussian."""
    from scipy.special import ndtr

    if not weight.sum() > 0:
        return float(np.median(values)), _WIDEST
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order]) / weight.sum()
    low, middle, high = np.interp(ndtr([-1.0, 0.0, 1.0]), cumulative, values[order])
    return float(middle), float(high - low) / 2


def _judge(one: _Candidates, scores: _Scores, run: _Run) -> tuple[NDArray[np.float64], float, float]:
    """Of one micrograph: (n,) probability that each candidate is right, that it holds any, and its expected share."""
    odds = one.odds
    size_of_noise = 0.0 if one.size is None else _log_normal_density(one.size, run.noise_size, run.noise_spread)
    noise = scores.log_wrong(odds, _TILTS) + size_of_noise
    junk = odds + size_of_noise  # scores as calibrated particles do, but sizes as noise
    wrong = (1 - _JUNK)[:, None, None] * np.exp(noise) + _JUNK[:, None, None] * np.exp(junk)
    of_junk = _weights(-np.log1p((_JUNK / _JUNK_USUAL) ** 2))
    # without sizes nothing tells junk from particles where there are any, so all counts as particles there
    of_junk_beside = of_junk if one.size is not None else np.where(_JUNK > 0, 0.0, 1.0)
    of_empty = _weights(np.where(_TILTS > 0, -np.inf, _gaussian(_TILTS, *_TILT_OF_EMPTY)))
    of_filled = _weights(_gaussian(_TILTS, *_TILT_OF_FILLED))
    of_share = _weights(_gaussian(np.log(_SHARES), float(np.log(run.share)), _SHARE_SPREAD))
    shifts = np.zeros(1) if one.size is None else _SHIFTS
    of_shift = _weights(_gaussian(shifts, 0.0, _SHIFT_SPREAD))

    with np.errstate(divide="ignore"):
        empty = np.log(wrong).sum(-1) + np.log(of_junk)[:, None] + np.log(of_empty) + np.log1p(-run.filled)
        beside = np.log(of_junk_beside)[:, None] + np.log(of_filled)
    prior = np.log(of_share)[:, None, None] + beside + np.log(run.filled)
    evidence: list[NDArray[np.float64]] = []
    densities: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for shift, weight in zip(shifts, of_shift, strict=True):
        log_size = 0.0 if one.size is None else _log_size_of_right(one.size, run, shift)
        right = _SHARES[:, None] * np.exp(scores.log_right(odds, run.strength) + log_size)
        every = (1 - _SHARES)[:, None, None, None] * wrong
        every += right[:, None, None]
        evidence.append(_sum_of_logs(every) + prior + np.log(weight))
        densities.append((right, every))
    total = _log_of_sum(np.array([_log_of_sum(empty), *map(_log_of_sum, evidence)]))
    weights = [np.exp(each - total) for each in evidence]
    filled = float(sum(weight.sum() for weight in weights))
    share = sum(float((weight.sum((1, 2)) * _SHARES).sum()) for weight in weights) / max(filled, 1e-9)
    probability = np.zeros(len(odds))
    for weight, (right, every) in zip(weights, densities, strict=True):
        for number in np.flatnonzero(weight.sum((1, 2)) > _WEIGHS_NOTHING):
            probability += right[number] * np.tensordot(weight[number], 1 / every[number], 2)
    return probability, filled, max(share, float(_SHARES[0]))


def _sum_of_logs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the last axis of the logarithms; of products of four, since a logarithm takes longer than a product.

    Densities of candidates that may be right are at least about 1e-40, by the bounds of odds, strengths and sizes, and
    at most 1e20, so that four of them neither vanish nor overflow.
    """
    whole = values.shape[-1] // 4 * 4
    fours = values[..., :whole].reshape(*values.shape[:-1], 4, -1).prod(-2)
    return np.asarray(np.log(fours).sum(-1) + np.log(values[..., whole:]).sum(-1))


def _log_size_of_right(size: NDArray[np.float64], run: _Run, shift: float) -> NDArray[np.float64]:
    usual = (1 - _STRAY_SHARE) * _normal_density(size, run.size + shift, run.spread)
    return np.asarray(np.log(usual + _STRAY_SHARE * _normal_density(size, run.size, _STRAY_SPREAD) + 1e-12))


def _normal_density(values: NDArray[np.float64], mean: float, spread: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(_log_normal_density(values, mean, spread)))


def _log_normal_density(values: NDArray[np.float64], mean: float, spread: float) -> NDArray[np.float64]:
    return np.asarray(_gaussian(values, mean, spread) - np.log(spread * np.sqrt(2 * np.pi)))


def _gaussian(values: NDArray[np.float64], mean: float, spread: float) -> NDArray[np.float64]:
    return np.asarray(-0.5 * ((values - mean) / spread) ** 2)


def _weights(log_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that add up to 1."""
    return np.asarray(np.exp(log_weight - _log_of_sum(log_weight)))


def _log_of_sum(logarithms: NDArray[np.float64]) -> float:
    """Of what they are the logarithms of."""
    return float(np.logaddexp.reduce(logarithms, axis=None))
