"""`cryopick simulate`: labelled micrographs from structures, maps or procedural proteins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.loudness import say_progress


def command(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; an interrupted simulation in it is resumed.")],
    structure: Annotated[
        list[str],
        typer.Option(help="PDB, mmCIF or MRC file (several: all occur together), or `random` for procedural proteins."),
    ] = ["random"],  # noqa: B006  # typer copies it
    count: Annotated[int, typer.Option(help="Micrographs.")] = 10,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    proteins: Annotated[int, typer.Option(help="With random: different proteins, one per micrograph in turn.")] = 1,
    diameter: Annotated[str, typer.Option(help="With random: diameters, for example 100-250A.")] = "80-350A",
    recipe: Annotated[
        str,
        typer.Option(
            help="general, clean, noise-light, segmentation-crf, validation, or a TOML file (see recipe.toml of a run)."
        ),
    ] = "general",
    defocus: Annotated[str | None, typer.Option(help="Underfocus, for example 0.8-2.5um.")] = None,
    dose: Annotated[str | None, typer.Option(help="Electrons per Å², for example 40 or 20-60.")] = None,
    size: Annotated[str | None, typer.Option(help="Rows x columns, for example 4096x4096.")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel.")] = None,
    session: Annotated[
        str | None,
        typer.Option(
            help="Make one session: one regime of ice, dose, camera and look, and kinds of micrographs by weight, "
            "for example full=0.4,empty=0.6, or the word typical. Kinds: full, sparse, empty, carbon, thick-ice, "
            "crystalline, drifted, near-focus.",
        ),
    ] = None,
    snr: Annotated[
        float | None,
        typer.Option(help="Matched-filter SNR of the median particle; sets the dose (16 is easy, 9 medium, 6 hard)."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes; the files do not depend on it.")] = 1,
    suite: Annotated[
        bool, typer.Option("--suite", help="Write the fixed benchmark suite instead (8 proteins x 3 levels).")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Simulate micrographs with full truth: centres, orientations, masks, RELION tables.

    Example: cryopick simulate -o sim/ --structure random --count 20 --defocus 0.8-2.5um --dose 40 --seed 1

    A session: cryopick simulate -o session/ --session full=0.4,empty=0.6 --count 10 --snr 9 --size 2048x2048
    """
    from cryopick.errors import SettingsError
    from cryopick.simulation.session import parse_session
    from cryopick.workflows.simulate import simulate, simulation_settings

    if suite and session is not None:
        raise SettingsError("--suite and --session are two things to make; give one of them")
    if suite:
        _write_suite(output)
        return
    settings = simulation_settings(
        structure=structure,
        count=count,
        seed=seed,
        proteins=proteins,
        diameter=diameter,
        recipe=recipe,
        defocus=defocus,
        dose=dose,
        size=size,
        pixel_size=pixel_size,
        session=session,
        snr=snr,
    )
    weights = {} if session is None else parse_session(session)
    done = 0

    def show(name: str) -> None:
        nonlocal done
        done += 1
        say_progress(f"{name} simulated ({done})")

    summary = simulate(output, settings, count=count, workers=workers, on_done=show)
    if json:
        from json import dumps

        content = {
            "folder": str(summary.folder),
            "micrographs": len(summary.names),
            "made": summary.made,
            "particles": summary.particles,
            "diameter_px": summary.diameter_px,
            "seconds": round(summary.seconds, 2),
        }
        if weights:
            content["kinds"] = {kind: summary.kinds.get(kind, 0) for kind in weights}
        typer.echo(dumps(content))
        return
    typer.echo(
        f"{len(summary.names)} micrographs with {summary.particles} particles in {summary.folder} "
        f"({summary.made} made now, {summary.seconds:.0f} s)\n"
        f"images and labels: {summary.folder}/micrographs   masks: {summary.folder}/masks   "
        f"RELION: {summary.folder}/particles.star"
    )
    if weights:
        counts = [f"{summary.kinds.get(kind, 0)} {kind}" for kind in weights]
        typer.echo(f"kinds (in truth/*.json and micrographs.star): {', '.join(counts)}")


def _write_suite(output: Path) -> None:
    from cryopick.simulation.suite_files import write_suite

    folders = write_suite(output, on_done=lambda name: say_progress(f"{name} written"))
    typer.echo(f"{len(folders)} sets in {output}; each holds micrographs/ with labels")
