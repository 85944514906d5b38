"""Exports of what the page shows: the picks at its cut with a person's marks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cryopick.io.coordinates.formats import FORMATS
from cryopick.runs.place import place_of
from cryopick.types import Picks
from cryopick.viewer.jobs import Job
from cryopick.viewer.session import CutAsked, Refused, Session, as_json, shown_picks
from cryopick.viewer.sources import RunSource
from cryopick.workflows.edited_picks import EditedMicrograph, export_edited
from cryopick.workflows.edits import write_junk_mask
from cryopick.workflows.run_index import is_above

FOLDER = "edited"


def cut_of_body(content: Any, session: Session) -> CutAsked:
    """The cut in what the page posted."""
    source = session.sources[0]
    try:
        threshold = content.get("threshold")
        low, high = float(content.get("low") or 0.0), float(content.get("high") or "inf")
        value = source.cutting.threshold if threshold is None else float(threshold)
    except (TypeError, ValueError, AttributeError) as error:
        raise Refused(400, f"expected a cut: threshold, low, high ({error})") from error
    if math.isnan(value) or math.isnan(low) or math.isnan(high):
        raise Refused(400, "expected a cut: threshold, low, high")
    return CutAsked(value, (low, high), threshold is None)


def output_of(session: Session) -> Path:
    """`RUN/edited`; beside the marks where these are kept elsewhere."""
    source = session.sources[0]
    is_usual = isinstance(source, RunSource) and session.edits == source.folder.path / "edits"
    return session.edits.with_name(FOLDER) if is_usual else session.edits / FOLDER


def post_export(request: Request, session: Session) -> Response:
    """Begin an export; the page polls the job."""
    if session.read_only:
        raise Refused(403, session.read_only)
    content = request.state.content
    cut = cut_of_body(content, session)
    formats = content.get("formats", [])
    if not isinstance(formats, list) or not all(isinstance(one, str) and one in FORMATS for one in formats):
        raise Refused(400, f"formats are among {', '.join(FORMATS)}")
    job = session.jobs.start("export", lambda job: export(session, cut, formats, job))
    return as_json(request, {"job": job.number})


def export(session: Session, cut: CutAsked, formats: list[str], job: Job) -> dict[str, Any]:
    source = session.sources[0]
    rows = [number for number, row in enumerate(source.rows) if not row.error]
    job.steps, job.phase = len(rows), "writing coordinates"
    output = output_of(session)
    place = output.as_posix()
    if isinstance(source, RunSource) and output.parent == source.folder.path:
        records = [source.record(number) for number in range(len(source.rows))]
        place = f"{place_of(source.folder, records)}/{FOLDER}"

    def step(done: int) -> None:
        job.step = done

    told = export_edited(
        output,
        _micrographs(session, rows, cut),
        place=place,
        formats=formats,
        diameter_px=source.diameter_px(rows[0]) if rows and source.has_diameter else None,
        cut={
            "threshold": cut.threshold,
            "is_that_of_the_run": cut.is_own,
            "power_from": cut.limits[0],
            "power_to": None if cut.limits[1] == float("inf") else cut.limits[1],
        },
        on_step=step,
    )
    return {**vars(told), "folder": str(output), "relion": str(output / "autopick.star")}


def _micrographs(session: Session, rows: list[int], cut: CutAsked) -> Iterator[EditedMicrograph]:
    source = session.sources[0]
    for number in rows:
        row = source.rows[number]
        marks = session.journals.read(row.key).marks
        if row.shape_yx is not None and marks.of_kind("junk"):
            write_junk_mask(session.edits, row.key, marks, row.shape_yx)
        picks = shown_picks(session, 0, number, cut)
        before = _count_at_cut(session, number, cut)
        added = len(marks.of_kind("yes"))
        yield EditedMicrograph(
            name=row.name,
            key=row.key,
            relion_name=row.relion_name or row.name,
            picks=picks,
            is_bad=marks.verdict == "bad",
            added=added,
            removed=max(0, before - (len(picks) - added)),
        )


def _count_at_cut(session: Session, number: int, cut: CutAsked) -> int:
    source = session.sources[0]
    found: Picks = source.candidates(number)
    import numpy as np

    powers = source.powers(number, found) if cut.limits != (0.0, float("inf")) else None
    power = np.full(len(found), np.nan, np.float32) if powers is None else powers
    score = found.score * np.float32(source.rows[number].belief if cut.is_own else 1.0)
    return int((found.is_kept & is_above(score, power, threshold=cut.threshold, power_limits=cut.limits)).sum())


def get_jobs(request: Request, session: Session) -> Response:
    """Every job of this start."""
    return as_json(request, {"jobs": [vars(job) for job in session.jobs.jobs], "formats": list(FORMATS)})


def post_threshold(request: Request, session: Session) -> Response:
    """Make a threshold that of the run, as `cryopick rethreshold` does: the one thing that changes the run itself."""
    from cryopick.errors import RunFolderError
    from cryopick.workflows.rethreshold import rethreshold

    source = session.sources[0]
    if not isinstance(source, RunSource):
        raise Refused(403, "imported picks have no threshold of their own")
    if not source.is_finished:
        raise Refused(423, "the run is not finished; its threshold can be set when it is")
    value = request.state.content.get("threshold") if isinstance(request.state.content, dict) else None
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise Refused(400, "threshold is a number, or null for the run's own")
    try:
        summary = rethreshold(source.folder.path, value)
    except RunFolderError as error:
        raise Refused(423 if "another cryopick" in str(error) else 409, str(error)) from error
    for number in source.refresh():
        session.note("record", 0, number)
    return as_json(request, {"threshold": summary.threshold, "particles": summary.particles})
