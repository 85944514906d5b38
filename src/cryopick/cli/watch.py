"""`cryopick watch`: parse, follow the session, print what happens and where the results are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.console import command_line
from cryopick.cli.json_lines import JsonLines, json_lines
from cryopick.cli.loudness import say_progress
from cryopick.cli.options import with_options
from cryopick.cli.pick import called_picker, chosen_settings, print_summary, tell_failed
from cryopick.cli.picking_options import (
    Cluster,
    ClusterConfig,
    Config,
    Devices,
    FailOn,
    Jobs,
    Overwrite,
    Picker,
    TimeLimit,
    Wait,
    Workers,
)
from cryopick.cli.process import first_signal_calls
from cryopick.geometry.selection import SelectionSettings
from cryopick.pickers.registry import picker_class
from cryopick.runs.following.events import WatchEvent
from cryopick.runs.place import output_folder
from cryopick.runs.settings import RunSettings
from cryopick.runs.workers import who_picks
from cryopick.workflows.watch import Watch, watch_options


def watch(
    *,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="Folder in which micrographs arrive, existing or not, or a micrographs.star that grows."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Run folder; an interrupted run in it goes on.")
    ],
    picker: Picker = None,
    config: Config = None,
    settle: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Keep the first size that is found on N micrographs or more; measured until the end where not given.",
        ),
    ] = None,
    stop_idle: Annotated[
        str | None, typer.Option(metavar="TIME", help="End when nothing has come for so long: 90s, 30m, 4h.")
    ] = None,
    stop_count: Annotated[int | None, typer.Option(metavar="N", help="End when so many micrographs have come.")] = None,
    stop_file: Annotated[
        Path | None, typer.Option(help="End when there is such a file.", show_default="STOP in the run folder")
    ] = None,
    poll: Annotated[str, typer.Option(metavar="TIME", help="How often the folder is looked at.")] = "2s",
    quiet: Annotated[
        str, typer.Option(metavar="TIME", help="A file that has not changed for so long is whole.")
    ] = "4s",
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="How long files that are not whole are waited for at the end.")
    ] = "60s",
    summary_every: Annotated[
        str, typer.Option(metavar="TIME", help="How often threshold, tables and report are made anew, at most.")
    ] = "60s",
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Leave out files of such names; may be given again.")
    ] = None,
    workers: Workers = None,
    devices: Devices = "",
    time_limit: TimeLimit = None,
    cluster: Cluster = None,
    jobs: Jobs = None,
    wait: Wait = None,
    cluster_config: ClusterConfig = None,
    overwrite: Overwrite = False,
    fail_on: FailOn = "all",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per event on stdout.")] = False,
    given: dict[str, Any] | None = None,
) -> None:
    """Follow a session: pick micrographs while they arrive, and end as `cryopick pick` over all of them.

    cryopick watch session/Micrographs -o live

    Ctrl-C ends the session properly: what has come is picked, and the final tables are written. A second Ctrl-C ends at
    once. Running the same command again goes on. Until the end sizes, threshold and picks are provisional.
    """
    place = output_folder(output)
    session = Watch(
        folder,
        place,
        chosen_settings(picker, config, given),
        watch_options(
            settle=settle,
            stop_idle=stop_idle,
            stop_count=stop_count,
            stop_file=stop_file,
            poll=poll,
            quiet=quiet,
            grace=grace,
            summary_every=summary_every,
            ignore=ignore,
        ),
        workforce=who_picks(
            place,
            workers=workers,
            time_limit_seconds=time_limit,
            devices=devices,
            cluster=cluster,
            jobs=jobs,
            wait=wait,
            cluster_config=cluster_config,
        ),
        overwrite=overwrite,
        command=command_line(),
    )
    with json_lines(is_wanted=json) as say, first_signal_calls(session.stop):
        summary = session.run(_teller(say))
    if not json:
        print_summary(summary, place)
    tell_failed(summary, place, is_strict=fail_on == "any")


def _teller(say: JsonLines | None) -> Any:
    """What hears of the events: JSON lines, or sentences on stderr."""
    if say is None:
        return _print_event
    return lambda event: say(event.as_dict(), is_kept=event.kind == "run")


def _print_event(event: WatchEvent) -> None:
    text = _sentence(event)
    if text:
        say_progress(text)


def _sentence(event: WatchEvent) -> str:
    """An event for people; "" where it says nothing new."""
    told = _SENTENCES.get(event.kind)
    return "" if told is None else told(event)


def _of_micrograph(event: WatchEvent) -> str:
    if event["error"]:
        return f"not picked: {event.name}: {event['error']}"
    again = " again" if event["revision"] else ""
    return f"{event.name}: {event['count']:,} picks{again}; {event['backlog']:,} waiting"


_SENTENCES: Mapping[str, Callable[[WatchEvent], str]] = {
    "start": lambda one: (
        f"following {one['following']} into {one['output']}; Ctrl-C ends it and writes the final state"
    ),
    "micrograph": _of_micrograph,
    "prepared": lambda one: (
        f"looked at the micrographs: {one['text'] or 'as given'}{' (this size stays)' if one['settled'] else ''}"
    ),
    "repick": lambda one: f"picking {one['count']:,} micrographs again: {one['reason']}",
    "threshold": lambda one: f"threshold {one['old']:.4g} -> {one['new']:.4g}: {one['picks_changed']:,} picks change",
    "summary": lambda one: f"so far {one['particles']:,} particles in {one['micrographs']:,} micrographs",
    "end": lambda one: f"ending ({one['reason']}); a second signal ends at once and leaves it provisional",
    "incomplete": lambda one: f"warning: {one.name} is not whole and is left to a later call",
    "moved": lambda one: f"{one['before']} is called {one.name} now",
    "gone": lambda one: f"{one.name} was taken away; its picks stay",
    "clash": lambda one: f"warning: {one.name} is left out: its results would be called as those of {one['of']}",
    "companion": lambda one: f"{one.name} is left out: {one['why']}",
    "warning": lambda one: f"warning: {one['text']}",
}


def command_for(arguments: Sequence[str]) -> Any:
    """The command with the options of the picker that `arguments` name."""
    cls = picker_class(called_picker(arguments))
    groups: list[tuple[str, type[Any]]] = [(f"{cls.name}: ", cls), ("", SelectionSettings), ("", RunSettings)]
    return with_options(watch, groups, given_as="given")
