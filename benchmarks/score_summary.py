"""The few numbers that benchmarks write down: of picks against labels, and of simulated truth as labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cryopick.data.labels import Labels
from cryopick.geometry.units import Length
from cryopick.simulation.micrograph import SimulatedMicrograph
from cryopick.types import Picks
from cryopick.workflows.evaluate import evaluate


def score_summary(picks: Sequence[Picks], labels: Mapping[str, Labels], *, diameter: Length | None) -> dict[str, float]:
    """F1, precision and recall of the kept picks, their curve's average precision and best F1, and how many there are.

    Parameters
    ----------
    labels : by micrograph name
    diameter : of the particles; None takes the labels'
    """
    scores = evaluate(picks, labels, diameter=diameter).main
    return {
        "f1": scores.counts.f1,
        "precision": scores.counts.precision,
        "recall": scores.counts.recall,
        "average_precision": scores.average_precision,
        "best_f1": scores.best_f1,
        "picks_per_micrograph": float(np.mean([one.is_kept.sum() for one in picks])),
    }


def simulated_labels(simulated: SimulatedMicrograph) -> Labels:
    """The truth of a simulated micrograph; particles half hidden or on junk are uncertain."""
    return Labels(
        xy_px=simulated.xy_px,
        is_uncertain=~simulated.is_pickable,
        diameter_px=float(np.median(simulated.diameter_px)) if len(simulated.diameter_px) else None,
        micrograph_name=simulated.micrograph.name,
    )


def listed_diameter(labels: Mapping[str, Labels]) -> Length:
    """The median diameter that label files list, in pixels."""
    px = float(np.median([one.diameter_px for one in labels.values() if one.diameter_px]))
    return Length(px, px, "px")
