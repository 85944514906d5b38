"""What was read of a file serves until the file is another one, and not a moment longer."""

import os
from pathlib import Path

import pytest

from cryopick.io.files.read_once import read_once


@pytest.fixture
def reader():
    calls = []

    @read_once(lambda path, **_: [path], most=2)
    def read(path: Path, *, upper: bool = False) -> str:
        calls.append(path.name)
        text = path.read_text()
        return text.upper() if upper else text

    return read, calls


def test_unchanged_files_are_read_once_for_every_choice_of_settings(tmp_path, reader):
    read, calls = reader
    (tmp_path / "a").write_text("one")
    assert [read(tmp_path / "a"), read(tmp_path / "a"), read(tmp_path / "a", upper=True)] == ["one", "one", "ONE"]
    assert calls == ["a", "a"]


def test_a_file_overwritten_with_the_same_size_and_time_is_read_again(tmp_path, reader):
    read, _ = reader
    path = tmp_path / "a"
    path.write_text("one")
    before = path.stat()
    assert read(path) == "one"
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(path) == "two"


def test_another_file_moved_into_the_place_is_read_and_one_that_is_gone_is_missed(tmp_path, reader):
    read, _ = reader
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    assert read(tmp_path / "a") == "one"
    (tmp_path / "b").replace(tmp_path / "a")
    assert read(tmp_path / "a") == "two"
    (tmp_path / "a").unlink()
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "a")


def test_a_relative_path_is_that_of_the_folder_in_which_one_stands(tmp_path, reader, monkeypatch):
    read, _ = reader
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert read(Path("a")) == name


def test_only_so_many_results_are_kept(tmp_path, reader):
    read, calls = reader
    for name in "abca":
        (tmp_path / name).write_text(name) if not (tmp_path / name).exists() else None
        read(tmp_path / name)
    assert calls == ["a", "b", "c", "a"]
    read(tmp_path / "c")
    assert calls == ["a", "b", "c", "a"]
