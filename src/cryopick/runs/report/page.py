"""The report of a run: one HTML file that needs nothing else, with pictures, histograms, counts and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cryopick.pages.render import render_pieces
from cryopick.runs.folder import REPORT, RunFolder
from cryopick.runs.report.model import run_report
from cryopick.runs.results import RunResults
from cryopick.runs.settings import RunSettings


def write_report(
    folder: RunFolder,
    results: RunResults,
    settings: Mapping[str, Mapping[str, Any]],
    *,
    full_with: RunSettings | None = None,
    so_far: str = "",
) -> None:
    """Write `report.html`; the same run gives the same bytes, so times of day and durations are left to the log.

    Parameters
    ----------
    full_with : see `run_report`
    so_far : of a run that goes on, how far it has come; the page shows that above all else, and loads itself again
    """
    report = replace(run_report(folder, results, settings, full_with=full_with), so_far=so_far)
    with folder.writing_piecewise(folder.path / REPORT) as write:
        for piece in render_pieces("run.html", report=report, exhibits=report.exhibits):
            write(piece)
