"""The simulator's physics against RELION 3.1: angles, signs and pixel centres can only agree if all are right."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from relion_here import relion_with, run_relion

from cryopick.evaluation.relion_programs import reconstruct
from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.processing.ctf import CtfParameters, ctf_2d
from cryopick.processing.projection import project
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Volume
from cryopick.workflows.simulate import simulate

needs_relion = pytest.mark.skipif(
    shutil.which("relion_project") is None or shutil.which("relion_reconstruct") is None,
    reason="RELION's programs are not on the PATH",
)
pytestmark = [pytest.mark.relion, needs_relion]


def random_optics(rng: np.random.Generator, *, phase_shift_deg: float = 0.0) -> CtfParameters:
    defocus = rng.uniform(0.8, 2.0)
    return CtfParameters(
        defocus_u_um=defocus + 0.15,
        defocus_v_um=defocus - 0.15,
        astigmatism_angle_deg=rng.uniform(0, 180),
        phase_shift_deg=phase_shift_deg,
        b_factor_angstrom2=rng.uniform(0, 60),
    )


def write_particles(
    path: Path,
    *,
    stack: str,
    angles_deg: np.ndarray,
    shifts_px: np.ndarray,
    optics: list[CtfParameters],
    pixel_size_angstrom: float,
    size_px: int,
) -> None:
    optics_table = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["one"],
            "rlnVoltage": [optics[0].voltage_kv],
            "rlnSphericalAberration": [optics[0].spherical_aberration_mm],
            "rlnAmplitudeContrast": [optics[0].amplitude_contrast],
            "rlnImagePixelSize": [pixel_size_angstrom],
            "rlnImageSize": [size_px],
            "rlnImageDimensionality": [2],
        }
    )
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1}@{stack}" for i in range(len(angles_deg))],
            "rlnOpticsGroup": 1,
            "rlnAngleRot": angles_deg[:, 0],
            "rlnAngleTilt": angles_deg[:, 1],
            "rlnAnglePsi": angles_deg[:, 2],
            # RELION stores the shift that brings the particle back to the centre
            "rlnOriginXAngst": -shifts_px[:, 0] * pixel_size_angstrom,
            "rlnOriginYAngst": -shifts_px[:, 1] * pixel_size_angstrom,
            "rlnDefocusU": [p.defocus_u_um * 1e4 for p in optics],
            "rlnDefocusV": [p.defocus_v_um * 1e4 for p in optics],
            "rlnDefocusAngle": [p.astigmatism_angle_deg for p in optics],
            "rlnPhaseShift": [p.phase_shift_deg for p in optics],
            "rlnCtfBfactor": [p.b_factor_angstrom2 for p in optics],
        }
    )
    starfile.write({"optics": optics_table, "particles": particles}, path)


def imaged(projections: np.ndarray, pixel_size_angstrom: float, optics: list[CtfParameters]) -> np.ndarray:
    """Projections as RELION's particle stacks hold them: through the lens and inverted, protein bright."""
    shape = projections.shape[1], projections.shape[2]
    ctf = np.stack([ctf_2d(shape, pixel_size_angstrom, p) for p in optics])
    return np.asarray(-np.fft.irfft2(np.fft.rfft2(projections) * ctf, s=shape), dtype=np.float32)


def fourier_shell_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One value per Fourier pixel of radius, from 0 to Nyquist."""
    n = len(first)
    a, b = np.fft.fftn(first), np.fft.fftn(second)
    frequency = np.fft.fftfreq(n) * n
    radius = np.sqrt(frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2).round().astype(int)

    def shell_sum(values: np.ndarray) -> np.ndarray:
        return np.bincount(radius.ravel(), values.ravel())[: n // 2 + 1]

    return shell_sum((a * b.conj()).real) / np.sqrt(shell_sum(np.abs(a) ** 2) * shell_sum(np.abs(b) ** 2))


def assert_map_comes_back(truth: Volume, found: Volume) -> None:
    """FSC above 0.5 out to at most 3 pixels, and correlation at least 0.9 inside the particle."""
    fsc = fourier_shell_correlation(truth.density, found.density)
    three_pixels = len(truth.density) // 3  # Fourier radius whose period is 3 pixels
    assert fsc[: three_pixels + 1].min() > 0.5, f"FSC {fsc.round(2)}"
    mask = truth.density > 0.1 * truth.density.max()
    assert np.corrcoef(truth.density[mask], found.density[mask])[0, 1] >= 0.9


@pytest.mark.parametrize(("family", "voxel_size_angstrom"), [("globular", 3.0), ("membrane", 4.0)])
def test_projections_through_the_lens_match_relion_project(
    tmp_path: Path, family: str, voxel_size_angstrom: float
) -> None:
    rng = np.random.default_rng(11)
    volume = random_protein(rng, family=family, diameter_angstrom=120.0, voxel_size_angstrom=voxel_size_angstrom)
    size = len(volume.density)
    angles = random_rotations(8, rng)
    shifts = rng.uniform(-4, 4, size=(8, 2))
    optics = [random_optics(rng, phase_shift_deg=15.0 * i) for i in range(8)]
    write_volume(tmp_path / "map.mrc", volume)
    write_particles(
        tmp_path / "angles.star",
        stack="none.mrcs",
        angles_deg=angles,
        shifts_px=shifts,
        optics=optics,
        pixel_size_angstrom=voxel_size_angstrom,
        size_px=size,
    )
    words = ["relion_project", "--i", "map.mrc", "--o", "relion", "--ang", "angles.star", "--ctf"]
    run_relion(tmp_path, [*words, "--angpix", str(voxel_size_angstrom)])
    relion = mrcfile.read(tmp_path / "relion.mrcs")
    ours = imaged(project(volume, euler_to_matrix(angles), shifts_px=shifts), voxel_size_angstrom, optics)
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, relion, strict=True)]
    assert min(correlation) >= 0.99, correlation
    # RELION sums voxels, ours are line integrals in Å
    np.testing.assert_allclose(ours.std(axis=(1, 2)) / relion.std(axis=(1, 2)), voxel_size_angstrom, rtol=0.01)


def test_wrong_conventions_would_be_noticed(tmp_path: Path) -> None:
    """The comparison above can fail: turned angles, mirrored astigmatism and a pixel's shift all spoil it."""
    rng = np.random.default_rng(12)
    volume = random_protein(rng, family="globular", diameter_angstrom=120.0, voxel_size_angstrom=3.0)
    angles = random_rotations(1, rng)
    optics = CtfParameters(defocus_u_um=1.6, defocus_v_um=1.0, astigmatism_angle_deg=30.0)
    mirrored = CtfParameters(defocus_u_um=1.6, defocus_v_um=1.0, astigmatism_angle_deg=-30.0)
    image = imaged(project(volume, euler_to_matrix(angles)), 3.0, [optics])[0]
    wrong = {
        "inverse rotation": imaged(project(volume, euler_to_matrix(angles).transpose(0, 2, 1)), 3.0, [optics])[0],
        "mirrored astigmatism": imaged(project(volume, euler_to_matrix(angles)), 3.0, [mirrored])[0],
        "one pixel off": np.roll(image, 1, axis=1),
    }
    for mistake, other in wrong.items():
        assert np.corrcoef(image.ravel(), other.ravel())[0, 1] < 0.99, mistake


def test_reconstruction_from_projections_gives_the_map_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    pixel, count = 5.0, 600
    volume = random_protein(rng, family="multilobed", diameter_angstrom=150.0, voxel_size_angstrom=pixel)
    size = len(volume.density)
    angles, shifts = random_rotations(count, rng), rng.uniform(-2, 2, size=(count, 2))
    optics = [random_optics(rng) for _ in range(count)]
    stack = imaged(project(volume, euler_to_matrix(angles), shifts_px=shifts), pixel, optics)
    stack += rng.normal(0, 0.3 * stack.std(), size=stack.shape).astype(np.float32)
    with mrcfile.new(tmp_path / "stack.mrcs") as mrc:
        mrc.set_data(stack)
        mrc.voxel_size = pixel
    write_particles(
        tmp_path / "stack.star",
        stack="stack.mrcs",
        angles_deg=angles,
        shifts_px=shifts,
        optics=optics,
        pixel_size_angstrom=pixel,
        size_px=size,
    )
    relion = relion_with("relion_reconstruct")
    run_relion(tmp_path, reconstruct(relion, particles="stack.star", output="map.mrc", pixel_size_angstrom=pixel))
    assert_map_comes_back(volume, read_volume(tmp_path / "map.mrc"))


@pytest.mark.slow
def test_reconstruction_from_written_micrographs_gives_the_map_back(tmp_path: Path) -> None:
    """The whole way as a user goes it: a map, simulated micrographs, RELION's extraction at the truth, its map."""
    pixel = 5.0
    volume = random_protein(
        np.random.default_rng(13), family="multilobed", diameter_angstrom=150.0, voxel_size_angstrom=pixel
    )
    write_volume(tmp_path / "truth.mrc", volume)
    recipe = replace(named_recipe("noise-light"), shape_yx=(640, 768), pixel_size_angstrom=pixel)
    settings = SimulationSettings(structures=(str(tmp_path / "truth.mrc"),), seed=1, recipe=recipe)
    folder = tmp_path / "simulated"
    summary = simulate(folder, settings, count=4)
    assert summary.particles > 400
    size = len(volume.density)
    words = ["relion_preprocess", "--i", "micrographs.star", "--reextract_data_star", "particles.star", "--extract"]
    words += ["--extract_size", str(size), "--invert_contrast", "--norm", "--bg_radius", str(size // 2 - 2)]
    run_relion(folder, [*words, "--part_dir", "Extract/", "--part_star", "Extract/particles.star"], output="Extract")
    relion = relion_with("relion_reconstruct")
    run_relion(folder, reconstruct(relion, particles="Extract/particles.star", output="map.mrc"))
    assert_map_comes_back(volume, read_volume(folder / "map.mrc"))
