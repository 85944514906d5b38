"""`cryopick validate3d`: reconstruct from each run's picks, and say how good the maps are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.loudness import say_progress


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or coordinate files; all of the same micrographs."),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; the same command resumes in it.")],
    truth: Annotated[
        Path | None, typer.Option(help="Folder of the simulation that the micrographs come from, or the true map.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="embedded: cryopick's own; relion: RELION's; known: the angles of the simulation.")
    ] = "embedded",
    ctf: Annotated[
        str | None,
        typer.Option(
            help="RELION's micrographs_ctf.star, cryoSPARC's exposures (.cs), estimate (CTFFIND, or "
            "torch-ctf-estimation), or none: nothing is corrected.",
            show_default="the simulation's own",
        ),
    ] = None,
    voltage: Annotated[
        float | None,
        typer.Option(help="kV, for --ctf estimate.", show_default="of the STAR file given as --micrographs"),
    ] = None,
    cs: Annotated[
        float | None,
        typer.Option(help="Spherical aberration in mm, likewise.", show_default="of the STAR file, or 2.7"),
    ] = None,
    amplitude_contrast: Annotated[
        float | None, typer.Option(help="A fraction, likewise.", show_default="of the STAR file, or 0.1")
    ] = None,
    symmetry: Annotated[str, typer.Option(help="Point group: C1, C4, D7, T, O, I.")] = "C1",
    diameter: Annotated[
        str | None, typer.Option(help="Particle diameter (180A, 108px).", show_default="the simulation's or the picks'")
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="Side of the extracted boxes (300A, 84px).", show_default="1.5 diameters")
    ] = None,
    angpix: Annotated[
        float | None, typer.Option(help="Å per pixel after binning.", show_default="diameter / 32")
    ] = None,
    select2d: Annotated[
        str | None,
        typer.Option(
            help="2D selection: none, auto, or a file with the numbers of good classes; several with commas.",
            show_default="none,auto",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Picks made here, too: truth, random.", show_default="truth, with a simulation"),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Start from this map, low-passed, instead of from the particles alone.")
    ] = None,
    low_pass: Annotated[
        float | None, typer.Option(help="Å to which the reference is low-passed.", show_default="60, or diameter / 5")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Starts of each map; the table shows their mean and the best.")] = 3,
    seed: Annotated[int, typer.Option(help="Of half sets, random picks and starts.")] = 0,
    max_particles: Annotated[
        int | None, typer.Option(help="Of a run, drawn at random where it has more.", show_default="all")
    ] = None,
    penalty: Annotated[
        float | None,
        typer.Option(help="Å that a failed map counts with.", show_default="twice the worst that succeeded"),
    ] = None,
    micrographs: Annotated[list[Path] | None, typer.Option(help="The images; run folders know theirs.")] = None,
    names: Annotated[
        str | None,
        typer.Option(help="What to call the runs, with commas between.", show_default="their folders' names"),
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, where no file says it.")] = None,
    submit: Annotated[
        str | None,
        typer.Option(
            metavar="slurm|FILE",
            help="Each map as a job of Slurm, by the cluster configuration or a script as RELION's queue has.",
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Processor cores.", show_default="all")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that holds other things.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Judge picks by the map: extract, classify, reconstruct from each run alike, and measure resolution and yield.

    Example: cryopick validate3d run1 run2 -o v3d/ --ctf micrographs_ctf.star --diameter 180A
    """
    from cryopick.workflows.validate3d.run import validate3d
    from cryopick.workflows.validate3d.table import table_text

    def words(text: str | None) -> list[str] | None:
        return None if text is None else [one.strip() for one in text.split(",") if one.strip()]

    validation = validate3d(
        runs,
        output=output,
        engine=engine,
        truth=truth,
        ctf=ctf,
        voltage_kv=voltage,
        spherical_aberration_mm=cs,
        amplitude_contrast=amplitude_contrast,
        symmetry=symmetry,
        diameter=diameter,
        box=box,
        angpix=angpix,
        pixel_size_angstrom=pixel_size,
        micrographs=micrographs or (),
        names=words(names) or (),
        compare=None if compare is None else [one for one in words(compare) or [] if one != "none"],
        select2d=words(select2d),
        reference=reference,
        low_pass_angstrom=low_pass or 0.0,
        seeds=seeds,
        seed=seed,
        max_particles=max_particles or 0,
        penalty_angstrom=penalty or 0.0,
        cores=jobs,
        overwrite=overwrite,
        submit=submit,
        on_progress=say_progress,
    )
    if json:
        typer.echo((output / "table.json").read_text(encoding="utf-8"), nl=False)
    else:
        typer.echo(table_text(validation.table))
        for sentence in validation.sentences:
            typer.echo(f"- {sentence}")
    if validation.report is not None:
        say_progress(f"look: {validation.report}")
    if validation.program_failures:
        for failure in validation.program_failures:
            typer.echo(f"cryopick: {failure}", err=True)
        raise typer.Exit(1)
