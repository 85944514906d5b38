"""`cryopick simulate`: same bytes for any number of workers, resumable, RELION tables, labels that read back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cryopick.data.labels import read_labels
from cryopick.errors import FormatError, InputError, RunFolderError, SettingsError
from cryopick.geometry.units import parse_range
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.star import read_star
from cryopick.simulation.recipe import Recipe, recipe_from_toml, recipe_to_toml
from cryopick.simulation.recipe_words import recipe_with
from cryopick.simulation.series import SimulationSettings, read_settings, simulate_one
from cryopick.workflows.simulate import simulate


def small_settings(**changes: object) -> SimulationSettings:
    recipe = Recipe(shape_yx=(220, 300), pixel_size_angstrom=5.0)
    recipe = replace(recipe, layout=replace(recipe.layout, empty_probability=0.0))
    return SimulationSettings(seed=3, diameter_angstrom=(100.0, 200.0), recipe=recipe, **changes)  # type: ignore[arg-type]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sim") / "run"
    simulate(folder, small_settings(proteins=2), count=3)
    return folder


def test_two_workers_write_the_same_bytes_as_one(made: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "run", small_settings(proteins=2), count=3, workers=2)
    assert files_in(tmp_path / "run") == files_in(made)


def test_stopped_run_is_resumed_to_the_same_bytes_and_makes_only_what_is_missing(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    simulate(folder, small_settings(proteins=2), count=1)
    (folder / "micrographs" / "sim_0002.mrc").write_bytes(b"half a file")  # stopped before its truth was written
    names: list[str] = []
    summary = simulate(folder, small_settings(proteins=2), count=3, on_done=names.append)
    assert names == ["sim_0002", "sim_0003"]
    assert summary.made == 2
    assert files_in(folder) == files_in(made)


def test_folder_of_other_settings_or_contents_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="other settings"):
        simulate(made, small_settings(proteins=1), count=3)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty and no simulation"):
        simulate(tmp_path, small_settings(), count=1)


def test_labels_and_masks_on_disk_are_those_of_the_simulation(made: Path) -> None:
    simulated = simulate_one(small_settings(proteins=2), 1)
    labels = read_labels(made / "micrographs")["sim_0002"]
    np.testing.assert_allclose(labels.xy_px, simulated.xy_px, atol=6e-4)
    np.testing.assert_array_equal(labels.is_uncertain, ~simulated.is_pickable)
    pixels = read_micrograph(made / "micrographs" / "sim_0002.mrc")
    np.testing.assert_array_equal(pixels.pixels, simulated.micrograph.pixels)
    assert pixels.pixel_size_angstrom == pytest.approx(5.0)
    instances = cv2.imread(str(made / "masks" / "sim_0002_instances.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(instances, simulated.instances)
    junk = cv2.imread(str(made / "masks" / "sim_0002_junk.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(junk == 255, simulated.junk)


def test_relion_table_gives_exact_centres_angles_and_ctf(made: Path) -> None:
    simulated = simulate_one(small_settings(proteins=2), 0)
    particles = read_star(made / "particles.star")["particles"]
    rows = [i for i, name in enumerate(particles.text("rlnMicrographName")) if name == "micrographs/sim_0001.mrc"]
    xy = np.stack([particles.floats("rlnCoordinateX"), particles.floats("rlnCoordinateY")], axis=1)[rows]
    origin = np.stack([particles.floats("rlnOriginXAngst"), particles.floats("rlnOriginYAngst")], axis=1)[rows]
    np.testing.assert_array_equal(xy, np.rint(xy))
    np.testing.assert_allclose(xy - origin / 5.0, simulated.xy_px, atol=1e-6)
    np.testing.assert_allclose(particles.floats("rlnAngleTilt")[rows], simulated.euler_deg[:, 1], atol=1e-6)
    np.testing.assert_allclose(particles.floats("rlnDefocusU")[rows], simulated.ctf.defocus_u_um * 1e4, rtol=1e-9)
    groups = read_star(made / "particles.star")["optics"]
    group = particles.ints("rlnOpticsGroup")[rows][0]
    voltage = groups.floats("rlnVoltage")[groups.ints("rlnOpticsGroup") == group]
    assert voltage == [simulated.ctf.voltage_kv]


def test_settings_of_a_folder_read_back_and_proteins_take_turns(made: Path) -> None:
    settings = small_settings(proteins=2)
    assert read_settings(made) == settings
    kinds = [set(simulate_one(settings, index).species.tolist()) for index in range(2)]
    assert kinds == [{0}, {1}]
    diameters = [json.loads((made / "truth" / f"sim_000{i}.json").read_text())["diameter_px"] for i in (1, 2, 3)]
    assert diameters[0] == diameters[2] != diameters[1]


def test_recipe_survives_toml_and_unknown_fields_are_refused() -> None:
    recipe = replace(Recipe(), pixel_size_angstrom=1.77, shape_yx=(100, 200))
    assert recipe_from_toml(recipe_to_toml(recipe)) == recipe
    with pytest.raises(SettingsError, match=r"recipe.ice has no field 'thickness'; known: clutter"):
        recipe_from_toml("[ice]\nthickness = 3\n")
    with pytest.raises(SettingsError, match=r"optics.defocus_um is 3 to 1: the lowest value is above the highest"):
        recipe_from_toml("[optics]\ndefocus_um = [3, 1]\n")
    with pytest.raises(SettingsError, match=r"dqe_zero is .* to 0.95: the lowest value is above the highest"):
        recipe_from_toml("[detector]\ndqe_zero = [18446744073709551616, 0.95]\n")  # more than 64 bits


def test_ranges_as_users_type_them() -> None:
    units = {"": 1.0, "um": 1.0, "A": 1e-4}
    assert parse_range("0.8-2.5um", what="defocus", units=units) == (0.8, 2.5)
    assert parse_range("8000A", what="defocus", units=units) == pytest.approx((0.8, 0.8))
    with pytest.raises(SettingsError, match=r"lowest value is above the highest; write 0\.8-2\.5um"):
        parse_range("2.5-0.8um", what="defocus", units=units)
    with pytest.raises(SettingsError, match="unknown unit 'mm'"):
        parse_range("1mm", what="defocus", units=units)
    recipe = recipe_with("clean", defocus="1-2", dose="40", size="512x600", pixel_size_angstrom=2.0)
    assert (recipe.optics.defocus_um, recipe.detector.dose_e_per_angstrom2) == ((1.0, 2.0), (40.0, 40.0))
    assert (recipe.shape_yx, recipe.pixel_size_angstrom) == ((512, 600), 2.0)
    with pytest.raises(SettingsError, match="known: general, clean"):
        recipe_with("perfect")


def test_missing_structure_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere\.pdb: no such file"):
        SimulationSettings(structures=("nowhere.pdb",))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("simulation.json", ""),
        ("simulation.json", "[" * 100_000),
        ("simulation.json", '{"structures": ["random"], "proteins": 1, "diameter_angstrom": 5, "seed": 0}'),
        (
            "simulation.json",
            json.dumps({"structures": ["a" * 300], "proteins": 1, "diameter_angstrom": [80, 90], "seed": 0}),
        ),
        ("simulation.json", '{"structures": 3, "proteins": 1, "diameter_angstrom": [80, 90], "seed": 0}'),
        ("recipe.toml", "x = " + "[" * 100_000),
        ("recipe.toml", "shape_yx = [128]"),
        ("recipe.toml", "[optics]\ndefocus_um = [1, 1" + "0" * 400 + "]"),
        ("recipe.toml", "pixel_size_angstrom = inf"),
    ],
)
def test_damaged_settings_of_a_simulation_are_refused(tmp_path: Path, file: str, content: str) -> None:
    whole = {"structures": ["random"], "proteins": 1, "diameter_angstrom": [80, 90], "seed": 0}
    (tmp_path / "simulation.json").write_text(json.dumps(whole))
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(Recipe()))
    assert read_settings(tmp_path).diameter_angstrom == (80, 90)
    (tmp_path / file).write_text(content)
    with pytest.raises((InputError, SettingsError)):
        read_settings(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xe9", b"[]", b"{}", b"[" * 100_000])
def test_a_damaged_truth_is_refused_by_name(made: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "run" / "truth" / "sim_0002.json").write_bytes(content)
    with pytest.raises(InputError, match=r"sim_0002\.json"):
        simulate(tmp_path / "run", small_settings(proteins=2), count=3)


@pytest.mark.parametrize(("old", "new"), [("data_particles", "data_articles"), ("_rlnCoordinateX", "_rlnCoordinateW")])
def test_a_truth_table_that_does_not_fit_the_others_is_refused_by_name(
    made: Path, tmp_path: Path, old: str, new: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    truth = folder / "truth" / "sim_0002.star"
    truth.write_text(truth.read_text().replace(old, new))
    with pytest.raises(FormatError, match=r"sim_0002\.star: is damaged"):
        simulate(folder, small_settings(proteins=2), count=3)


@pytest.mark.parametrize("dose", ["0", "0-20"])
def test_a_dose_of_zero_is_refused(dose: str) -> None:
    with pytest.raises(SettingsError, match="electrons per Å², expected more than 0"):
        recipe_with("general", dose=dose)
