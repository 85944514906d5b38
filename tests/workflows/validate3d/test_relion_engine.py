"""RELION as an engine: what it is told, and what of its files comes back, in the order of the particles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_relion import OPEN_MPI, install

from cryopick.errors import InputError
from cryopick.evaluation.relion_programs.outputs import FinishedRefinement, ModelTable
from cryopick.evaluation.relion_programs.steps import Classified as TheirClasses
from cryopick.io.images.mrc import write_mrc
from cryopick.io.star import make_table, write_star
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.reconstruction.simulated import simulated_stack
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Volume
from cryopick.workflows.validate3d import relion
from cryopick.workflows.validate3d.engine_table import engine_named
from cryopick.workflows.validate3d.engines import EngineJob
from cryopick.workflows.validate3d.geometry import BoxGeometry

PROGRAMS = ("relion_refine", "relion_refine_mpi", "relion_preprocess", "relion_mask_create", "relion_postprocess")
NAMES = [f"{number + 1:06d}@run/Extract/particles.mrcs" for number in range(40)]
TURNED = np.random.default_rng(0).permutation(40)
"""The order in which RELION gives its particles back."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineJob:
    """40 particles, and a RELION whose programs do nothing."""
    install(tmp_path / "bin", *PROGRAMS, mpirun=OPEN_MPI)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    volume = random_protein(
        np.random.default_rng(1), family="globular", diameter_angstrom=120.0, voxel_size_angstrom=8.0
    )
    stack, _ = simulated_stack(volume, len(NAMES), dose_e_per_angstrom2=20.0, rng=np.random.default_rng(2))
    root = tmp_path / "v3d"
    folder = root / "run/none/seed1/Refine.partial"
    folder.mkdir(parents=True)
    write_star(root / "run/none/particles.star", [make_table("particles", {"rlnImageName": NAMES})])
    return EngineJob(
        root=root,
        folder=folder,
        table=root / "run/none/particles.star",
        stack_name="run/Extract/particles.mrcs",
        rows=np.arange(len(NAMES)),
        stack=stack,
        halves=1 + np.arange(len(NAMES)) % 2,
        geometry=BoxGeometry(
            diameter_angstrom=120.0, micrograph_pixel_angstrom=8.0, box_px=stack.box_px, scaled_px=stack.box_px
        ),
        symmetry="C1",
        seed=3,
        cores=4,
        known=None,
        start=volume,
    )


def shown(job: EngineJob, name: str) -> Volume:
    """A map that RELION wrote, with the rounded pixel of its header."""
    volume = Volume(np.full((job.stack.box_px,) * 3, len(name), np.float32), 8.001)
    write_volume(job.folder / name, volume)
    return volume


def test_half_maps_and_poses_come_back_in_the_order_of_the_particles(
    job: EngineJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    rot = np.linspace(0, 170, len(NAMES))
    x = np.arange(len(NAMES), dtype=np.float64)
    columns = {
        "rlnImageName": [NAMES[row] for row in TURNED],
        "rlnAngleRot": rot[TURNED],
        "rlnAngleTilt": np.full(len(NAMES), 60.0),
        "rlnAnglePsi": np.full(len(NAMES), 10.0),
        "rlnOriginXAngst": -8.0 * x[TURNED],
        "rlnOriginYAngst": np.zeros(len(NAMES)),
    }
    write_star(job.folder / "run_data.star", [make_table("particles", columns)])
    for name in ("h1.mrc", "half2.mrc", "whole-map.mrc"):
        shown(job, name)
    place = "run/none/seed1/Refine.partial"

    def refined(project: Any, particles: str, **how: Any) -> FinishedRefinement:
        told.update(how, particles=particles, project=project)
        halves = (f"{place}/h1.mrc", f"{place}/half2.mrc")
        return FinishedRefinement(halves, f"{place}/whole-map.mrc", f"{place}/run_data.star", "", 12.0)

    monkeypatch.setattr(relion, "refine", refined)
    lines: list[str] = []
    found = engine_named("relion").refine(replace(job, log=lines.append))
    assert (found.half1.density.max(), found.half2.density.max(), found.map.density.max()) == (6, 9, 13)
    assert found.half1.voxel_size_angstrom == job.stack.pixel_size_angstrom
    np.testing.assert_allclose(found.poses.rot_tilt_psi_deg[:, 0], rot, atol=1e-6)
    np.testing.assert_allclose(found.poses.shifts_px[:, 0], x, atol=1e-9)
    assert lines == ["RELION cannot align these particles: accuracy 12 degrees"]
    assert told["particles"] == "run/none/particles.star"
    assert told["name"] == "run/none/seed1/Refine/refine"
    assert told["reference"] == f"{place}/start.mrc"
    assert not told.get("is_on_scale")  # the first iteration correlates, or a first map on another scale is lost
    assert told["seed"] == 3
    assert told["project"].computing.threads == 2  # two half sets on four cores
    assert told["project"].is_ctf_corrected
    np.testing.assert_array_equal(read_volume(job.folder / "start.mrc").density, job.start.density)  # type: ignore[union-attr]

    plain = replace(job, stack=replace(job.stack, ctf=None), is_start_given=True)
    engine_named("relion").refine(plain)
    assert not told["project"].is_ctf_corrected


def test_strong_class_averages_are_kept_and_empty_ones_are_junk(
    job: EngineJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = job.stack.box_px
    along = np.arange(n) - n // 2
    disc = (along[:, None] ** 2 + along**2 < 5**2).astype(np.float32)
    averages = np.stack([3 * disc, 2.5 * disc, 0.3 * disc, np.full((n, n), np.nan)]).astype(np.float32)
    write_mrc(job.folder / "run_it006_classes.mrcs", averages, pixel_size_angstrom=8.0)
    class_of = np.repeat([0, 1, 2], [15, 12, 13])
    columns = {"rlnImageName": [NAMES[row] for row in TURNED], "rlnClassNumber": class_of[TURNED] + 1}
    write_star(job.folder / "run_it006_data.star", [make_table("particles", columns)])
    place = "run/none/seed1/Refine.partial"
    unknown = np.full(4, np.nan)
    table = ModelTable(("a", "b", "c", "d"), unknown, unknown, unknown, unknown, np.nan, np.nan, np.nan, np.nan)
    told: dict[str, Any] = {}

    def classified(project: Any, particles: str, **how: Any) -> TheirClasses:
        told.update(how)
        return TheirClasses(table, f"{place}/run_it006_classes.mrcs", class_of[TURNED], f"{place}/run_it006_data.star")

    monkeypatch.setattr(relion, "classify_2d", classified)
    found = engine_named("relion").classes(job, 4)
    assert (told["classes"], told["iterations"]) == (4, 6)  # more iterations are worse with few particles
    np.testing.assert_array_equal(found.assignment, class_of)
    assert found.is_kept == (True, True, False, False)
    assert np.isfinite(found.averages).all()
    assert found.reason[3] == "empty"
    assert found.quality[0] > found.quality[1] > found.quality[2] > found.quality[3] == 0


def test_what_is_missing_is_one_sentence_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"relion_refine, .*not found on the PATH; install RELION .* embedded"):
        engine_named("relion").check(has_poses=False)
    install(tmp_path, *PROGRAMS)
    with pytest.raises(InputError, match="mpirun: not found on the PATH"):
        engine_named("relion").check(has_poses=False)
    install(tmp_path, mpirun=OPEN_MPI)
    engine_named("relion").check(has_poses=False)
    assert engine_named("relion").version() == "RELION 3.1.3, 1"
