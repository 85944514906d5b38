"""Maps from known poses: the truth comes back, and RELION's program says the same."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryopick.geometry.rotations import euler_to_matrix
from cryopick.io.images.mrc import write_mrc
from cryopick.io.star import make_table, write_star
from cryopick.io.structures.volume import read_volume
from cryopick.metrics.fourier_shell_correlation import fourier_shell_correlation, resolution_at
from cryopick.reconstruction.fourier_images import cosine_edge
from cryopick.reconstruction.gridding import reconstruct
from cryopick.reconstruction.particles import ParticleStack
from cryopick.reconstruction.poses import Poses
from cryopick.reconstruction.simulated import simulated_stack
from cryopick.reconstruction.symmetry import operators
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Volume

needs_reconstruct = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="needs RELION's relion_reconstruct"),
]


def relion_map(folder: Path, stack: ParticleStack, poses: Poses, *, symmetry: str = "C1") -> Volume:
    """What `relion_reconstruct` makes of a stack."""
    assert stack.ctf is not None
    count = len(stack)
    write_mrc(folder / "stack.mrcs", stack.images, pixel_size_angstrom=stack.pixel_size_angstrom)
    angles, origins = poses.rot_tilt_psi_deg, poses.origins_angstrom(stack.pixel_size_angstrom)
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["one"],
        "rlnVoltage": [stack.ctf.voltage_kv[0]],
        "rlnSphericalAberration": [stack.ctf.cs_mm[0]],
        "rlnAmplitudeContrast": [stack.ctf.amplitude_contrast[0]],
        "rlnImagePixelSize": [stack.pixel_size_angstrom],
        "rlnImageSize": [stack.box_px],
        "rlnImageDimensionality": [2],
    }
    particles = {
        "rlnImageName": [f"{i + 1}@stack.mrcs" for i in range(count)],
        "rlnOpticsGroup": np.ones(count, dtype=np.int64),
        **{f"rlnAngle{name}": angles[:, i] for i, name in enumerate(("Rot", "Tilt", "Psi"))},
        **{f"rlnOrigin{name}Angst": origins[:, i] for i, name in enumerate("XY")},
        "rlnDefocusU": stack.ctf.defocus_u_angstrom,
        "rlnDefocusV": stack.ctf.defocus_v_angstrom,
        "rlnDefocusAngle": stack.ctf.astigmatism_angle_deg,
    }
    write_star(folder / "stack.star", [make_table("optics", optics), make_table("particles", particles)], version=30001)
    command = (
        f"relion_reconstruct --i stack.star --o map.mrc --ctf --sym {symmetry} --angpix {stack.pixel_size_angstrom}"
    )
    done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-800:] + done.stderr[-800:]
    return read_volume(folder / "map.mrc")


def test_map_of_true_poses_agrees_with_the_truth(ribosome, imaged_ribosome) -> None:
    stack, poses = imaged_ribosome
    found = reconstruct(stack, poses, is_masked=True)
    curve = fourier_shell_correlation(found.density, ribosome.density)
    assert curve[1:11].min() > 0.95, curve.round(2)
    # The scale is that of the images: contrast over the noise of one pixel
    assert resolution_at(curve, 0.5, box_px=stack.box_px, pixel_size_angstrom=9.0) < 25


def test_wrong_poses_signs_and_optics_do_not(ribosome) -> None:
    # So far from focus that the transfer changes sign within the shells compared
    stack, poses = simulated_stack(
        ribosome, 200, dose_e_per_angstrom2=20.0, defocus_um=(3.0, 4.5), rng=np.random.default_rng(7)
    )
    assert stack.ctf is not None
    u, v = stack.ctf.defocus_u_angstrom, stack.ctf.defocus_v_angstrom
    nearer = replace(stack.ctf, defocus_u_angstrom=u - 8000, defocus_v_angstrom=v - 8000)
    wrong = {
        "inverse rotations": (stack, replace(poses, rotations=poses.rotations.transpose(0, 2, 1))),
        "opposite shifts": (stack, replace(poses, shifts_px=-poses.shifts_px)),
        "no CTF": (replace(stack, ctf=None), poses),
        "another defocus": (replace(stack, ctf=nearer), poses),
    }
    right = fourier_shell_correlation(reconstruct(stack, poses).density, ribosome.density)[6:18].mean()
    for mistake, (images, places) in wrong.items():
        curve = fourier_shell_correlation(reconstruct(images, places).density, ribosome.density)
        assert curve[6:18].mean() < right - 0.05, mistake


@pytest.mark.parametrize(
    ("family", "seed", "symmetry"),
    [
        pytest.param("ribonucleoprotein", 5, "C1", marks=needs_reconstruct),
        pytest.param("barrel", 3, "D7", marks=needs_reconstruct),
    ],
)
def test_gridding_is_that_of_relion_reconstruct(tmp_path: Path, family: str, seed: int, symmetry: str) -> None:
    volume = random_protein(
        np.random.default_rng(seed), family=family, diameter_angstrom=200.0, voxel_size_angstrom=7.0
    )
    stack, poses = simulated_stack(volume, 300, dose_e_per_angstrom2=4.0, rng=np.random.default_rng(1))
    theirs = relion_map(tmp_path, stack, poses, symmetry=symmetry)
    ours = reconstruct(stack, poses, symmetry=symmetry)
    # Inside the particle's sphere: towards the box's corners there is noise, which theirs weights by iterations
    along = np.arange(stack.box_px) - stack.box_px // 2
    radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2)
    mask = cosine_edge(radius - stack.diameter_angstrom / stack.pixel_size_angstrom / 2, 4)
    curve = fourier_shell_correlation(ours.density, theirs.density, mask)
    edge = stack.box_px * stack.pixel_size_angstrom
    assert curve[1 : int(edge / 25) + 1].min() > 0.99, curve.round(3)


def test_symmetry_counts_every_copy(ribosome) -> None:
    # A particle summed over its copies, seen 60 times: symmetry gives what 6 times as many views would
    group = operators("D3")
    stack, poses = simulated_stack(ribosome, 60, dose_e_per_angstrom2=1e6, rng=np.random.default_rng(2))
    with_symmetry = reconstruct(stack, poses, symmetry="D3").density
    copies = np.concatenate([poses.rotations @ one for one in group])
    every = np.tile(np.arange(60), 6)
    by_hand = reconstruct(
        stack.take(every), Poses(rotations=copies, shifts_px=poses.shifts_px[every], score=poses.score[every])
    ).density
    np.testing.assert_allclose(with_symmetry, by_hand, atol=1e-4 * by_hand.max())
    # A half turn about x: y and z change sign, pixel 0 has no partner
    inner = with_symmetry[1:, 1:]
    np.testing.assert_allclose(inner[::-1, ::-1], inner, atol=1e-3 * inner.max())


def test_weights_of_zero_and_one_choose_particles(imaged_ribosome) -> None:
    stack, poses = imaged_ribosome
    chosen = np.arange(len(stack)) % 3 == 0
    some = reconstruct(stack.take(chosen), poses.take(chosen)).density
    weighted = reconstruct(stack, poses, weights=chosen.astype(float)).density
    np.testing.assert_allclose(weighted, some, atol=1e-4 * np.abs(some).max())


def test_wiener_filter_damps_shells_by_their_snr(imaged_ribosome) -> None:
    stack, poses = imaged_ribosome
    snr = np.full(stack.box_px // 2 + 1, 1e6)
    snr[10:] = 1.0
    plain = np.abs(np.fft.fftn(reconstruct(stack, poses, snr=np.full(len(snr), 1e6)).density))
    damped = np.abs(np.fft.fftn(reconstruct(stack, poses, snr=snr).density))
    along = np.fft.fftfreq(stack.box_px) * stack.box_px
    radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2)
    far, near = (radius > 12) & (radius < 18), (radius > 2) & (radius < 8)
    assert damped[near].sum() / plain[near].sum() == pytest.approx(1.0, abs=0.02)
    assert 0.4 < damped[far].sum() / plain[far].sum() < 0.6  # weights are near their shell's mean, so by half


def test_angles_come_back_from_poses() -> None:
    angles = np.array([[10.0, 20.0, 30.0], [-170.0, 90.0, 5.0], [40.0, 0.0, 0.0], [25.0, 180.0, 0.0]])
    poses = Poses.of_angles(angles)
    np.testing.assert_allclose(poses.rot_tilt_psi_deg, angles, atol=1e-6)
    np.testing.assert_allclose(euler_to_matrix(poses.rot_tilt_psi_deg), poses.rotations, atol=1e-9)


def test_as_many_poses_as_particles(imaged_ribosome) -> None:
    stack, poses = imaged_ribosome
    with pytest.raises(ValueError, match="400 particles and 3 poses"):
        reconstruct(stack, poses.take(np.arange(3)))
