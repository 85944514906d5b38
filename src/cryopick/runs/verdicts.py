"""What a run says of each of its micrographs: whether its picks can be used, and if not, why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cryopick.geometry.units import share_percent
from cryopick.processing.belief import LIKELY
from cryopick.runs.threshold import Cut, is_open
from cryopick.types import Picks

GOOD, EMPTY, MOSTLY_JUNK = "good", "empty", "mostly junk"
UNLIKE_THE_RUN, CONTRAST_INVERTED = "unlike the run", "contrast inverted?"
VERDICTS: Mapping[str, str] = {
    GOOD: "its picks can be used",
    EMPTY: "nothing on it looks like the particles",
    MOSTLY_JUNK: "carbon, ice or contamination covers most of it",
    UNLIKE_THE_RUN: "much on it looks like particles, but not like those of the other micrographs",
    CONTRAST_INVERTED: "particles seem to be bright where dark ones are expected, or the other way round",
}
"""Every verdict and what it means."""
MOST_JUNK_SHARE = 0.5
"""Of the image."""
MUCH_SHARE = 0.03
"""Share of the image that candidates which look likely must cover for it not to be just empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is told of one micrograph; None where it is not known, as for pickers whose scores are no probabilities.

    Parameters
    ----------
    verdict : one of `VERDICTS`
    reason : a sentence; "" for good ones
    filled_share : of the image, that the expected particles cover, 0 and more
    junk_share : of the image, 0 to 1
    expected_right : share of its picks that should be right; None without picks
    belief : see `cryopick.runs.threshold.Cut`
    """

    verdict: str
    reason: str = ""
    filled_share: float | None = None
    junk_share: float | None = None
    expected_right: float | None = None
    belief: float = 1.0


def verdict_of(
    candidates: Picks,
    cut: Cut,
    *,
    name: str,
    junk_share: float | None,
    has_probabilities: bool,
    contrast_doubt: str | None,
) -> Verdict:
    """The verdict on one micrograph of a run, from its candidates at the run's cut.

    Parameters
    ----------
    junk_share : of the image, as the picker maps it; None where it maps none
    has_probabilities : whether scores are calibrated probabilities
    contrast_doubt : the sentence of a run whose particles seem to have the opposite contrast
    """
    belief = cut.belief_in(name)
    is_likely = is_open(candidates) & (candidates.score >= LIKELY)
    looks_filled = _covered_share(candidates, is_likely) if has_probabilities else None
    kept = candidates.score[candidates.is_kept]
    right = round(float(kept.mean(dtype=np.float64)) * belief, 4) if has_probabilities and len(kept) else None
    verdict, reason = GOOD, ""
    if contrast_doubt:
        verdict, reason = CONTRAST_INVERTED, VERDICTS[CONTRAST_INVERTED]
    elif junk_share is not None and junk_share > MOST_JUNK_SHARE:
        verdict, reason = MOSTLY_JUNK, f"carbon, ice or contamination covers {share_percent(junk_share)} of it"
    elif not len(kept):
        count = int(np.count_nonzero(is_likely))
        is_unlike = has_probabilities and belief < 1 and looks_filled is not None and looks_filled > MUCH_SHARE
        if is_unlike:
            verdict = UNLIKE_THE_RUN
            reason = f"{count} candidates look likely, but their sizes and scores are not those of the run's particles"
        else:
            verdict = EMPTY
            reason = (
                f"{count} candidates look likely, as few as noise and ice give" if count else "no candidate is kept"
            )
    return Verdict(
        verdict=verdict,
        reason=reason,
        filled_share=None if looks_filled is None else round(looks_filled * belief, 4),
        junk_share=None if junk_share is None else round(junk_share, 4),
        expected_right=right,
        belief=belief,  # not rounded: evaluating the run keeps by it what the run kept
    )


def _covered_share(candidates: Picks, is_counted: np.typing.NDArray[np.bool_]) -> float | None:
    """Share of the image that likely particles cover, each a disc of its diameter, weighted by its probability."""
    if candidates.shape_yx is None or not np.isfinite(candidates.diameter_px[is_counted]).all():
        return None
    height, width = candidates.shape_yx
    areas = np.pi / 4 * candidates.diameter_px[is_counted].astype(np.float64) ** 2
    return float((candidates.score[is_counted] * areas).sum() / max(height * width, 1))
