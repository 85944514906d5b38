"""`cryopick reproduce`: the papers' tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.loudness import say_progress
from cryopick.cli.options import parse_files
from cryopick.errors import SettingsError


def command(
    paper: Annotated[
        str,
        typer.Argument(
            metavar="PAPER", help="cryotransformer, cryosegnet, cryoemmae, deepcryopicker, segmentation-crf, or all."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; the same command again goes on in it.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the paper's sets, one folder each, named by the EMPIAR number (CryoPPP as downloaded). "
            "What is missing is said.",
            show_default="small simulated sets in their place",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PICKER=FILE",
            help="The authors' weights (and sam=FILE for Meta's Segment Anything); without them networks are trained.",
        ),
    ] = None,
    cryolo_model: Annotated[
        Path | None, typer.Option(help="crYOLO's general model, where crYOLO is installed.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="Only this part, such as table-1; may be repeated.")
    ] = None,
    small: Annotated[
        bool | None,
        typer.Option(
            "--small/--full",
            help="Reduced networks trained for seconds, or the papers' own, which take days.",
            show_default="small without --data",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
) -> None:
    """Make a paper's tables and figures, its own figures beside them.

    cryopick reproduce deepcryopicker -o reproduced/

    --data CryoPPP/ measures on the paper's data, and --weights cryosegnet=cryosegnet.pth gives the authors' network.
    """
    from cryopick.workflows.reproduce import PAPERS, reproduce
    from cryopick.workflows.reproduce.results import as_json, as_markdown

    named = parse_files(weights or [], flag="--weights", example="PICKER=FILE, for example cryosegnet=cryosegnet.pth")
    if paper == "all" and only:
        raise SettingsError("--only names parts of one paper; name that paper instead of all")
    for name in PAPERS if paper == "all" else (paper,):
        folder = output / name if paper == "all" else output
        result = reproduce(
            name,
            folder,
            data=data,
            weights=named,
            cryolo_model=cryolo_model,
            only=only or (),
            small=small,
            on_progress=say_progress,
        )
        if json:
            from json import dumps

            typer.echo(dumps(as_json(result), ensure_ascii=False))
        else:
            typer.echo(as_markdown(result), nl=False)
        say_progress(f"look: {folder / 'reproduction.html'}")
