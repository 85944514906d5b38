"""A file is there whole or not at all."""

import errno
import os

import pytest

from cryopick.errors import FormatError, InputError, OutputError
from cryopick.io.files.atomic import atomic_path, explain_write_errors, write_bytes_atomic, write_text_atomic
from cryopick.io.files.reading import explain_read_errors, read_bytes


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write_bytes_atomic(tmp_path / "a" / "b" / "x.bin", b"123")
    assert (tmp_path / "a" / "b" / "x.bin").read_bytes() == b"123"
    assert len(list(tmp_path.rglob("*"))) == 3


def test_names_that_are_not_utf8_survive_in_text(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xc3\xa9")
    write_text_atomic(tmp_path / "x.txt", f"{name}\r\n")
    assert (tmp_path / "x.txt").read_bytes() == b"caf\xe9 \xc3\xa9\r\n"


def test_failure_half_way_keeps_the_old_file_and_removes_the_part(tmp_path):
    (tmp_path / "x.txt").write_text("old")

    def write_half():
        with atomic_path(tmp_path / "x.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "old"


def test_a_reader_during_the_write_sees_the_old_file_and_the_part_ends_like_the_target(tmp_path):
    (tmp_path / "x.star").write_text("old")
    with atomic_path(tmp_path / "x.star") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "x.star").read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".star"
        assert temporary.name.startswith(".")
    assert (tmp_path / "x.star").read_text() == "new"


def test_the_longest_possible_name_can_be_written(tmp_path):
    name = "n" * 251 + ".txt"
    write_text_atomic(tmp_path / name, "x")
    assert (tmp_path / name).read_text() == "x"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
    ],
)
def test_the_cause_is_named_with_a_remedy(tmp_path, number, sentence):
    expected = pytest.raises(OutputError, match=rf"x\.txt: cannot be written: .*{sentence}.*;")
    with expected, explain_write_errors(tmp_path / "x.txt"):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full to play a full disk")

    def fill_the_disk():
        with atomic_path(tmp_path / "x.txt") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x" * 100)

    with pytest.raises(OutputError, match="disk is full"):
        fill_the_disk()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "a").write_text("file")
    with pytest.raises(OutputError, match=r"a/x\.txt: cannot be written"):
        write_text_atomic(tmp_path / "a" / "x.txt", "x")


def test_missing_write_permission_is_named(open_folder, as_nobody):
    (open_folder / "a").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"x\.txt: cannot be written: no permission; choose a folder"):
        write_text_atomic(open_folder / "a" / "x.txt", "x")


def test_reading_errors_name_cause_and_remedy(tmp_path):
    expected = pytest.raises(InputError, match=r"m\.mrc: cannot be read: no permission.*change its permissions")
    with expected, explain_read_errors(tmp_path / "m.mrc"):
        raise PermissionError(errno.EACCES, "Permission denied")
    (tmp_path / "empty").touch()
    with pytest.raises(FormatError, match="0 bytes"):
        read_bytes(tmp_path / "empty")
