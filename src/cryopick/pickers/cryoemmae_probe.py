"""The score of a pick: where its latent vectors lie between those of simulated particles and of everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryoemmae_latent import LatentMap
from cryopick.processing.probability import Calibration

RINGS = ((0.0, 1), (0.12, 6), (0.25, 10), (0.38, 12), (0.5, 14), (0.68, 18))
"""Radius in diameters and number of places of each ring that vectors are averaged over, from the middle to outside."""
HIDDEN_UNITS = 24
COMPONENTS = 4
SEED = 0


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
    """A small perceptron over `describe`: particles may be solid or hollow, so one direction does not do.

    Parameters
    ----------
    hidden, hidden_bias : (f, u) and (u,), before the positive parts are taken
    out, out_bias : (u,) and a number
    calibration : from the logistic of the output to the probability that a pick is right
    """

    hidden: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    out: NDArray[np.float32]
    out_bias: float
    calibration: Calibration

    def raw(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) in (0, 1), not calibrated."""
        units = np.maximum(features @ self.hidden + self.hidden_bias, 0)
        logit = (units @ self.out).astype(np.float64) + self.out_bias
        return np.asarray(1 / (1 + np.exp(-np.clip(logit, -12, 12))))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) probabilities that the picks are right."""
        return self.calibration(self.raw(features))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for a model card."""
        return {
            "hidden": [_rounded(row) for row in self.hidden],
            "hidden_bias": _rounded(self.hidden_bias),
            "out": _rounded(self.out),
            "out_bias": float(self.out_bias),
            "calibration": self.calibration.to_list(),
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        arrays = [np.asarray(entry[name], np.float32) for name in ("hidden", "hidden_bias", "out")]
        calibration = Calibration.from_list(entry["calibration"])
        return cls(arrays[0], arrays[1], arrays[2], float(entry["out_bias"]), calibration)


def _rounded(values: NDArray[np.float32]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def fit_probe_weights(features: NDArray[np.float32], is_right: NDArray[np.bool_]) -> Probe:
    """A probe, not calibrated, trained until a tenth of the candidates is judged no better.

    It sees the rings' mean vectors through their first principal components alone: simulated particles are too few to
    tell it about every direction of the latent space, and those it would use best are not the ones that real
    micrographs share with simulated ones.

    Parameters
    ----------
    features : (n, f) of `describe`
    is_right : (n,)

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
    components = _components(features)
    seen = features @ components
    middle, spread = seen.mean(axis=0), seen.std(axis=0) + np.float32(1e-6)
    network = MLPClassifier(
        (HIDDEN_UNITS,), alpha=0.1, learning_rate_init=2e-3, batch_size=min(256, len(features) // 2),
        max_iter=40, early_stopping=True, n_iter_no_change=5, random_state=SEED,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit((seen - middle) / spread, is_right)
    hidden = network.coefs_[0] / spread[:, None]
    bias = network.intercepts_[0] - middle @ hidden
    out = network.coefs_[1][:, 0].astype(np.float32)
    out_bias = float(network.intercepts_[1][0])
    return Probe((components @ hidden).astype(np.float32), bias.astype(np.float32), out, out_bias, Calibration.none())


def _components(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(f, g) takes `describe` to the first components of each ring's vector, the same for all rings, and the rest."""
    rings = len(RINGS)
    width = features.shape[1] // rings  # there are fewer disc responses than rings
    vectors = features[::8, : rings * width].reshape(-1, width).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :COMPONENTS]
    rest = features.shape[1] - rings * width
    whole = np.zeros((features.shape[1], rings * axes.shape[1] + rest))
    for ring in range(rings):
        rows, columns = ring * width, ring * axes.shape[1]
        whole[rows : rows + width, columns : columns + axes.shape[1]] = axes
    whole[rings * width :, rings * axes.shape[1] :] = np.eye(rest)
    return whole.astype(np.float32)
