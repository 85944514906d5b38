"""Two sets of picks on the same micrographs: another run, or labels that are known to be right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from cryopick.data.labels import Labels
from cryopick.errors import CryopickError
from cryopick.geometry.pairing import pair_points
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.metrics.detection import match_picks
from cryopick.types import Picks
from cryopick.viewer.session import CutAsked, Refused, Session, as_json, cut_in, micrograph_of, shown_picks, source_of

TOLERANCE = 0.25
"""Largest distance of two picks that are the same particle, in diameters."""
TRUTH = "truth"
MOST_NAMES_A_MATCH = 10_000


class Other:
    """What micrographs are compared with: labels, or the picks of another run at its own cut."""

    def __init__(self, session: Session, which: str) -> None:
        self.session, self.which = session, which
        if which == TRUTH:
            if not session.labels:
                raise Refused(404, "no truth was given; start with --truth LABELS")
            self.names = list(session.labels)
        else:
            run = int(which) if which.isdigit() and len(which) < 4 else -1
            if not 0 < run < len(session.sources):
                raise Refused(404, "there is no such run to compare with; start with --with RUN2")
            self.run = run
            self.names = [row.name for row in session.sources[run].rows]
        mine = [row.name for row in session.sources[0].rows]
        self.matched = {one: other for other, one in match_micrograph_names(self.names, mine).items()}
        self._number = {name: number for number, name in enumerate(self.names)}

    def labels(self, name: str) -> Labels | None:
        other = self.matched.get(name)
        return None if other is None else self.session.labels[other]

    def picks(self, name: str) -> Picks | None:
        """Of the other run; None where it does not have the micrograph."""
        other = self.matched.get(name)
        if other is None:
            return None
        number = self._number[other]
        own = CutAsked(self.session.sources[self.run].cutting.threshold, (0.0, float("inf")), True)
        return shown_picks(self.session, self.run, number, own)


def matched(request: Request, session: Session) -> Response:
    """Each pick of one micrograph and each of the other's, with what became of it."""
    run, source, number = micrograph_of(request, session)
    if run:
        raise Refused(404, "the first run is compared with the others")
    other = Other(session, request.path_params["other"])
    name = source.rows[number].name
    picks = shown_picks(session, 0, number, cut_in(request, source))
    reach = TOLERANCE * source.diameter_px(number)
    if other.which == TRUTH:
        labels = other.labels(name)
        if labels is None:
            return as_json(request, {"rings": [], "told": "there are no labels of this micrograph"})
        rings, counts = _against_labels(picks, labels, reach)
    else:
        theirs = other.picks(name)
        if theirs is None:
            return as_json(request, {"rings": [], "told": "the other run does not have this micrograph"})
        rings, counts = _against_picks(picks, theirs, reach)
    return as_json(request, {"rings": rings, "counts": counts, "told": ""})


def _against_labels(picks: Picks, labels: Labels, reach: float) -> tuple[list[list[Any]], dict[str, int]]:
    particles, uncertain = labels.xy_px[~labels.is_uncertain], labels.xy_px[labels.is_uncertain]
    match = match_picks(picks.xy_px, particles, uncertain, max_distance_px=reach)
    is_right = np.zeros(len(picks), bool)
    is_right[match.pairs.first] = True
    is_found = np.zeros(len(particles), bool)
    is_found[match.pairs.second] = True
    is_ignored = match.is_ignored
    style = np.where(is_right, "right", np.where(is_ignored, "uncertain", "wrong"))
    rings = [*_rings(picks.xy_px, style), *_rings(particles[~is_found], "missed"), *_rings(uncertain, "uncertain")]
    counts = {
        "right": int(is_right.sum()),
        "wrong": int((~is_right & ~is_ignored).sum()),
        "missed": int((~is_found).sum()),
    }
    return rings, counts


def _against_picks(picks: Picks, theirs: Picks, reach: float) -> tuple[list[list[Any]], dict[str, int]]:
    pairs = pair_points(picks.xy_px, theirs.xy_px, max_distance=reach)
    here, there = np.ones(len(picks), bool), np.ones(len(theirs), bool)
    here[pairs.first], there[pairs.second] = False, False
    rings = [*_rings(picks.xy_px, np.where(here, "here", "both")), *_rings(theirs.xy_px[there], "there")]
    return rings, {"both": len(pairs), "here": int(here.sum()), "there": int(there.sum())}


def _rings(xy: NDArray[np.float64], style: Any) -> list[list[Any]]:
    styles = np.broadcast_to(np.asarray(style), len(xy)).tolist()
    return [[round(x, 3), round(y, 3), one] for (x, y), one in zip(xy.tolist(), styles, strict=True)]


def scores(request: Request, session: Session) -> Response:
    """All micrographs against the other: scores with intervals, and how much each micrograph differs."""
    run, source = source_of(request, session)
    if run:
        raise Refused(404, "the first run is compared with the others")
    other = Other(session, request.path_params["other"])
    cut = cut_in(request, source)
    differ: list[float | None] = []
    total: dict[str, int] = {}
    mine: dict[str, Picks] = {}
    for number, row in enumerate(source.rows):
        if row.error or row.name not in other.matched:
            differ.append(None)
            continue
        picks = shown_picks(session, 0, number, cut)
        reach = TOLERANCE * source.diameter_px(number)
        labels, theirs = (other.labels(row.name), None) if other.which == TRUTH else (None, other.picks(row.name))
        if labels is not None:
            mine[row.name] = picks
            _, counts = _against_labels(picks, labels, reach)
            wrong, right = counts["wrong"] + counts["missed"], counts["right"]
        else:
            assert theirs is not None
            _, counts = _against_picks(picks, theirs, reach)
            wrong, right = counts["here"] + counts["there"], counts["both"]
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
        differ.append(wrong / max(1, wrong + 2 * right))
    measured = _evaluated(mine, session.labels, source.diameter_px(0)) if mine else {}
    return as_json(request, {"counts": total, "differ": differ, "scores": measured, "micrographs": len(other.matched)})


def _evaluated(picks: Mapping[str, Picks], labels: Mapping[str, Labels], diameter_px: float) -> dict[str, Any]:
    from cryopick.geometry.units import Length
    from cryopick.workflows.evaluate import evaluate

    known = {name: one for name, one in labels.items() if one.diameter_px is None}
    diameter = Length(diameter_px, diameter_px, "px") if known else None
    try:
        result = evaluate(dict(picks), dict(labels), diameter=diameter, tolerance=TOLERANCE, skip_unpicked=True)
    except CryopickError as error:
        return {"told": str(error)}
    main = result.main
    found = {}
    for name in ("precision", "recall", "f1"):
        interval = getattr(main.intervals, name)
        found[name] = [getattr(main.counts, name), interval.low, interval.high]
    return {name: [None if not math.isfinite(value) else value for value in three] for name, three in found.items()}
