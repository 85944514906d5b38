"""A file counts as there when it is whole, whoever writes it and however; time is a number that the tests set."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from discs import disc_micrograph

from cryopick.errors import InputError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.inputs.arrivals import Arrivals
from cryopick.io.inputs.listings import lister_for
from cryopick.io.inputs.sources import find_micrographs

QUIET_S = 4.0


def follow(folder: Path, **options) -> Arrivals:
    return Arrivals(lister_for(folder, exclude_folders=(), **options), QUIET_S)


def told(happened) -> list[tuple[str, str]]:
    return [(one.what, one.name) for one in happened]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "m.mrc"
    write_micrograph(path, disc_micrograph("m"))
    return path.read_bytes()


def test_a_file_written_in_slices_is_complete_once_and_only_after_the_quiet_time(folder, whole):
    arrivals, slices = follow(folder), np.array_split(np.frombuffer(whole, np.uint8), 4)
    happened = []
    for second, part in enumerate(slices):
        with open(folder / "m.mrc", "ab") as stream:
            stream.write(part.tobytes())
        happened += told(arrivals.look(float(3 * second)))  # pauses shorter than the quiet time
    assert happened == [("seen", "m.mrc")]
    assert arrivals.look(12.9) == []
    assert arrivals.incomplete() == ["m.mrc"]
    assert told(arrivals.look(13.0)) == [("complete", "m.mrc")]
    assert arrivals.look(100.0) == []
    assert not arrivals.incomplete()


def test_only_the_clock_of_this_process_counts(folder, whole):
    (folder / "m.mrc").write_bytes(whole)
    os.utime(folder / "m.mrc", (0, 0))  # of a host whose clock stands in 1970
    (folder / "n.mrc").write_bytes(whole)
    os.utime(folder / "n.mrc", (2**33, 2**33))  # and of one in 2242
    arrivals = follow(folder)
    assert told(arrivals.look(0.0)) == [("seen", "m.mrc"), ("seen", "n.mrc")]
    assert told(arrivals.look(4.0)) == [("complete", "m.mrc"), ("complete", "n.mrc")]


def test_names_of_unfinished_files_are_left_alone_until_they_are_renamed(folder, whole):
    (folder / ".m.mrc.Xy12Ab").write_bytes(whole)  # rsync
    for name in ("n.mrc.tmp", "o.mrc.partial", "p.part.mrc", "q.mrc~", "r.mrc.downloading"):
        (folder / name).write_bytes(whole)
    arrivals = follow(folder, ignore=("test_*",))
    (folder / "test_1.mrc").write_bytes(whole)
    arrivals.look(0.0)
    assert not [one for one in arrivals.look(9.0) if one.what == "complete"]
    assert arrivals.incomplete() == ["p.part.mrc", "test_1.mrc"]  # what a search would take for micrographs
    (folder / ".m.mrc.Xy12Ab").rename(folder / "m.mrc")
    (folder / "p.part.mrc").rename(folder / "p.mrc")
    arrivals.look(10.0)
    arrivals.look(14.0)
    assert set(arrivals.sources) == {"m.mrc", "p.mrc"}


def test_the_same_files_as_of_a_search_are_found_whatever_the_order_of_arrival(folder, whole):
    arrivals = follow(folder)
    names = ["b/deep/x.mrc", "x_EVN.mrc", "x_ODD.mrc", "a/x.mrc", "y.mrc", "x.mrc", ".hidden.mrc", "y_PS.mrc", "z.txt"]
    for second, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(whole)
        arrivals.look(float(second))
    happened = told(arrivals.look(50.0))
    assert ("complete", "x_EVN.mrc") not in happened
    assert list(arrivals.sources.values()) == find_micrographs([folder])


def test_a_half_sum_that_comes_first_is_taken_back_when_its_micrograph_comes(folder, whole):
    (folder / "x_EVN.mrc").write_bytes(whole)
    arrivals = follow(folder)
    arrivals.look(0.0)
    assert told(arrivals.look(4.0)) == [("complete", "x_EVN.mrc")]
    (folder / "x.mrc").write_bytes(whole)
    arrivals.look(5.0)
    happened = arrivals.look(9.0)
    assert told(happened) == [("companion", "x_EVN.mrc"), ("complete", "x.mrc")]
    assert "half sum" in happened[0].why
    assert list(arrivals.sources) == ["x.mrc"]
    (folder / "x.mrc").unlink()
    assert told(arrivals.look(10.0)) == [("gone", "x.mrc"), ("complete", "x_EVN.mrc")]


def test_of_two_files_that_would_share_results_the_later_one_waits(folder, whole):
    (folder / "b.tif").write_bytes(whole)
    arrivals = follow(folder)
    arrivals.look(0.0)
    arrivals.look(4.0)
    (folder / "b.mrc").write_bytes(whole)
    arrivals.look(5.0)
    happened = arrivals.look(9.0)
    assert [(one.what, one.name, one.before) for one in happened] == [("clash", "b.mrc", "b.tif")]
    assert (list(arrivals.sources), arrivals.clashing()) == (["b.tif"], ["b.mrc"])
    (folder / "b.tif").unlink()
    assert told(arrivals.look(10.0)) == [("gone", "b.tif"), ("complete", "b.mrc")]
    assert not arrivals.clashing()


def test_a_renamed_file_is_moved_and_a_hard_link_is_another_micrograph(folder, whole):
    (folder / "a.mrc").write_bytes(whole)
    arrivals = follow(folder)
    arrivals.look(0.0)
    arrivals.look(4.0)
    (folder / "a.mrc").rename(folder / "b.mrc")
    happened = arrivals.look(5.0)
    assert [(one.what, one.name, one.before) for one in happened if one.what == "moved"] == [
        ("moved", "b.mrc", "a.mrc")
    ]
    assert not [one for one in happened if one.what == "gone"]
    arrivals.look(9.0)
    os.link(folder / "b.mrc", folder / "c.mrc")
    arrivals.look(10.0)
    arrivals.look(14.0)
    assert list(arrivals.sources) == ["b.mrc", "c.mrc"]
    (folder / "b.mrc").unlink()  # as a mover does that links first
    assert [(one.what, one.name, one.before) for one in arrivals.look(15.0)] == [("moved", "c.mrc", "b.mrc")]


def test_a_file_that_went_away_and_comes_back_under_another_name_is_moved(folder, tmp_path, whole):
    (folder / "a.mrc").write_bytes(whole)
    arrivals = follow(folder)
    arrivals.look(0.0)
    arrivals.look(4.0)
    (folder / "a.mrc").rename(tmp_path / "elsewhere.mrc")
    assert told(arrivals.look(5.0)) == [("gone", "a.mrc")]
    (tmp_path / "elsewhere.mrc").rename(folder / "b.mrc")
    assert [(one.what, one.before) for one in arrivals.look(6.0)] == [
        ("seen", ""),
        ("moved", "a.mrc"),
        ("complete", ""),
    ]


def test_a_replaced_file_waits_again_and_its_place_on_the_disk_alone_makes_no_other_file(folder, tmp_path, whole):
    (folder / "a.mrc").write_bytes(whole)
    arrivals = follow(folder)
    arrivals.look(0.0)
    arrivals.look(4.0)
    shutil.copy2(folder / "a.mrc", tmp_path / "same")  # as on a file system that was mounted again
    (tmp_path / "same").replace(folder / "a.mrc")
    assert arrivals.look(5.0) == []
    (folder / "a.mrc").write_bytes(whole[:-100])
    assert told(arrivals.look(6.0)) == [("changed", "a.mrc")]
    assert not arrivals.sources
    assert arrivals.look(9.9) == []
    assert told(arrivals.look(10.0)) == [("complete", "a.mrc")]


def test_what_its_reader_refuses_is_tried_again_after_longer_and_longer_and_at_once_when_it_changes(folder, whole):
    path = folder / "a.mrc.gz"
    path.write_bytes(gzip.compress(whole)[:-30])
    arrivals = follow(folder)
    arrivals.look(0.0)
    assert arrivals.look(4.0)
    now, pauses = 4.0, []
    for _ in range(9):
        assert arrivals.refused(path, now)
        begin = now
        while not arrivals.look(now):
            now += 0.5
        pauses.append(now - begin)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    path.write_bytes(gzip.compress(whole))
    assert told(arrivals.look(now)) == [("changed", "a.mrc.gz")]
    assert told(arrivals.look(now + 4)) == [("complete", "a.mrc.gz")]
    assert arrivals.refused(path, now + 1000)
    arrivals.look(now + 1001)
    assert not arrivals.refused(path, now + 1800)  # half an hour without change: damaged for ever


def test_a_file_whose_space_was_taken_in_advance_is_believed_after_30_s_without_change(folder, whole):
    path = folder / "a.mrc"
    path.write_bytes(whole)
    arrivals = follow(folder)
    arrivals.look(0.0)
    arrivals.look(4.0)
    assert arrivals.ends_empty(path, 5.0)
    assert arrivals.look(29.9) == []
    with open(path, "r+b") as stream:  # the writer goes on within the space
        stream.write(whole[:2000])
    os.utime(path, ns=(7, 7))
    arrivals.look(29.95)
    assert told(arrivals.look(34.0)) == [("complete", "a.mrc")]
    assert arrivals.ends_empty(path, 34.0)
    assert arrivals.look(59.0) == []
    assert told(arrivals.look(59.95)) == [("complete", "a.mrc")]
    assert not arrivals.ends_empty(path, 59.95)


def test_a_folder_may_come_late_and_one_that_is_away_loses_no_file(folder, tmp_path, whole):
    late = tmp_path / "late"
    arrivals = follow(late)
    assert [one.what for one in arrivals.look(0.0)] == ["away"]
    assert arrivals.look(1.0) == []  # told once
    shutil.move(folder, late)
    (late / "a.mrc").write_bytes(whole)
    assert told(arrivals.look(2.0)) == [("back", ""), ("seen", "a.mrc")]
    arrivals.look(6.0)
    late.rename(tmp_path / "unmounted")
    late.mkdir()  # the empty place where a disk is mounted
    happened = arrivals.look(7.0)
    assert [one.what for one in happened] == ["away"]
    assert "mounted" in happened[0].why
    late.rmdir()
    (tmp_path / "unmounted").rename(late)
    assert told(arrivals.look(8.0)) == [("back", "")]
    assert list(arrivals.sources) == ["a.mrc"]
    (late / "a.mrc").unlink()
    assert told(arrivals.look(9.0)) == [("gone", "a.mrc")]  # the same folder, empty: it is gone


def test_what_lies_below_a_folder_that_may_not_be_read_for_a_while_is_not_gone(folder, whole, monkeypatch):
    (folder / "deep").mkdir()
    (folder / "deep" / "a.mrc").write_bytes(whole)
    arrivals = follow(folder)
    arrivals.look(0.0)
    arrivals.look(4.0)
    scandir = os.scandir

    def refusing(place):
        if Path(place).name == "deep":
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)  # root may read what has no permissions
    assert [one.what for one in arrivals.look(5.0)] == ["away"]
    assert arrivals.look(6.0) == []
    monkeypatch.undo()
    assert arrivals.look(7.0) == []
    assert list(arrivals.sources) == ["deep/a.mrc"]


def test_a_run_folder_inside_is_not_looked_into(folder, whole):
    run = folder / "live"
    (run / "images").mkdir(parents=True)
    for place in (run / "images" / "a.jpg", folder / "a.mrc"):
        place.write_bytes(whole)
    arrivals = Arrivals(lister_for(folder, exclude_folders=[run / "images"]), QUIET_S)
    assert told(arrivals.look(0.0)) == [("seen", "a.mrc")]


def test_entries_of_a_list_that_grows_are_complete_when_their_files_are(tmp_path, whole, monkeypatch):
    monkeypatch.chdir(tmp_path)
    star = tmp_path / "micrographs.star"
    rows = "data_micrographs\n\nloop_\n_rlnMicrographName #1\n"
    (tmp_path / "M").mkdir()
    (tmp_path / "M" / "b.mrc").write_bytes(whole)
    arrivals = follow(star)
    assert [one.what for one in arrivals.look(0.0)] == ["away"]
    star.write_text(rows + "M/b.mrc\nM/a.mrc\n")
    assert told(arrivals.look(1.0)) == [("back", ""), ("seen", "M/b.mrc"), ("seen", "M/a.mrc")]
    assert told(arrivals.look(5.0)) == [("complete", "M/b.mrc")]
    star.write_text(rows + "M/b.mrc\nM/a.m")  # while it is written
    assert arrivals.look(6.0) == []
    star.write_text(rows + "M/b.mrc\nM/a.mrc\nM/c.mrc\n")
    (tmp_path / "M" / "a.mrc").write_bytes(whole)
    assert told(arrivals.look(7.0)) == [("seen", "M/c.mrc")]
    assert told(arrivals.look(11.0)) == [("complete", "M/a.mrc")]
    assert list(arrivals.sources) == ["M/b.mrc", "M/a.mrc"]  # in the order of the list
    assert arrivals.sources["M/a.mrc"].listed_name == "M/a.mrc"


def test_what_was_complete_before_does_not_wait_again(folder, whole):
    (folder / "a.mrc").write_bytes(whole)
    status = (folder / "a.mrc").stat()
    lister = lister_for(folder, exclude_folders=())
    arrivals = Arrivals(lister, QUIET_S, known={"a.mrc": (status.st_size, status.st_mtime_ns)})
    assert told(arrivals.look(0.0)) == [("seen", "a.mrc"), ("complete", "a.mrc")]


@pytest.mark.parametrize("given", ["@list.txt", "*.mrc", "m.mrc"])
def test_what_cannot_be_followed_is_refused(folder, whole, given, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "m.mrc").write_bytes(whole)
    with pytest.raises(InputError, match="followed"):
        lister_for(given, exclude_folders=())
