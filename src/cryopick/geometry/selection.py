"""Which candidates are kept, and why the others are not: the one selection that every picker shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.types import Picks

BELOW_THRESHOLD = "below threshold"
NOT_BELIEVED = "on a micrograph that seems to hold none"
TOO_CLOSE = "too close to a better pick"
AT_EDGE = "edge"
IN_EXCLUSION_MASK = "in exclusion mask"
ON_JUNK = "on junk"
OVER_COUNT_LIMIT = "over the count limit"
REASONS: tuple[str, ...] = (
    AT_EDGE,
    IN_EXCLUSION_MASK,
    ON_JUNK,
    TOO_CLOSE,
    OVER_COUNT_LIMIT,
    BELOW_THRESHOLD,
    NOT_BELIEVED,
)
"""Every reason that `select` writes, in the order in which they are tested; a candidate gets the first that applies.
The threshold comes last, so that all other reasons are the same at every threshold."""

MIN_DISTANCE_FRACTION = 0.6
"""Default smallest distance between two picks, in particle diameters: neighbours of one species may overlap a little in
projection, and two peaks on one particle are closer than its radius plus the error of a centre."""


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How candidates become picks, the same for every picker."""

    threshold: Annotated[
        float | None, "smallest score kept; where not set, the picker's default or what it chooses from all scores"
    ] = None
    min_distance: Annotated[
        Length | None, f"smallest distance between two picks; where not set, {MIN_DISTANCE_FRACTION:g} diameters"
    ] = None
    edge_margin: Annotated[
        Length | None, "picks closer than this to the edge of the image are rejected; where not set, only those outside"
    ] = None
    exclusion_distance: Annotated[
        Length | None, "picks closer than this to the exclusion mask or junk are rejected; where not set, those in it"
    ] = None
    max_count: Annotated[int | None, "keep at most so many picks per micrograph, the best ones; where not set, all"] = (
        None
    )
    as_found: Annotated[
        bool, "keep what the picker gives as it is: no threshold, spacing, edge or junk rule but those given here"
    ] = False

    def __post_init__(self) -> None:
        if self.threshold is not None and np.isnan(self.threshold):
            raise SettingsError("threshold is not a number; give a number, or leave it out for the picker's own")
        if self.max_count is not None and self.max_count < 1:
            raise SettingsError(f"max_count is {self.max_count}, expected at least 1, or nothing for no limit")
        for name in ("min_distance", "edge_margin", "exclusion_distance"):
            length = getattr(self, name)
            if length is not None and length.is_range:
                raise SettingsError(f"{name} is the range {length}, expected a single length such as {length.low:g}A")


def select(
    picks: Picks,
    settings: SelectionSettings,
    *,
    threshold: float,
    exclusion_mask: NDArray[np.bool_] | None = None,
    junk_mask: NDArray[np.bool_] | None = None,
) -> Picks:
    """Give every candidate of one micrograph its reason for rejection, or "" when it is kept.

    Greedy by score: a candidate falls when a better kept one is too close. Candidates at the edge or in the mask never
    push others out. A threshold only cuts the weak end of the greedy order, so selecting again from stored candidates
    with another threshold gives what a fresh run would give, and no other reason changes with it. Earlier reasons are
    ignored. The result does not depend on the order of the candidates; ties are settled by position (y, then x).

    Parameters
    ----------
    picks : candidates, in any order; `shape_yx` must be known for an edge margin or a mask
    settings : what to apply
    threshold : the threshold in force (`settings.threshold`, or the picker's where that is None); a candidate without a
        score (NaN) passes only the threshold -inf
    exclusion_mask : (any h, any w) True where no pick is wanted; spans the whole micrograph at any resolution
    junk_mask : the same for what a picker itself takes for carbon, ice or contamination

    Returns
    -------
    The same picks in the same order, with `reason` filled in

    Raises
    ------
    SettingsError
        If a length in Å meets picks of unknown pixel size, or an edge margin or mask picks of unknown image size.
    """
    n = len(picks)
    reason = np.full(n, "", dtype=f"<U{max(map(len, REASONS))}")
    if n == 0:
        return replace(picks, reason=reason)
    score = np.where(np.isnan(picks.score), -np.inf, picks.score).astype(np.float64)

    reason[_is_at_edge(picks, settings)] = AT_EDGE
    if exclusion_mask is not None:
        reason[(reason == "") & _is_near_mask(picks, settings, exclusion_mask)] = IN_EXCLUSION_MASK
    if junk_mask is not None:
        reason[(reason == "") & _is_near_mask(picks, settings, junk_mask)] = ON_JUNK

    order = np.lexsort((picks.xy_px[:, 0], picks.xy_px[:, 1], -score))
    standing = order[reason[order] == ""]
    min_distance_px = _min_distances_px(picks, settings)
    is_crowded = _is_too_close(picks.xy_px[standing], min_distance_px[standing])
    reason[standing[is_crowded]] = TOO_CLOSE
    if settings.max_count is not None:
        reason[standing[~is_crowded][settings.max_count :]] = OVER_COUNT_LIMIT
    reason[(reason == "") & (score < threshold)] = BELOW_THRESHOLD
    return replace(picks, reason=reason)


def _length_px(length: Length, picks: Picks) -> float:
    return length.middle_px(picks.pixel_size_angstrom)


def _shape_yx(picks: Picks, purpose: str) -> tuple[int, int]:
    if picks.shape_yx is None:
        raise SettingsError(
            f"{picks.micrograph_name}: {purpose} needs the size of the micrograph, which these picks do not record; "
            "read them together with their micrograph"
        )
    return picks.shape_yx


def _is_at_edge(picks: Picks, settings: SelectionSettings) -> NDArray[np.bool_]:
    if settings.edge_margin is None and (settings.as_found or picks.shape_yx is None):
        return np.zeros(len(picks), dtype=bool)
    height, width = _shape_yx(picks, "an edge margin")
    margin_px = 0.0 if settings.edge_margin is None else _length_px(settings.edge_margin, picks)
    # the image covers -0.5 ... width - 0.5, because (0, 0) is the centre of its first pixel
    x, y = picks.xy_px.T + 0.5
    is_inside = (x >= margin_px) & (x <= width - margin_px) & (y >= margin_px) & (y <= height - margin_px)
    return np.asarray(~is_inside)


def _is_near_mask(picks: Picks, settings: SelectionSettings, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    height, width = _shape_yx(picks, "an exclusion mask")
    step_yx = (height / mask.shape[0], width / mask.shape[1])  # micrograph pixels per mask pixel
    is_excluded = np.asarray(mask, dtype=bool)
    if not is_excluded.any():
        return np.zeros(len(picks), dtype=bool)
    x, y = picks.xy_px.T + 0.5
    row = np.clip((y / step_yx[0]).astype(int), 0, mask.shape[0] - 1)
    column = np.clip((x / step_yx[1]).astype(int), 0, mask.shape[1] - 1)
    if settings.exclusion_distance is None:
        return np.asarray(is_excluded[row, column])
    is_near = _distance_px(is_excluded, step_yx)[row, column] < _length_px(settings.exclusion_distance, picks)
    return np.asarray(is_near | is_excluded[row, column])


def _distance_px(is_excluded: NDArray[np.bool_], step_yx: tuple[float, float]) -> NDArray[np.floating]:
    """(h, w) distance from each mask pixel to the nearest excluded one, in micrograph pixels."""
    if abs(step_yx[0] / step_yx[1] - 1) < 1e-3:
        import cv2  # exact too, and twenty times as fast, but knows only square pixels

        free = (~is_excluded).astype(np.uint8)
        return np.asarray(cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * step_yx[0])
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~is_excluded, sampling=step_yx))


def _min_distances_px(picks: Picks, settings: SelectionSettings) -> NDArray[np.float64]:
    """(n,) distance that each pick keeps from others of its own size; 0 where neither setting nor diameter says, or
    picks are kept as they are found."""
    if settings.min_distance is not None:
        return np.full(len(picks), _length_px(settings.min_distance, picks))
    if settings.as_found:
        return np.zeros(len(picks))
    return MIN_DISTANCE_FRACTION * np.nan_to_num(picks.diameter_px.astype(np.float64), nan=0.0)


def _is_too_close(xy_px: NDArray[np.float64], min_distance_px: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) True where a better kept pick is nearer than the mean of both min distances; best pick first."""
    return ~stand_apart(
        xy_px,
        lambda better, worse: np.stack([min_distance_px[better], min_distance_px[worse]]).mean(axis=0),
        reach_px=float(min_distance_px.max(initial=0.0)),
    )


def stand_apart(
    xy_px: NDArray[np.float64],
    limit_px: Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.floating]],
    *,
    reach_px: float,
) -> NDArray[np.bool_]:
    """(n,) True for the places that stand where near ones may not: see `stand_best_first`.

    Parameters
    ----------
    xy_px : (n, 2), best first
    limit_px : (m,) indices of better and of worse places to (m,) the distance that the two must keep
    reach_px : at least the largest limit
    """
    from scipy.spatial import cKDTree

    if reach_px == 0 or len(xy_px) == 0:
        return np.ones(len(xy_px), bool)
    pairs = cKDTree(xy_px).query_pairs(reach_px, output_type="ndarray")  # (m, 2), the better one first
    gap_px = np.hypot(*(xy_px[pairs[:, 0]] - xy_px[pairs[:, 1]]).T)
    return stand_best_first(len(xy_px), pairs[gap_px < limit_px(pairs[:, 0], pairs[:, 1])])


def stand_best_first(n: int, pairs: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(n,) True for what stands: from the best on, each that stands fells the worse ones that it is paired with.

    Parameters
    ----------
    pairs : (m, 2) better and worse of two that exclude each other, as ranks: 0 is the best
    """
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    start = np.searchsorted(pairs[:, 0], np.arange(n + 1))
    stands = np.ones(n, bool)
    for best in range(n):
        if stands[best]:
            stands[pairs[start[best] : start[best + 1], 1]] = False
    return stands


def merged_best_first(found: Sequence[Picks], *, like: Picks) -> Picks:
    """Candidates of several searches of one micrograph as one list, best first; all else is as in `like`."""
    order = np.argsort(-np.concatenate([picks.score for picks in found]), kind="stable")
    return replace(
        like,
        xy_px=np.concatenate([picks.xy_px for picks in found])[order],
        score=np.concatenate([picks.score for picks in found])[order],
        diameter_px=np.concatenate([picks.diameter_px for picks in found])[order],
        class_id=np.concatenate([picks.class_id for picks in found])[order],
        reason=np.full(len(order), ""),
    )
