"""Command lines: each option is one that the program has, and means what its caller said."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_relion import install

from cryopick.errors import SettingsError
from cryopick.evaluation.relion_programs import (
    Computing,
    Relion,
    auto_refine,
    class_2d,
    continued,
    extract,
    find_relion,
    initial_model,
    local_resolution,
    mask_create,
    postprocess,
    reconstruct,
    resampled_map,
)

ALL = ("relion_refine", "relion_refine_mpi", "relion_preprocess", "relion_mask_create", "relion_postprocess")
PROGRAMS = (*ALL, "relion_reconstruct", "relion_image_handler")
CUT: dict[str, Any] = {
    "micrographs": "micrographs_ctf.star",
    "picks_folder": "picks/blob",
    "suffix": "_picks.star",
    "folder": "blob/Extract",
    "box_px": 84,
    "scaled_px": 48,
    "background_radius_px": 18,
}
HIDDEN = {"--continue", "--pipeline_control"}
"""Options that RELION knows and its --help leaves out."""


def installed(folder: Path, version: str) -> Relion:
    install(folder, *PROGRAMS, version=version)
    found = find_relion(PROGRAMS, search_path=str(folder))
    assert found is not None
    return found


def all_commands(relion: Relion) -> list[list[str]]:
    halves: dict[str, Any] = {"half1": "a.mrc", "half2": "b.mrc", "mask": "m.mrc", "pixel_size_angstrom": 8.75}
    run: dict[str, Any] = {"particles": "p.star", "diameter_angstrom": 275, "seed": 2}
    most = Computing(threads=2, scratch="/scratch", is_network_disk=True, gpus="0:1")
    sgd: dict[str, Any] = {"symmetry": "D2", "resolutions_angstrom": (80.0, 33.0)}
    refine: dict[str, Any] = {"reference": "r.mrc", "low_pass_angstrom": 55, "symmetry": "C1", "most_iterations": 3}
    return [
        extract(relion, **CUT, coordinate_list="picks/blob/coordinates.star"),
        class_2d(relion, folder="c", classes=8, iterations=6, computing=Computing(), **run),
        initial_model(relion, folder="i", computing=most, **run, **sgd),
        auto_refine(relion, folder="r", computing=Computing(), **run, **refine),
        continued(relion, optimiser="c/run_it004_optimiser.star", folder="c", computing=most, iterations=6),
        continued(relion, optimiser="r/run_it004_optimiser.star", folder="r", computing=Computing(), is_mpi=True),
        reconstruct(relion, particles="p.star", output="m.mrc", half=1, pixel_size_angstrom=8.75),
        mask_create(
            relion, volume="m.mrc", output="k.mrc", threshold=0.01, low_pass_angstrom=27, pixel_size_angstrom=9
        ),
        postprocess(relion, folder="Post", **halves),
        local_resolution(relion, folder="Post", diameter_angstrom=275, finest_angstrom=17.5, **halves),
        resampled_map(relion, volume="m.mrc", output="n.mrc", box_px=84),
        resampled_map(relion, volume="m.mrc", output="n.mrc", pixel_size_angstrom=8.75),
    ]


def pairs(words: list[str]) -> dict[str, str]:
    """Option -> what follows it."""
    return {word: [*words, ""][place + 1] for place, word in enumerate(words) if word.startswith("--")}


@pytest.mark.parametrize("version", ["3.1", "4", "5"])
def test_no_option_is_said_twice_and_every_word_is_one(tmp_path: Path, version: str) -> None:
    for words in all_commands(installed(tmp_path, version)):
        options = [word for word in words if word.startswith("--")]
        assert len(options) == len(set(options))
        assert all(word and " " not in word for word in words)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="needs RELION's programs")
def test_every_option_is_one_that_the_installed_program_has() -> None:
    relion = find_relion(PROGRAMS)
    assert relion is not None
    for words in all_commands(relion):
        program = words[0].removesuffix("_mpi")
        told = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=60)
        known = set(re.findall(r"--\w+", told.stdout + told.stderr)) | HIDDEN
        assert {word for word in words if word.startswith("--")} <= known, program


def test_the_commands_of_a_specification_come_out_as_they_stand_there(tmp_path: Path) -> None:
    relion = installed(tmp_path, "3.1")
    words = extract(relion, **CUT)
    assert pairs(words) == {
        "--i": "micrographs_ctf.star",
        "--coord_dir": "picks/blob/",
        "--coord_suffix": "_picks.star",
        "--extract": "--extract_size",
        "--extract_size": "84",
        "--norm": "--bg_radius",
        "--bg_radius": "18",
        "--scale": "48",
        "--invert_contrast": "--part_dir",
        "--part_dir": "blob/Extract/",
        "--part_star": "blob/Extract/particles.star",
    }
    refined = auto_refine(
        relion, particles="p.star", folder="Refine", reference="ini.mrc", diameter_angstrom=300.0,
        low_pass_angstrom=60.0, symmetry="D2", seed=3, computing=Computing(),
    )  # fmt: skip
    said = pairs(refined)
    assert said["--particle_diameter"] == "345"
    assert said["--ini_high"] == "60"
    assert said["--sym"] == "D2"
    assert said["--random_seed"] == "3"
    assert said["--pipeline_control"] == "Refine/"
    assert "--split_random_halves" in said
    assert "--firstiter_cc" in said
    assert not {"--auto_ignore_angles", "--auto_resol_angles"} & set(said)  # which end too early with few particles


def test_versions_4_and_5_take_a_list_of_coordinates_and_have_other_words_for_gradients(tmp_path: Path) -> None:
    for version in ("4", "5"):
        relion = installed(tmp_path / version, version)
        cut = pairs(extract(relion, **CUT, coordinate_list="picks/blob/coordinates.star"))
        assert cut["--coord_list"] == "picks/blob/coordinates.star"
        assert "--coord_dir" not in cut
        said = pairs(all_commands(relion)[2])
        assert not [option for option in said if option.startswith("--sgd")]
        assert (said["--iter"], said["--grad_ini_frac"], said["--grad_fin_subset"]) == ("300", "0.166667", "300")
    said = pairs(all_commands(installed(tmp_path / "3", "3.1"))[2])
    assert (said["--sgd_ini_iter"], said["--sgd_inbetween_iter"], said["--sgd_fin_resol"]) == ("50", "200", "33")
    assert not [option for option in said if option.startswith("--grad")]


def test_continuing_says_nothing_but_how_to_compute(tmp_path: Path) -> None:
    words = continued(
        installed(tmp_path, "3.1"), optimiser="c/run_it004_optimiser.star", folder="c", computing=Computing(threads=4)
    )
    assert set(pairs(words)) == {
        *("--continue", "--o", "--j", "--pool", "--preread_images", "--dont_combine_weights_via_disc"),
        "--pipeline_control",
    }


def test_a_scratch_disk_takes_the_place_of_reading_all_first() -> None:
    assert "--preread_images" in Computing().words()
    words = Computing(scratch="/scratch").words()
    assert words[words.index("--scratch_dir") + 1] == "/scratch"
    assert "--preread_images" not in words


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"box_px": 85}, "box is 85 px"),
        ({"scaled_px": 47}, "scaled box is 47 px"),
        ({"background_radius_px": 25}, "24 px"),
    ],
)
def test_odd_boxes_and_backgrounds_outside_them_are_refused(tmp_path: Path, wrong: dict[str, int], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        extract(installed(tmp_path, "3.1"), **{**CUT, **wrong})


def test_a_map_is_given_a_box_or_a_pixel_size_by_one_command_since_relion_rounds(tmp_path: Path) -> None:
    relion = installed(tmp_path, "3.1")
    with pytest.raises(SettingsError, match="either"):
        resampled_map(relion, volume="a.mrc", output="b.mrc", box_px=84, pixel_size_angstrom=8.75)
