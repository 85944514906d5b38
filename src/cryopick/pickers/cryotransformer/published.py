"""From the published network's answers to picks: the published rules, faults included, and the corrected ones.

References
----------
A. Dhakal et al., Bioinformatics 40(3), 2024, btae109, section 2.2, and the program that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryotransformer.detr_model import (
    Answers,
    Behaviour,
    Denoising,
    DetrModel,
    is_upside_down,
    prepare_image,
    sees_wholes,
)
from cryopick.pickers.cryotransformer.model import CANDIDATE_FLOOR
from cryopick.types import Micrograph, Picks

QUANTILE = 0.25
"""The article keeps what lies above the 25th percentile of the confidences of one micrograph."""
NMS_OVERLAP = 0.7


@dataclass(frozen=True, kw_only=True)
class PublishedChain:
    """From a micrograph to picks, through the published network or one of its kind.

    Parameters
    ----------
    behaviour : corrected: as the weights were trained; article: answers of whole micrographs; published: as the program
        selects and writes them
    denoising : of what the network sees; None: as the weights were trained
    quantile : the lowest part of a micrograph's answers, which is dropped; None: what is hardly a particle is
    """

    behaviour: Behaviour
    denoising: Denoising | None
    quantile: float | None

    def picks(self, model: DetrModel, micrograph: Micrograph, *, diameter_px: float | None) -> Picks:
        """What is found, best first; `diameter_px` is that of a particle, where it is needed."""
        denoising = self.denoising or model.denoising
        is_turned = is_upside_down(model.behaviour, denoising)
        pixels = np.ascontiguousarray(micrograph.pixels[::-1]) if is_turned else micrograph.pixels
        prepared = prepare_image(pixels, diameter_px=diameter_px, denoising=denoising, name=micrograph.name)
        if model.behaviour == "published":  # it has learnt to say where particles were before the denoiser moved them
            prepared = replace(prepared, shift_xy_px=(0.0, 0.0))
        height = micrograph.shape_yx[0]
        if self.behaviour == "published":
            xy_px, side_px, score = published_picks(
                model.answers(prepared.grey), shape_yx=micrograph.shape_yx, quantile=self.quantile or 0.0
            )
            if not is_turned:  # the rule counts y from the other end
                xy_px[:, 1] = height - xy_px[:, 1]
            return Picks.of_candidates(micrograph, xy_px, score.astype(np.float32), side_px, rank=score)
        floor = CANDIDATE_FLOOR if self.quantile is None else 0.0
        if self.behaviour == "article" or sees_wholes(model.behaviour):
            xy_px, side_px, score = model.whole(prepared, floor=floor)
        elif diameter_px is None:
            raise TypeError("tiles need the diameter")
        else:
            xy_px, side_px, score = model.in_tiles(prepared, diameter_px=diameter_px, floor=floor)
        if is_turned:
            xy_px[:, 1] = height - 1 - xy_px[:, 1]
        if self.quantile is not None:  # of all answers, those that the shift of the denoiser moves outside among them
            is_kept = above_percentile(score, quantile=self.quantile)
            xy_px, side_px, score = xy_px[is_kept], side_px[is_kept], score[is_kept]
        calibration = model.calibration if self.behaviour == "corrected" else None
        value = score.astype(np.float32) if calibration is None else calibration(score)
        return Picks.of_candidates(micrograph, xy_px, value, np.maximum(side_px, 1e-3), rank=score)


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
