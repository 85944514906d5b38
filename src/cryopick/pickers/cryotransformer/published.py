"""From the answers of a detection transformer to picks: the published rules, faults included, and the corrected ones.

References
----------
A. Dhakal et al., Bioinformatics 40(3), 2024, btae109, section 2.2, and the program that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUANTILE = 0.25
"""The article keeps what lies above the 25th percentile of the confidences of one micrograph."""
NMS_OVERLAP = 0.7


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of one image, one row per query.

    Parameters
    ----------
    logits : (q, 2) of the two classes
    boxes : (q, 4) centre and size, in 0..1 of the image
    particle_class : number of the class that particles had in training; 1 with the published program, where that is
        the class of nothing as well
    """

    logits: NDArray[np.float64]
    boxes: NDArray[np.float64]
    particle_class: int = 0

    @property
    def probability(self) -> NDArray[np.float64]:
        """(q,) of the class particle, by softmax."""
        other, own = self.logits[:, 1 - self.particle_class], self.logits[:, self.particle_class]
        return np.asarray(1 / (1 + np.exp(np.clip(other - own, -60, 60))))


def above_percentile(score: NDArray[np.float64], *, quantile: float = QUANTILE) -> NDArray[np.bool_]:
    """(n,) Which answers the article keeps: those whose own confidence exceeds the quantile of all of this micrograph.

    Where more of them tie at the top than would be dropped, those that tie are kept.
    """
    if len(score) == 0:
        return np.zeros(0, bool)
    cut = np.quantile(score, quantile)
    return np.asarray((score > cut) | (score == score.max()))


def published_selection(
    answers: Answers, *, quantile: float = QUANTILE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes (n, 4) and scores (n,) that the published program keeps, before its non-maximum suppression.

    It takes the q largest of all 2 q logistic scores without remembering whose they are, and lets the mask of those
    above their quantile, which is always a run from the start, select boxes in the order of the queries. So the first
    three quarters of the queries are kept whatever they say, and bear the scores of others; where more than three
    quarters of the scores tie at the top, nothing is kept.
    """
    score = np.sort((1 / (1 + np.exp(-np.clip(answers.logits, -60, 60)))).ravel())[::-1][: len(answers.boxes)]
    is_kept = score > np.quantile(score, quantile)
    return answers.boxes[is_kept], score[is_kept]


def suppress_overlapping(
    corners: NDArray[np.float64], score: NDArray[np.float64], *, overlap: float = NMS_OVERLAP
) -> NDArray[np.intp]:
    """Indices of boxes that no better kept one overlaps by `overlap` or more; sides count one pixel more, as published.

    Parameters
    ----------
    corners : (n, 4) left, top, right, bottom in pixels
    score : (n,); of equal ones the first counts as better
    """
    left, top, right, bottom = corners.T
    area = (right - left + 1) * (bottom - top + 1)
    waiting = np.argsort(-score, kind="stable")
    kept = []
    while len(waiting):
        best, others = waiting[0], waiting[1:]
        kept.append(int(best))
        width = np.minimum(right[best], right[others]) - np.maximum(left[best], left[others]) + 1
        height = np.minimum(bottom[best], bottom[others]) - np.maximum(top[best], top[others]) + 1
        both = np.maximum(width, 0) * np.maximum(height, 0)
        waiting = others[both / (area[best] + area[others] - both) < overlap]
    return np.array(kept, np.intp)


def published_centres(boxes: NDArray[np.float64], *, shape_yx: tuple[int, int]) -> NDArray[np.float64]:
    """(n, 2) x and y that the published program writes for boxes in 0..1 of the upside-down micrograph.

    Corners are cut to whole pixels, and y is counted from the height, not from the last row: half a pixel to one lost.
    """
    height, width = shape_yx
    size = np.array([width, height, width, height])
    corners = np.trunc(corners_of(boxes) * size)
    x = (corners[:, 0] + corners[:, 2]) / 2
    y = height - (corners[:, 1] + corners[:, 3]) / 2
    return np.column_stack([x, y])


def corners_of(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 4) centre and size to left, top, right, bottom."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def published_picks(
    answers: Answers, *, shape_yx: tuple[int, int], quantile: float = QUANTILE, overlap: float = NMS_OVERLAP
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centres (n, 2), sides (n,) in px and scores (n,) that the published program makes of one whole micrograph."""
    boxes, score = published_selection(answers, quantile=quantile)
    height, width = shape_yx
    size = np.array([width, height, width, height])
    kept = suppress_overlapping(corners_of(boxes) * size, score, overlap=overlap)
    side_px = (boxes[kept, 2:] * size[:2]).mean(axis=1)
    return published_centres(boxes[kept], shape_yx=shape_yx), side_px, score[kept]
