"""What the report of a run shows, for notebooks and programs."""

from __future__ import annotations

from pathlib import Path

from cryopick.errors import NotARunFolderError
from cryopick.runs.folder import CONFIG, RunFolder
from cryopick.runs.report.model import RunReport, run_report
from cryopick.runs.results import read_finished, read_results
from cryopick.runs.stored_settings import read_plan_of_run


def report(run: str | Path) -> RunReport:
    """The numbers, charts and tables of a run at its threshold; a notebook shows them. Nothing is written.

    Parameters
    ----------
    run : a run folder; one that is still growing is shown as far as it came

    Raises
    ------
    RunFolderError
        If `run` is no run folder, or its settings are damaged.
    """
    folder = RunFolder(Path(run))
    if not folder.is_run:
        raise NotARunFolderError(
            f"{run}: has no {CONFIG}, so it is no run folder; expected what `cryopick pick -o` made"
        )
    plan, sections = read_plan_of_run(folder)
    results = read_results(folder, plan, read_finished(folder, plan.picker))
    return run_report(folder, results, sections)
