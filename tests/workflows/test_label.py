"""Label files: what is written is where the particles are."""

import json
from pathlib import Path

import numpy as np
import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.units import parse_length
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.images.micrographs import read_micrograph, write_micrograph
from cryopick.io.structures.poses import read_poses
from cryopick.io.structures.volume import write_volume
from cryopick.types import Volume
from cryopick.workflows.label import label

SHAPE_YX = (120, 160)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for seed in (0, 1):
        write_micrograph(folder / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed))
        rows = [f"{x},{y},particle" for x, y in disc_centres(seed)[:2]]
        x, y = disc_centres(seed)[2]
        (folder / f"m{seed}.csv").write_text("\n".join(["x,y,kind", *rows, f"{x},{y},uncertain"]) + "\n")
    (folder / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX, "pixel_size_angstrom": 2.0}))
    return folder


def true_mask(seed: int, which: slice) -> np.ndarray:
    y, x = np.mgrid[: SHAPE_YX[0], : SHAPE_YX[1]]
    return np.any([np.hypot(x - cx, y - cy) <= DIAMETER_PX / 2 for cx, cy in disc_centres(seed)[which]], axis=0)


@pytest.mark.parametrize("shape", ["disc", "density"])
def test_masks_cover_the_particles_and_ignore_the_uncertain_one(data, tmp_path, shape):
    summary = label(data, tmp_path / "out", shape=shape)
    assert (summary.particles, summary.uncertain, dict(summary.shapes)) == (4, 2, {shape: 2})
    for seed in (0, 1):
        mask = read_micrograph(tmp_path / "out" / "masks" / f"m{seed}.png").pixels > 0
        truth = true_mask(seed, slice(0, 2))
        assert (mask & truth).sum() / (mask | truth).sum() > (0.999 if shape == "disc" else 0.85)
        ignored = read_micrograph(tmp_path / "out" / "ignore" / f"m{seed}.png").pixels > 0
        assert (ignored == true_mask(seed, slice(2, 3))).all()
        instances = read_micrograph(tmp_path / "out" / "instances" / f"m{seed}.png").pixels
        for number, (x, y) in enumerate(disc_centres(seed)[:2], start=1):
            assert instances[round(y), round(x)] == number
    facts = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert facts["particles"] == 4


@pytest.mark.parametrize("kind", ["boxes", "coco"])
def test_boxes_and_coco_read_back_as_the_centres(data, tmp_path, kind):
    label(data, tmp_path / "out", kind=kind)
    found = read_picks(tmp_path / "out" / {"boxes": "boxes", "coco": "annotations.json"}[kind])
    assert len(found) == 2
    for seed, picks in enumerate(found[name] for name in sorted(found)):
        np.testing.assert_allclose(picks.xy_px, disc_centres(seed)[:2], atol=0.51 if kind == "boxes" else 1e-6)
        if kind == "coco":
            assert picks.diameter_px == pytest.approx(DIAMETER_PX)


def test_heatmap_peaks_at_the_centres(data, tmp_path):
    label(data, tmp_path / "out", kind="heatmap", stride_px=2)
    with np.load(tmp_path / "out" / "heatmaps" / "m0.npz", allow_pickle=False) as target:
        assert target["heat"].shape == (60, 80)
        rows, columns = np.nonzero(target["diameter_px"])
        grid = np.stack([columns, rows], axis=1) + target["offset_xy"][:, rows, columns].T
        found = (grid + 0.5) * target["stride_px"] - 0.5
    np.testing.assert_allclose(sorted(found.tolist()), sorted(disc_centres(0)[:2].tolist()), atol=1e-4)


def test_coordinates_and_diameter_are_enough(data, tmp_path):
    star = tmp_path / "picks.star"
    rows = [f"m0.mrc {x} {y}" for x, y in disc_centres(0)]
    head = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    star.write_text(head + "\n".join(rows) + "\n\n")
    with pytest.raises(SettingsError, match="the particle diameter is unknown"):
        label(star, tmp_path / "out", micrographs=[data], shape="disc")
    summary = label(star, tmp_path / "out", micrographs=[data], shape="disc", diameter=parse_length("20px"))
    assert (summary.micrographs, summary.particles) == (1, 3)
    mask = read_micrograph(tmp_path / "out" / "masks" / "m0.png").pixels > 0
    assert (mask == true_mask(0, slice(0, 3))).all()


def poses_star(origin_angstrom: tuple[float, float]) -> str:
    """Particles of m0 with coordinates off by an origin, as a refinement leaves them."""
    columns = ["MicrographName", "CoordinateX", "CoordinateY", "OriginXAngst", "OriginYAngst", "AngleRot", "AngleTilt"]
    lines = ["data_optics", "", "loop_", "_rlnOpticsGroup #1", "_rlnMicrographPixelSize #2", "1 2.0", ""]
    lines += ["data_particles", "", "loop_"]
    lines += [f"_rln{name} #{k}" for k, name in enumerate([*columns, "AnglePsi", "OpticsGroup"], start=1)]
    for x, y in disc_centres(0):
        dx, dy = origin_angstrom
        lines.append(f"m0.mrc {x + dx / 2.0} {y + dy / 2.0} {dx} {dy} 10 20 30 1")
    return "\n".join(lines) + "\n\n"


def test_projections_sit_on_the_refined_centres(data, tmp_path):
    (tmp_path / "refined.star").write_text(poses_star((6.0, -4.0)))
    np.testing.assert_allclose(read_poses(tmp_path / "refined.star")["m0.mrc"].xy_px, disc_centres(0), atol=1e-9)
    z, y, x = np.mgrid[:32, :32, :32] - 16
    ball = (x**2 + y**2 + z**2 <= 10**2).astype(np.float32)  # 40 Å wide: a disc of 20 px at 2 Å per pixel
    write_volume(tmp_path / "ball.mrc", Volume(ball, voxel_size_angstrom=2.0))
    summary = label(
        tmp_path / "refined.star", tmp_path / "out", micrographs=[data], map_path=tmp_path / "ball.mrc",
        diameter=parse_length("20px"), flip_y="no",
    )  # fmt: skip
    assert dict(summary.shapes) == {"projection": 1}
    mask = read_micrograph(tmp_path / "out" / "masks" / "m0.png").pixels > 0
    truth = true_mask(0, slice(0, 3))
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85


def test_projections_without_poses_or_map_are_refused(data, tmp_path):
    with pytest.raises(SettingsError, match="needs the 3D map"):
        label(data, tmp_path / "out", shape="projection")
    write_volume(tmp_path / "map.mrc", Volume(np.ones((8, 8, 8), np.float32), voxel_size_angstrom=2.0))
    with pytest.raises(InputError, match="give that file"):
        label(data, tmp_path / "out", shape="projection", map_path=tmp_path / "map.mrc")


def test_unknown_kinds_list_the_known_ones(data, tmp_path):
    with pytest.raises(SettingsError, match="masks, boxes, coco, heatmap"):
        label(data, tmp_path / "out", kind="polygons")


def test_simulation_gives_its_exact_masks(tmp_path):
    from cryopick.simulation.recipe import Recipe
    from cryopick.simulation.series import SimulationSettings
    from cryopick.workflows.simulate import simulate

    recipe = Recipe(shape_yx=(256, 320), pixel_size_angstrom=4.0)
    simulate(tmp_path / "sim", SimulationSettings(recipe=recipe, diameter_angstrom=(120.0, 160.0), seed=4), count=1)
    summary = label(tmp_path / "sim", tmp_path / "out")
    assert dict(summary.shapes) == {"exact": 1}
    (written,) = (tmp_path / "out" / "masks").iterdir()
    (stored,) = (tmp_path / "sim" / "masks").glob("*_instances.png")
    exact, mask = read_micrograph(stored).pixels, read_micrograph(written).pixels
    assert (mask > 0).any()
    ignored = read_micrograph(tmp_path / "out" / "ignore" / written.name).pixels
    assert ((mask > 0) ^ (ignored > 0) == (exact > 0)).all()  # every silhouette is learnt or ignored, none both
    numbers = np.unique(read_micrograph(tmp_path / "out" / "instances" / written.name).pixels)
    assert numbers.max() <= summary.particles
