"""The run folder keeps files apart, refuses what is not its own, and reads back what it wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryopick.errors import RunFolderError, SettingsError
from cryopick.io.coordinates.candidates import as_written
from cryopick.runs.boxes import next_fast_even_size, suggest_boxes
from cryopick.runs.folder import Record, RunFolder, assign_keys
from cryopick.types import Picks

RECORD = Record(name="m.mrc", key="m", source="", relion_name="m", size_bytes=0, modified_ns=0)


def test_files_are_named_without_the_extension_unless_two_would_collide() -> None:
    keys = assign_keys(["a/m1.mrc", "b/m1.mrc", "m2.mrc.gz", "m3.mrc", "m3.tif"], {})
    assert keys == {
        "a/m1.mrc": "a/m1",
        "b/m1.mrc": "b/m1",
        "m2.mrc.gz": "m2",
        "m3.mrc": "m3.mrc",
        "m3.tif": "m3.tif",
    }


def test_the_job_folder_of_relion_is_left_out_as_relion_does() -> None:
    names = ["MotionCorr/job002/Movies/m1.mrc", "MotionCorr/job002/Movies/m2.mrc", "MotionCorr/job003/Movies/m2.mrc"]
    keys = assign_keys(names, {})
    assert keys == {
        names[0]: "Movies/m1",
        names[1]: "MotionCorr/job002/Movies/m2.mrc",  # both would be Movies/m2
        names[2]: "MotionCorr/job003/Movies/m2.mrc",
    }


def test_a_key_once_given_never_changes() -> None:
    assert assign_keys(["m1.mrc", "m1.tif"], {"m1.mrc": "m1"}) == {"m1.mrc": "m1", "m1.tif": "m1.tif"}


@pytest.mark.parametrize("name", ["/etc/m1.mrc", "../m1.mrc", "a/../../m1.mrc"])
def test_a_name_that_would_leave_the_folder_is_refused(name: str) -> None:
    with pytest.raises(RunFolderError, match="run of their own"):
        assign_keys([name], {})


reasons = st.sampled_from(["", "edge", 'a, "b"'])
finite = st.floats(-1e4, 1e4).map(lambda value: round(value, 3))


@given(
    st.lists(
        st.tuples(finite, finite, st.floats(-9, 9, width=32), st.integers(0, 5), reasons),
        max_size=8,
    )
)
def test_candidates_read_back_to_the_precision_they_are_written_in(rows: list[tuple[float, ...]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name))
        x, y, score, class_id, reason = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        picks = Picks(
            xy_px=np.array([x, y]).T.reshape(-1, 2),
            score=np.array(score, np.float32),
            class_id=np.array(class_id, np.int32),
            reason=np.array(reason, np.str_),
        )
        folder.write_candidates("m", picks)
        read = folder.read_candidates(RECORD)
        np.testing.assert_allclose(read.xy_px, picks.xy_px, atol=6e-4)
        np.testing.assert_allclose(read.score, picks.score, rtol=1e-5)
        assert read.reason.tolist() == picks.reason.tolist()
        assert read.class_id.tolist() == picks.class_id.tolist()
        assert np.isnan(read.diameter_px).all()


anything = st.floats(width=32, allow_infinity=False, allow_nan=True, allow_subnormal=True)


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), anything, anything, st.integers(-(2**31), 2**31 - 1), reasons
        ),
        max_size=8,
    )
)
def test_picks_as_written_are_those_that_are_read_back_to_the_last_bit(rows: list[tuple[float, ...]]) -> None:
    import tempfile

    columns = zip(*rows, strict=True) if rows else [()] * 6
    x, y, score, diameter, class_id, reason = (np.array(column) for column in columns)
    picks = Picks(
        xy_px=np.stack([x, y], axis=1),
        score=score.astype(np.float32),
        diameter_px=diameter.astype(np.float32),
        class_id=class_id.astype(np.int32),
        reason=reason.astype(np.str_),
        maps={"heat": np.zeros((2, 2), np.float32)},
    )
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name))
        folder.write_candidates("m", picks)
        read, rounded = folder.read_candidates(RECORD), as_written(picks)
    for column in ("xy_px", "score", "diameter_px", "class_id", "reason"):
        mine, theirs = getattr(rounded, column), getattr(read, column)
        assert mine.dtype.kind == theirs.dtype.kind
        np.testing.assert_array_equal(mine, theirs)
        if column != "reason":
            np.testing.assert_array_equal(np.signbit(mine), np.signbit(theirs))
    assert not rounded.maps


def test_a_damaged_candidate_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates" / "m.csv").write_text("x_px,y_px,score\n1,2\n")
    with pytest.raises(RunFolderError, match=r"candidates/m.csv.*delete"):
        folder.read_candidates(RECORD)


def test_a_folder_with_files_of_those_names_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "autopick.star").write_text("mine")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        RunFolder(tmp_path).refuse_foreign_contents()
    assert (tmp_path / "autopick.star").read_text() == "mine"


def test_clearing_a_run_leaves_the_users_own_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "picks").mkdir()
    (tmp_path / "config.toml").write_text("")
    with RunFolder(tmp_path).lock():
        RunFolder(tmp_path).set_aside()
        RunFolder(tmp_path).drop_replaced()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "notes.txt"]


def test_two_processes_cannot_write_to_one_run(tmp_path: Path) -> None:
    attempt = (
        "import sys; from pathlib import Path; from cryopick.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock(): pass"
    )
    with RunFolder(tmp_path).lock():
        other = subprocess.run(
            [sys.executable, "-c", attempt, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert other.returncode != 0
    assert "another cryopick is writing" in other.stderr


def test_a_path_that_is_a_file_cannot_be_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="choose another with -o"), RunFolder(tmp_path / "run").lock():
        pass


def test_box_of_a_90_px_particle_is_144_and_bins_to_4_angstrom() -> None:
    boxes = suggest_boxes(90, 1.0)  # 1.5 x 90 = 135; 136 = 8 x 17 and 138, 140, 142 have factors above 5, 144 has not
    assert (boxes.box_px, boxes.binned_box_px, boxes.binned_pixel_size_angstrom) == (144, 36, 4.0)


def test_coarse_or_unknown_pixels_are_not_binned() -> None:
    assert suggest_boxes(20, 3.8).binned_box_px is None
    assert suggest_boxes(90, None).binned_box_px is None


@given(st.floats(1, 3000))
def test_box_sizes_are_even_fast_and_the_smallest_such(size_px: float) -> None:
    def is_fast(number: int) -> bool:
        return any(2**a * 3**b * 5**c == number for a in range(1, 13) for b in range(8) for c in range(6))

    box = next_fast_even_size(size_px)
    assert box >= size_px
    assert is_fast(box)
    assert not any(is_fast(number) for number in range(int(np.ceil(size_px)), box))


def test_a_box_wider_than_any_micrograph_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match="wider than any micrograph"):
        next_fast_even_size(1e11)
