"""Move the threshold of a finished run: every candidate was kept, so no micrograph is read again."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

from cryopick.errors import RunFolderError
from cryopick.types import plain_number
from cryopick.workflows.pick_settings import PickSettings, make_settings, read_config, settings_sections
from cryopick.workflows.report import write_report
from cryopick.workflows.results import RunSummary, write_results
from cryopick.workflows.run_folder import CONFIG, MOVED_THRESHOLD, PREPARED, RunFolder
from cryopick.workflows.settings import convert_settings


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
        If `run` is no run folder, has no finished micrograph, or cannot be written.
    """
    folder = RunFolder(Path(run))
    if not folder.is_run:
        raise RunFolderError(f"{run}: has no {CONFIG}, so it is no run folder; expected what `cryopick pick -o` made")
    if threshold is not None:
        threshold = float(plain_number(threshold, "threshold, the smallest score to keep,"))
    settings = settings_of_run(folder)
    with folder.lock():
        folder.clean_up()
        if not any(record.is_done for record in folder.records()):
            raise RunFolderError(f"{run}: no micrograph is finished; run the `cryopick pick` command of the run first")
        moved = folder.path / MOVED_THRESHOLD
        if threshold is None:
            moved.unlink(missing_ok=True)
        else:
            folder.write(moved, json.dumps({"threshold": threshold}) + "\n")
        summary, results = write_results(folder, settings)
        write_report(folder, summary, results, settings_sections(settings))
        folder.append_log(f"rethreshold: {summary.threshold:g} keeps {summary.particles} particles")
    return summary


def settings_of_run(folder: RunFolder) -> PickSettings:
    """The settings that a run was made with, what its picker learnt in preparation included."""
    settings = make_settings(**read_config(folder.path / CONFIG))
    prepared = folder.path / PREPARED
    if prepared.is_file():
        picker = settings.picker
        given = tomllib.loads(prepared.read_text(encoding="utf-8"))[picker.name]
        settings = replace(settings, picker=replace(picker, **convert_settings(type(picker), given, section=PREPARED)))
    return settings
