"""A whole validation of a small simulated set: what the table says is so, and a killed one goes on to the same."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cryopick
from cryopick.errors import CryopickError, InputError, RunFolderError
from cryopick.evaluation.relion_programs import ProgramFailedError
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Volume
from cryopick.workflows.validate3d.engines import KnownEngine
from cryopick.workflows.validate3d.picks import DUPLICATE_DIAMETERS
from cryopick.workflows.validate3d.relion import RelionEngine

KNOWN = {"engine": "known", "select2d": ["none"]}
DIAMETER_ANGSTROM = 220.0


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small micrographs of the recipe `validation`, and picks of five kinds beside them."""
    folder = tmp_path_factory.mktemp("validation")
    rng = np.random.default_rng(4)
    volume = random_protein(
        rng, family="ribonucleoprotein", diameter_angstrom=DIAMETER_ANGSTROM, voxel_size_angstrom=5.0
    )
    write_volume(folder / "protein.mrc", volume)
    recipe = named_recipe("validation")
    recipe = replace(recipe, shape_yx=(448, 448), dirt=replace(recipe.dirt, carbon_probability=0.0))
    settings = SimulationSettings(structures=(str(folder / "protein.mrc"),), seed=5, recipe=recipe)
    cryopick.simulate(folder / "sim", settings, count=8)
    write_kinds_of_picks(folder, rng)
    return folder


def write_kinds_of_picks(folder: Path, rng: np.random.Generator) -> None:
    """good: true centres off by half a pixel; half: half of them replaced by random places; quarter: one in four of
    them; doubled: those, each given twice."""
    truth = cryopick.read_picks(folder / "sim/micrographs")
    kinds: dict[str, list[cryopick.Picks]] = {name: [] for name in ("good", "half", "quarter", "doubled")}
    for name, one in truth.items():
        xy, n = one.xy_px, len(one.xy_px)
        anywhere = rng.uniform(20, 428, (n, 2))
        take = rng.permutation(n)
        quarter = xy[take[: n // 4]]
        kinds["good"].append(replace(one, xy_px=xy + rng.normal(0, 0.5, xy.shape), reason="", micrograph_name=name))
        half = np.concatenate([xy[take[: n // 2]], anywhere[n // 2 :]])
        kinds["half"].append(cryopick.Picks(xy_px=half, micrograph_name=name))
        kinds["quarter"].append(cryopick.Picks(xy_px=quarter, micrograph_name=name))
        twice = np.concatenate([quarter, quarter + rng.normal(0, 2, quarter.shape)])
        kinds["doubled"].append(cryopick.Picks(xy_px=twice, micrograph_name=name))
    for kind, picks in kinds.items():
        cryopick.write_picks(picks, folder / f"{kind}.csv")


@pytest.fixture(scope="module")
def validated(simulated: Path) -> cryopick.Validation:
    return cryopick.validate3d(
        [simulated / f"{kind}.csv" for kind in ("good", "half", "quarter", "doubled")],
        output=simulated / "v3d",
        truth=simulated / "sim",
        micrographs=[simulated / "sim/micrographs"],
        names=["good", "half", "quarter", "doubled"],
        compare=["truth", "random"],
        **KNOWN,
    )


def row_of(validation: cryopick.Validation, run: str):
    return next(row for row in validation.table if row.run == run)


def test_the_yield_tells_good_picks_from_half_random_and_from_random_ones(validated: cryopick.Validation) -> None:
    share = {row.run: row.mean("yield_share") for row in validated.table}
    assert share["truth"] == pytest.approx(1)
    assert share["good"] > 0.85
    assert 0.1 < share["half"] < 0.45
    assert share["random"] < 0.05
    assert row_of(validated, "random").success == "0/1"
    assert row_of(validated, "good").success == "1/1"


def test_yields_are_about_precision_times_recall(validated: cryopick.Validation) -> None:
    for run in ("good", "half", "quarter"):
        row = row_of(validated, run)
        # The picks are of all particles, those too that do not count but are real and help the map
        assert row.mean("yield_share") == pytest.approx(row.expected_yield, abs=0.25)


def test_picking_every_particle_twice_gains_nothing(validated: cryopick.Validation) -> None:
    single, doubled = row_of(validated, "quarter"), row_of(validated, "doubled")
    # Of two picks with no score the first stays, and one that is moved by more than the limit is another pick
    assert doubled.duplicates > 0.95 * single.given * (1 - DUPLICATE_DIAMETERS)
    assert doubled.particles == pytest.approx(single.particles, rel=0.05)
    assert doubled.mean("half_angstrom") == pytest.approx(single.mean("half_angstrom"), rel=0.1)
    assert any("twice" in sentence for sentence in validated.sentences)


def test_the_files_say_what_the_values_say(validated: cryopick.Validation) -> None:
    folder = validated.folder
    content = json.loads((folder / "table.json").read_text())
    assert [row["run"] for row in content["rows"]] == [row.run for row in validated.table]
    with (folder / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    good = next(row for row in rows if row["run"] == "good")
    assert float(good["truth_angstrom"]) == pytest.approx(row_of(validated, "good").mean("truth_angstrom"), rel=1e-4)
    page = (folder / "report.html").read_text()
    for text in ("good", "half .143", "truth .5", "Directions of view", "Central slices", "expected yield"):
        assert text in page
    assert "<script" not in page
    assert validated.maps["good"].density.shape == (validated.geometry.scaled_px,) * 3
    assert len(validated.poses["good"]) == row_of(validated, "good").selected
    assert validated.fsc["good"]["truth"][1:4].min() > 0.95


def test_particle_tables_are_relion_s_and_halves_are_whole_micrographs(validated: cryopick.Validation) -> None:
    from cryopick.io.star import read_star

    halves: dict[str, set[int]] = {}
    for run in ("good", "half"):
        tables = read_star(validated.folder / run / "Extract/particles.star")
        table = tables["particles"]
        assert "rlnImagePixelSize" in tables["optics"]
        for name, half in zip(table.text("rlnMicrographName"), table.ints("rlnRandomSubset").tolist(), strict=True):
            halves.setdefault(name, set()).add(half)
            assert (validated.folder / name).is_file()
        number, stack = table.text("rlnImageName")[0].split("@")
        assert (int(number), stack) == (1, f"{run}/Extract/particles.mrcs")
        assert (validated.folder / stack).is_file()
    assert len(halves) == 8
    assert all(len(found) == 1 for found in halves.values())


def test_the_same_call_makes_nothing_again_and_other_pixels_all_of_it(
    simulated: Path, validated: cryopick.Validation
) -> None:
    def again(**changed: object) -> cryopick.Validation:
        return cryopick.validate3d(
            [simulated / f"{kind}.csv" for kind in ("good", "half", "quarter", "doubled")],
            output=simulated / "v3d",
            truth=simulated / "sim",
            micrographs=[simulated / "sim/micrographs"],
            names=["good", "half", "quarter", "doubled"],
            compare=["truth", "random"],
            **KNOWN,
            **changed,
        )

    same = again()
    assert same.made == ()
    assert same.table == validated.table
    damaged = validated.folder / "half/none/seed1/Post/fsc.csv"
    damaged.write_text(damaged.read_text()[:-5])
    assert again().made == ("half/none/seed1/Post",)


def test_2d_selection_makes_half_random_picks_purer(simulated: Path) -> None:
    found = cryopick.validate3d(
        [simulated / "half.csv"],
        output=simulated / "selected",
        truth=simulated / "sim",
        micrographs=[simulated / "sim/micrographs"],
        names=["half"],
        engine="known",
    )
    plain, selected = (row for row in found.table if row.run == "half")
    assert (plain.selection, selected.selection) == ("none", "auto")
    assert selected.precision > plain.precision + 0.1
    assert selected.recall <= plain.recall
    assert selected.mean("yield_share") > plain.mean("yield_share")
    page = (found.folder / "report.html").read_text()
    assert "2D classes: " in page
    assert "weak average" in page
    by_hand = simulated / "by_hand.txt"
    by_hand.write_text("half: 99\n")
    with pytest.raises(CryopickError, match="half has no class 99"):
        cryopick.validate3d(
            [simulated / "half.csv"],
            output=simulated / "selected",
            truth=simulated / "sim",
            micrographs=[simulated / "sim/micrographs"],
            names=["half"],
            engine="known",
            compare=[],
            select2d=[str(by_hand)],
        )


def test_cryopick_s_own_engine_refines_beyond_a_blurred_reference(simulated: Path) -> None:
    """On a hundred particles a half set; with a reference in another scale than the images' it ends at 42 Å."""
    found = cryopick.validate3d(
        [simulated / "good.csv"],
        output=simulated / "embedded",
        truth=simulated / "sim",
        micrographs=[simulated / "sim/micrographs"],
        names=["good"],
        engine="embedded",
        select2d=["none"],
        compare=[],
        seeds=1,
        reference=simulated / "protein.mrc",
    )
    (row,) = found.table
    assert row.success == "1/1"
    assert row.mean("truth_angstrom") < 39
    assert found.sentences[0].startswith("reference-biased")
    assert not (found.folder / "good/none/seed1/Initial").exists()


def test_local_resolution_is_shown_where_the_engine_finds_it_and_costs_no_row_where_it_fails(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Volume:
        raise ProgramFailedError("locres: was stopped", "time")

    def finds(_: object, root: Path, folder: Path, halves: tuple[Path, Path], mask: Path, geometry: object) -> Volume:
        inside = read_volume(mask)
        assert {read_volume(one).density.shape for one in halves} == {inside.density.shape}
        return Volume(np.where(inside.density > 0.5, 31.25, 0.0).astype(np.float32), inside.voxel_size_angstrom)

    asked = {
        "output": tmp_path / "v",
        "truth": simulated / "sim",
        "micrographs": [simulated / "sim/micrographs"],
        "names": ["good"],
        "compare": [],
        **KNOWN,
    }
    monkeypatch.setattr(KnownEngine, "has_local_resolution", True)
    monkeypatch.setattr(KnownEngine, "local_resolution", fails)
    found = cryopick.validate3d([simulated / "good.csv"], **asked)
    assert found.program_failures == ("locres: was stopped",)
    assert row_of(found, "good").success == "1/1"
    assert "Local resolution" not in (tmp_path / "v/report.html").read_text()
    monkeypatch.setattr(KnownEngine, "local_resolution", finds)
    found = cryopick.validate3d([simulated / "good.csv"], **asked)
    assert (found.made, found.program_failures) == (("good/none/seed1/LocalResolution",), ())
    assert "the middle is 31.2 Å" in (tmp_path / "v/report.html").read_text()


# --------------------------------------------------------------------------------------------------- killed and resumed

COMMAND = """
import json, sys, cryopick, os, signal
from pathlib import Path
from cryopick.workflows.validate3d import stages
at, when, folder, how = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
stage = stages.StageFolder.stage
def killing(self, name, inputs, make, **options):
    def killed(target):
        if name == at and when == "before": os.kill(os.getpid(), signal.SIGKILL)
        facts = make(target)
        if name == at and when == "after": os.kill(os.getpid(), signal.SIGKILL)
        return facts
    return stage(self, name, inputs, killed, **options)
stages.StageFolder.stage = killing
found = cryopick.validate3d([folder / "good.csv"], output=folder / "killed", names=["good"], compare=[],
    micrographs=[folder / "sim/micrographs"], **how)
print(list(found.made))
"""


def killed_in_turn(folder: Path, stages: list[tuple[str, str]], **how: object) -> list[dict[str, str]]:
    """The rows of `killed/table.csv` after a kill in each stage, before or after its files are made, and a last call,
    which finds all of them but the last made."""

    def run(at: str, when: str = "") -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", COMMAND, at, when, str(folder), json.dumps(how)]
        return subprocess.run(words, check=False, capture_output=True, text=True)

    for name, when in stages:
        stopped = run(name, when)
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        assert not (folder / "killed" / name).exists()
    ended = run("none")
    assert ended.stdout.strip() == str([stages[-1][0]]), ended.stderr
    with (folder / "killed/table.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_killed_in_any_stage_the_same_call_comes_to_the_same_table(
    simulated: Path, validated: cryopick.Validation, tmp_path: Path
) -> None:
    for name in ("good.csv", "sim"):
        (tmp_path / name).symlink_to(simulated / name)
    names = ["good/Extract", "good/none/seed1/Refine", "good/none/seed1/Post"]
    stages = [*((name, "after") for name in names), (names[-1], "before")]
    (row,) = killed_in_turn(tmp_path, stages, truth=str(tmp_path / "sim"), **KNOWN)
    expected = row_of(validated, "good")
    assert float(row["truth_angstrom"]) == pytest.approx(expected.mean("truth_angstrom"), rel=1e-4)
    assert float(row["half_angstrom"]) == pytest.approx(expected.mean("half_angstrom"), rel=1e-4)


def test_killed_in_any_stage_of_the_embedded_engine_the_same_call_comes_to_the_same_table(
    simulated: Path, tmp_path: Path
) -> None:
    """Two starts that are compared, since the truth is not known; of few and coarse particles, to be quick."""
    for name in ("good.csv", "sim"):
        (tmp_path / name).symlink_to(simulated / name)
    how = {
        "engine": "embedded",
        "ctf": str(tmp_path / "sim/micrographs.star"),
        "diameter": "220A",
        "select2d": ["auto"],
        "seeds": 2,
        "max_particles": 48,
        "angpix": 19.5,
    }
    starts = [f"good/auto/seed{seed}/{step}" for seed in (1, 2) for step in ("Initial", "Refine", "Post")]
    names = ["good/Extract", "good/Class2D", *starts, "good/auto/Agreement"]
    stages = [(name, "after") for name in names if "seed2" not in name]
    rows = killed_in_turn(tmp_path, stages, **how)
    whole = cryopick.validate3d(
        [tmp_path / "good.csv"],
        output=tmp_path / "whole",
        micrographs=[tmp_path / "sim/micrographs"],
        names=["good"],
        compare=[],
        **how,
    )
    assert set(whole.made) == set(names)
    with (tmp_path / "whole/table.csv").open() as stream:
        expected = list(csv.DictReader(stream))
    assert [float(row["half_angstrom"]) > 0 for row in rows] == [True, True]
    for row in (*rows, *expected):
        del row["cpu_seconds"]
    assert rows == expected


def test_two_at_once_are_refused(simulated: Path, tmp_path: Path) -> None:
    from cryopick.io.files.folder_lock import locked_folder

    with locked_folder(tmp_path), pytest.raises(RunFolderError, match="another cryopick is writing"):
        cryopick.validate3d(
            [simulated / "good.csv"],
            output=tmp_path,
            truth=simulated / "sim",
            micrographs=[simulated / "sim/micrographs"],
            **KNOWN,
        )


# ----------------------------------------------------------------------------------------------- what is told in a line


def refused(simulated: Path, tmp_path: Path, runs: list[str] | None = None, **changed: object) -> str:
    asked: dict[str, object] = {
        "truth": simulated / "sim",
        "micrographs": [simulated / "sim/micrographs"],
        **KNOWN,
        **changed,
    }
    paths = [simulated / one for one in runs or ["good.csv"]]
    with pytest.raises(CryopickError) as told:
        cryopick.validate3d(paths, output=tmp_path / "v", **asked)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)
    return str(told.value)


def test_each_impossible_wish_is_refused_in_one_sentence(simulated: Path, tmp_path: Path) -> None:
    assert "an even number" in refused(simulated, tmp_path, box="67px")
    told = refused(simulated, tmp_path, truth=None, engine="known")
    assert "--truth SIM" in told
    assert "unknown; known: " in refused(simulated, tmp_path, engine="cryosaprc")
    assert "--compare tuth is unknown" in refused(simulated, tmp_path, compare=["tuth"])
    assert "symmetry" in refused(simulated, tmp_path, symmetry="D0")
    assert "cannot be called truth" in refused(simulated, tmp_path, names=["truth"])
    assert "--micrographs" in refused(simulated, tmp_path, micrographs=[])


def test_a_box_in_which_relion_makes_no_first_map_is_refused_before_anything_is_cut_out(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RelionEngine, "check", lambda *_, **__: None)  # as where RELION is
    told = refused(simulated, tmp_path, engine="relion", diameter="220A", box="320A", angpix=16.0)
    assert "the box has 20 pixels of 16" in told
    assert "expected 22 or more for a first map by --engine relion; give finer pixels (--angpix)" in told
    assert not (tmp_path / "v").exists()


def test_without_ctf_the_sentence_names_the_three_ways(simulated: Path, tmp_path: Path) -> None:
    from cryopick.workflows.validate3d.optics import no_ctf_text

    told = no_ctf_text(["a.mrc"])
    for way in ("--ctf FILE", "--truth SIM", "--ctf none"):
        assert way in told


def test_runs_of_other_micrographs_are_refused_with_the_difference(simulated: Path, tmp_path: Path) -> None:
    images = sorted((simulated / "sim/micrographs").glob("*.mrc"))
    for name, some in (("run1", images[:2]), ("run2", images[1:3])):
        cryopick.pick(some, output=tmp_path / name, picker="blob", diameter="220A")
    with pytest.raises(InputError, match=r"run2 lacks 1 of 2: sim_0001\.mrc; run2 has 1 more: sim_0003\.mrc"):
        cryopick.validate3d(
            [tmp_path / "run1", tmp_path / "run2"], output=tmp_path / "v", truth=simulated / "sim", **KNOWN
        )


def test_too_few_particles_are_a_failed_row_and_no_error(simulated: Path, tmp_path: Path) -> None:
    picks = cryopick.read_picks(simulated / "good.csv")
    few = [one.take(np.arange(2)) for one in picks.values()]
    cryopick.write_picks(few, tmp_path / "few.csv")
    found = cryopick.validate3d(
        [tmp_path / "few.csv"],
        output=tmp_path / "v",
        truth=simulated / "sim",
        micrographs=[simulated / "sim/micrographs"],
        names=["few"],
        compare=[],
        **KNOWN,
    )
    (row,) = found.table
    assert row.success == "0/1"
    assert "too few particles" in row.seeds[0].failure
    assert any("failed" in sentence for sentence in found.sentences)


def test_without_correction_every_number_is_flagged(simulated: Path, tmp_path: Path) -> None:
    found = cryopick.validate3d(
        [simulated / "good.csv"],
        output=tmp_path / "v",
        truth=simulated / "sim",
        ctf="none",
        micrographs=[simulated / "sim/micrographs"],
        compare=[],
        **KNOWN,
    )
    assert found.sentences[0].startswith("not CTF-corrected")
    assert "not CTF-corrected" in (tmp_path / "v/report.html").read_text()
    assert "rlnDefocusU" not in (tmp_path / "v/good.csv/Extract/particles.star").read_text()
