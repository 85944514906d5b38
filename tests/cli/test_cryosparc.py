"""Picks in a cryoSPARC project: which calls are made, in which order, what is in the arrays. No server was there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from called import cryopick
from discs import DIAMETER_PX, disc_micrograph
from fake_cryosparc import FakeCryosparc, FakeTable, exposures_table

from cryopick.io.images.micrographs import write_micrograph
from cryopick.workflows import cryosparc_job

SHAPE_YX = (120, 160)
NUMBERS = ("008578565574161745010", "017285565574161745011", "000078565574161745012")
WORDS = ("--project", "P3", "--workspace", "W1", "--exposures", "J42.exposures")
TAIL = "_patch_aligned_doseweighted.mrc"


@pytest.fixture(scope="module")
def picked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three micrographs of three particles each; called m0 to m2."""
    folder = tmp_path_factory.mktemp("run of cryosparc")
    for seed in range(3):
        write_micrograph(folder / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    blob = ("--picker", "blob", "-d", f"{DIAMETER_PX}px", "-j", "1")
    assert cryopick("pick", "in", "-o", "run1", *blob, cwd=folder).returncode == 0
    return folder


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeCryosparc:
    """Exposures as cryoSPARC names imported ones, in another order than those of the run."""
    names = [f"J7/motioncorrected/{NUMBERS[number]}_m{number}{TAIL}" for number in (2, 0, 1)]
    made = FakeCryosparc(exposures_table(names, shape_yx=SHAPE_YX))
    monkeypatch.setattr(cryosparc_job, "connect", lambda url: made)
    return made


def saved_particles(client: FakeCryosparc) -> FakeTable:
    assert client.job is not None
    return client.job.saved["particles"]


def test_the_job_takes_exposures_and_gives_particles_between_start_and_stop(
    picked: Path, client: FakeCryosparc
) -> None:
    done = cryopick("cryosparc", "run1", *WORDS, "--cs-rows", "relion", cwd=picked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("9 particles in 3 of 3 exposures saved as P3 J55; ")
    assert client.calls == [
        ("find_project", {"project": "P3"}),
        ("find_job", {"job": "J42"}),
        ("load_output", {"name": "exposures", "slots": ["micrograph_blob", "ctf"]}),
        ("create_external_job", {"workspace": "W1", "title": "cryopick run1"}),
        ("add_input", {"type": "exposure", "name": "exposures", "min": 1, "slots": ["micrograph_blob", "ctf"]}),
        ("connect", {"input": "exposures", "job": "J42", "output": "exposures"}),
        ("add_output", {"type": "particle", "name": "particles", "slots": ["location", "pick_stats"]}),
        ("start", {}),
        ("alloc_output", {"name": "particles", "rows": 9}),
        ("save_output", {"name": "particles"}),
        ("stop", {"error": ""}),
    ]


@pytest.mark.parametrize("rows", ["relion", "flipped"])
def test_each_particle_is_bound_to_its_exposure_and_lies_where_it_was_picked(
    picked: Path, client: FakeCryosparc, rows: str
) -> None:
    assert cryopick("cryosparc", "run1", *WORDS, "--cs-rows", rows, cwd=picked).returncode == 0
    particles = saved_particles(client)
    exposures = client.exposures
    assert len(set(particles["uid"].tolist())) == 9
    for number in range(3):
        exposure = next(
            row for row, path in enumerate(exposures["micrograph_blob/path"]) if path.endswith(f"_m{number}{TAIL}")
        )
        own = particles["location/micrograph_uid"] == exposures["uid"][exposure]
        assert own.sum() == 3
        assert set(particles["location/micrograph_path"][own]) == {exposures["micrograph_blob/path"][exposure]}
        assert set(particles["location/exp_group_id"][own]) == {exposures["ctf/exp_group_id"][exposure]}
        assert (particles["location/micrograph_shape"][own] == SHAPE_YX).all()
        table = (picked / "run1" / "picks" / f"m{number}_picks.star").read_text()
        lines = [line.split() for line in table.splitlines() if line[:1].isalnum() and not line.startswith("data")]
        columns = [line.split()[0] for line in table.splitlines() if line.startswith("_rln")]
        at = {name: columns.index(f"_rln{name}") for name in ("CoordinateX", "CoordinateY", "AutopickFigureOfMerit")}
        expected = sorted(tuple(float(words[at[name]]) for name in at) for words in lines if len(words) > 3)
        y_frac = particles["location/center_y_frac"][own].astype(float)
        found = sorted(
            zip(
                particles["location/center_x_frac"][own].astype(float) * SHAPE_YX[1],
                (y_frac if rows == "relion" else 1 - y_frac) * SHAPE_YX[0],
                particles["pick_stats/ncc_score"][own].astype(float),
                strict=True,
            )
        )
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_same_run_gives_the_same_uids_again(picked: Path, client: FakeCryosparc) -> None:
    uids = []
    for _ in range(2):
        cryopick("cryosparc", "run1", *WORDS, "--cs-rows", "relion", cwd=picked)
        uids.append(saved_particles(client)["uid"].tolist())
    assert uids[0] == uids[1]


def test_micrographs_that_are_no_exposures_are_left_out_and_named(picked: Path, client: FakeCryosparc) -> None:
    client.exposures = exposures_table([f"J7/m1{TAIL}", "J7/other.mrc"], shape_yx=SHAPE_YX)
    done = cryopick("cryosparc", "run1", *WORDS, "--cs-rows", "relion", "--json", cwd=picked)
    said = json.loads(done.stdout)
    assert (said["particles"], said["micrographs"], said["exposures"]) == (3, 1, 2)
    assert said["left_out"] == ["m0.mrc", "m2.mrc"]
    assert "2 micrographs of the run are not among J42.exposures, such as m0.mrc" in done.stderr


@pytest.mark.parametrize(
    ("paths", "shape_yx", "told"),
    [
        (["J7/other.mrc"], SHAPE_YX, "none of the 3 micrographs of the run is among its 1 exposures"),
        (
            [f"J7/{NUMBERS[0]}_m0.mrc", f"J8/{NUMBERS[1]}_m0.mrc"],
            SHAPE_YX,
            "fits 2 micrographs: J7/008578565574161745010_m0.mrc, J8/",
        ),
        (["J7/m0.mrc", "J7/m0.mrc"], SHAPE_YX, "names a micrograph twice"),
        (["J7/m0.mrc"], (160, 120), "160 x 120 pixels (rows x columns), and 120 x 160 were picked"),
    ],
)
def test_what_cannot_be_bound_for_certain_is_refused_before_a_job_is_made(
    picked: Path, client: FakeCryosparc, paths: list[str], shape_yx: tuple[int, int], told: str
) -> None:
    client.exposures = exposures_table(paths, shape_yx=shape_yx)
    done = cryopick("cryosparc", "run1", *WORDS, "--cs-rows", "relion", cwd=picked)
    assert told in done.stderr
    assert done.returncode == 5
    assert client.job is None


def test_picks_of_a_binned_copy_lie_at_the_same_fractions(picked: Path, client: FakeCryosparc) -> None:
    cryopick("cryosparc", "run1", *WORDS, "--cs-rows", "relion", cwd=picked)
    whole = saved_particles(client)
    paths = list(client.exposures["micrograph_blob/path"])
    client.exposures = exposures_table(paths, shape_yx=(240, 320), pixel_size=1.0)
    assert cryopick("cryosparc", "run1", *WORDS, "--cs-rows", "relion", cwd=picked).returncode == 0
    larger = saved_particles(client)
    np.testing.assert_array_equal(larger["location/center_y_frac"], whole["location/center_y_frac"])
    assert (larger["location/micrograph_shape"] == (240, 320)).all()
    assert (larger["location/micrograph_psize_A"] == 1.0).all()


@pytest.mark.parametrize("fails_at", ["load_output", "create", "add_input", "alloc_output", "save_output"])
def test_a_refusal_of_the_server_is_one_sentence_and_a_job_that_was_begun_is_marked_failed(
    picked: Path, client: FakeCryosparc, fails_at: str
) -> None:
    if fails_at == "create":
        client.find_project = lambda project: (_ for _ in ()).throw(ValueError("no project P3"))  # type: ignore[method-assign]
    client.fails_at = fails_at
    done = cryopick("cryosparc", "run1", *WORDS, "--cs-rows", "relion", "--json", cwd=picked)
    event = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, event["kind"]) == (9, "server")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("cryopick: cryoSPARC, ")
    stops = [arguments for name, arguments in client.calls if name == "stop"]
    assert len(stops) == (fails_at not in ("load_output", "create"))
    assert all(fails_at in arguments["error"] for arguments in stops)


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("run1", *WORDS), "--cs-rows", 2),
        (("run1", *WORDS[:-1], "J42", "--cs-rows", "relion"), "expected a job and the name of its output", 4),
        (("in", *WORDS, "--cs-rows", "relion"), "is no run folder", 5),
    ],
)
def test_what_is_missing_is_named(
    picked: Path, client: FakeCryosparc, words: tuple[str, ...], told: str, code: int
) -> None:
    done = cryopick("cryosparc", *words, cwd=picked)
    assert (done.returncode, client.calls) == (code, [])
    assert told in done.stderr


def test_without_cryosparc_tools_the_command_that_installs_them_is_told(
    picked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryosparc", None)
    done = cryopick("cryosparc", "run1", *WORDS, "--cs-rows", "relion", cwd=picked)
    assert done.returncode == 7
    assert "needs cryosparc-tools; install with: " in done.stderr
