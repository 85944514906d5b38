"""What was loaded from a file serves until the file is another one, and not a moment longer; then its owner lets go."""

import copy
import os
import pickle
import weakref
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from cryopick.inference.models import HoldsModels, Models


@pytest.fixture
def reader():
    models, calls = Models(most=2), []

    def load(path: Path, *, upper: bool = False) -> str:
        calls.append(path.name)
        text = path.read_text()
        return text.upper() if upper else text

    def read(path: Path, **settings: bool) -> str:
        return models.get(load, [path], path, **settings)

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


@dataclass(frozen=True, kw_only=True)
class Reader(HoldsModels):
    upper: bool = False


class Network:
    def __init__(self, path: Path) -> None:
        self.text = path.read_text()


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "weights").write_text("one")
    return tmp_path / "weights"


def held(reader: Reader, path: Path) -> Network:
    return reader._models.get(Network, [path], path)


def test_what_is_closed_leaves_memory_and_is_loaded_again_when_asked_for(weights):
    reader = Reader()
    first = held(reader, weights)
    is_in_memory = weakref.ref(first)
    del first
    assert is_in_memory() is not None
    reader.close()
    assert is_in_memory() is None
    assert held(reader, weights).text == "one"


def test_models_go_with_their_picker(weights):
    reader = Reader()
    is_in_memory = weakref.ref(held(reader, weights))
    assert is_in_memory() is not None
    del reader
    assert is_in_memory() is None


def test_a_picker_of_other_settings_shares_the_models_and_a_copy_for_another_process_has_none(weights):
    reader = Reader()
    network = held(reader, weights)
    assert held(replace(reader, upper=True), weights) is network
    for other in (pickle.loads(pickle.dumps(reader)), copy.deepcopy(reader)):
        assert other == reader
        assert len(other._models) == 0
        assert held(other, weights) is not network


def test_a_loader_may_ask_for_models_itself(weights):
    models = Models()
    inner = partial(models.get, Network, [weights], weights)
    assert models.get(lambda: inner().text, [weights]) == "one"
    assert len(models) == 2
