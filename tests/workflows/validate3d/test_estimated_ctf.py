"""`--ctf estimate` on a small simulated set: estimates count, those that are refused drop out for all runs alike."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_ctffind import called, write_ctffind

import cryopick
from cryopick.errors import CryopickError, InputError, SettingsError
from cryopick.io.star import read_star
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.workflows.validate3d.ctf_tables import read_micrograph_optics, read_microscopes

ROOT_NAMES = ["sim_0001.mrc", "sim_0002.mrc", "sim_0003.mrc", "sim_0004.mrc"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small micrographs, and the true centres, and four in five of them, as two runs."""
    folder = tmp_path_factory.mktemp("estimated")
    recipe = named_recipe("validation")
    recipe = replace(recipe, shape_yx=(384, 384), dirt=replace(recipe.dirt, carbon_probability=0.0))
    settings = SimulationSettings(structures=("random",), diameter_angstrom=(160, 160), seed=5, recipe=recipe)
    cryopick.simulate(folder / "sim", settings, count=4)
    picks = [
        replace(one, reason="", micrograph_name=name)
        for name, one in cryopick.read_picks(folder / "sim/micrographs").items()
    ]
    cryopick.write_picks(picks, folder / "one.csv")
    cryopick.write_picks([one.take(np.arange(len(one)) % 5 > 0) for one in picks], folder / "two.csv")
    return folder


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on the PATH, and no other word of CTFFIND."""
    monkeypatch.delenv("RELION_CTFFIND_EXECUTABLE", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "bin"


def true_rows(simulated: Path, **changed: Sequence[float] | str) -> Mapping[str, Sequence[float] | str]:
    """What a perfect CTFFIND finds of each micrograph, but for some."""
    optics = read_micrograph_optics(simulated / "sim/micrographs.star")
    rows: dict[str, Sequence[float] | str] = {}
    for name, one in optics.items():
        defocus = (one.defocus_u_um * 1e4, one.defocus_v_um * 1e4)
        rows[Path(name).name] = (*defocus, one.astigmatism_angle_deg, 0.0, 0.2, 6.0)
    return rows | {f"{name}.mrc": row for name, row in changed.items()}


def validate(simulated: Path, output: Path, **changed: object) -> cryopick.Validation:
    asked: dict[str, object] = {
        "runs": [simulated / "one.csv", simulated / "two.csv"],
        "names": ["one", "two"],
        "truth": simulated / "sim",
        "micrographs": [simulated / "sim/micrographs"],
        "engine": "known",
        "select2d": ["none"],
        "compare": [],
        "ctf": "estimate",
        "voltage_kv": 300,
        **changed,
    }
    return cryopick.validate3d(asked.pop("runs"), output=output, **asked)  # type: ignore[arg-type]


def test_estimates_are_made_once_and_can_be_given_again(simulated: Path, programs: Path, tmp_path: Path) -> None:
    write_ctffind(programs, true_rows(simulated))
    found = validate(simulated, tmp_path / "v")
    assert sorted(called(programs)) == ROOT_NAMES
    told = next(one for one in found.sentences if "CTF" in one)
    assert re.fullmatch(r"the CTF was estimated by CTFFIND \(.*ctffind\) on 4 of 4 micrographs", told)
    assert validate(simulated, tmp_path / "v").made == ()
    assert len(called(programs)) == 4
    given = validate(
        simulated,
        tmp_path / "again",
        ctf=tmp_path / "v/micrographs_ctf.star",
        voltage_kv=None,
        micrographs=[simulated / "sim/micrographs"],
    )
    assert [row.mean("half_angstrom") for row in given.table] == [row.mean("half_angstrom") for row in found.table]
    table = read_star(tmp_path / "v/micrographs_ctf.star")["micrographs"]
    assert table.floats("rlnCtfFigureOfMerit") == pytest.approx([0.2] * 4)
    assert table.floats("rlnCtfMaxResolution") == pytest.approx([6.0] * 4)
    truth = read_micrograph_optics(simulated / "sim/micrographs.star")
    for name, one in read_micrograph_optics(tmp_path / "v/micrographs_ctf.star").items():
        assert one.defocus_u_um == pytest.approx(truth[name].defocus_u_um, rel=1e-6)
        assert one.voltage_kv == 300


def test_what_is_refused_or_fails_is_left_out_for_all_runs_and_said(
    simulated: Path, programs: Path, tmp_path: Path
) -> None:
    rows = true_rows(simulated, sim_0002=(20000.0, 20000.0, 0.0, 0.0, 0.01, 9.0), sim_0003="Error: no memory 3")
    write_ctffind(programs, rows)
    found = validate(simulated, tmp_path / "v")
    told = next(one for one in found.sentences if "CTF" in one)
    assert "on 2 of 4 micrographs; 2 left out for all runs alike: " in told
    assert "sim_0002.mrc (correlation 0.010 below 0.03)" in told
    assert "ended with status 3 and wrote no table: Error: no memory 3" in told
    assert told in (tmp_path / "v/run.log").read_text()
    assert "2 left out for all runs alike" in (tmp_path / "v/report.html").read_text()
    assert "2 left out for all runs alike" in (tmp_path / "v/table.json").read_text()
    for run in ("one", "two"):
        named = read_star(tmp_path / f"v/{run}/Extract/particles.star")["particles"].text("rlnMicrographName")
        assert set(named) == {"micrographs/sim_0001.mrc", "micrographs/sim_0004.mrc"}
    assert sorted(one.name for one in (tmp_path / "v/micrographs").iterdir()) == ["sim_0001.mrc", "sim_0004.mrc"]
    with (tmp_path / "v/ctf_estimates.csv").open() as stream:
        listed = {row["micrograph"]: row for row in csv.DictReader(stream)}
    assert float(listed["sim_0002.mrc"]["correlation"]) == 0.01
    assert listed["sim_0003.mrc"]["correlation"] == ""
    # The one that failed is tried again, and nothing else
    write_ctffind(programs, true_rows(simulated, sim_0002=rows["sim_0002.mrc"]))
    again = validate(simulated, tmp_path / "v")
    assert called(programs)[4:] == ["sim_0003.mrc"]
    assert "on 3 of 4 micrographs" in next(one for one in again.sentences if "CTF" in one)
    with pytest.raises(InputError, match=r"1 of 4 micrographs are not in it: sim_0002\.mrc.*--micrographs"):
        validate(simulated, tmp_path / "w", ctf=tmp_path / "v/micrographs_ctf.star", voltage_kv=None)
    kept = validate(
        simulated,
        tmp_path / "w",
        ctf=tmp_path / "v/micrographs_ctf.star",
        voltage_kv=None,
        micrographs=[tmp_path / "v/micrographs"],
    )
    assert [row.particles for row in kept.table] == [row.particles for row in again.table]


def test_a_job_of_a_part_reads_the_estimates_that_were_made(simulated: Path, programs: Path, tmp_path: Path) -> None:
    write_ctffind(programs, true_rows(simulated, sim_0002="Error: no memory 3"))
    whole = validate(simulated, tmp_path / "v")
    assert validate(simulated, tmp_path / "v", part="one/none/seed1").made == ()
    assert len(called(programs)) == 4
    assert whole.table[0].success == "1/1"
    (tmp_path / "v/ctf_estimates.csv").write_text("micrograph\nsim_0001.mrc\n")
    with pytest.raises(CryopickError, match="damaged or of other micrographs"):
        validate(simulated, tmp_path / "v", part="one/none/seed1")


def test_the_optics_of_a_star_file_are_used_and_options_win(simulated: Path, programs: Path, tmp_path: Path) -> None:
    write_ctffind(programs, true_rows(simulated))
    star = simulated / "sim/micrographs.star"
    assert {one.voltage_kv for one in read_microscopes(star).values()} == {300}
    validate(simulated, tmp_path / "v", voltage_kv=None, amplitude_contrast=0.07, micrographs=[star])
    optics = read_star(tmp_path / "v/micrographs_ctf.star")["optics"]
    assert optics.floats("rlnVoltage").tolist() == [300]
    assert optics.floats("rlnAmplitudeContrast") == pytest.approx([0.07])


def refused(simulated: Path, tmp_path: Path, **changed: object) -> str:
    with pytest.raises(CryopickError) as caught:
        validate(simulated, tmp_path / "v", **changed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_obstacle_is_one_sentence(simulated: Path, programs: Path, tmp_path: Path) -> None:
    write_ctffind(programs, {"*": (20000.0, 20000.0, 0.0, 0.0, 0.01, 9.0)})
    told = refused(simulated, tmp_path, voltage_kv=None)
    assert "--voltage 300" in told
    assert "voltage_kv is -1" in refused(simulated, tmp_path, voltage_kv=-1)
    assert "for --ctf estimate" in refused(simulated, tmp_path, ctf=None)
    assert not called(programs)
    told = refused(simulated, tmp_path)
    assert "none of 4 micrographs could be estimated" in told
    assert "correlation 0.010 below 0.03" in told
    # Nothing but estimates lies there, so that the folder is still ours
    write_ctffind(programs, {"*": "Error: licence ran out 1"})
    assert "estimated by CTFFIND" in refused(simulated, tmp_path)


def test_a_run_that_is_called_as_the_estimates_are_is_refused(simulated: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be called Ctf"):
        validate(simulated, tmp_path / "v", names=["Ctf", "two"])
