"""A picking run: what ends in the folder, what a second call does, what bad input gets."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from crashing_picker import CrashingPicker
from discs import DIAMETER_PX, disc_centres, disc_micrograph
from numpy.typing import NDArray

from cryopick.errors import InputError, RunFolderError, SettingsError
from cryopick.geometry.units import Length
from cryopick.io.coordinates.relion import read_relion
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.star import read_star
from cryopick.pickers.survey import Survey
from cryopick.runs.results import RunSummary
from cryopick.runs.run import PickEvent
from cryopick.runs.settings import PickSettings, make_settings
from cryopick.types import Micrograph, Picks
from cryopick.workflows.pick import pick, pick_to_folder
from cryopick.workflows.rethreshold import rethreshold

SETTINGS: dict[str, Any] = {"diameter": f"{DIAMETER_PX}px"}


def run(folder: Path, output: Path, **options: Any) -> tuple[RunSummary, list[PickEvent]]:
    events: list[PickEvent] = []
    settings = options.pop("settings", None) or make_settings("blob", **SETTINGS)
    options.setdefault("workers", 1)
    summary = pick_to_folder([folder], output, settings, on_event=events.append, **options)
    start, *micrographs = events
    assert (start.status, start.total) == ("started", len(micrographs))
    return summary, micrographs


def contents(output: Path, *, timed: bool = False) -> dict[str, bytes]:
    """Every file of a run by name; those that hold durations or times of day only where `timed`."""
    files = {p.relative_to(output).as_posix(): p.read_bytes() for p in sorted(output.rglob("*")) if p.is_file()}
    is_timed = ("run.log", "micrographs.star", "summary.json", "records/")
    return {name: data if timed or not name.startswith(is_timed) else b"" for name, data in files.items()}


# --------------------------------------------------------------------------------------------------------- results


def test_a_run_finds_the_particles_and_says_so_in_every_file(folder_of_discs: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    summary, events = run(folder_of_discs, output)
    listed = read_relion(output / "autopick.star")
    assert len(listed) == 3
    for seed, name in enumerate(("m1.mrc", "m2.mrc", "grid two/m3 é.mrc")):
        found = listed[(folder_of_discs / name).as_posix()]
        apart = np.hypot(*(found.xy_px[:, None] - disc_centres(seed)[None]).transpose(2, 0, 1))
        assert len(found) == 3
        assert apart.min(axis=0).max() < 1.5
    combined = read_relion(output / "particles.star")
    assert sorted(combined) == ["m1.mrc", "m2.mrc", "m3 é.mrc"]
    assert summary.particles == sum(len(one) for one in combined.values()) == 9
    assert [event.count for event in events] == [3, 3, 3]
    table = read_star(output / "micrographs.star")["micrographs"]
    assert table.ints("cryopickParticleCount").tolist() == [3, 3, 3]
    stored = json.loads((output / "summary.json").read_text())
    assert (stored["particles"], stored["diameter_px"], stored["diameter_angstrom"]) == (9, 20.0, 40.0)
    report = (output / "report.html").read_text()
    assert "9 particles in 3 micrographs" in report
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "https://" not in report


def test_every_candidate_is_kept_with_its_score_and_reason(folder_of_discs: Path, tmp_path: Path) -> None:
    summary, _ = run(folder_of_discs, tmp_path / "run")
    rows = (tmp_path / "run" / "candidates" / "m1.csv").read_text().splitlines()
    assert rows[0] == "x_px,y_px,score,diameter_px,class_id,reason"
    assert len(rows) > 4
    assert summary.candidates == summary.particles + sum(summary.rejected.values())


def test_autopick_names_are_letter_by_letter_those_of_micrographs_star(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MotionCorr" / "job002").mkdir(parents=True)
    shutil.copytree(folder_of_discs, tmp_path / "MotionCorr" / "job002" / "Movies")
    names = ["MotionCorr/job002/Movies/m2.mrc", "MotionCorr/job002/Movies/m1.mrc"]
    (tmp_path / "micrographs.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 2.5\n\n"
        "# version 30001\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
        + "".join(f"{name} 1\n" for name in names)
        + "\n"
    )
    pick_to_folder(["micrographs.star"], Path("run"), make_settings("blob", diameter="50A"), workers=1)
    table = read_star(tmp_path / "run" / "autopick.star")["coordinate_files"]
    assert sorted(table.text("rlnMicrographName")) == sorted(names)
    for row in table.text("rlnMicrographCoordinates"):
        assert (tmp_path / row).is_file()  # as RELION finds it, from the project folder
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["pixel_size_angstrom"] == 2.5


def test_equal_names_in_two_folders_are_kept_apart(tmp_path: Path) -> None:
    for seed, grid in enumerate(("a", "b")):
        (tmp_path / "in" / grid).mkdir(parents=True)
        write_micrograph(tmp_path / "in" / grid / "m.mrc", disc_micrograph("m", seed=seed))
    run(tmp_path / "in", tmp_path / "run")
    a, b = (read_relion(tmp_path / "run" / "picks" / grid / "m_picks.star")["m"] for grid in ("a", "b"))
    assert len(a) == len(b) == 3
    assert not np.allclose(a.xy_px, b.xy_px)
    assert sorted(read_relion(tmp_path / "run" / "particles.star")) == ["a/m.mrc", "b/m.mrc"]


def test_a_blank_micrograph_is_a_success_with_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_micrograph(tmp_path / "in" / "blank.mrc", Micrograph(np.zeros((60, 80), np.float32), pixel_size_angstrom=2.0))
    summary, (event,) = run(tmp_path / "in", tmp_path / "run")
    assert (summary.particles, summary.failed, event.status) == (0, {}, "done")
    assert len(next(iter(read_relion(tmp_path / "run" / "picks" / "blank_picks.star").values()))) == 0
    assert read_star(tmp_path / "run" / "micrographs.star")["micrographs"].floats("cryopickMeanScore").tolist() == [
        -999
    ]


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_no_byte(
    folder_of_discs: Path, tmp_path: Path, workers: int, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, count in (("one", 1), ("many", workers)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        run(folder_of_discs, Path("run"), workers=count)
    assert contents(tmp_path / "one" / "run") == contents(tmp_path / "many" / "run")


def test_bright_particles_are_found_as_dark_ones_are(folder_of_discs: Path, tmp_path: Path) -> None:
    run(folder_of_discs, tmp_path / "dark")
    (tmp_path / "stain").mkdir()
    for seed, name in enumerate(("m1.mrc", "m2.mrc")):
        write_micrograph(tmp_path / "stain" / name, disc_micrograph(name, seed=seed).inverted())
    run(tmp_path / "stain", tmp_path / "bright", settings=make_settings("blob", contrast="bright", **SETTINGS))
    for name in ("m1", "m2"):
        dark, bright = (tmp_path / kind / "candidates" / f"{name}.csv" for kind in ("dark", "bright"))
        assert dark.read_bytes() == bright.read_bytes()


def test_nothing_is_picked_under_an_exclusion_mask(folder_of_discs: Path, tmp_path: Path) -> None:
    import cv2

    (tmp_path / "masks" / "grid two").mkdir(parents=True)
    left_half = np.zeros((12, 16), np.uint8)
    left_half[:, :8] = 255  # covers x < 80 of 160: the first disc, and the middle one where it lies left
    cv2.imwrite(str(tmp_path / "masks" / "m1.png"), left_half)
    settings = make_settings("blob", exclusion_masks=str(tmp_path / "masks"), **SETTINGS)
    run(folder_of_discs, tmp_path / "run", settings=settings)
    kept = read_relion(tmp_path / "run" / "picks" / "m1_picks.star")["m1"]
    expected = disc_centres(0)[disc_centres(0)[:, 0] >= 79.5]
    assert len(kept) == len(expected) < 3
    assert (kept.xy_px[:, 0] >= 79.5).all()
    assert "in exclusion mask" in (tmp_path / "run" / "candidates" / "m1.csv").read_text()
    assert len(read_relion(tmp_path / "run" / "picks" / "m2_picks.star")["m2"]) == 3


def test_names_in_no_encoding_and_with_markup_in_them_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = [os.fsdecode(b"old \xff name.mrc"), "<b>&amp;'.mrc", "-o.mrc", "100%.mrc"]
    for seed, name in enumerate(names):
        write_micrograph(tmp_path / "in" / name, disc_micrograph(name, seed=seed))
    summary, _ = run(tmp_path / "in", tmp_path / "run")
    assert summary.particles == 12
    assert sorted(read_relion(tmp_path / "run" / "particles.star")) == sorted(names)
    report = (tmp_path / "run" / "report.html").read_text(errors="surrogateescape")
    assert "<b>&amp;'" not in report
    assert "&lt;b&gt;&amp;amp;&#39;.mrc" in report
    _, events = run(tmp_path / "in", tmp_path / "run")
    assert {event.status for event in events} == {"skipped"}


# ------------------------------------------------------------------------------------------------- a second call


def test_a_second_call_skips_what_is_finished_and_changes_nothing(folder_of_discs: Path, tmp_path: Path) -> None:
    first, _ = run(folder_of_discs, tmp_path / "run")
    before = contents(tmp_path / "run", timed=True)
    second, events = run(folder_of_discs, tmp_path / "run")
    after = contents(tmp_path / "run", timed=True)
    assert [event.status for event in events] == ["skipped"] * 3
    assert [event.count for event in events] == [3, 3, 3]
    assert second == first
    del before["run.log"], after["run.log"]
    assert after == before


def test_new_micrographs_join_a_run(folder_of_discs: Path, tmp_path: Path) -> None:
    run(folder_of_discs, tmp_path / "run")
    write_micrograph(folder_of_discs / "m4.mrc", disc_micrograph("m4", seed=9))
    summary, events = run(folder_of_discs, tmp_path / "run")
    assert [(event.name, event.status) for event in events if event.status != "skipped"] == [("m4.mrc", "done")]
    assert (summary.micrographs, summary.particles) == (4, 12)


def test_a_file_keeps_its_name_when_it_is_given_in_another_way(folder_of_discs: Path, tmp_path: Path) -> None:
    run(folder_of_discs, tmp_path / "run")
    events: list[PickEvent] = []
    only = folder_of_discs / "grid two" / "m3 é.mrc"
    summary = pick_to_folder(
        [only], tmp_path / "run", make_settings("blob", **SETTINGS), workers=1, on_event=events.append
    )
    assert [(event.name, event.status) for event in events[1:]] == [("grid two/m3 é.mrc", "skipped")]
    assert summary.micrographs == 3


def test_a_micrograph_that_changed_is_picked_again(folder_of_discs: Path, tmp_path: Path) -> None:
    run(folder_of_discs, tmp_path / "run")
    write_micrograph(folder_of_discs / "m1.mrc", disc_micrograph("m1", seed=77))
    os.utime(folder_of_discs / "m1.mrc", ns=(1, 1))
    _, events = run(folder_of_discs, tmp_path / "run")
    assert [event.name for event in events if event.status == "done"] == ["m1.mrc"]
    found = read_relion(tmp_path / "run" / "picks" / "m1_picks.star")["m1"]
    apart = np.hypot(*(found.xy_px[:, None] - disc_centres(77)[None]).transpose(2, 0, 1))
    assert apart.min(axis=0).max() < 1.5


def test_other_settings_are_refused_by_name_and_nothing_changes(folder_of_discs: Path, tmp_path: Path) -> None:
    run(folder_of_discs, tmp_path / "run")
    before = contents(tmp_path / "run", timed=True)
    with pytest.raises(RunFolderError, match=r"blob diameter: 20px -> 30px.*--overwrite"):
        run(folder_of_discs, tmp_path / "run", settings=make_settings("blob", diameter="30px"))
    with pytest.raises(RunFolderError, match=r"cryopick rethreshold"):
        run(folder_of_discs, tmp_path / "run", settings=make_settings("blob", threshold=0.5, **SETTINGS))
    assert contents(tmp_path / "run", timed=True) == before


def test_overwrite_leaves_no_trace_of_the_old_run(folder_of_discs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    settings = make_settings("blob", diameter="24px")
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        if place == "a":
            run(folder_of_discs, Path("run"))
            rethreshold(Path("run"), 0.5)
        run(folder_of_discs, Path("run"), settings=settings, overwrite=place == "a")
    assert contents(tmp_path / "a" / "run") == contents(tmp_path / "b" / "run")


def test_other_micrographs_of_the_same_names_are_refused(folder_of_discs: Path, tmp_path: Path) -> None:
    run(folder_of_discs, tmp_path / "run")
    (tmp_path / "other").mkdir()
    write_micrograph(tmp_path / "other" / "m1.mrc", disc_micrograph("m1", seed=5, shape_yx=(100, 160)))
    with pytest.raises(RunFolderError, match=r"holds the picks of another micrograph named m1\.mrc"):
        run(tmp_path / "other", tmp_path / "run")


# ----------------------------------------------------------------------------------------------------- threshold


def test_rethreshold_equals_a_fresh_run_with_that_threshold(folder_of_discs: Path, tmp_path: Path) -> None:
    run(folder_of_discs, tmp_path / "moved")
    summary = rethreshold(tmp_path / "moved", 0.2)
    settings = make_settings("blob", threshold=0.2, **SETTINGS)
    fresh, _ = run(folder_of_discs, tmp_path / "fresh", settings=settings)
    assert summary.particles == fresh.particles > 9
    for path in sorted((tmp_path / "fresh" / "picks").rglob("*.star")):
        other = tmp_path / "moved" / path.relative_to(tmp_path / "fresh")
        assert other.read_bytes() == path.read_bytes()
    assert (tmp_path / "moved" / "particles.star").read_bytes() == (tmp_path / "fresh" / "particles.star").read_bytes()


def test_a_moved_threshold_stays_when_micrographs_are_added_and_can_be_taken_back(
    folder_of_discs: Path, tmp_path: Path
) -> None:
    first, _ = run(folder_of_discs, tmp_path / "run")
    rethreshold(tmp_path / "run", 0.2)
    write_micrograph(folder_of_discs / "m4.mrc", disc_micrograph("m4", seed=9))
    again, _ = run(folder_of_discs, tmp_path / "run")
    assert (again.threshold, again.threshold_source) == (0.2, "rethreshold")
    assert rethreshold(tmp_path / "run", None).threshold == first.threshold


def test_rethreshold_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder"):
        rethreshold(tmp_path, 0.5)


@dataclass(frozen=True, kw_only=True)
class LearningPicker:
    """Marks the darkest pixels; learns how many from the run, and keeps the better half."""

    name: ClassVar[str] = "learning"
    score_meaning: ClassVar[str] = "darkness"
    default_threshold: ClassVar[float] = -100.0
    calls: ClassVar[list[str]] = []
    diameter: Length | None = None

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        self.calls.append(f"survey {len(micrographs)}")
        return Survey(noise_level=4.0)

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        assert survey.noise_level == 4
        self.calls.append(f"choose {len(scores)}")
        return float(np.median(scores)) if target_precision is None else float(scores.max())

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        wanted = 0 if survey is None or survey.noise_level is None else int(survey.noise_level)
        order = np.argsort(micrograph.pixels.ravel(), kind="stable")[:wanted]
        y, x = np.unravel_index(order, micrograph.pixels.shape)
        sizes = np.full(len(x), 1.5, np.float32)  # so that neighbouring pixels are not too close
        return Picks(xy_px=np.stack([x, y], axis=1), score=-micrograph.pixels[y, x], diameter_px=sizes)


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> PickSettings:
    from cryopick.pickers import registry

    LearningPicker.calls.clear()
    registry.list_pickers()
    monkeypatch.setitem(registry._registered, "learning", LearningPicker)
    return make_settings("learning")


def test_what_a_picker_measures_is_one_field_that_pick_and_later_calls_get_back(
    folder_of_discs: Path, tmp_path: Path, learning: PickSettings
) -> None:
    summary, _ = run(folder_of_discs, tmp_path / "run", settings=learning)
    assert (summary.candidates, LearningPicker.calls) == (12, ["survey 3", "choose 12"])
    assert (tmp_path / "run" / "prepared.toml").read_text() == "[survey]\nnoise_level = 4.0\n"
    write_micrograph(folder_of_discs / "m4.mrc", disc_micrograph("m4", seed=9))
    summary, _ = run(folder_of_discs, tmp_path / "run", settings=learning)
    assert (summary.candidates, LearningPicker.calls[2:]) == (16, ["choose 16"])


@pytest.mark.parametrize("content", ["", "\0" * 50, "not toml [", "[learning]\nwanted = 'many'\n", "learning = 3\n"])
def test_a_damaged_preparation_is_made_again(
    folder_of_discs: Path, tmp_path: Path, learning: PickSettings, content: str
) -> None:
    before, _ = run(folder_of_discs, tmp_path / "run", settings=learning)
    prepared = tmp_path / "run" / "prepared.toml"
    whole = prepared.read_bytes()
    prepared.write_text(content)
    with pytest.raises(RunFolderError, match=r"prepared\.toml.*`cryopick pick`"):
        rethreshold(tmp_path / "run", 0.2)
    summary, events = run(folder_of_discs, tmp_path / "run", settings=learning)
    assert [event.status for event in events] == ["skipped"] * 3
    assert prepared.read_bytes() == whole
    assert summary.warnings == {"prepared.toml was damaged and was made again": 1}
    assert (summary.particles, rethreshold(tmp_path / "run", None).particles) == (before.particles, before.particles)


def test_boxes_are_suggested_for_the_given_diameter_whatever_single_particles_look_like(
    folder_of_discs: Path, tmp_path: Path, learning: PickSettings
) -> None:
    read_off, _ = run(folder_of_discs, tmp_path / "read", settings=learning)
    asked, _ = run(folder_of_discs, tmp_path / "asked", settings=make_settings("learning", diameter="40px"))
    between, _ = run(folder_of_discs, tmp_path / "range", settings=make_settings("learning", diameter="1-60px"))
    assert [one.diameter_px for one in (read_off, asked, between)] == [1.5, 40, 1.5]
    assert asked.box_px is not None
    assert asked.box_px >= 40


def test_a_picker_chooses_the_threshold_from_all_scores_of_the_run(
    folder_of_discs: Path, tmp_path: Path, learning: PickSettings
) -> None:
    summary, _ = run(folder_of_discs, tmp_path / "run", settings=learning)
    assert summary.particles == 6  # the better half of 12
    assert "chosen by the picker" in summary.threshold_source
    strict = make_settings("learning", target_precision=0.9)
    assert run(folder_of_discs, tmp_path / "strict", settings=strict)[0].particles == 1
    given = make_settings("learning", threshold=-100.0)
    assert run(folder_of_discs, tmp_path / "given", settings=given)[0].particles == 12


# ------------------------------------------------------------------------------------------------------ bad input


def test_a_corrupt_micrograph_is_listed_and_the_others_are_picked(folder_of_discs: Path, tmp_path: Path) -> None:
    (folder_of_discs / "cut.mrc").write_bytes((folder_of_discs / "m1.mrc").read_bytes()[:3000])
    (folder_of_discs / "text.mrc").write_text("no image")
    summary, events = run(folder_of_discs, tmp_path / "run")
    assert sorted(summary.failed) == ["cut.mrc", "text.mrc"]
    assert summary.particles == 9
    assert sorted(event.name for event in events if event.status == "failed") == ["cut.mrc", "text.mrc"]
    assert "cut.mrc" in (tmp_path / "run" / "report.html").read_text()
    status = read_star(tmp_path / "run" / "micrographs.star")["micrographs"].text("cryopickStatus")
    assert sorted(status) == ["done", "done", "done", "failed", "failed"]
    write_micrograph(folder_of_discs / "cut.mrc", disc_micrograph("cut", seed=4))
    summary, events = run(folder_of_discs, tmp_path / "run")
    assert sorted(summary.failed) == ["text.mrc"]
    assert [event.name for event in events if event.status == "done"] == ["cut.mrc"]


def test_it_is_an_error_when_nothing_could_be_picked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mrc").write_text("no image")
    with pytest.raises(InputError, match=r"none of 1 micrographs could be picked.*text.mrc"):
        run(tmp_path / "in", tmp_path / "run")


def test_a_setting_that_cannot_work_stops_the_run_at_its_first_micrograph(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(3):
        unsized = replace(disc_micrograph("m", seed=seed), pixel_size_angstrom=None)
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", unsized)
    with pytest.raises(SettingsError, match="--pixel-size"):
        run(tmp_path / "in", tmp_path / "run", settings=make_settings("blob", diameter="40A"))


def test_a_worker_that_dies_costs_only_the_micrograph_that_killed_it(folder_of_discs: Path, tmp_path: Path) -> None:
    for name in ("m5.mrc", "deadly.mrc", "m6.mrc"):
        write_micrograph(folder_of_discs / name, disc_micrograph(name))
    summary, events = run(folder_of_discs, tmp_path / "run", settings=PickSettings(picker=CrashingPicker()), workers=2)
    assert list(summary.failed) == ["deadly.mrc"]
    assert "signal 9" in summary.failed["deadly.mrc"]
    assert sum(event.status == "done" for event in events) == 5


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EACCES, "no permission")]
)
def test_what_stops_the_writing_is_named_and_the_finished_part_survives(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    output = tmp_path / "run"
    rename = os.replace

    def rename_until_m2(source: Any, target: Any) -> None:
        if "m2" in str(target):
            raise OSError(number, os.strerror(number), str(target))
        rename(source, target)

    with monkeypatch.context() as stopped:
        stopped.setattr(os, "replace", rename_until_m2)
        with pytest.raises(RunFolderError, match=rf"{words}.*same command again"):
            run(folder_of_discs, output)
    first = next((output / "candidates").rglob("*.csv"))
    finished = first.stat().st_mtime_ns
    summary, events = run(folder_of_discs, output)
    assert summary.particles == 9
    assert "skipped" in [event.status for event in events]
    assert first.stat().st_mtime_ns == finished


# ---------------------------------------------------------------------------------------------------- from Python


def test_one_array_gives_its_picks() -> None:
    picks = pick(disc_micrograph("m").pixels, "blob", **SETTINGS)
    apart = np.hypot(*(picks.kept().xy_px[:, None] - disc_centres(0)[None]).transpose(2, 0, 1))
    assert len(picks.kept()) == 3
    assert apart.min(axis=0).max() < 1.5
    assert len(picks) > 3
    assert set(picks.reason[~picks.is_kept]) <= {"below threshold", "too close to a better pick", "edge"}


def test_array_path_and_run_agree(folder_of_discs: Path, tmp_path: Path) -> None:
    array = pick(disc_micrograph("m1.mrc"), "blob", **SETTINGS).kept()
    path = pick(folder_of_discs / "m1.mrc", "blob", **SETTINGS).kept()
    summary = pick(str(folder_of_discs), "blob", output=tmp_path / "run", workers=1, **SETTINGS)
    stored = read_relion(tmp_path / "run" / "picks" / "m1_picks.star")["m1"]
    assert summary.particles == 9
    np.testing.assert_allclose(array.xy_px, path.xy_px)
    np.testing.assert_allclose(array.xy_px, stored.xy_px, atol=6e-4)


def test_an_unknown_setting_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no setting radius; picker 'blob' has: .*diameter"):
        pick(np.zeros((9, 9)), "blob", radius=3)


def test_a_stack_is_no_image() -> None:
    with pytest.raises(InputError, match="one image"):
        pick(np.zeros((2, 9, 9)), "blob", **SETTINGS)


# -------------------------------------------------------------------------------------------------------- verdicts


def test_empty_micrographs_are_named_and_left_out_only_on_demand(folder_of_discs: Path, tmp_path: Path) -> None:
    write_micrograph(folder_of_discs / "flat.mrc", Micrograph(np.zeros((120, 160), np.float32), pixel_size_angstrom=2))
    summary, _ = run(folder_of_discs, tmp_path / "all")
    assert {name: one.verdict for name, one in summary.verdicts.items()} == {
        "flat.mrc": "empty",
        "grid two/m3 é.mrc": "good",
        "m1.mrc": "good",
        "m2.mrc": "good",
    }
    table = read_star(tmp_path / "all" / "micrographs.star")["micrographs"]
    rows = dict(zip(table.columns["rlnMicrographName"], table.columns["cryopickVerdict"], strict=True))
    assert [verdict for name, verdict in rows.items() if name.endswith("flat.mrc")] == ["empty"]
    assert json.loads((tmp_path / "all" / "summary.json").read_text())["verdicts"]["flat.mrc"]["reason"]

    settings = make_settings("blob", **SETTINGS, drop_bad=True)
    run(folder_of_discs, tmp_path / "good", settings=settings)
    every, good = (
        read_star(tmp_path / name / "autopick.star")["coordinate_files"].columns["rlnMicrographName"]
        for name in ("all", "good")
    )
    assert len(every) == 4
    assert sorted(good) == sorted(name for name in every if not name.endswith("flat.mrc"))
