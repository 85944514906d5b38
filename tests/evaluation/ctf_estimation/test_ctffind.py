"""CTFFIND is asked as its versions ask, on an image that it reads, and its table is believed as far as it goes.

The program is a played one (`fake_ctffind`), which answers where the real one would and refuses what that would.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_ctffind import write_ctffind

from cryopick.errors import CryopickError, FormatError, InputError, SettingsError
from cryopick.evaluation.ctf_estimation import CtfFit, Microscope, ctf_estimator, refusal, search_for
from cryopick.evaluation.ctf_estimation.ctffind import Ctffind, find_ctffind, read_table
from cryopick.io.images.mrc import write_mrc
from cryopick.io.images.tiff import write_tiff

KRIOS = Microscope(voltage_kv=300)
GOOD = (20100.5, 19000.25, -33.5, 0.0, 0.21, 4.2)


@pytest.mark.parametrize("version", [4, 5])
def test_one_list_of_answers_serves_all_versions(tmp_path: Path, version: int) -> None:
    image = tmp_path / "with a blank" / "m1.mrc"
    image.parent.mkdir()
    write_mrc(image, np.zeros((32, 48), np.float32), pixel_size_angstrom=1.5)
    program = Ctffind(write_ctffind(tmp_path / "bin", {"m1.mrc": GOOD}, version=version))
    work = tmp_path / "work"
    work.mkdir()
    fit = program.estimate(
        image, work, microscope=Microscope(voltage_kv=200, spherical_aberration_mm=1.4), search=search_for(1.5)
    )
    assert (fit.defocus_u_um, fit.defocus_v_um) == pytest.approx((2.01005, 1.900025))
    assert (fit.astigmatism_angle_deg, fit.correlation, fit.resolution_angstrom) == (-33.5, 0.21, 4.2)
    asked = json.loads((work / "asked.json").read_text())
    assert asked[2:12] == ["1.5", "200", "1.4", "0.1", "512", "30", "5", "3000", "50000", "500"]
    assert not (work / "micrograph.mrc").exists()  # only for the program's time
    assert image.is_file()


@pytest.mark.parametrize("kind", ["tif", "mrc.gz", "float16"])
def test_what_ctffind_may_not_read_is_given_as_a_plain_image(tmp_path: Path, kind: str) -> None:
    pixels = np.arange(32 * 48, dtype=np.int16).reshape(32, 48)
    image = tmp_path / f"m1.{'mrc' if kind == 'float16' else kind}"
    if kind == "tif":
        write_tiff(image, pixels)
    else:
        write_mrc(image, pixels.astype(np.float16) if kind == "float16" else pixels, pixel_size_angstrom=1.5)
    program = Ctffind(write_ctffind(tmp_path / "bin", {"*": GOOD}))
    work = tmp_path / "work"
    work.mkdir()
    assert program.estimate(image, work, microscope=KRIOS, search=search_for(1.5)).correlation == 0.21


def test_a_phase_shift_is_read_in_radians_and_no_rings_as_infinite(tmp_path: Path) -> None:
    table = tmp_path / "t.txt"
    table.write_text("# words\n1.0 15000.0 15000.0 10.0 1.570796 0.1 inf\n")
    fit = read_table(table)
    assert fit.phase_shift_deg == pytest.approx(90, abs=1e-3)
    assert refusal(fit, search_for(1.0), least_correlation=0.03) == "no rings fitted"
    for text in ("", "# only words\n", "1.0 2.0\n", "1 2 3 4 5 6 7\n1 2 3 4 5 6 7\n", "1 a b c d e f\n"):
        table.write_text(text)
        with pytest.raises(FormatError, match="expected one row of seven numbers"):
            read_table(table)


@pytest.mark.parametrize(
    ("said", "told"),
    [("Error: input file is corrupt 1", "ended with status 1.*input file is corrupt"), ("Bye", "status 0.*: Bye")],
)
def test_a_program_that_fails_is_told_in_its_own_words(tmp_path: Path, said: str, told: str) -> None:
    image = tmp_path / "m1.mrc"
    write_mrc(image, np.zeros((32, 32), np.float32), pixel_size_angstrom=1.5)
    program = Ctffind(write_ctffind(tmp_path / "bin", {"*": said}))
    with pytest.raises(CryopickError, match=told) as caught:
        program.estimate(image, tmp_path, microscope=KRIOS, search=search_for(1.5))
    assert "\n" not in str(caught.value)
    with pytest.raises(CryopickError, match="cannot be started"):
        Ctffind(str(tmp_path / "nothing")).estimate(image, tmp_path, microscope=KRIOS, search=search_for(1.5))


def test_relion_s_variable_wins_over_the_path(tmp_path: Path) -> None:
    on_path = write_ctffind(tmp_path / "bin", {}, name="ctffind5")
    named = write_ctffind(tmp_path / "other", {}, name="mine")
    where = {"search_path": str(tmp_path / "bin")}
    assert find_ctffind(**where, environment={}) == Ctffind(on_path)
    assert find_ctffind(**where, environment={"RELION_CTFFIND_EXECUTABLE": named}) == Ctffind(named)
    assert find_ctffind(search_path=str(tmp_path), environment={}) is None
    with pytest.raises(SettingsError, match="no program; correct it, or unset it"):
        find_ctffind(**where, environment={"RELION_CTFFIND_EXECUTABLE": str(tmp_path / "gone")})


def test_without_any_estimator_the_sentence_names_the_three_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("RELION_CTFFIND_EXECUTABLE", raising=False)
    monkeypatch.setattr("cryopick.evaluation.ctf_estimation.choice.is_installed", lambda module: False)
    with pytest.raises(InputError) as caught:
        ctf_estimator()
    for way in ("CTFFIND 4 or 5 on the PATH", "torch-ctf-estimation", "--ctf micrographs_ctf.star"):
        assert way in str(caught.value)
    assert "\n" not in str(caught.value)


def fit(**changed: float) -> CtfFit:
    return CtfFit(
        **{"defocus_u_um": 2.0, "defocus_v_um": 1.9, "astigmatism_angle_deg": 0.0, "correlation": 0.2} | changed
    )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (fit(), ""),
        (fit(correlation=0.03), ""),
        (fit(correlation=0.029), "correlation 0.029 below 0.03"),
        (fit(correlation=-0.3), "correlation -0.300 below 0.03"),
        (fit(correlation=float("nan")), "no fit"),
        (fit(defocus_v_um=0.31), "at the bound of the search, 0.3 µm"),
        (fit(defocus_v_um=0.2), "at the bound of the search, 0.3 µm"),
        (fit(defocus_u_um=4.98), "at the bound of the search, 5 µm"),
        (fit(defocus_u_um=7.0), "at the bound of the search, 5 µm"),
        (fit(resolution_angstrom=30.0), "no rings fitted"),
        (fit(resolution_angstrom=8.0), ""),
    ],
)
def test_a_fit_is_believed_where_it_correlates_and_lies_inside_the_search(found: CtfFit, told: str) -> None:
    why = refusal(found, search_for(1.5), least_correlation=0.03)
    assert why.endswith(told)
    assert bool(why) == bool(told)


def test_the_search_ends_before_nyquist_and_too_coarse_pixels_are_refused() -> None:
    assert search_for(1.0).finest_angstrom == 5.0
    assert 2 * 5.0 < search_for(5.0).finest_angstrom < 11
    with pytest.raises(SettingsError, match="too coarse to estimate a CTF"):
        search_for(9.5)
    with pytest.raises(SettingsError, match="voltage"):
        Microscope(voltage_kv=-300)
