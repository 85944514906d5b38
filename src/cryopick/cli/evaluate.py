"""`cryopick evaluate`: score picks against labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.loudness import say_progress


def command(
    picks: Annotated[Path, typer.Argument(help="A run folder, a coordinate file, or a folder of coordinate files.")],
    *,
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Labels: a file or folder; CSV with x,y,kind or any format that `convert` reads; or a data set: a "
            "simulation, a set of CryoPPP or a folder of them."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Masks to score a run's maps against, pixel by pixel: a folder of `cryopick label`, or of masks."
        ),
    ] = None,
    diameter: Annotated[
        str | None, typer.Option(help="Particle diameter (180A, 108px); else what the labels' set.json says.")
    ] = None,
    rim: Annotated[int, typer.Option(help="Pixels at every border of masks that do not count.")] = 0,
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
    """Score picks against labels, and maps against masks.

    Example: cryopick evaluate run1 --truth labels/ --diameter 108px -o scores/

    Example: cryopick evaluate maps1 --masks lab/
    """
    from json import dumps

    from cryopick.errors import SettingsError
    from cryopick.evaluation.mask_scores import as_mask_object, as_mask_table, write_mask_evaluation
    from cryopick.evaluation.report import as_json_object, as_table, write_evaluation
    from cryopick.workflows.evaluate import evaluate, evaluate_masks

    if rim and masks is None:
        raise SettingsError("--rim is of masks; give --masks, or leave it out")
    if truth is None and masks is None:
        raise SettingsError("nothing to score against: give labels (--truth), masks (--masks), or both")
    objects: dict[str, Any] = {}
    texts, written = [], []
    if truth is not None:
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
        objects |= as_json_object(evaluation)
        texts.append(as_table(evaluation))
        written += write_evaluation(evaluation, output) if output is not None else []
    if masks is not None:
        of_masks = evaluate_masks(picks, masks, rim_px=rim)
        objects["masks"] = as_mask_object(of_masks)
        texts.append(as_mask_table(of_masks))
        written += write_mask_evaluation(of_masks, output) if output is not None else []
    if json:
        typer.echo(dumps(objects, ensure_ascii=False, indent=1))
    else:
        typer.echo("\n".join(texts), nl=False)
    for path in written:
        say_progress(f"wrote {path}")
