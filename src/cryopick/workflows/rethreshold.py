"""Move the threshold of a finished run: every candidate was kept, so no micrograph is read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cryopick.errors import NotARunFolderError, RunFolderError
from cryopick.runs.facts import read_facts
from cryopick.runs.folder import CONFIG, MOVED_THRESHOLD, RunFolder
from cryopick.runs.place import output_folder
from cryopick.runs.report.page import write_report
from cryopick.runs.results import RunSummary, read_finished, warn_of_lost_records, write_results
from cryopick.runs.stored_settings import read_plan_of_run
from cryopick.types import plain_number

_MOST_SHOWN = 3


def rethreshold(run: str | Path, threshold: float | None) -> RunSummary:
    """Write the picks, tables and report of a run again for another threshold.

    Parameters
    ----------
    run : the run folder
    threshold : smallest score that is kept; None goes back to the run's own threshold. It stays in force when
        `cryopick pick` adds micrographs to the run

    Raises
    ------
    RunFolderError
        If `run` is no run folder, has no finished micrograph or damaged ones, or cannot be written.
    """
    folder = RunFolder(output_folder(run))
    if not folder.is_run:
        raise NotARunFolderError(
            f"{run}: has no {CONFIG}, so it is no run folder; expected what `cryopick pick -o` made"
        )
    if threshold is not None:
        threshold = float(plain_number(threshold, "threshold, the smallest score to keep,"))
    plan, sections = read_plan_of_run(folder)
    with folder.lock():
        folder.clean_up()
        finished = read_finished(folder, plan.picker)
        if finished.damaged:
            raise RunFolderError(_damaged_text(folder, finished.damaged))
        if not finished.candidates:
            raise RunFolderError(f"{run}: no micrograph is finished; run the `cryopick pick` command of the run first")
        warn_of_lost_records(folder.path, len(finished.records))
        # Marked before anything changes: a reader must not take picks of two thresholds for one set.
        folder.begin_tables()
        moved = folder.path / MOVED_THRESHOLD
        if threshold is None:
            with folder.writing(moved):
                moved.unlink(missing_ok=True)
        else:
            folder.write(moved, json.dumps({"threshold": threshold}) + "\n", is_durable=True)
        results = write_results(folder, plan, finished, facts=read_facts(folder))
        write_report(folder, results, sections, full_with=plan.settings.run)
        folder.end_tables()
        summary = results.summary
        folder.append_log(f"rethreshold: {summary.threshold:g} keeps {summary.particles} particles")
    return summary


def _damaged_text(folder: RunFolder, damaged: Mapping[str, str]) -> str:
    shown = "; ".join(list(damaged.values())[:_MOST_SHOWN])
    more = f"; and {len(damaged) - _MOST_SHOWN} more" if len(damaged) > _MOST_SHOWN else ""
    count = "1 micrograph" if len(damaged) == 1 else f"{len(damaged)} micrographs"
    return (
        f"{folder.path}: files of {count} are damaged, and nothing was changed: {shown}{more}. Run the same "
        "`cryopick pick` command again: it picks these again, and nothing that is whole"
    )
