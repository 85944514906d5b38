"""RELION's whole path, tiny: from micrographs and picks to half maps, FSC and local resolution, with a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cryopick.data.labels import read_labels
from cryopick.errors import SettingsError
from cryopick.evaluation.relion_programs import (
    ProgramFailedError,
    find_relion,
    newest_iteration,
    resampled_map,
    steps,
)
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.images.mrc import read_mrc_header, read_mrc_sections
from cryopick.io.star import read_star
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.reconstruction.particles import extract_particles
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.workflows.simulate import simulate

PROGRAMS = (
    *("relion_refine", "relion_refine_mpi", "relion_preprocess", "relion_mask_create", "relion_postprocess"),
    "relion_image_handler",
)
pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in (*PROGRAMS, "mpirun")), reason="needs RELION's programs and mpirun"
    ),
]
DIAMETER_ANGSTROM, BOX_PX, SCALED_PX, PIXEL = 273.0, 84, 24, 5.0
REFINED = {
    "name": "refine",
    "folder": "Refine",
    "reference": "reference.mrc",
    "diameter_angstrom": DIAMETER_ANGSTROM,
    "symmetry": "C1",
    "seed": 1,
    "is_quick": True,  # coarse angles, for seconds
    "healpix_orders": (1, 2),
}


def project_in(folder: Path) -> steps.RelionProject:
    relion = find_relion(PROGRAMS)
    assert relion is not None
    return steps.RelionProject(folder=folder, relion=relion)


def picks_of(folder: Path) -> dict[str, NDArray[np.float64]]:
    found = {}
    for name, labels in read_labels(folder / "micrographs").items():
        xy_px = labels.xy_px[~labels.is_uncertain]
        found[f"micrographs/{Path(name).stem}.mrc"] = xy_px[((xy_px > 42) & (xy_px < 982)).all(axis=1)][:40]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micrograph of a specimen whose map is known, as a project."""
    folder = tmp_path_factory.mktemp("relion")
    truth = random_protein(
        np.random.default_rng(13), family="multilobed", diameter_angstrom=260.0, voxel_size_angstrom=PIXEL
    )
    write_volume(folder / "truth.mrc", truth)
    recipe = named_recipe("validation")
    recipe = replace(
        recipe,
        dirt=replace(recipe.dirt, carbon_probability=0.0, blob_probability=0.0, aggregate_probability=0.0),
        detector=replace(recipe.detector, dose_e_per_angstrom2=(8.0, 8.0)),
    )
    simulate(
        folder / "simulated",
        SimulationSettings(structures=(str(folder / "truth.mrc"),), seed=1, recipe=recipe),
        count=1,
    )
    for name in ("micrographs", "micrographs.star"):
        (folder / name).symlink_to(Path("simulated") / name)
    return folder


def extracted(folder: Path) -> steps.Extracted:
    return steps.extract_particles(
        project_in(folder),
        name="extract",
        micrographs="micrographs.star",
        picks=picks_of(folder),
        picks_folder="picks",
        folder="Extract",
        box_px=BOX_PX,
        scaled_px=SCALED_PX,
        background_radius_px=9,
    )


def test_boxes_are_those_that_our_own_extraction_cuts(folder: Path) -> None:
    found = extracted(folder)
    ((name, xy_px),) = picks_of(folder).items()
    np.testing.assert_allclose(found.xy_px, xy_px, atol=1e-3)
    assert found.pixel_size_angstrom == pytest.approx(BOX_PX * PIXEL / SCALED_PX)
    (stack,) = (folder / "Extract").rglob("*.mrcs")
    theirs = np.asarray(read_mrc_sections(stack, read_mrc_header(stack))[0], np.float32)
    ours, _ = extract_particles(
        read_micrograph(folder / name),
        np.trunc(found.xy_px),  # RELION cuts coordinates to whole pixels, ours rounds them
        box_px=BOX_PX,
        scaled_px=SCALED_PX,
        background_radius_px=9,
    )
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, theirs, strict=True)]
    assert min(alike) > 0.999


def test_from_picks_to_local_resolution_with_a_kill_in_between(folder: Path) -> None:
    project, particles = project_in(folder), extracted(folder)
    half = 1 + np.random.default_rng(0).permutation(len(particles)) % 2
    steps.write_subset(folder, particles.star, "particles.star", half=half)

    classes = steps.classify_2d(
        project,
        "particles.star",
        name="class2d",
        folder="Class2D",
        classes=2,
        diameter_angstrom=DIAMETER_ANGSTROM,
        iterations=2,
        seed=1,
    )
    assert len(classes.class_of) == len(particles)
    assert set(classes.class_of.tolist()) <= {0, 1}
    stack = folder / classes.averages
    assert read_mrc_sections(stack, read_mrc_header(stack))[0].shape == (2, SCALED_PX, SCALED_PX)

    project.run("box", resampled_map(project.relion, volume="truth.mrc", output="box.mrc", box_px=BOX_PX), ".")
    words = resampled_map(
        project.relion, volume="box.mrc", output="reference.mrc", pixel_size_angstrom=particles.pixel_size_angstrom
    )
    project.run("pixel", words, ".")
    _kill_after_an_iteration(folder)
    stopped = newest_iteration(folder, "Refine")
    assert stopped is not None
    assert stopped.number >= 1
    found = steps.refine(project, "particles.star", **REFINED)  # type: ignore[arg-type]
    assert "--continue" in (folder / "programs/refine.cmd").read_text()
    assert found.can_align

    refined = read_star(folder / found.data)["particles"]
    given = dict(zip(read_star(folder / "particles.star")["particles"].text("rlnImageName"), half, strict=True))
    for name, kept in zip(refined.text("rlnImageName"), refined.ints("rlnRandomSubset"), strict=True):
        assert given[name] == kept, "RELION drew other half sets"

    density = read_volume(folder / found.volume).density
    mask = steps.make_mask(
        project,
        found.volume,
        name="mask",
        output="Post/mask.mrc",
        threshold=0.3 * float(density.max()),
        diameter_angstrom=DIAMETER_ANGSTROM,
        pixel_size_angstrom=particles.pixel_size_angstrom,
    )
    pixel = particles.pixel_size_angstrom
    post = steps.postprocess(project, found.halves, mask, name="post", folder="Post", pixel_size_angstrom=pixel)
    assert post.corrected[:3].min() > 0.8
    assert post.final_resolution_angstrom < DIAMETER_ANGSTROM / 2.5  # forty particles; a kill may cost an iteration
    local = steps.find_local_resolution(
        project,
        found.halves,
        mask,
        name="locres",
        folder="Post",
        pixel_size_angstrom=pixel,
        diameter_angstrom=DIAMETER_ANGSTROM,
    )
    inside = read_volume(folder / local).density[read_volume(folder / mask).density > 0.99]
    assert 2 * pixel - 0.1 <= np.median(inside) <= DIAMETER_ANGSTROM / 3 + 0.1
    truth = read_volume(folder / "reference.mrc").density
    assert np.corrcoef(density.ravel(), truth.ravel())[0, 1] > 0.6

    # what is there is not made again
    begun = time.monotonic()
    assert steps.refine(project, "particles.star", **REFINED) == found  # type: ignore[arg-type]
    assert time.monotonic() - begun < 5


def _kill_after_an_iteration(folder: Path) -> None:
    """The process that refines is killed when RELION has written an iteration; RELION must end with it."""
    script = (
        "from pathlib import Path\n"
        "from cryopick.evaluation.relion_programs import find_relion, steps\n"
        f"relion = find_relion({PROGRAMS!r})\n"
        f"project = steps.RelionProject(folder=Path({str(folder)!r}), relion=relion)\n"
        f"steps.refine(project, 'particles.star', **{REFINED!r})\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script])
    while not (folder / "Refine/run_it001_optimiser.star").exists():
        assert starter.poll() is None
        time.sleep(0.1)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    end = time.monotonic() + 20
    while left := _in_folder(folder):
        assert time.monotonic() < end, f"{left} go on"
        time.sleep(0.1)


def _in_folder(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder) and process.name != str(os.getpid()):
                found.append((process / "comm").read_text().strip())
        except OSError:
            continue
    return found


def test_a_first_map_comes_from_no_reference(folder: Path) -> None:
    particles = extracted(folder)
    found = steps.make_initial_model(
        project_in(folder),
        particles.star,
        name="initial",
        folder="Initial",
        count=len(particles),
        diameter_angstrom=DIAMETER_ANGSTROM,
        symmetry="C1",
        seed=1,
        iterations=(1, 1, 1),
        healpix_order=0,
    )
    volume = read_volume(folder / found)
    assert volume.density.shape == (SCALED_PX,) * 3
    assert volume.density.std() > 0


def test_what_relion_leaves_out_in_silence_is_an_error_that_names_the_file(folder: Path, tmp_path: Path) -> None:
    for name in ("micrographs", "micrographs.star"):
        (tmp_path / name).symlink_to(folder / name)
    ((name, xy_px),) = picks_of(folder).items()
    with pytest.raises(ProgramFailedError, match=r"RELION cut out 0: Warning: coordinate file") as caught:
        steps.extract_particles(
            project_in(tmp_path),
            name="extract",
            micrographs="micrographs.star",
            picks={f"job012/{name}": xy_px},
            picks_folder="picks",
            folder="Extract",
            box_px=BOX_PX,
            scaled_px=SCALED_PX,
            background_radius_px=9,
        )
    assert caught.value.kind == "path"
    assert not (tmp_path / "Extract/particles.star").exists(), "it would be taken for a finished extraction"


def test_no_particles_are_a_result_and_too_small_boxes_are_refused(folder: Path, tmp_path: Path) -> None:
    particles = extracted(folder)
    none = np.zeros(len(particles), dtype=bool)
    steps.write_subset(folder, particles.star, "none.star", is_kept=none)
    arguments = {"name": "x", "folder": "X", "diameter_angstrom": 273.0, "seed": 1}
    with pytest.raises(ProgramFailedError, match=r"none\.star has no particles") as caught:
        steps.classify_2d(project_in(folder), "none.star", classes=2, iterations=1, **arguments)  # type: ignore[arg-type]
    assert caught.value.kind == "picks"
    small = (folder / particles.star).read_text().replace(f" {SCALED_PX} ", " 20 ")
    (folder / "small.star").write_text(small)
    with pytest.raises(SettingsError, match="boxes have 20 px"):
        steps.make_initial_model(
            project_in(folder),
            "small.star",
            count=60,
            symmetry="C1",
            **arguments,  # type: ignore[arg-type]
        )
