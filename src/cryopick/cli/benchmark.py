"""`cryopick benchmark`: any pickers on any labelled sets, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.loudness import say_progress
from cryopick.errors import SettingsError
from cryopick.extras import require_extra


def command(
    more_data: Annotated[list[Path] | None, typer.Argument(metavar="[SET...]", help="More labelled sets.")] = None,
    *,
    pickers: Annotated[str, typer.Option(help="Names, separated by commas; `cryopick pickers` lists them.")],
    data: Annotated[
        list[Path],
        typer.Option(help="A labelled set (images with labels, a simulation, CryoPPP), or a folder of such."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for runs, tables and plots.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PICKER.SETTING=VALUE", help="A setting beyond the defaults; may be repeated."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest distance of pick and particle, in diameters.")] = 0.25,
    ids: Annotated[
        str | None,
        typer.Option(help="Of folders of sets, only these EMPIAR numbers, or a paper's: cryosegnet-test, 10017,10028."),
    ] = None,
    flip_y: Annotated[
        str | None, typer.Option(help="auto, yes or no: count y of the labels from the other end.", show_default="no")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes per run.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Compare pickers on labelled sets: accuracy with intervals, seconds per micrograph, peak memory.

    Example: cryopick benchmark --pickers blob,template --data sim/ real/ -o bench/
    """
    require_extra("plots", ("matplotlib",), "benchmark")
    from cryopick.evaluation.benchmark_report import as_json, as_markdown, write_benchmark
    from cryopick.workflows.benchmark import benchmark

    result = benchmark(
        [name.strip() for name in pickers.split(",") if name.strip()],
        [*data, *(more_data or [])],
        output,
        settings=_parse_settings(set_ or []),
        tolerance=tolerance,
        workers=workers,
        flip_y=flip_y,
        ids=[word for word in (ids or "").split(",") if word.strip()],
        seed=seed,
        on_progress=say_progress,
    )
    written = write_benchmark(result, output)
    if json:
        from json import dumps

        typer.echo(dumps(as_json(result), ensure_ascii=False, indent=1))
    else:
        typer.echo(as_markdown(result), nl=False)
    say_progress(f"wrote {', '.join(str(path) for path in written)}")
    if all(row.evaluation is None for row in result.rows):
        raise typer.Exit(1)


def _parse_settings(words: list[str]) -> dict[str, dict[str, str]]:
    parsed: dict[str, dict[str, str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        picker, dot, setting = name.partition(".")
        if not (equals and dot and picker and setting):
            raise SettingsError(f"--set {word}: expected PICKER.SETTING=VALUE, for example blob.profile=shell")
        parsed.setdefault(picker, {})[setting] = value
    return parsed
