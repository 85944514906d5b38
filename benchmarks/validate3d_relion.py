"""RELION's whole path once, from extraction to local resolution, beside the embedded engine on the same particles.

Some hundred particles of a simulated specimen whose map is known, in boxes of 32 px, so that two cores need an hour:

    python benchmarks/validate3d_relion.py --folder scratch -o benchmarks/results

Needs RELION and mpirun on the PATH. What is in the folder is not made again; a program that was stopped goes on from
its newest iteration. Figures go to validate3d_relion.json, the table to validate3d_relion.md.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from cryopick.data.labels import read_labels
from cryopick.evaluation.relion_programs import Relion, require_relion, steps
from cryopick.io.images.mrc import read_mrc_header, read_mrc_sections
from cryopick.io.star import read_star
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.metrics.fourier_shell_correlation import fourier_shell_correlation, half_map_curves, resolution_at
from cryopick.metrics.volume_alignment import align_volumes
from cryopick.processing.volumes import resampled_volume
from cryopick.reconstruction.ab_initio import initial_volume
from cryopick.reconstruction.gridding import reconstruct as gridded
from cryopick.reconstruction.halves import split_half_sets
from cryopick.reconstruction.masks import soft_mask_of
from cryopick.reconstruction.particles import ParticleStack
from cryopick.reconstruction.poses import Poses
from cryopick.reconstruction.refinement import refine
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Volume
from cryopick.workflows.simulate import simulate
from cryopick.workflows.validate3d.particle_files import contrast_transfer_of

PIXEL_ANGSTROM, MICROGRAPH_PX, BOX_PX, SCALED_PX, MICROGRAPHS = 5.0, 1024, 84, 32, 4
DIAMETER_ANGSTROM = 273.0
MARGIN_PX = 28
"""Particles nearer to the border are left out: half their diameter."""
SEED = 1
PROGRAMS = ("relion_refine", "relion_refine_mpi", "relion_preprocess", "relion_mask_create", "relion_postprocess")


def make_data(folder: Path) -> None:
    """Four micrographs of a procedural specimen of 260 Å without film, twice the usual dose."""
    truth = random_protein(
        np.random.default_rng(13), family="multilobed", diameter_angstrom=260.0, voxel_size_angstrom=PIXEL_ANGSTROM
    )
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "truth.mrc").exists():
        write_volume(folder / "truth.mrc", truth)
    recipe = named_recipe("validation")
    recipe = replace(
        recipe,
        dirt=replace(recipe.dirt, carbon_probability=0.0),
        detector=replace(recipe.detector, dose_e_per_angstrom2=(8.0, 8.0)),
    )
    settings = SimulationSettings(structures=(str(folder / "truth.mrc"),), seed=1, recipe=recipe)
    simulate(folder / "simulated", settings, count=MICROGRAPHS)
    for name in ("micrographs", "micrographs.star"):
        link = folder / name
        if not link.exists():
            link.symlink_to(Path("simulated") / name)


def truth_picks(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Centres of the particles that are pickable and half a diameter inside, by micrograph."""
    picks = {}
    for name, labels in sorted(read_labels(folder / "simulated" / "micrographs").items()):
        xy_px = labels.xy_px[~labels.is_uncertain]
        inside = ((xy_px >= MARGIN_PX) & (xy_px < MICROGRAPH_PX - MARGIN_PX)).all(axis=1)
        picks[f"micrographs/{Path(name).stem}.mrc"] = xy_px[inside]
    return picks


def relion_path(folder: Path, relion: Relion) -> dict[str, Any]:
    """Extraction to local resolution; the names of what RELION made."""
    project = steps.RelionProject(folder=folder, relion=relion)
    particles = steps.extract_particles(
        project,
        name="truth/extract",
        micrographs="micrographs.star",
        picks=truth_picks(folder),
        picks_folder="picks/truth",
        folder="truth/Extract",
        box_px=BOX_PX,
        scaled_px=SCALED_PX,
        background_radius_px=12,
    )
    pixel = particles.pixel_size_angstrom
    number = {name: index for index, name in enumerate(sorted(set(particles.micrograph)))}
    of = np.array([number[name] for name in particles.micrograph], dtype=np.int64)
    if not (folder / "truth/all.star").exists():
        half = split_half_sets(of, particles.xy_px, BOX_PX, len(number), SEED)
        steps.write_subset(folder, particles.star, "truth/all.star", half=half)
    given = read_star(folder / "truth/all.star")["particles"]
    count = len(given)
    print(f"{count} particles in boxes of {particles.box_px} px of {pixel:g} Å", flush=True)
    classes = steps.classify_2d(
        project,
        "truth/all.star",
        name="truth/class2d",
        folder="truth/Class2D",
        classes=max(8, count // 60),
        diameter_angstrom=DIAMETER_ANGSTROM,
        iterations=6,
        seed=SEED,
    )
    start = steps.make_initial_model(
        project,
        "truth/all.star",
        name="truth/none/seed1/initial",
        folder="truth/none/seed1/Initial",
        count=count,
        diameter_angstrom=DIAMETER_ANGSTROM,
        symmetry="C1",
        seed=SEED,
    )
    print(f"first map: {start}", flush=True)
    refined = steps.refine(
        project,
        "truth/all.star",
        name="truth/none/seed1/refine",
        folder="truth/none/seed1/Refine",
        reference=start,
        diameter_angstrom=DIAMETER_ANGSTROM,
        symmetry="C1",
        seed=SEED,
    )
    density = read_volume(folder / refined.volume).density
    mask = steps.make_mask(
        project,
        refined.volume,
        name="truth/none/seed1/mask",
        output="truth/none/seed1/Post/mask.mrc",
        threshold=float(threshold_otsu(density)),
        diameter_angstrom=DIAMETER_ANGSTROM,
        pixel_size_angstrom=pixel,
    )
    post = steps.postprocess(
        project, refined.halves, mask, name="truth/none/seed1/post", folder="truth/none/seed1/Post",
        pixel_size_angstrom=pixel,
    )  # fmt: skip
    local = steps.find_local_resolution(
        project, refined.halves, mask, name="truth/none/seed1/locres", folder="truth/none/seed1/Post",
        pixel_size_angstrom=pixel, diameter_angstrom=DIAMETER_ANGSTROM,
    )  # fmt: skip
    found = read_star(folder / refined.data)["particles"]
    half_of = dict(zip(given.text("rlnImageName"), given.text("rlnRandomSubset"), strict=True))
    kept = all(
        half_of[name] == half
        for name, half in zip(found.text("rlnImageName"), found.text("rlnRandomSubset"), strict=True)
    )
    inside = read_volume(folder / mask).density > 0.5
    values = read_volume(folder / local).density[inside]
    shell = np.flatnonzero(post.corrected[1:] < 0.143)
    return {
        "start": start,
        "halves": refined.halves,
        "map": refined.volume,
        "facts": {
            "half sets kept (rlnRandomSubset)": "yes" if kept else "NO",
            "2D classes that hold particles": int((~classes.model.is_empty).sum()),
            "accuracy of angles, RELION's": f"{refined.accuracy_deg:.1f} degrees",
            "resolution by relion_postprocess, its steps": f"{post.final_resolution_angstrom:.1f} Å",
            "first shell of post.star below 0.143": f"{1 / post.frequency[shell[0] + 1]:.1f} Å"
            if len(shell)
            else "none",
            "local resolution, quartiles inside the mask": " / ".join(
                f"{one:.1f}" for one in np.percentile(values, [25, 50, 75])
            )
            + " Å",
        },
    }


# --------------------------------------------------------------------------------- the same particles, other engines


def relions_particles(folder: Path) -> tuple[ParticleStack, NDArray[np.int64]]:
    """The boxes that RELION cut out, and their half sets, in the order of the table."""
    tables = read_star(folder / "truth/all.star")
    table, optics = tables["particles"], tables["optics"]
    stacks: dict[str, NDArray[np.float32]] = {}
    images = []
    for name in table.text("rlnImageName"):
        number, _, file = name.partition("@")
        if file not in stacks:
            pixels, _ = read_mrc_sections(folder / file, read_mrc_header(folder / file))
            stacks[file] = np.asarray(pixels, np.float32).reshape(-1, SCALED_PX, SCALED_PX)
        images.append(stacks[file][int(number) - 1])
    names = table.text("rlnMicrographName")
    micrographs = sorted(set(names))
    return (
        ParticleStack(
            images=np.stack(images),
            pixel_size_angstrom=float(optics.floats("rlnImagePixelSize")[0]),
            diameter_angstrom=DIAMETER_ANGSTROM,
            ctf=contrast_transfer_of(table, optics),
            micrograph=np.array([micrographs.index(name) for name in names], dtype=np.int64),
            centres_px=np.stack([table.floats("rlnCoordinateX"), table.floats("rlnCoordinateY")], axis=1),
        ),
        table.ints("rlnRandomSubset"),
    )


def known_poses(folder: Path, stack: ParticleStack) -> Poses:
    """The angles and shifts that the simulation drew."""
    table = read_star(folder / "simulated/particles.star")["particles"]
    angles = np.stack([table.floats(f"rlnAngle{axis}") for axis in ("Rot", "Tilt", "Psi")], axis=1)
    coordinates = np.stack([table.floats("rlnCoordinateX"), table.floats("rlnCoordinateY")], axis=1)
    origins = np.stack([table.floats("rlnOriginXAngst"), table.floats("rlnOriginYAngst")], axis=1)
    true_px = coordinates - origins / PIXEL_ANGSTROM
    names = table.text("rlnMicrographName")
    micrographs = sorted(set(names))
    of = np.array([micrographs.index(name) for name in names])
    rows = []
    for micrograph, centre in zip(stack.micrograph, stack.centres_px, strict=True):
        distance = np.hypot(*(true_px - centre).T) + np.where(of == micrograph, 0, np.inf)
        rows.append(int(distance.argmin()))
    # RELION cuts boxes around coordinates without their fractions
    shifts = (true_px[rows] - np.trunc(stack.centres_px)) * SCALED_PX / BOX_PX
    return Poses.of_angles(angles[rows], shifts)


def embedded_path(stack: ParticleStack, halves: NDArray[np.int64]) -> dict[str, Any]:
    begun = time.process_time()
    start = initial_volume(stack, symmetry="C1", seed=SEED)
    first = time.process_time() - begun
    found = refine(stack, halves, start.volume, symmetry="C1")
    seconds = time.process_time() - begun
    return {
        "start": start.volume,
        "halves": (found.half1, found.half2),
        "map": found.map,
        "cpu": (first, seconds - first),
    }


def known_path(stack: ParticleStack, halves: NDArray[np.int64], poses: Poses) -> dict[str, Any]:
    begun = time.process_time()
    parts = tuple(gridded(stack.take(halves == one), poses.take(halves == one), is_masked=True) for one in (1, 2))
    whole = gridded(stack, poses, is_masked=True)
    return {"start": None, "halves": parts, "map": whole, "cpu": (0.0, time.process_time() - begun)}


# ------------------------------------------------------------------------------------------------------- the figures


def figures(made: dict[str, Any], truth: Volume, *, is_aligned: bool) -> dict[str, Any]:
    """Half maps at 0.143, the map against the truth at 0.5, and the first map so, all by our own code."""
    pixel, box = truth.voxel_size_angstrom, {"box_px": SCALED_PX, "pixel_size_angstrom": truth.voxel_size_angstrom}
    true_mask = soft_mask_of(truth, diameter_angstrom=DIAMETER_ANGSTROM)

    def against_truth(volume: Volume) -> tuple[float, bool]:
        moved, mirrored = volume, False
        if not is_aligned:
            alignment = align_volumes(
                replace(volume, voxel_size_angstrom=pixel), truth, diameter_angstrom=DIAMETER_ANGSTROM
            )
            moved, mirrored = alignment.aligned, alignment.is_mirrored
        return resolution_at(fourier_shell_correlation(moved.density, truth.density, true_mask), 0.5, **box), mirrored

    mask = soft_mask_of(made["map"], diameter_angstrom=DIAMETER_ANGSTROM)
    curve = half_map_curves(made["halves"][0].density, made["halves"][1].density, mask).corrected
    of_truth, mirrored = against_truth(made["map"])
    return {
        "half_angstrom": resolution_at(curve, 0.143, **box),
        "truth_angstrom": of_truth,
        "is_mirrored": mirrored,
        "start_truth_angstrom": None if made["start"] is None else against_truth(made["start"])[0],
        "cpu_seconds": [round(one, 1) for one in made["cpu"]],
    }


def relions_cpu(folder: Path) -> dict[str, dict[str, float]]:
    """What each program took, as its log says; a program that was continued counts from there."""
    found = {}
    for path in sorted((folder / "programs").rglob("*.json")):
        content = json.loads(path.read_text())
        name = path.relative_to(folder / "programs").with_suffix("").as_posix()
        found[name] = {
            "cpu_seconds": content["cpu_seconds"],
            "wall_seconds": content["wall_seconds"],
            "peak_memory_mb": round((content["peak_memory_bytes"] or 0) / 1e6),
        }
    return found


def as_markdown(results: dict[str, Any]) -> str:
    def resolution(value: float | None) -> str:
        return "-" if value is None else "none" if not np.isfinite(value) else f"{value:.1f}"

    lines = [
        "# RELION's whole path beside the embedded engine",
        "",
        f"Made by `benchmarks/validate3d_relion.py`: {results['particles']} particles of a simulated specimen, "
        f"{SCALED_PX} px of {results['pixel_size_angstrom']:g} Å (Nyquist {2 * results['pixel_size_angstrom']:.1f} Å), "
        f"one start each, RELION {results['relion']}. Half maps and maps are measured by the same code.",
        "",
        "| engine | half maps, 0.143, Å | against the truth, 0.5, Å | first map, Å | CPU s, first map | CPU s, then |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in results["engines"].items():
        first, second = one["cpu_seconds"]
        cells = [name, resolution(one["half_angstrom"]), resolution(one["truth_angstrom"])]
        cells += [resolution(one["start_truth_angstrom"]), f"{first:.0f}", f"{second:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "What RELION says:", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in results["facts"].items()]
    lines += [
        "",
        "Its programs:",
        "",
        "| stage | CPU s | wall s, on a busy machine | memory of a rank, MB |",
        "|---|---|---|---|",
    ]
    for name, one in results["programs"].items():
        lines.append(f"| {name} | {one['cpu_seconds']:.1f} | {one['wall_seconds']:.0f} | {one['peak_memory_mb']} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for all files; what is there is kept")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    folder = options.folder.absolute()
    relion = require_relion(PROGRAMS)
    make_data(folder)
    made = relion_path(folder, relion)
    stack, halves = relions_particles(folder)
    truth = resampled_volume(
        read_volume(folder / "truth.mrc"), size_px=SCALED_PX, voxel_size_angstrom=stack.pixel_size_angstrom
    )
    programs = relions_cpu(folder)
    by_relion = {
        "start": read_volume(folder / made["start"]),
        "halves": tuple(read_volume(folder / one) for one in made["halves"]),
        "map": read_volume(folder / made["map"]),
        "cpu": tuple(programs[f"truth/none/seed1/{stage}"]["cpu_seconds"] for stage in ("initial", "refine")),
    }
    results = {
        "particles": len(stack),
        "pixel_size_angstrom": stack.pixel_size_angstrom,
        "relion": relion.said,
        "engines": {
            "known angles": figures(known_path(stack, halves, known_poses(folder, stack)), truth, is_aligned=True),
            "RELION": figures(by_relion, truth, is_aligned=False),
            "embedded": figures(embedded_path(stack, halves), truth, is_aligned=False),
        },
        "facts": made["facts"],
        "programs": programs,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "validate3d_relion.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.output / "validate3d_relion.md").write_text(as_markdown(results))
    print(as_markdown(results))


if __name__ == "__main__":
    main()
