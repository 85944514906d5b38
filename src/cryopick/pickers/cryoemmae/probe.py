"""The score of a pick: where its latent vectors lie between those of simulated particles and of everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryoemmae.latent import LatentMap
from cryopick.processing.probability import Calibration, logit

RINGS = ((0.0, 1), (0.12, 6), (0.25, 10), (0.38, 12), (0.5, 14), (0.68, 18))
"""Radius in diameters and number of places of each ring that vectors are averaged over, from the middle to outside."""
HIDDEN_UNITS, PERCEPTRONS = 24, 4
"""Several perceptrons from different random weights, of which the mean counts: one alone depends on them."""
COMPONENTS = 8
ADAPTING_ROUNDS = 3
ADAPTING_WEIGHT = 2.0
"""How much more than the probe the micrograph's own particles say about the order of its candidates."""
FEWEST_PARTICLES = 5.0
"""A micrograph with fewer expected particles has nothing to adapt to."""
SHRINKAGE = 0.1
"""Share of the mean variance that is added to each variance, and again for as many features as particles."""


def describe(
    latent: LatentMap, responses: NDArray[np.float32], xy: NDArray[np.float64], *, diameter: float
) -> NDArray[np.float32]:
    """What the network makes of each candidate: mean vectors over rings around it, and the clusters' evidence.

    Vectors count from the micrograph's mean vector, in standard deviations of the micrograph: its contrast and its
    brightness say nothing about a place in it.

    Parameters
    ----------
    latent : of the micrograph
    responses : (r, h, w) of `disc_responses`
    xy : (n, 2) candidates, cells
    diameter : of a particle, cells

    Returns
    -------
    features : (n, rings * c + r)
    """
    height, width = responses.shape[1:]
    sample = latent.flat[:: max(1, len(latent.flat) // 8192)]
    middle, spread = sample.mean(axis=0), sample.std(axis=0) + np.float32(1e-3)
    means = []
    for radius, count in RINGS:
        angle = 2 * np.pi * (np.arange(count) + 0.5) / count
        total = np.zeros((len(xy), latent.vectors.shape[2]), np.float32)
        for dx, dy in zip(np.cos(angle), np.sin(angle), strict=True):
            column = np.clip(np.rint(xy[:, 0] + radius * diameter * dx), 0, width - 1).astype(np.intp)
            row = np.clip(np.rint(xy[:, 1] + radius * diameter * dy), 0, height - 1).astype(np.intp)
            total += latent.vectors[row, column]
        means.append((total / count - middle) / spread)
    column, row = np.rint(xy).astype(np.intp).T.reshape(2, -1)
    values = responses[:, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return np.concatenate([*means, values.T], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Probe:
    """Small perceptrons over `describe`: particles may be solid or hollow, so one direction does not do.

    Parameters
    ----------
    components : (c, g) of the rings' mean vectors, the same for all rings; it sees nothing else of them
    hidden, hidden_bias : (rings * g + r, u) and (u,), before the positive parts are taken
    out, out_bias : (u,) and a number
    calibration : from the logistic of the output to the probability that a pick is right
    """

    components: NDArray[np.float32]
    hidden: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    out: NDArray[np.float32]
    out_bias: float
    calibration: Calibration

    def seen(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, f) of `describe` to (n, rings * g + r), what the perceptron sees."""
        return seen_through(self.components, features)

    def raw(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) in (0, 1), not calibrated."""
        units = np.maximum(self.seen(features) @ self.hidden + self.hidden_bias, 0)
        output = (units @ self.out).astype(np.float64) + self.out_bias
        return np.asarray(1 / (1 + np.exp(-np.clip(output, -12, 12))))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) probabilities that the picks are right."""
        return self.calibration(self.raw(features))

    def adapted(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) the same probabilities, for the candidates of one micrograph, given out by what its particles look like.

        See `ordered_anew`.
        """
        return ordered_anew(self(features), self.seen(features))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for a model card."""
        return {
            "components": [_rounded(row) for row in self.components],
            "hidden": [_rounded(row) for row in self.hidden],
            "hidden_bias": _rounded(self.hidden_bias),
            "out": _rounded(self.out),
            "out_bias": float(self.out_bias),
            "calibration": self.calibration.to_list(),
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any], *, width: int, responses: int) -> Self:
        """The inverse of `to_json`, for `describe` of vectors of that width and of so many responses."""
        names = ("components", "hidden", "hidden_bias", "out")
        components, hidden, bias, out = (np.asarray(entry[name], np.float32) for name in names)
        shapes = [list(each.shape) for each in (components, hidden, bias, out)]
        if components.ndim != 2 or hidden.ndim != 2 or not bias.shape == out.shape == hidden.shape[1:]:
            raise ValueError(f"the probe's matrices do not fit each other: {shapes}")
        if (len(components), len(hidden)) != (width, len(RINGS) * components.shape[1] + responses):
            raise ValueError(f"the probe's matrices {shapes} do not fit vectors of {width} and {responses} responses")
        return cls(components, hidden, bias, out, float(entry["out_bias"]), Calibration.from_list(entry["calibration"]))


def _rounded(values: NDArray[np.float32]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def seen_through(components: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """`describe` with each ring's mean vector (c,) reduced to its components (g,); the rest as it is."""
    rings, (width, count) = len(RINGS), components.shape
    vectors = features[:, : rings * width].reshape(len(features), rings, width) @ components
    return np.concatenate([vectors.reshape(len(features), rings * count), features[:, rings * width :]], axis=1)


def ordered_anew(probability: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probabilities of one micrograph's candidates, dealt out again: those most like its particles get the highest.

    The particles of a micrograph are alike, more than they are like simulated ones. A linear discriminant between the
    candidates weighted by their probabilities and by the complements is fitted without any label; its output, added to
    the logits, gives the candidates a new order, and that new weights, a few times. The values stay what they are, so
    that a micrograph's expected number of particles is as before.

    Parameters
    ----------
    probability : (n,)
    features : (n, f)
    """
    if probability.sum() < FEWEST_PARTICLES or len(probability) < 2:
        return probability
    values = np.sort(probability)
    logits = logit(probability)
    standard = (features - features.mean(axis=0)) / (features.std(axis=0) + np.float32(1e-6))
    weight = probability.astype(np.float64)
    for _ in range(ADAPTING_ROUNDS):
        found = _discriminant(standard.astype(np.float64), weight)
        spread = logits.std() / max(float(found.std()), 1e-9)
        order = np.argsort(logits + ADAPTING_WEIGHT * spread * found, kind="stable")
        weight[order] = values
    return weight.astype(np.float32)


def _discriminant(features: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) along the direction that separates weighted from other candidates best, for a shrunk common covariance."""
    means, covariance, count = [], np.zeros((features.shape[1],) * 2), float(weight.sum())
    for one in (weight, 1 - weight):
        share = one / max(float(one.sum()), 1e-9)
        means.append(share @ features)
        centred = features - means[-1]
        covariance += 0.5 * (share[:, None] * centred).T @ centred
    added = SHRINKAGE * (1 + features.shape[1] / count) * np.trace(covariance) / len(covariance)
    direction = np.linalg.solve(covariance + added * np.eye(len(covariance)), means[0] - means[1])
    return np.asarray(features @ direction)


def fit_probe_weights(features: NDArray[np.float32], is_right: NDArray[np.bool_], *, width: int) -> Probe:
    """A probe, not calibrated, trained until a tenth of the candidates is judged no better.

    It sees the rings' mean vectors through their first principal components alone: simulated particles are too few to
    tell it about every direction of the latent space, and those it would use best are not the ones that real
    micrographs share with simulated ones.

    Parameters
    ----------
    features : (n, f) of `describe`
    is_right : (n,)
    width : of a latent vector

    Raises
    ------
    ValueError
        If there are not a few each of right and wrong candidates.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    if min(is_right.sum(), (~is_right).sum()) < 10:
        raise ValueError(
            f"{is_right.sum()} right and {(~is_right).sum()} wrong candidates are too few to tell them apart"
        )
    components = _components(features, width)
    seen = seen_through(components, features)
    middle, spread = seen.mean(axis=0), seen.std(axis=0) + np.float32(1e-6)
    networks = []
    for seed in range(PERCEPTRONS):
        network = MLPClassifier(
            (HIDDEN_UNITS,), alpha=0.1, learning_rate_init=2e-3, batch_size=min(512, 1 + len(features) // 16),
            max_iter=25, early_stopping=True, n_iter_no_change=4, random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            networks.append(network.fit((seen - middle) / spread, is_right))
    # the mean of their outputs is that of one perceptron with all their units
    hidden = np.concatenate([one.coefs_[0] for one in networks], axis=1) / spread[:, None]
    bias = np.concatenate([one.intercepts_[0] for one in networks]) - middle @ hidden
    out = np.concatenate([one.coefs_[1][:, 0] for one in networks]) / len(networks)
    out_bias = float(np.mean([one.intercepts_[1][0] for one in networks]))
    weights = hidden.astype(np.float32), bias.astype(np.float32), out.astype(np.float32)
    return Probe(components, *weights, out_bias, Calibration.none())


def _components(features: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """(c, g) the first principal components of the rings' mean vectors."""
    vectors = features[::8, : len(RINGS) * width].reshape(-1, width).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return axes[:, ::-1][:, :COMPONENTS].astype(np.float32)
