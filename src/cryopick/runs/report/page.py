"""The report of a run: one HTML file that needs nothing else, with pictures, histograms, counts and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cryopick.pages.render import render
from cryopick.runs.folder import REPORT, RunFolder
from cryopick.runs.report.model import run_report
from cryopick.runs.results import MicrographResult, RunSummary


def write_report(
    folder: RunFolder,
    summary: RunSummary,
    results: Sequence[MicrographResult],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    so_far: str = "",
) -> None:
    """Write `report.html`; the same run gives the same bytes, so times of day and durations are left to the log.

    Parameters
    ----------
    so_far : of a run that goes on, how far it has come; the page shows that above all else, and loads itself again
    """
    report = replace(run_report(folder, summary, results, settings), so_far=so_far)
    folder.write(folder.path / REPORT, render("run.html", report=report, exhibits=report.exhibits))
