"""`cryopick import-weights`: read the authors' file, write cryopick's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.options import parse_files


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The authors' file: .pth, .pt, .pth.tar, .ckpt.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for weights and card.")],
    picker: Annotated[
        str | None, typer.Option(help="Whose weights they are.", show_default="told by the names of the tensors")
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME=FILE",
            help="A file that belongs to it (the message names which); those beside it are found.",
        ),
    ] = None,
) -> None:
    """Take over weights that the authors of a system published. Nothing in the file is executed.

    cryopick import-weights CryoTransformer_pretrained_model.pth -o cryotransformer-published/

    Then pick with: --as article --weights cryotransformer-published/. The authors' file itself does as well:
    --weights FILE.pth. Scores of such weights are not calibrated: how many picks are right is not told.
    """
    from cryopick.workflows.import_weights import import_weights

    given = parse_files(with_ or [], flag="--with", example="NAME=FILE, for example --with clusters=kmeans_4.pkl")
    companions = {name.replace("-", "_"): path for name, path in given.items()}
    result = import_weights(file, output, picker=picker, companions=companions)
    for note in result.card.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{result.card.picker}: {result.tensors:,} tensors, {result.parameters:,} numbers")
    typer.echo(f"weights: {result.weights}")
    typer.echo(
        f"pick:    cryopick pick MICROGRAPHS -o RUN --picker {result.card.picker} --as article --weights {output}"
    )
