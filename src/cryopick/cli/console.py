"""What every command shows: progress on stderr, or JSON lines for programs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import typer

from cryopick.cli.json_lines import JsonLines
from cryopick.cli.loudness import is_quiet, say_progress

READING, LOADING, WRITING = "reading the list of micrographs", "loading the picker", "writing tables and report"
"""What is waited for before the first micrograph and after the last one."""


class Listener(Protocol):
    """Hears of each micrograph as it ends."""

    def __call__(self, event: Any) -> None: ...


def command_line() -> str:
    """What the user typed, ready to paste."""
    return shlex.join(["cryopick", *sys.argv[1:]])


@contextmanager
def progress_listener(say: JsonLines | None) -> Iterator[Listener]:
    """A listener for the events of a run: JSON lines where there is `say`, otherwise a progress bar on stderr.

    Where stderr is no terminal, a line per failure and one per tenth of the run are written instead of the bar.
    """
    if say is not None:
        from cryopick.runs.run import event_as_dict

        yield lambda event: say(event_as_dict(event))
    elif sys.stderr.isatty() and not is_quiet():
        with _bar() as listener:
            yield listener
    else:
        yield _plain_lines


@contextmanager
def _bar() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(
                "" if not task.speed else f"{task.speed:.2f}/s" if task.speed >= 1 else f"{1 / task.speed:.1f} s each"
            )

    skipped, particles = 0, 0
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.fields[particles]:,} particles"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(READING, total=None, particles=0)

        def listen(event: Any) -> None:
            nonlocal skipped, particles
            particles += event.count
            if event.status == "workers":
                progress.update(bar, description=f"picking ({event.doing})")
                return
            if event.status == "surveying":
                progress.update(bar, description=survey_text(event), total=event.total, completed=event.position - 1)
                return
            if event.status == "started":
                progress.reset(bar, description=LOADING, total=event.total, particles=0)
                return
            if event.status == "skipped":  # known before: no part of the rate
                skipped += 1
                progress.update(bar, total=event.total - skipped, particles=particles)
                return
            if event.error:
                progress.console.print(
                    f"not picked: {event.name}: {event.error}", style="red", markup=False, highlight=False
                )
            doing = WRITING if event.position == event.total else "picking"
            progress.update(bar, description=doing, advance=1, particles=particles)

        yield listen


def survey_text(event: Any) -> str:
    """What is done before picking, and how far it has come."""
    return f"{event.doing} ({event.position} of {event.total})"


def _plain_lines(event: Any) -> None:
    if event.status == "workers":
        say_progress(event.doing)
        return
    if event.status == "surveying":
        say_progress(survey_text(event))
        return
    if event.error:
        typer.echo(f"not picked: {event.name}: {event.error}", err=True)
    tenth = max(1, event.total // 10)
    if event.status in ("done", "failed") and (event.position % tenth == 0 or event.position == event.total):
        say_progress(f"{event.position} of {event.total} micrographs")
    if event.status == "started":
        say_progress(f"{LOADING}, then picking")
    if event.status in ("done", "failed") and event.position == event.total:
        say_progress(WRITING)


def print_warnings(warnings: dict[str, int], *, most: int = 5) -> None:
    """Each different warning once, with the number of micrographs it is for, on stderr."""
    ordered = sorted(warnings.items(), key=lambda item: (-item[1], item[0]))
    for text, count in ordered[:most]:
        typer.echo(f"warning ({count} micrograph{'s' if count > 1 else ''}): {text}", err=True)
    if len(ordered) > most:
        typer.echo(f"warning: {len(ordered) - most} more kinds of warnings are in the report", err=True)
