"""Options of the commands that pick into a run folder: with what, by whom, and what counts as failed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cryopick.pickers.registry import list_pickers
from cryopick.runs.settings import DEFAULT_PICKER

Picker = Annotated[str | None, typer.Option(help=f"One of: {', '.join(list_pickers())}.", show_default=DEFAULT_PICKER)]
Config = Annotated[
    Path | None, typer.Option(help="TOML settings, for example run1/config.toml; options given here win.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start again and replace the run in the folder.")]
FailOn = Annotated[
    Literal["any", "all"],
    typer.Option(help="Exit code 1 when any micrograph could not be picked, or only when all could not."),
]

Workers = Annotated[
    int | None, typer.Option("--workers", "-j", help="Processes side by side; the result does not depend on it.")
]
Devices = Annotated[
    str,
    typer.Option(
        metavar="cuda:0,cuda:1",
        help="Graphics cards of this machine: each process has one, in turn, by default two a card.",
        show_default=False,
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="A micrograph that takes longer fails, and its hung process is killed. 0: no limit.",
        show_default="7200 where workers are processes of their own",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="slurm|local|tls://HOST:PORT", help="Pick on a cluster in place of this machine; see docs/cluster.md."
    ),
]
Jobs = Annotated[int | None, typer.Option(metavar="N", help="Jobs to keep at work on the cluster; needed for slurm.")]
Wait = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="For a first worker of the cluster, such as 10m; then an error. [for ever]"),
]
ClusterConfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="TOML with [cluster]: queue, memory, ... [$CRYOPICK_CLUSTER_CONFIG, or the user's own]"
    ),
]
