"""`cryopick pick`: parse, run the workflow, print where the results are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.console import command_line, print_warnings, progress_listener
from cryopick.cli.json_lines import json_lines
from cryopick.cli.options import option_value, with_options
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
from cryopick.errors import NotAllDoneError
from cryopick.geometry.selection import BELOW_THRESHOLD, SelectionSettings
from cryopick.geometry.units import share_text
from cryopick.pickers.registry import picker_class
from cryopick.runs.folder import LOG
from cryopick.runs.parts import PartSummary, part_summary_as_dict
from cryopick.runs.place import output_folder
from cryopick.runs.results import RunSummary, why_nothing_is_kept
from cryopick.runs.run import summary_as_dict
from cryopick.runs.settings import DEFAULT_PICKER, PickSettings, RunSettings, make_settings, read_config
from cryopick.runs.sizes import pixel_size_text, size_line
from cryopick.runs.threshold import ALL_KEPT
from cryopick.runs.verdicts import GOOD
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.pick_part import pick_some


def pick(
    *,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Folders, files, 'patterns*.mrc', @list.txt or a RELION micrographs.star."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Run folder; an interrupted run in it is resumed.")
    ],
    picker: Picker = None,
    config: Config = None,
    workers: Workers = None,
    devices: Devices = "",
    time_limit: TimeLimit = None,
    cluster: Cluster = None,
    jobs: Jobs = None,
    wait: Wait = None,
    cluster_config: ClusterConfig = None,
    overwrite: Overwrite = False,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Pick only the K-th of N parts, K from 0, beside other processes that pick the others; no tables.",
        ),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Add these micrographs to the run, beside others that add; no tables.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --add: the folder from which the names of micrographs count."),
    ] = None,
    fail_on: FailOn = "all",
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object per micrograph on stdout, no progress bar.")
    ] = False,
    given: dict[str, Any] | None = None,
) -> None:
    """Pick particles from micrographs into a run folder.

    cryopick pick micrographs/ -o run1 --diameter 180A

    Running the same command again picks only what is missing. Options whose help starts with the picker's name belong
    to that --picker alone; `cryopick pickers` lists the pickers.
    """
    folder = output_folder(output)
    settings = chosen_settings(picker, config, given)
    options: dict[str, Any] = {
        "workers": workers,
        "devices": devices,
        "time_limit_seconds": time_limit,
        "overwrite": overwrite,
        "command": command_line(),
        "cluster": cluster,
        "jobs": jobs,
        "wait": wait,
        "cluster_config": cluster_config,
    }
    is_whole = part is None and not add and root is None
    with json_lines(is_wanted=json) as say, progress_listener(say) as listener:
        options["on_event"] = listener
        if is_whole:
            summary = pick_to_folder(inputs, folder, settings, **options)
            told = summary_as_dict(summary)
        else:
            some = pick_some(inputs, folder, settings, part=part, add=add, root=root, **options)
            told = part_summary_as_dict(some)
        if say is not None:
            say(told, is_kept=True)
    if not is_whole:
        _tell_part(some, folder, is_silent=json, is_strict=fail_on == "any")
        return
    if not json:
        print_summary(summary, folder)
    tell_failed(summary, folder, is_strict=fail_on == "any")


def _tell_part(summary: PartSummary, folder: Path, *, is_silent: bool, is_strict: bool) -> None:
    """What some micrographs of a run came to, and what is left to do."""
    if not is_silent:
        done = summary.micrographs - len(summary.failed)
        which = f"part {summary.part}" if summary.part else "added"
        typer.echo(
            f"{which}: {summary.particles:,} particles in {done:,} micrograph{'' if done == 1 else 's'}, score "
            f"{summary.threshold:.4g} or better so far"
        )
        again = "--part" if summary.part else "--add"
        typer.echo(f"tables and report: the command for all micrographs without {again}, when nothing else picks")
    tell_failed(summary, folder, is_strict=is_strict)


def chosen_settings(picker: str | None, config: Path | None, given: dict[str, Any] | None) -> PickSettings:
    """The settings of a config file, if any, and those that were typed, which win."""
    from_config = {} if config is None else read_config(config)
    name = picker or from_config.pop("picker", DEFAULT_PICKER)
    if from_config and picker is not None:
        from_config = _shared_settings(from_config, config, name)
    return make_settings(name, **{**from_config, **(given or {})})


def tell_failed(summary: RunSummary | PartSummary, folder: Path, *, is_strict: bool) -> None:
    """Warn how many micrographs failed, if any, of the first and why, and where the others are named.

    Raises
    ------
    NotAllDoneError
        With these words instead, where `is_strict`.
    """
    if not summary.failed:
        return
    name, error = next(iter(summary.failed.items()))
    text = (
        f"{len(summary.failed):,} of {summary.micrographs:,} micrographs could not be picked, the first: "
        f"{name}: {error} (all of them: {folder / LOG})"
    )
    if is_strict:
        raise NotAllDoneError(text)
    typer.echo(f"warning: {text}", err=True)


def print_summary(summary: RunSummary, output: Path) -> None:
    """What a run came to and what to do with it."""
    print_warnings(dict(summary.warnings))
    done = summary.micrographs - len(summary.failed)
    failed = f" ({len(summary.failed):,} more failed, see {output / 'run.log'})" if summary.failed else ""
    micrographs = f"{done:,} micrograph{'' if done == 1 else 's'}{failed}"
    is_cut = summary.threshold_source != ALL_KEPT
    cut = f"score {summary.threshold:.4g} or better" if is_cut else ALL_KEPT
    typer.echo(f"{summary.particles:,} particles in {micrographs}, {cut}")
    bad = Counter(one.verdict for one in summary.verdicts.values() if one.verdict != GOOD)
    if bad:
        told = ", ".join(f"{count:,} {verdict}" for verdict, count in bad.most_common())
        typer.echo(f"verdicts: {done - bad.total():,} good, {told}; the reasons are in {output / 'micrographs.star'}")
    if summary.expected_precision is not None and summary.expected_recall is not None:
        found = share_text(summary.expected_recall)
        typer.echo(f"expected: {summary.expected_right} of the picks are right, {found} of the particles are picked")
        if summary.expected_doubt:
            typer.echo(f"unsure: {summary.expected_doubt}")
    elif summary.particles and not summary.score_is_probability:
        typer.echo(f"score: {summary.score_meaning}; no probability, so how many picks are right is not told")
    if summary.centring:
        of_members = f"; {summary.centring_of_members}" if summary.centring_of_members else ""
        typer.echo(f"centring error (median): {summary.centring}{of_members}")
    if summary.prepared:
        typer.echo(summary.prepared)
    if not summary.particles:
        if BELOW_THRESHOLD in summary.rejected:
            again = f"cryopick rethreshold {output} --threshold ..."
            typer.echo(f"all {summary.candidates:,} candidates stay with their scores: {again}")
        typer.echo(why_nothing_is_kept(summary))
    if summary.particles:
        for one in summary.sizes:
            at = f"{pixel_size_text(one)}: " if len(summary.sizes) > 1 else ""
            if size_line(one):
                typer.echo(f"{at}{size_line(one)}")
        if summary.box_doubt:
            typer.echo(f"doubtful: {summary.box_doubt}")
    typer.echo(f"look:      {output / 'report.html'}")
    typer.echo(f"RELION:    {output / 'autopick.star'}")
    typer.echo(f"cryoSPARC: {output / 'particles.star'}")


def _shared_settings(given: dict[str, Any], config: Path | None, name: str) -> dict[str, Any]:
    """The settings of a config file that also hold for another picker than the one it was written for."""
    from cryopick.settings import settings_of

    known = {
        setting.name for cls in (RunSettings, SelectionSettings, picker_class(name)) for setting in settings_of(cls)
    }
    dropped = sorted(set(given) - known - {"picker"})
    if dropped:
        typer.echo(f"warning: {config}: picker {name} has no {', '.join(dropped)}; left out", err=True)
    return {key: value for key, value in given.items() if key in known}


def called_picker(arguments: Sequence[str]) -> str:
    """The picker whose options `--help` shows and the parser takes: from --picker, else --config, else the default."""
    name = option_value(arguments, "--picker")
    if name is None:
        config = option_value(arguments, "--config")
        name = DEFAULT_PICKER if config is None else str(read_config(Path(config))["picker"])
    return name


def command_for(arguments: Sequence[str]) -> Any:
    """The command with the options of the picker that `arguments` name."""
    cls = picker_class(called_picker(arguments))
    groups: list[tuple[str, type[Any]]] = [(f"{cls.name}: ", cls), ("", SelectionSettings), ("", RunSettings)]
    return with_options(pick, groups, given_as="given")
