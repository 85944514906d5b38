"""cryoSPARC's jobs, against a server that keeps what it is asked: planned by name, found again, made twice at most."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_cryosparc_jobs import GOOD, TINY, FakeServer

from cryopick.errors import FormatError, InputError, ServerError, SettingsError
from cryopick.evaluation.cryosparc_jobs import (
    JobFailedError,
    JobRecord,
    PlannedJob,
    choose_classes,
    planned_jobs,
    refined_maps,
    require_types,
    run_jobs,
)


def plan(**changed: Any) -> list[PlannedJob]:
    asked: dict[str, Any] = {
        "exposures": ("J900", "exposures"),
        "picks": ("J901", "particles"),
        "box_px": 256,
        "scaled_px": 128,
        "symmetry": "D7",
        "seeds": (1, 2),
    }
    return planned_jobs(**{**asked, **changed})


def run(server: FakeServer, jobs: list[PlannedJob]) -> tuple[dict[str, str], list[str]]:
    lines: list[str] = []
    record = JobRecord.read(server.record, where="P1 W1")
    return run_jobs(jobs, server, server, record, lane="gpu", on_line=lines.append), lines


@pytest.fixture
def server(tmp_path: Path) -> FakeServer:
    return FakeServer(tmp_path / "cryosparc.json")


def test_each_job_is_made_with_the_outputs_of_those_before_it(server: FakeServer) -> None:
    done, _ = run(server, plan(seeds=(7,)))
    assert [(uid, type_) for uid, type_, _, _ in server.made] == [
        ("J1", "extract_micrographs_cpu_parallel"),
        ("J2", "class_2D_new"),
        ("J3", "select_2D"),
        *[("J4", "homo_abinit"), ("J5", "homo_refine_new")],
        *[("J6", "homo_abinit"), ("J7", "homo_refine_new")],
    ]
    connected = {uid: (connections, params) for uid, _, connections, params in server.made}
    assert connected["J1"] == (
        {"micrographs": ("J900", "exposures"), "particles": ("J901", "particles")},
        {"box_size_pix": 256, "bin_size_pix": 128},
    )
    assert connected["J2"] == ({"particles": ("J1", "particles")}, {"class2D_K": 50})
    assert connected["J3"][0] == {"particles": ("J2", "particles"), "templates": ("J2", "class_averages")}
    assert connected["J4"] == ({"particles": ("J1", "particles")}, {"abinit_K": 1, "random_seed": 7})
    assert connected["J6"][0] == {"particles": ("J3", "particles_selected")}
    assert connected["J7"] == (
        {"particles": ("J6", "particles_all_classes"), "volume": ("J6", "volume_class_0")},
        {"refine_symmetry": "D7", "random_seed": 7},
    )
    assert done["auto/seed7/refine"] == "J7"
    assert ("queue", "J7", "gpu") in server.calls


def test_classes_are_selected_and_left_out_by_name_and_the_interactive_job_is_ended(server: FakeServer) -> None:
    run(server, plan(seeds=(1,)))
    told = [(body["class_idx"], body["selected"]) for what, _, body in server.calls if what == "set_class_selected"]
    assert told == [(0, True), (1, False), (2, False), (3, True)]
    assert [what for what, *_ in server.calls if what == "finish"] == ["finish"]
    assert json.loads(server.record.read_text())["classes"]["select2d"]["1"] == "25.0 Å, and the finest class has 9.0 Å"


def test_a_stop_anywhere_leaves_jobs_that_the_same_command_finds_again(tmp_path: Path) -> None:
    whole = FakeServer(tmp_path / "whole.json")
    expected, _ = run(whole, plan())
    for number in range(1, len(whole.made) + 1):
        server = FakeServer(tmp_path / f"{number}.json", stops_at=f"J{number}")
        with pytest.raises(KeyboardInterrupt):
            run(server, plan())
        if server.jobs[f"J{number}"].type == "select_2D":
            server.jobs[f"J{number}"].status = "waiting"
        done, lines = run(server, plan())
        assert done == expected
        assert len(server.made) == len(whole.made), "none was made twice"
        assert any("which an earlier call made" in line for line in lines)


def test_a_failed_job_is_made_a_second_time_and_no_third(server: FakeServer) -> None:
    server.fails = {"homo_abinit": 1}
    done, lines = run(server, plan(seeds=(1,), selections=("none",)))
    assert done["none/seed1/initial"] == "J3"
    assert server.made[2][2] == server.made[1][2]
    assert "none/seed1/initial: homo_abinit J2 failed" in lines

    again = FakeServer(server.record.with_name("again.json"), fails={"homo_abinit": 2})
    done, lines = run(again, plan(seeds=(1, 2), selections=("none",)))
    assert "none/seed1/refine: left out, since none/seed1/initial failed" in lines
    assert set(done) == {"extract", "none/seed2/initial", "none/seed2/refine"}


def test_without_particles_there_is_nothing_to_go_on_with(server: FakeServer) -> None:
    server.fails = {"extract_micrographs_cpu_parallel": 2}
    with pytest.raises(JobFailedError, match="extract_micrographs_cpu_parallel J2 failed"):
        run(server, plan())


def test_the_plan_is_readable_without_a_server() -> None:
    lines = [job.sentence(number) for number, job in enumerate(plan(selections=("none",), seeds=(1,)), start=1)]
    assert lines == [
        "1. extract_micrographs_cpu_parallel (extract): micrographs <- J900.exposures, particles <- J901.particles; "
        "box_size_pix=256, bin_size_pix=128",
        "2. homo_abinit (none/seed1/initial): particles <- extract.particles; abinit_K=1, random_seed=1",
        "3. homo_refine_new (none/seed1/refine): particles <- none/seed1/initial.particles_all_classes, volume <- "
        "none/seed1/initial.volume_class_0; refine_symmetry=D7, random_seed=1",
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"seeds": ()}, "no seed"), ({"selections": ("mine",)}, "none and auto"), ({"box_px": 255}, "255")],
)
def test_an_impossible_plan_is_refused_before_any_job(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        plan(**wrong)


def test_types_that_a_server_lacks_are_named_for_old_and_new_clients(server: FakeServer) -> None:
    require_types(server, plan())
    unknown = [PlannedJob(key="x", type="homo_refine_newest", connections={})]
    with pytest.raises(ServerError, match="no job of type homo_refine_newest"):
        require_types(server, unknown)
    old = SimpleNamespace(get_job_sections=lambda: [{"name": "refinement", "contains": ["homo_refine_newest"]}])
    require_types(old, unknown)
    with pytest.raises(ServerError, match="select_2D"):
        require_types(old, plan())


def test_classes_without_numbers_are_an_error_and_not_all_kept() -> None:
    with pytest.raises(FormatError, match="num_particles_total"):
        choose_classes([{"class_idx": 0, "res_A": 9.0}])
    with pytest.raises(FormatError, match="no classes"):
        choose_classes([])
    assert choose_classes([GOOD, TINY]).kept == [0]


def test_the_record_is_of_one_project_and_its_damage_is_told(tmp_path: Path, server: FakeServer) -> None:
    run(server, plan(selections=("none",)))
    with pytest.raises(InputError, match="its jobs are of P1 W1, and P2 W1 is asked for"):
        JobRecord.read(server.record, where="P2 W1")
    server.record.write_text("{")
    with pytest.raises(FormatError, match="is damaged"):
        JobRecord.read(server.record, where="P1 W1")


def test_a_job_that_was_deleted_there_is_told_in_one_line(server: FakeServer) -> None:
    run(server, plan(selections=("none",), seeds=(1,)))
    del server.jobs["J2"]
    with pytest.raises(ServerError, match=r"cryoSPARC, finding J2: 422 no such job more lines") as caught:
        run(server, plan(selections=("none",), seeds=(1,)))
    assert "\n" not in str(caught.value)


def test_maps_of_a_refinement_are_downloaded_each_to_its_place(server: FakeServer) -> None:
    done, _ = run(server, plan(selections=("none",), seeds=(1,)))
    found = refined_maps(server, done["none/seed1/refine"])
    assert (found.half_a[0, 0, 0], found.half_b[0, 0, 0], found.map[0, 0, 0]) == (1, 2, 0)
    assert (found.pixel_size_angstrom, found.particles) == (1.5, 512)
    server.maps = ("map",)
    with pytest.raises(FormatError, match="has no map_half_A/path"):
        refined_maps(server, done["none/seed1/refine"])
