"""Files of `torch.save`: what was saved comes back; nothing is run, and no file takes much time or memory."""

import argparse
import io
import pickle
import subprocess
import time
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch

from cryopick.errors import WeightsError
from cryopick.io.torch_files import read_torch_file


def _checkpoint():
    """What programs save: weights, views of them, an optimiser, the arguments of the command line, NumPy numbers."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    grid = torch.arange(12.0).reshape(3, 4)
    tensors = OrderedDict(
        plain=grid, turned=grid.t(), part=grid[1:, ::2], none=torch.zeros(0, 3), one=torch.tensor(3),
        half=torch.nn.Parameter(torch.ones(2).bfloat16()), words=torch.ones(2, dtype=torch.uint16),
        flags=torch.ones(2, dtype=torch.bool), waves=torch.ones(2, dtype=torch.complex64),
    )  # fmt: skip
    return {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "tensors": tensors,
        "args": argparse.Namespace(lr=0.1, names={"a"}, dtype=torch.float32, pair=(1, 2), device=torch.device("cpu")),
        "numbers": [np.float64(3.5), np.int64(2), np.bool_(True), 2**70, 1 + 2j, None, torch.Size([2]), b"abc", b""],
        "arrays": [np.arange(6.0).reshape(2, 3), np.eye(2, 3).T, np.zeros((0, 3), "i2"), np.array(2.5, "f4")],
    }  # fmt: skip


def _assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
    if isinstance(expected, dict | list | tuple):
        items = (found.values(), expected.values()) if isinstance(expected, dict) else (found, expected)
        for one, other in zip(*items, strict=True):
            _assert_same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def test_what_was_saved_comes_back_as_from_torch(tmp_path):
    torch.save(_checkpoint(), tmp_path / "a.pth")
    expected = torch.load(tmp_path / "a.pth", weights_only=False, map_location="cpu")
    _assert_same(read_torch_file(tmp_path / "a.pth"), expected)
    _assert_same(read_torch_file(str(tmp_path / "a.pth")), _checkpoint())


def test_tensors_may_be_changed_and_the_file_stays(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pth")
    read_torch_file(tmp_path / "a.pth")["a"].zero_()
    assert read_torch_file(tmp_path / "a.pth")["a"].tolist() == [1, 1, 1]


def test_what_others_allow_stays_allowed(tmp_path):
    torch.save({"a": argparse.Namespace(b=1)}, tmp_path / "a.pth")
    with torch.serialization.safe_globals([argparse.Namespace]):
        read_torch_file(tmp_path / "a.pth")
        assert argparse.Namespace in torch.serialization.get_safe_globals()
    read_torch_file(tmp_path / "a.pth")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


# --------------------------------------------------------------------------------------------------- what is refused


def test_the_older_format_says_how_to_save_again(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"old\.pth: .*PyTorch 1\.6.*save it again: torch\.save\(torch\.load\(OLD"):
        read_torch_file(tmp_path / "old.pth")
    torch.save(torch.load(tmp_path / "old.pth", map_location="cpu"), tmp_path / "new.pth")  # as it says
    assert read_torch_file(tmp_path / "new.pth")["a"].tolist() == [1, 1, 1]


class _Runs:
    def __reduce__(self):
        return (subprocess.call, (["touch", "was-run"],))


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(3), "b": _Runs()}, "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth: holds an object of 'subprocess\.call'; .*save the weights alone"):
        read_torch_file("a.pth")
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("held", [Counter("ab"), np.array(["text"]), np.array([None]), torch.nn.Linear(1, 1)])
def test_other_objects_are_refused_by_name(tmp_path, held):
    torch.save({"a": held}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth: holds (an object of '\w+\.|NumPy values other than numbers)"):
        read_torch_file(tmp_path / "a.pth")


def test_no_file_a_folder_and_an_empty_file(tmp_path):
    (tmp_path / "empty.pth").touch()
    for path, words in (("none.pth", "No such file"), (".", "is no file"), ("empty.pth", "is empty")):
        with pytest.raises(WeightsError, match=words):
            read_torch_file(tmp_path / path)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="TorchScript program"):
        read_torch_file(tmp_path / "a.pt")


def test_every_damaged_byte_of_the_tensors_is_noticed(tmp_path):
    torch.save({"a": torch.arange(100.0)}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[content.index(np.arange(100, dtype="f4").tobytes()) + 41] ^= 4
    (tmp_path / "a.pth").write_bytes(content)
    assert "a" in torch.load(tmp_path / "a.pth")  # torch does not look at the checksums
    with pytest.raises(WeightsError, match=r"a\.pth: has a record \w+/data/0 whose checksum is wrong"):
        read_torch_file(tmp_path / "a.pth")


# ---------------------------------------------------------------- programs that torch would follow for ever or too far


def _archive(path, program, **records):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/version", b"3\n")
        for key, data in records.items():
            archive.writestr(f"a/data/{key[1:]}", data)
    return path


def _text(text):
    return b"X" + len(text).to_bytes(4, "little") + text


def _storage(numel, of=b"FloatStorage"):
    return b"(" + _text(b"storage") + b"ctorch\n" + of + b"\n" + _text(b"0") + _text(b"cpu") + numel + b"tQ"


def _tensor(storage, shape, strides):
    """A call of `_rebuild_tensor_v2`; numbers are as in a pickle."""
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + strides + hooks + b"tR"


_FOUR, _MANY = b"K\4", b"J\0\0\0\x40"
_LONG = b"x" * 300_000
_PROGRAMS = {
    "a storage larger than its record": _storage(_MANY),
    "a record that is absent": _storage(_FOUR).replace(_text(b"0"), _text(b"7")),
    "a tensor larger than its storage": _tensor(_storage(_FOUR), _MANY + b"\x85", b"K\1\x85"),
    "one value repeated a thousand million times": _tensor(_storage(_FOUR), _MANY + b"\x85", b"K\0\x85"),
    "shape and strides of unlike length": _tensor(_storage(_FOUR), _FOUR + b"\x85", b")"),
    "a tensor made of its length": b"ctorch\nFloatTensor\n" + _MANY + b"\x85R",
    "a storage made of its length": b"ctorch.storage\nUntypedStorage\n" + _MANY + b"\x85R",
    "bytes made of their length": b"cbuiltins\nbytearray\n" + _MANY + b"\x85R",
    "an array made of its length": b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _MANY + b"\x85Nt\x87R",
    "a class with a long name": b"c" + _LONG + b"\nx\n",
    "a call of a long text": _text(_LONG) + b")R",
    "a call of nested lists": b"]q\1" + b"](h\1h\1eq\1" * 40 + b")R",
    "items of a tensor": _tensor(_storage(_FOUR), _FOUR + b"\x85", b"K\1\x85") + b"K\1K\1s",
    "items of a list": b"]K\1K\1s",
    "an item of a dictionary without key": b"}K\1a",
    "a dictionary's key of nested tuples": b"}" + b"K\1" + b"q\1h\1\x86" * 40 + b"K\1s",
    "a set of nested tuples": b"c__builtin__\nset\n]" + b"K\1" + b"q\1h\1\x86" * 40 + b"a\x85R",
    "methods hidden": b"ccollections\nOrderedDict\n)R}" + _text(b"items") + b"K\1sb",
    "attributes of a class": b"cargparse\nNamespace\n}" + _text(b"__init__") + b"K\1sb",
    "other encodings": b"c_codecs\nencode\n" + _text(b"a") + _text(b"idna") + b"\x86R",
    "an end without a beginning": b"t",
    "a step unknown": b"\xff",
    "a step of other protocols": b"\x93",
    "no end": b"K\1",
}


@pytest.mark.parametrize("name", _PROGRAMS)
def test_programs_that_ask_for_too_much_are_refused_soon(tmp_path, name):
    end = b"" if name == "no end" else b"."
    path = _archive(tmp_path / "a.pth", b"\x80\2" + _PROGRAMS[name] + end, _0=bytes(16))
    started = time.process_time()
    with pytest.raises(WeightsError, match=r"a\.pth: .*; ") as caught:
        read_torch_file(path)
    assert time.process_time() - started < 5
    assert len(str(caught.value)) < 600


def test_the_programs_above_are_pickles_but_for_one_fault(tmp_path):
    good = b"\x80\2" + _tensor(_storage(_FOUR), _FOUR + b"\x85", b"K\1\x85") + b"."
    assert read_torch_file(_archive(tmp_path / "a.pth", good, _0=bytes(16))).tolist() == [0, 0, 0, 0]


def test_packed_records_are_refused_before_they_are_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\2" + _storage(_FOUR) + b".")
        archive.writestr("a/data/0", bytes(2**24))
    with pytest.raises(WeightsError, match="packed or encrypted records"):
        read_torch_file(tmp_path / "a.pth")


def test_more_steps_than_any_checkpoint_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cryopick.io.torch_files.MOST_STEPS", 100)
    with pytest.raises(WeightsError, match="more than 100 steps"):
        read_torch_file(_archive(tmp_path / "a.pth", b"\x80\2" + b"K\1" * 200 + b"."))


def test_plain_objects_are_what_pickle_builds(tmp_path):
    saved = io.BytesIO()
    torch.save([{"a": (1, [2, {"b": ()}])}, OrderedDict(c="d"), argparse.Namespace(e=[None, True])], saved)
    (tmp_path / "a.pth").write_bytes(saved.getvalue())
    with zipfile.ZipFile(saved) as archive:
        expected = pickle.loads(archive.read("archive/data.pkl"))
    assert read_torch_file(tmp_path / "a.pth") == expected
