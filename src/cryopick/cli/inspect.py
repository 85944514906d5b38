"""`cryopick inspect`: what is in a file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_UNITS = {
    "_yx_um": " (height, width), µm",
    "_yx": " (rows, columns)",
    "_angstrom": ", Å",
    "_px": ", px",
    "_mb": ", MB",
}


def command(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Images, coordinate files, STAR files, folders, runs.")
    ],
    *,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, trusted above the files.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="One JSON line per path on stdout.")] = False,
) -> None:
    """Say what is in a file or folder: kind, size, pixel size and whether to doubt it, statistics, counts.

    Of a run that cryopick made, also: settings, particles, threshold, and whether it is complete.

    Example: cryopick inspect micrographs/ image.mrc run1 run1/particles.star
    """
    from cryopick.cli.json_lines import print_json
    from cryopick.errors import CryopickError
    from cryopick.workflows.inspect import inspect

    n_failed = 0
    for path in paths:
        try:
            found = inspect(path, pixel_size_angstrom=pixel_size)
        except CryopickError as error:
            n_failed += 1
            typer.echo(f"cryopick: {error}", err=True)
            if is_json:
                print_json({"path": str(path), "error": str(error)})
            continue
        if is_json:
            print_json({"path": str(path), "kind": found.kind, **found.facts, "warnings": found.warnings})
            continue
        typer.echo(f"{path}: {found.kind}")
        labels = [_label(name) for name in found.facts]
        width = max(map(len, labels), default=0)
        for label, fact in zip(labels, found.facts.values(), strict=True):
            typer.echo(f"  {label:<{width}}  {_shown(fact)}")
        for warning in found.warnings:
            typer.echo(f"  warning: {warning}")
    if n_failed == len(paths):
        raise typer.Exit(1)


def _label(name: str) -> str:
    """`pixel_size_angstrom` -> `pixel size, Å`; labels of STAR tables stay as they are."""
    if name.startswith("data_"):
        return name
    for suffix, unit in _UNITS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix).replace("_", " ") + unit
    return name.replace("_", " ")


def _shown(fact: Any) -> str:
    if fact is None:
        return "unknown"
    if isinstance(fact, dict):
        return ", ".join(f"{text} ({count})" for text, count in fact.items())
    if isinstance(fact, list):
        return ", ".join(_shown(item) for item in fact)
    return f"{fact:.6g}" if isinstance(fact, float) else str(fact)
