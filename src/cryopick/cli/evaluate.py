"""`cryopick evaluate`: score picks against labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    picks: Annotated[Path, typer.Argument(help="A run folder, a coordinate file, or a folder of coordinate files.")],
    *,
    truth: Annotated[
        Path,
        typer.Option(
            help="Labels: a file or folder; CSV with x,y,kind or any format that `convert` reads; or a data set: a "
            "simulation, a set of CryoPPP or a folder of them."
        ),
    ],
    diameter: Annotated[
        str | None, typer.Option(help="Particle diameter (180A, 108px); else what the labels' set.json says.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest distance of pick and particle, in diameters.")] = 0.25,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, where neither picks nor labels say.")] = None,
    probabilities: Annotated[
        bool | None,
        typer.Option(
            "--probabilities/--no-probabilities",
            help="Whether scores are probabilities, so that calibration is measured; a run folder knows.",
        ),
    ] = None,
    skip_unpicked: Annotated[
        bool, typer.Option("--skip-unpicked", help="Leave out labelled micrographs without picks, not count as missed.")
    ] = False,
    flip_y: Annotated[
        str | None, typer.Option(help="auto, yes or no: count y of the labels from the other end.", show_default="no")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for table, JSON, per-micrograph scores and curve.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Score picks against labels.

    Example: cryopick evaluate run1 --truth labels/ --diameter 108px -o scores/
    """
    from cryopick.evaluation.report import as_json_object, as_table, write_evaluation
    from cryopick.workflows.evaluate import evaluate

    evaluation = evaluate(
        picks,
        truth,
        diameter=diameter,
        tolerance=tolerance,
        pixel_size_angstrom=pixel_size,
        is_probability=probabilities,
        skip_unpicked=skip_unpicked,
        flip_y=flip_y,
        seed=seed,
    )
    if json:
        from json import dumps

        typer.echo(dumps(as_json_object(evaluation), ensure_ascii=False, indent=1))
    else:
        typer.echo(as_table(evaluation), nl=False)
    if output is not None:
        for path in write_evaluation(evaluation, output):
            typer.echo(f"wrote {path}", err=True)
