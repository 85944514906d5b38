"""`cryopick rethreshold`: another score threshold for a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.json_lines import print_json
from cryopick.cli.pick import print_summary
from cryopick.errors import SettingsError
from cryopick.runs.place import output_folder
from cryopick.runs.run import summary_as_dict
from cryopick.workflows.rethreshold import rethreshold


def command(
    run: Annotated[Path, typer.Argument(help="Run folder made by `cryopick pick`.")],
    threshold: Annotated[float | None, typer.Option("--threshold", "-t", help="Smallest score that is kept.")] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Go back to the threshold that the run was made with.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
) -> None:
    """Move the score threshold of a finished run; instant, because every candidate was kept.

    cryopick rethreshold run1 --threshold 0.4
    """
    if (threshold is None) != reset:
        raise SettingsError("expected --threshold NUMBER, or --reset for the run's own threshold")
    summary = rethreshold(run, threshold)
    if json:
        print_json(summary_as_dict(summary))
    else:
        print_summary(summary, output_folder(run))
