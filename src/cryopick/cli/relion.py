"""`cryopick relion`: picking as an External job of RELION."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.console import command_line, progress_listener
from cryopick.cli.pick import print_summary, tell_failed
from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.relion_programs import ABORT
from cryopick.geometry.selection import SelectionSettings
from cryopick.pickers.registry import picker_class
from cryopick.runs.place import output_folder
from cryopick.runs.settings import DEFAULT_PICKER, PickSettings, RunSettings, make_settings, read_config
from cryopick.settings import settings_of
from cryopick.workflows.relion_job import relion_job

EXPECTED = "expected micrographs: RELION's field 'Input micrographs' (--in_mics micrographs_ctf.star)"


def command(
    *,
    context: typer.Context,
    output: Annotated[
        str, typer.Option("--o", metavar="FOLDER", help="Job folder, given by RELION; also the run folder.")
    ],
    in_mics: Annotated[
        str | None, typer.Option("--in_mics", metavar="STAR", help="Micrographs to pick, from CTF estimation or later.")
    ] = None,
    in_movies: Annotated[str | None, typer.Option("--in_movies", hidden=True)] = None,
    in_parts: Annotated[str | None, typer.Option("--in_parts", hidden=True)] = None,
    in_coords: Annotated[str | None, typer.Option("--in_coords", hidden=True)] = None,
    in_3dref: Annotated[str | None, typer.Option("--in_3dref", hidden=True)] = None,
    in_mask: Annotated[str | None, typer.Option("--in_mask", hidden=True)] = None,
    workers: Annotated[
        int | None, typer.Option("--j", metavar="N", help="Processes side by side; RELION's number of threads.")
    ] = None,
    picker: Annotated[
        str | None, typer.Option("--picker", help="As for `cryopick pick`.", show_default=DEFAULT_PICKER)
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML settings; labels given here win.")] = None,
    devices: Annotated[
        str, typer.Option("--devices", metavar="cuda:0,cuda:1", help="As for `cryopick pick`.", show_default=False)
    ] = "",
    time_limit: Annotated[
        float | None, typer.Option("--time_limit", metavar="SECONDS", help="As for `cryopick pick`.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster", metavar="slurm|local|tls://HOST:PORT", help="As for `cryopick pick`; then --j is none."
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", metavar="N", help="As for `cryopick pick`.")] = None,
    wait: Annotated[str | None, typer.Option("--wait", metavar="TIME", help="As for `cryopick pick`.")] = None,
    cluster_config: Annotated[
        Path | None, typer.Option("--cluster_config", metavar="FILE", help="As for `cryopick pick`.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again instead of continuing the job.")] = False,
    pipeline_control: Annotated[str | None, typer.Option("--pipeline_control", hidden=True)] = None,
) -> None:
    """Pick particles as an External job of RELION 3.1, 4 or 5, called in RELION's project folder.

    With `cryopick relion` as the external executable RELION calls

    cryopick relion --o External/job012/ --in_mics CtfFind/job003/micrographs_ctf.star --j 4 --diameter 180A

    Every label on RELION's "Params" tab, such as diameter or min_distance, is a setting of `cryopick pick`; a label
    without a value switches something on. Continuing the job picks only what is new.
    """
    others = {
        "--in_movies": in_movies,
        "--in_parts": in_parts,
        "--in_coords": in_coords,
        "--in_3dref": in_3dref,
        "--in_mask": in_mask,
    }

    def settings() -> PickSettings:
        given = next((f"{flag} {value}" for flag, value in others.items() if value is not None), None)
        if given is not None:
            raise InputError(f"{given}: picks are made from micrographs, and this is none of them; {EXPECTED}")
        return settings_of_labels(context.args, picker=picker, config=config)

    del pipeline_control  # for RELION's own programs, which mark the end of jobs there; --o is the same folder
    with progress_listener(None) as listener:
        summary = relion_job(
            output,
            in_mics or "",
            settings,
            workers=None if cluster else workers,  # RELION gives a number of threads always
            devices=devices,
            time_limit_seconds=time_limit,
            cluster=cluster,
            jobs=jobs,
            wait=wait,
            cluster_config=cluster_config,
            overwrite=overwrite,
            command=command_line(),
            on_event=listener,
            abort=_end_this_process,
        )
    folder = output_folder(output)
    print_summary(summary, folder)
    tell_failed(summary, folder, is_strict=False)


command.context_settings = {"allow_extra_args": True, "ignore_unknown_options": True}  # type: ignore[attr-defined]


def settings_of_labels(words: Sequence[str], *, picker: str | None, config: Path | None) -> PickSettings:
    """Settings from RELION's `--label value` pairs; a label without a value is a switch, `_` and `-` are one.

    Raises
    ------
    SettingsError
        For a label that is no setting (all are listed), a word without a label, and a label with several values.
    """
    given = {} if config is None else read_config(config)
    name = picker or given.pop("picker", DEFAULT_PICKER)
    given.pop("picker", None)
    known = {
        setting.flag: setting.name
        for cls in (RunSettings, SelectionSettings, picker_class(name))
        for setting in settings_of(cls)
    }
    for label, values in _pairs(words):
        flag = f"--{label.replace('_', '-')}"
        if flag not in known:
            raise SettingsError(
                f"--{label}: no setting of that name; picker {name!r} has: "
                f"{', '.join(sorted(one.removeprefix('--').replace('-', '_') for one in known))}"
            )
        if len(values) > 1:
            raise SettingsError(f"--{label}: expected one value, got {' '.join(values)!r}; write it without spaces")
        given[known[flag]] = values[0] if values else "true"
    return make_settings(name, **given)


def _pairs(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    pairs: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            label, sign, value = word.removeprefix("--").partition("=")
            if label in [before for before, _ in pairs]:
                raise SettingsError(f"--{label}: given twice")
            pairs.append((label, [value] if sign else []))
        elif pairs:
            pairs[-1][1].append(word)
        else:
            raise SettingsError(f"{word}: expected --label value")
    return pairs


def _end_this_process() -> None:
    """End as on a signal: it interrupts what the main thread waits for, and workers end with it."""
    typer.echo(f"RELION asks this job to end ({ABORT})", err=True)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGTERM)
