"""A session that was followed ends as a batch run over it, whatever happened in it, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from followed import FakeClock, discs, follow, require_same_run, told
from measuring_picker import MeasuringPicker

from cryopick.errors import InputError, NothingArrivedError, SettingsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.settings import PickSettings, make_settings
from cryopick.workflows.pick import pick_to_folder

MEASURING = PickSettings(picker=MeasuringPicker())
BLOB = make_settings("blob", diameter="20px")


@pytest.fixture
def places(tmp_path: Path, monkeypatch):
    """A folder of whole files to take from, the one that is followed, and where the runs are made."""
    for name in ("whole", "in", "live", "batch"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "live")
    return tmp_path


def write(places: Path, name: str, diameter_px: float, seed: int) -> Path:
    path = places / "whole" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_micrograph(path, discs(diameter_px, seed=seed))
    return path


def arriving(
    clock: FakeClock, places: Path, second: float, name: str, *, diameter_px: float = 20, seed: int = 0
) -> None:
    """Plan that a whole file appears."""
    source = write(places, name, diameter_px, seed)
    target = places / "in" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    clock.at(second, lambda: shutil.copy(source, target))


def batch(places: Path, settings: PickSettings, monkeypatch) -> Path:
    monkeypatch.chdir(places / "batch")
    pick_to_folder([places / "in"], "run", settings, workers=1)
    return places / "batch" / "run"


def test_files_written_in_every_way_end_as_in_a_batch_run(places, monkeypatch):
    clock, inside = FakeClock(), places / "in"
    for number in range(6):
        arriving(clock, places, 3 * number, f"m{number}.mrc", seed=number)
    slow = write(places, "slow.mrc", 20, 10).read_bytes()  # in four slices
    for part in range(4):
        end = (part + 1) * len(slow) // 4
        clock.at(5 + 3 * part, lambda end=end: (inside / "slow.mrc").write_bytes(slow[:end]))
    clock.at(6, lambda: shutil.copy(write(places, "sync.mrc", 20, 11), inside / ".sync.mrc.Ab12"))  # as rsync
    clock.at(13, lambda: (inside / ".sync.mrc.Ab12").rename(inside / "sync.mrc"))
    clock.at(20, lambda: os.link(inside / "m1.mrc", inside / "linked.mrc"))
    clock.at(25, lambda: (inside / "m2.mrc").rename(inside / "renamed.mrc"))
    clock.at(30, lambda: shutil.copy(write(places, "other.mrc", 20, 12), inside / "m3.mrc"))  # replaced
    taken = write(places, "taken.mrc", 20, 13).read_bytes()  # its space is taken in advance
    clock.at(8, lambda: (inside / "taken.mrc").write_bytes(taken[:9000] + bytes(len(taken) - 9000)))
    clock.at(30, lambda: (inside / "taken.mrc").write_bytes(taken))
    session, heard = follow(inside, "run", BLOB, clock=clock)
    require_same_run(places / "live" / "run", batch(places, BLOB, monkeypatch))
    assert not (places / "live" / "run" / "state.json").exists()
    assert session.summary.micrographs == 10
    assert [(event.name, event["before"]) for event in told(heard, "moved")] == [("renamed.mrc", "m2.mrc")]
    picked = [event for event in told(heard, "micrograph") if event.name in ("slow.mrc", "taken.mrc", "sync.mrc")]
    assert sorted(event.name for event in picked) == ["slow.mrc", "sync.mrc", "taken.mrc"]  # each once, whole
    assert [event["revision"] for event in told(heard, "micrograph") if event.name == "m3.mrc"] == [0, 1]
    assert [event.kind for event in (heard[0], heard[-1])] == ["start", "run"]
    assert heard[-1]["provisional"] is False


def test_sizes_that_change_in_a_session_are_picked_again_and_end_as_in_a_batch_run(places, monkeypatch):
    clock = FakeClock()
    for number in range(16):
        arriving(clock, places, 20 * number, f"m{number:02d}.mrc", diameter_px=32 if number < 6 else 16, seed=number)
    _, heard = follow(places / "in", "run", MEASURING, clock=clock, summary_every_s=20)
    require_same_run(places / "live" / "run", batch(places, MEASURING, monkeypatch))
    sizes = [event["working_size"] for event in told(heard, "prepared")]
    assert len(sizes) == 4  # at 1, 3, 6 and 12
    assert sizes[0] != sizes[-1]
    assert told(heard, "repick")
    assert max(event["revision"] for event in told(heard, "micrograph")) >= 1
    assert told(heard, "threshold")
    assert told(heard, "revised")


@pytest.mark.parametrize("size", [0, 20])
def test_a_session_that_begins_with_empty_micrographs_or_is_empty_ends_as_a_batch_run(places, monkeypatch, size):
    clock = FakeClock()
    for number in range(20):
        arriving(clock, places, 6 * number, f"m{number:02d}.mrc", diameter_px=0 if number < 7 else size, seed=number)
    session, heard = follow(places / "in", "run", MEASURING, clock=clock)
    require_same_run(places / "live" / "run", batch(places, MEASURING, monkeypatch))
    assert bool(session.summary.particles) == bool(size)
    assert [event["found"] for event in told(heard, "prepared")][:2] == [False, False]


def test_a_settled_size_stays_and_ends_as_the_batch_run_with_the_settings_that_were_written(places, monkeypatch):
    clock = FakeClock()
    for number in range(14):
        arriving(clock, places, 10 * number, f"m{number:02d}.mrc", diameter_px=18 if number < 5 else 26, seed=number)
    monkeypatch.setattr("cryopick.runs.settings.picker_class", lambda name: MeasuringPicker)
    monkeypatch.setattr("cryopick.runs.settings.make_picker", lambda name, **given: MeasuringPicker(**given))
    _, heard = follow(places / "in", "run", MEASURING, clock=clock, settle=4)
    prepared = told(heard, "prepared")
    assert [event["settled"] for event in prepared] == [False, False, True]
    after = heard[heard.index(prepared[-1]) :]
    again = [event for event in told(after, "micrograph") if event["revision"] > 0]
    assert {event.name for event in again} <= {f"m{number:02d}.mrc" for number in range(4)}
    assert len(again) == len({event.name for event in again})
    config = (places / "live" / "run" / "config.toml").read_text()
    assert "working_diameter" in config
    assert "diameter = " in config
    from cryopick.runs.settings import read_config

    settings = make_settings(**read_config(places / "live" / "run" / "config.toml"))
    require_same_run(places / "live" / "run", batch(places, settings, monkeypatch))


def test_names_that_share_a_key_are_called_as_in_a_batch_run(places, monkeypatch):
    clock = FakeClock()
    for second, name in enumerate(("MotionCorr/job002/x.mrc", "MotionCorr/job003/x.mrc", "MotionCorr/job003/y.mrc")):
        arriving(clock, places, 10 * second, name, seed=second)
    follow(places / "in", "run", BLOB, clock=clock)
    require_same_run(places / "live" / "run", batch(places, BLOB, monkeypatch))


def test_half_sums_and_moved_files_leave_nothing_behind(places, monkeypatch):
    clock, inside = FakeClock(), places / "in"
    arriving(clock, places, 0, "deep/x_EVN.mrc", seed=1)
    arriving(clock, places, 10, "deep/x.mrc", seed=2)
    arriving(clock, places, 0, "old/y.mrc", seed=3)
    clock.at(15, lambda: (inside / "old" / "y.mrc").rename(inside / "y.mrc"))
    _, heard = follow(inside, "run", BLOB, clock=clock)
    require_same_run(places / "live" / "run", batch(places, BLOB, monkeypatch))
    assert [event.name for event in told(heard, "companion")] == ["deep/x_EVN.mrc"]
    assert not (places / "live" / "run" / "picks" / "old").exists()


def test_what_was_taken_away_keeps_its_picks_and_is_called_gone(places):
    clock, inside = FakeClock(), places / "in"
    arriving(clock, places, 0, "a.mrc", seed=1)
    arriving(clock, places, 0, "b.mrc", seed=2)
    clock.at(30, (inside / "a.mrc").unlink)
    session, heard = follow(inside, "run", BLOB, clock=clock)
    assert [event.name for event in told(heard, "gone")] == ["a.mrc"]
    assert session.summary.micrographs == 2
    assert (places / "live" / "run" / "picks" / "a_picks.star").exists()
    assert " gone " in (places / "live" / "run" / "micrographs.star").read_text()


def test_a_damaged_file_fails_at_the_end_and_is_read_by_then_again_and_again(places, monkeypatch):
    clock, inside = FakeClock(), places / "in"
    arriving(clock, places, 0, "a.mrc", seed=1)
    half = write(places, "b.mrc", 20, 2).read_bytes()[:20000]
    clock.at(0, lambda: (inside / "b.mrc").write_bytes(half))
    session, heard = follow(inside, "run", BLOB, clock=clock)
    require_same_run(places / "live" / "run", batch(places, BLOB, monkeypatch))
    assert list(session.summary.failed) == ["b.mrc"]
    assert [event.name for event in told(heard, "micrograph")] == ["a.mrc", "b.mrc"]
    assert (places / "live" / "run" / "run.log").read_text().count("cannot be read yet") > 3


def test_a_clash_is_told_when_it_comes_and_an_error_at_the_end_after_which_the_rest_is_final(places):
    clock = FakeClock()
    for second, name in enumerate(("a.mrc", "b.mrc", "b.tif")):
        arriving(clock, places, 10 * second, name, seed=second)
    heard = []
    with pytest.raises(InputError, match=r"differ only in their type \(b.mrc and b.tif\)"):
        follow(places / "in", "run", BLOB, clock=clock, heard=heard)
    assert [(event.name, event["of"]) for event in told(heard, "clash")] == [("b.tif", "b.mrc")]
    summary = json.loads((places / "live" / "run" / "summary.json").read_text())
    assert (summary["micrographs"], summary["provisional"]) == (2, False)
    assert not (places / "live" / "run" / "state.json").exists()


def test_what_is_not_whole_at_the_end_is_left_to_the_next_call(places, monkeypatch):
    clock, inside = FakeClock(), places / "in"
    arriving(clock, places, 0, "a.mrc", seed=1)
    whole = write(places, "b.mrc", 20, 2).read_bytes()
    for second in range(400):  # grows all the time
        clock.at(second, lambda second=second: (inside / "b.mrc").write_bytes(whole[: 100 * second]))
    _, heard = follow(inside, "run", BLOB, clock=clock, stop_count=1, grace_s=20)
    assert [event.name for event in told(heard, "incomplete")] == ["b.mrc"]
    assert not list((places / "live" / "run" / "records").glob("b*"))
    (inside / "b.mrc").write_bytes(whole)
    follow(inside, "run", BLOB)
    require_same_run(places / "live" / "run", batch(places, BLOB, monkeypatch))


def test_a_session_to_which_nothing_comes_says_so(places):
    with pytest.raises(NothingArrivedError, match="no whole micrograph"):
        follow(places / "not there", "run", BLOB)
    with pytest.raises(NothingArrivedError):
        follow(places / "in", "run", BLOB)


def test_a_stop_file_ends_the_session_and_does_not_end_the_next_one(places, monkeypatch):
    clock = FakeClock()
    arriving(clock, places, 0, "a.mrc", seed=1)
    clock.at(20, (places / "live" / "run" / "STOP").touch)
    _, heard = follow(places / "in", "run", BLOB, clock=clock, stop_idle_s=None)
    assert "STOP" in told(heard, "end")[0]["reason"]
    require_same_run(places / "live" / "run", batch(places, BLOB, monkeypatch))


def test_a_run_inside_the_folder_and_one_that_is_followed_on_end_as_a_batch_run(places, monkeypatch):
    clock, inside = FakeClock(), places / "in"
    arriving(clock, places, 0, "a.mrc", seed=1)
    arriving(clock, places, 10, "b.mrc", seed=2)
    follow(inside, inside / "run", MEASURING, clock=clock)
    clock = FakeClock()
    for number in range(3, 9):
        arriving(clock, places, number, f"c{number}.mrc", diameter_px=30, seed=number)
    follow(inside, inside / "run", MEASURING, clock=clock)
    shutil.move(inside / "run", places / "live" / "run")
    assert json.loads((places / "live" / "run" / "summary.json").read_text())["micrographs"] == 8
    other = batch(places, MEASURING, monkeypatch)
    for run in (places / "live" / "run", other):  # where they were made
        for name in ("place.json", "autopick.star", "report.html"):
            (run / name).unlink()
    require_same_run(places / "live" / "run", other)


def test_a_full_disk_pauses_picking_and_loses_nothing(places, monkeypatch):
    import errno

    from cryopick.io.files import atomic

    clock, full = FakeClock(), []
    for number in range(6):
        arriving(clock, places, 5 * number, f"m{number}.mrc", seed=number)
    clock.at(8, lambda: full.append(1))
    clock.at(60, full.clear)
    write_bytes = Path.write_bytes

    def failing(self, data):
        if full and "run" in self.parts:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write_bytes(self, data)

    monkeypatch.setattr(atomic.Path, "write_bytes", failing)
    _, heard = follow(places / "in", "run", BLOB, clock=clock)
    monkeypatch.undo()
    warnings = [event["text"] for event in told(heard, "warning")]
    assert len([text for text in warnings if "full" in text]) == 1
    require_same_run(places / "live" / "run", batch(places, BLOB, monkeypatch))


def test_the_backlog_is_told_of_when_it_grows_for_ten_minutes():
    from cryopick.runs.following.follower import _Rates

    rates = _Rates()
    told = [rates.behind(60.0 * minute, 2 * minute, minute) for minute in range(25)]
    assert [minute for minute, text in enumerate(told) if text] == [10, 20]
    assert told[10].startswith("arriving 2.0/min, picking 1.0/min")
    keeps_up = _Rates()
    assert not any(keeps_up.behind(60.0 * minute, 2 * minute, 2 * minute - minute % 3) for minute in range(25))


@pytest.mark.parametrize("wrong", [{"poll_s": 0.0}, {"settle": 0}, {"stop_count": 0}, {"summary_every_s": -1.0}])
def test_impossible_options_are_refused(wrong):
    from cryopick.runs.following.options import WatchOptions

    with pytest.raises(SettingsError):
        WatchOptions(**wrong)
