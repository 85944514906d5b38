"""`cryopick denoise`: denoised micrographs into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.loudness import say_progress


def _print_methods(is_asked: bool) -> None:
    if not is_asked:
        return
    from cryopick.pickers.denoisers import denoisers

    for one in denoisers().values():
        typer.echo(f"{one.name:<16} {one.about}{' (needs --diameter)' if one.needs_diameter else ''}")
    raise typer.Exit


def command(
    micrographs: Annotated[list[str], typer.Argument(help="Folders, files, patterns, @list.txt or a STAR file.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; an interrupted call in it is resumed.")],
    method: Annotated[str, typer.Option(help="A name from --list.")] = "published",
    diameter: Annotated[
        str | None,
        typer.Option("--diameter", "-d", help="Particle diameter (180A, 108px), where the method needs it."),
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, above what files say.")] = None,
    kind: Annotated[
        str,
        typer.Option("--format", help="mrc (float32, with pixel size), tif or png (8 bits, no pixel size)."),
    ] = "mrc",
    workers: Annotated[int, typer.Option("--workers", "-j", help="Micrographs at a time.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    _list: Annotated[
        bool, typer.Option("--list", help="Say what each method does.", is_eager=True, callback=_print_methods)
    ] = False,
) -> None:
    """Write denoised micrographs, as the published systems' programs or articles denoise, or as cryopick does.

    cryopick denoise micrographs/ -o denoised/ --method published --workers 4

    cryopick denoise micrographs/ -o denoised/ --method corrected --diameter 180A --format png

    cryopick denoise --list
    """
    from cryopick.errors import NotAllDoneError, SettingsError
    from cryopick.geometry.units import parse_length
    from cryopick.workflows.denoise import KINDS, denoise

    chosen: Any = kind
    if kind not in KINDS:
        raise SettingsError(f"--format {kind}: expected one of {', '.join(KINDS)}")
    done = 0

    def show(name: str) -> None:
        nonlocal done
        done += 1
        say_progress(f"{name} ({done})")

    summary = denoise(
        micrographs,
        output,
        method=method,
        diameter=None if diameter is None else parse_length(diameter),
        pixel_size_angstrom=pixel_size,
        kind=chosen,
        workers=workers,
        on_done=show,
    )
    for text in summary.warnings:
        typer.echo(f"warning: {text}", err=True)
    for name, reason in summary.failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    if json:
        from json import dumps

        content = {
            "folder": str(summary.folder),
            "micrographs": summary.micrographs,
            "made": summary.made,
            "failed": summary.failed,
            "seconds": round(summary.seconds, 2),
        }
        typer.echo(dumps(content))
    else:
        typer.echo(
            f"{summary.micrographs} micrographs in {summary.folder} ({summary.made} made now, "
            f"{summary.seconds:.0f} s), denoised by {method!r}"
        )
    if summary.failed:
        first = next(iter(summary.failed))
        total = summary.micrographs + len(summary.failed)
        raise NotAllDoneError(f"{len(summary.failed)} of {total} micrographs failed, the first: {first}")
