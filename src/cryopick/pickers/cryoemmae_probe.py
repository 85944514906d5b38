"""The score of a pick: where its latent vectors lie between those of simulated particles and of everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryoemmae_latent import LatentMap
from cryopick.processing.probability import Calibration

RINGS = ((0.0, 1), (0.18, 6), (0.36, 12), (0.6, 16))
"""Radius in diameters and number of places of each ring that vectors are averaged over: middle, body, rim, outside."""


def describe(
    latent: LatentMap, response: NDArray[np.float32], xy: NDArray[np.float64], *, diameter: float
) -> NDArray[np.float32]:
    """What the network makes of each candidate: mean vectors over rings around it, less the map's mean vector.

    Parameters
    ----------
    latent : of the micrograph
    response : (h, w) of `disc_response`
    xy : (n, 2) candidates, cells
    diameter : of a particle, cells

    Returns
    -------
    features : (n, 4 c + 1), the four rings from inside out, and the response
    """
    height, width = response.shape
    middle = latent.flat[:: max(1, len(latent.flat) // 8192)].mean(axis=0)
    means = []
    for radius, count in RINGS:
        angle = 2 * np.pi * (np.arange(count) + 0.5) / count
        total = np.zeros((len(xy), latent.vectors.shape[2]), np.float32)
        for dx, dy in zip(np.cos(angle), np.sin(angle), strict=True):
            column = np.clip(np.rint(xy[:, 0] + radius * diameter * dx), 0, width - 1).astype(np.intp)
            row = np.clip(np.rint(xy[:, 1] + radius * diameter * dy), 0, height - 1).astype(np.intp)
            total += latent.vectors[row, column]
        means.append(total / count - middle)
    column, row = np.rint(xy).astype(np.intp).T.reshape(2, -1)
    value = response[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return np.concatenate([*means, value[:, None]], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Probe:
    """A direction in the space of `describe` along which simulated particles differ from other candidates.

    Parameters
    ----------
    weight : (f,) of the features
    bias : added
    calibration : from the logistic of the sum to the probability that a pick is right
    """

    weight: NDArray[np.float32]
    bias: float
    calibration: Calibration

    def raw(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) in (0, 1), not calibrated."""
        logit = features.astype(np.float64) @ self.weight + self.bias
        return np.asarray(1 / (1 + np.exp(-np.clip(logit, -12, 12))))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) probabilities that the picks are right."""
        return self.calibration(self.raw(features))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for a model card."""
        return {
            "weight": [float(f"{value:.5g}") for value in self.weight],
            "bias": float(self.bias),
            "calibration": self.calibration.to_list(),
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        weight = np.asarray(entry["weight"], np.float32)
        return cls(weight, float(entry["bias"]), Calibration.from_list(entry["calibration"]))


def fit_direction(features: NDArray[np.float32], is_right: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """Weight and bias of a logistic regression, its strength of shrinkage for standardised features.

    Raises
    ------
    ValueError
        If all candidates are right, or all wrong.
    """
    from sklearn.linear_model import LogisticRegression

    if is_right.all() or not is_right.any():
        raise ValueError("right and wrong candidates are needed to tell them apart")
    middle, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    fitted = LogisticRegression(C=0.02, max_iter=300).fit((features - middle) / spread, is_right)
    weight = fitted.coef_[0] / spread
    return weight.astype(np.float32), float(fitted.intercept_[0] - weight @ middle)
