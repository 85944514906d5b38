"""Answers that only look: runs, micrographs, pictures, numbers; and the journal of a person's marks."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from cryopick.errors import CryopickError, FormatError
from cryopick.io.files.atomic import write_text_atomic
from cryopick.viewer.pictures import LAYERS, Band, default_band
from cryopick.viewer.session import (
    FOREVER,
    Refused,
    Session,
    answer,
    as_json,
    as_numbers,
    cut_in,
    micrograph_of,
    number_in,
    source_of,
)
from cryopick.viewer.sources import RunSource, Source
from cryopick.workflows.edits import History, checked_operations, plain_mark, write_junk_mask


def runs(request: Request, session: Session) -> Response:
    """What every run is, once."""
    return as_json(
        request,
        {
            "runs": [_run_facts(source) for source in session.sources],
            "read_only": session.read_only,
            "view": _read_view(session),
            "has_truth": bool(session.labels),
            "since": len(session.changes),
        },
    )


def _run_facts(source: Source) -> dict[str, Any]:
    summary = source.cutting.summary
    with source.guard:
        score_range = source.index.score_range
    return {
        "title": source.title,
        "picker": source.picker,
        "score_meaning": source.score_meaning,
        "is_probability": source.is_probability,
        "score_range": score_range,
        "threshold": source.cutting.threshold,
        "threshold_source": source.cutting.source,
        "has_diameter": source.has_diameter,
        "is_finished": bool(summary),
        "is_run": isinstance(source, RunSource),
        "can_learn": source.can_learn,
        "kept": summary.get("particles"),
        "precision": summary.get("expected_precision"),
        "recall": summary.get("expected_recall"),
        "warnings": list(summary.get("warnings", {}).items())[:20],
        "prepared": summary.get("prepared", ""),
        "damaged": len(getattr(source, "damaged", ())),
        "path": str(source.folder.path) if isinstance(source, RunSource) else source.title,
    }


def micrographs(request: Request, session: Session) -> Response:
    """The list, by column."""
    run, source = source_of(request, session)
    rows = list(source.rows)
    touched = set(session.journals.keys()) if run == 0 else set()
    verdicts, edited, complete = {}, {}, {}
    for row in rows:
        if row.key in touched:
            try:
                marks = session.journals.read(row.key).marks
            except FormatError:
                continue
            verdicts[row.key], edited[row.key] = marks.verdict, len(marks.by_id)
            complete[row.key] = marks.is_complete
    return as_json(
        request,
        {
            "name": [row.name for row in rows],
            "shape": [row.shape_yx for row in rows],
            "pixel_size": [row.pixel_size_angstrom for row in rows],
            "candidates": [row.candidate_count for row in rows],
            "diameter": [source.diameter_px(number) for number in range(len(rows))],
            "belief": [row.belief for row in rows],
            "expected_right": [row.expected_right for row in rows],
            "warnings": [list(row.warnings) for row in rows],
            "told": [row.told for row in rows],
            "failed": [row.error for row in rows],
            "stamp": [row.stamp for row in rows],
            "maps": [list(row.maps) for row in rows],
            "verdict": [verdicts.get(row.key, "none") for row in rows],
            "edited": [edited.get(row.key, 0) for row in rows],
            "complete": [complete.get(row.key, False) for row in rows],
        },
    )


def curve(request: Request, session: Session) -> Response:
    """1001 thresholds, kept, precision and recall; then the histogram; float32."""
    _, source = source_of(request, session)
    with source.guard:
        found = source.index.curve()
    parts = (found.threshold, found.kept, found.precision, found.recall, found.histogram.ravel())
    response = as_numbers(request, np.concatenate(parts))
    response.headers["x-indexed"] = f"{source.indexed} of {len(source.rows)}"
    return response


def expect(request: Request, session: Session) -> Response:
    """Exact numbers at a cut, float64: kept, precision, recall, indexed, all; then kept of each micrograph, uint32."""
    _, source = source_of(request, session)
    cut = cut_in(request, source)
    belief = {row.key: row.belief for row in source.rows if row.belief != 1.0} if cut.is_own else {}
    with source.guard:
        found = source.index.at(cut.threshold, power_limits=cut.limits, belief=belief)
        keys = source.index.names()
    at = dict(zip(keys, found.per_micrograph.tolist(), strict=True))
    precision, recall = found.precision, found.recall
    summary = source.cutting.summary
    if cut.is_own and summary and cut.limits == (0.0, float("inf")):
        precision, recall = summary.get("expected_precision"), summary.get("expected_recall")
    head = np.array(
        [found.kept, *(math.nan if one is None else one for one in (precision, recall)), len(keys), len(source.rows)],
        np.float64,
    )
    per = np.array([at.get(row.key, 0xFFFFFFFF) for row in source.rows], np.uint32)
    data = head.astype("<f8").tobytes() + per.astype("<u4").tobytes()
    return answer(request, data, "application/octet-stream")


def candidates(request: Request, session: Session) -> Response:
    """n x 7 float32: x, y, score, diameter, power, which reason, class; the reasons stand in a header."""
    _, source, number = micrograph_of(request, session)
    found = source.candidates(number)
    reasons = sorted(set(found.reason.tolist()) - {""})
    which = {reason: place for place, reason in enumerate(["", *reasons])}
    power = source.powers(number, found)
    table = np.empty((len(found), 7), np.float32)
    table[:, :2] = found.xy_px
    table[:, 2], table[:, 3] = found.score, found.diameter_px
    table[:, 4] = np.nan if power is None else power
    table[:, 5] = [which[reason] for reason in found.reason.tolist()]
    table[:, 6] = found.class_id
    response = as_numbers(request, table, cache=FOREVER if request.query_params.get("v") else "no-store")
    response.headers["x-reasons"] = json.dumps(reasons, ensure_ascii=True)
    return response


def picture(request: Request, data: bytes | None, media: str = "image/jpeg") -> Response:
    if data is None:
        raise Refused(404, "there is no such picture")
    return answer(request, data, media, cache=FOREVER if request.query_params.get("v") else "no-store")


def thumb(request: Request, session: Session) -> Response:
    run, _, number = micrograph_of(request, session)
    return picture(request, session.pictures.thumb(run, number))


def overview(request: Request, session: Session) -> Response:
    run, _, number = micrograph_of(request, session)
    return picture(request, session.pictures.overview(run, number))


def map_picture(request: Request, session: Session) -> Response:
    _, source, number = micrograph_of(request, session)
    which = int(request.path_params["j"])
    if not 0 <= which < len(source.rows[number].maps):
        raise Refused(404, "there is no such map")
    return picture(request, source.map_png(number, which), "image/png")


def base(request: Request, session: Session) -> Response:
    run, source, number = micrograph_of(request, session)
    layer = request.path_params["layer"]
    if layer not in LAYERS:
        raise Refused(404, "there is no such layer")
    low, high = default_band(source, number)
    band = Band(number_in(request, "low", low), number_in(request, "high", high))
    if not 0 < band.low < band.high <= 1e5:
        raise Refused(400, "a band is two wavelengths, the smaller first")
    response = picture(request, session.pictures.base(run, number, layer, band))
    if source.has_changed(number):
        response.headers["x-note"] = "the file changed since it was picked; it is shown as it is now"
    return response


def tile(request: Request, session: Session) -> Response:
    run, _, number = micrograph_of(request, session)
    if request.path_params["layer"] != "raw":
        raise Refused(404, "this layer has no tiles")
    level, x, y = (int(request.path_params[name]) for name in ("level", "x", "y"))
    return picture(request, session.pictures.tile(run, number, level, x, y))


def read_marks(request: Request, session: Session) -> Response:
    run, source, number = micrograph_of(request, session)
    row = source.rows[number]
    if run:
        return as_json(request, {"revision": 0, "marks": {}, "verdict": "none", "complete": False})
    try:
        return as_json(request, _history(session.journals.read(row.key)))
    except FormatError as error:
        return as_json(
            request,
            {"revision": 0, "marks": {}, "verdict": "none", "complete": False, "damaged": str(error)},
        )


def _history(history: History) -> dict[str, Any]:
    marks = history.marks
    return {
        "revision": history.revision,
        "marks": {name: plain_mark(mark) for name, mark in marks.by_id.items()},
        "verdict": marks.verdict,
        "complete": marks.is_complete,
        "undo": history.what(history.undo[-1]) if history.undo else "",
        "redo": history.what(history.redo[-1]) if history.redo else "",
        "undos": len(history.undo),
        "redos": len(history.redo),
    }


def write_marks(request: Request, session: Session) -> Response:
    run, source, number = micrograph_of(request, session)
    if run:
        raise Refused(403, "only the first run can be edited")
    if session.read_only:
        raise Refused(403, session.read_only)
    content = request.state.content
    row = source.rows[number]
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        if content.get("undo") or content.get("redo"):
            group = checked_operations(
                [{"op": "verdict", "value": "none", "group": content["group"]}], shape_yx=None, diameter_px=1.0
            )[0]["group"]
            history = session.journals.undo(row.key, group=group, now=now, forward=bool(content.get("redo")))
        else:
            operations = checked_operations(
                content["ops"], shape_yx=row.shape_yx, diameter_px=source.diameter_px(number)
            )
            history = session.journals.append(row.key, operations, now=now)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CryopickError):
            raise
        raise Refused(400, f"what came is no list of marks: {str(error)[:200]}") from error
    if row.shape_yx is not None:
        with suppress(CryopickError, OSError):  # made again at the next change, and for every export
            write_junk_mask(session.edits, row.key, history.marks, row.shape_yx)
    session.note("marks", 0, number)
    return as_json(request, {**_history(history), "since": len(session.changes)})


def changes(request: Request, session: Session) -> Response:
    """What changed since the page asked last; 204 where nothing did."""
    since = int(number_in(request, "since", 0))
    new = session.changes[max(since, 0) :]
    if not new:
        return Response(status_code=204)
    return as_json(request, {"since": since + len(new), "changes": list(dict.fromkeys(new))})


def write_view(request: Request, session: Session) -> Response:
    """The slider, limits and layer, for the next visit."""
    content = request.state.content
    if not isinstance(content, dict) or len(json.dumps(content)) > 4000:
        raise Refused(400, "expected a small object")
    if not session.read_only:
        write_text_atomic(session.edits / "view.json", json.dumps(content, ensure_ascii=True) + "\n")
    return as_json(request, {})


def _read_view(session: Session) -> dict[str, Any]:
    try:
        content = json.loads((session.edits / "view.json").read_text(encoding="ascii"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}
